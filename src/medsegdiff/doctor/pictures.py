"""Images for an examination: of the data given, else of those that the run was trained on, else made up."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.listing import CaseFiles
from medsegdiff.data.phantom import PhantomSource, make_lesion
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.transforms import place, prepare, to_grid
from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.inference.inputs import find_inputs, read_case
from medsegdiff.inference.volume import slices_of
from medsegdiff.training.run import Run
from medsegdiff.types import Case

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """Images on the model grid, all of one size."""

    images: Sequence[Float[Tensor, "c h w"]]
    what: str
    """Where they are from."""
    real: bool
    """Whether they are of the kind that the model was trained on, as far as can be known."""


def pictures_for(
    run: Run, config: ResolvedConfig, *, data: Path | None, recorded: str, count: int, stride: int
) -> Pictures:
    """Find images to look at with a model."""
    if data is not None:
        return _opened(data, run, config, count, stride)
    if recorded == "phantom":
        source = PhantomSource(config.data)
        cases = [source.load(name) for name in source.info.names("val")[:count]]
        return _prepared(cases, "the phantom", config, stride)
    if recorded and Path(recorded).exists():
        try:
            return _opened(Path(recorded), run, config, count, stride)
        except MedSegDiffError as error:  # nobody asked for these
            log.info("%s", error)
    return Pictures(_made_up(config, count, stride), f"{count} made-up images; --data gives real ones", real=False)


def _opened(where: Path, run: Run, config: ResolvedConfig, count: int, stride: int) -> Pictures:
    files = _spread(_validation(where, run, config), count)
    return _prepared([_picture(read_case(file), config) for file in files], str(where), config, stride)


def _prepared(cases: Sequence[Case], where: str, config: ResolvedConfig, stride: int) -> Pictures:
    """Bring cases onto the model grid; those of another size than the first are left out."""
    prepared = [prepare(case, config, stride=stride).image for case in cases]
    images = [image for image in prepared if image.shape == prepared[0].shape]
    return Pictures(images, f"{len(images)} images of {where}", real=True)


def _validation(where: Path, run: Run, config: ResolvedConfig) -> list[CaseFiles]:
    """List the validation images of the run's split; all images of data that it does not know."""
    if run.split.is_file():
        try:
            return find_inputs([where], like=config, split_file=run.split, split="val")
        except DataError:  # other data
            pass
    return find_inputs([where], like=config)


def _spread(files: Sequence[CaseFiles], count: int) -> list[CaseFiles]:
    """Take files from all over a list."""
    chosen = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return [files[index] for index in chosen]


def _picture(case: Case, config: ResolvedConfig) -> Case:
    """Give the picture itself, or the middle slice of a volume."""
    if case.image.ndim == 3:
        return case
    plane, neighbours = config.spec.plane or config.data.plane, config.data.neighbours
    slices = slices_of(case, plane, shared_noise=False, neighbours=neighbours)
    return next(itertools.islice(slices, Slicing.of(case.geometry, plane).middle, None))


def _made_up(config: ResolvedConfig, count: int, stride: int) -> list[Float[Tensor, "c h w"]]:
    """Draw lesions, normalised, in as many channels as the model takes."""
    size = config.data.image_size
    placement = place((size, size), config.data, stride)
    images = [torch.from_numpy(make_lesion(size, seed).image) for seed in range(count)]
    channels = config.image_channels
    return [to_grid((image - image.mean()) / image.std(), placement).repeat(channels, 1, 1) for image in images]
