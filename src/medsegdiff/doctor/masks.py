"""The model's own masks: do they look like masks, follow the image, and differ between members?"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import CaseFiles, Track, no_progress
from medsegdiff.data.phantom import PhantomSource, make_lesion, write_phantom
from medsegdiff.data.placement import place
from medsegdiff.data.slicing import Slicing, slices_of
from medsegdiff.data.split import evenly
from medsegdiff.data.transforms import prepare, to_grid
from medsegdiff.doctor.report import Finding
from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.inputs import find_inputs, read_case
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.distribution import agreement
from medsegdiff.metrics.plausibility import Appearance, appearance_of, warning_of
from medsegdiff.training.run import Run
from medsegdiff.types import Case

log = logging.getLogger(__name__)

MEMBERS = 4
SECONDS = 10.0
"""After which no further image is segmented, once there are two."""
DEAF = 1e-3
"""Mean change of the probability from image to image below which the model does not look at it."""
GREY = 0.9
"""Mean distance of probabilities from one half, in units of one half, below which members are undecided."""
SAME = 0.9999
"""Agreement of members that are all the same."""

_masks = partial(Finding, "masks")


@dataclass(frozen=True)
class Place:
    """Where images for an examination are."""

    path: Path | None
    """``None``: nowhere that can be reached."""
    name: str
    asked: bool = False
    """Whether the user named it."""


@contextmanager
def place_of(run: Run, config: ResolvedConfig, *, data: Path | None, recorded: str, cases: int) -> Iterator[Place]:
    """Find images: the data given, else those of the training; of the phantom some are written for the while."""
    if data is None and recorded == "phantom":
        source = PhantomSource(config.data)
        with TemporaryDirectory(prefix="medsegdiff-doctor-") as folder:
            names = source.info.names("val")[: max(2, cases)] + source.info.names("test")[: 2 * cases]
            write_phantom(source, Path(folder), names=names)
            yield Place(Path(folder), "the phantom")
    elif data is not None:
        yield Place(data, str(data), asked=True)
    else:
        yield Place(Path(recorded) if recorded and Path(recorded).exists() else None, recorded)


@dataclass(frozen=True)
class _Pictures:
    """Images on the model grid, all of one size."""

    images: Sequence[Float[Tensor, "c h w"]]
    what: str
    """Where they are from."""
    real: bool
    """Whether they are of the kind that the model was trained on, as far as can be known."""


def examine_masks(
    run: Run, segmenter: Segmenter, place: Place, *, count: int, track: Track = no_progress
) -> list[Finding]:
    """Draw members for some images, each image with the same noise, and look at them."""
    config, pictures = segmenter.config, _pictures(run, segmenter, place, count)
    drawn, seconds = _draw(segmenter, pictures.images, track)
    seen, agreements = zip(*(_seen(members, config) for members in drawn), strict=True)
    how = f"{pictures.what}, {MEMBERS} members each, {seconds / len(drawn):.1f} s per image"
    return [
        _appearance(seen, how, real=pictures.real),
        _follows(drawn, real=pictures.real),
        _differ(seen, agreements),
        _decided(drawn, config.sampling.steps),
    ]


def _pictures(run: Run, segmenter: Segmenter, place: Place, count: int) -> _Pictures:
    """Open some images; if there are none, or none that can be read and nobody asked for them, make some up."""
    config, stride = segmenter.config, segmenter.model.stride
    if place.path is not None:
        try:
            files = evenly(_validation(place.path, run, config), count)
            prepared = [prepare(_picture(read_case(file), config), config, stride=stride).image for file in files]
            images = [image for image in prepared if image.shape == prepared[0].shape]
            return _Pictures(images, f"{len(images)} images of {place.name}", real=True)
        except MedSegDiffError as error:
            if place.asked:
                raise
            log.info("%s", error)
    return _Pictures(_made_up(config, count, stride), f"{count} made-up images; --data gives real ones", real=False)


def _validation(where: Path, run: Run, config: ResolvedConfig) -> list[CaseFiles]:
    """List the validation images of the run's split; all images of data that it does not know."""
    if run.split.is_file():
        try:
            return find_inputs([where], like=config, split_file=run.split, split="val")
        except DataError:  # other data
            pass
    return find_inputs([where], like=config)


def _picture(case: Case, config: ResolvedConfig) -> Case:
    """Give the picture itself, or the middle slice of a volume."""
    if case.image.ndim == 3:
        return case
    plane, neighbours = config.plane, config.data.neighbours
    slices = slices_of(case, plane, shared_noise=False, neighbours=neighbours)
    return next(itertools.islice(slices, Slicing.of(case.geometry, plane).middle, None))


def _made_up(config: ResolvedConfig, count: int, stride: int) -> list[Float[Tensor, "c h w"]]:
    """Draw lesions, normalised, in as many channels as the model takes."""
    size = config.data.image_size
    placement = place((size, size), config.data, stride)
    images = [torch.from_numpy(make_lesion(size, seed).image) for seed in range(count)]
    channels = config.image_channels
    return [to_grid((image - image.mean()) / image.std(), placement).repeat(channels, 1, 1) for image in images]


def _draw(
    segmenter: Segmenter, images: Sequence[Float[Tensor, "c h w"]], track: Track
) -> tuple[list[Float[Tensor, "m k h w"]], float]:
    sampling = segmenter.config.sampling.model_copy(update={"members": MEMBERS, "candidates": None})
    sampler = EnsembleSampler(segmenter.model, segmenter.config, sampling, precision=segmenter.precision)
    drawn: list[Tensor] = []
    start = time.monotonic()
    for image in track(images, "Drawing members"):
        if len(drawn) < 2 or time.monotonic() - start < SECONDS:  # the key is the same, so the noise is
            drawn.append(sampler.draw(image[None].to(segmenter.device), ["doctor"], seed=0).probability[:, 0].cpu())
    return drawn, time.monotonic() - start


def _seen(members: Float[Tensor, "m k h w"], config: ResolvedConfig) -> tuple[Appearance, float]:
    """Look at the mean mask's largest structure, and how much members agree on it."""
    labels = config.spec.labels
    fused, *each = (labels.masks(labels.decide(p)) for p in (members.mean(dim=0), *members))
    largest = int(np.stack(each).mean(axis=(0, 2, 3)).argmax())
    masks = np.stack(each)[:, largest].astype(bool)
    agreed = agreement(masks)
    return appearance_of(fused[largest], agreement=agreed, members=float(masks.mean())), agreed


def _appearance(seen: Sequence[Appearance], how: str, *, real: bool) -> Finding:
    share = float(np.mean([appearance.foreground for appearance in seen]))
    numbers = {"foreground": share, "suspicions": [appearance.suspicion for appearance in seen]}
    numbers["roughness"] = [appearance.roughness for appearance in seen]
    advice = "Train longer; see the findings on weights and training. Are the images like those it was trained on?"
    if text := warning_of(seen):
        return _masks("appearance", "wrong" if real else "to look at", f"{text} ({how})", advice, numbers)
    return _masks("appearance", "good", f"Foreground {share:.1%} on average, compact ({how}).", numbers=numbers)


def _follows(drawn: Sequence[Float[Tensor, "m k h w"]], *, real: bool) -> Finding:
    """Compare masks of different images that began with the same noise."""
    if len(drawn) < 2:
        return _masks("follow the image", "skipped", "One image does not tell.")
    change = float(np.mean([float((a - b).abs().mean()) for a, b in itertools.combinations(drawn, 2)]))
    found = f"From image to image the probability changes by {change:.3g} on average, with the same noise."
    numbers = {"change": change}
    if not change >= DEAF:
        advice = "The model does not look at the image: train it longer."
        return _masks("follow the image", "wrong" if real else "to look at", found, advice, numbers)
    return _masks("follow the image", "good", found, numbers=numbers)


def _differ(seen: Sequence[Appearance], agreements: Sequence[float]) -> Finding:
    mean, numbers = float(np.mean(agreements)), {"agreement": list(agreements)}
    found = f"Members agree by {mean:.3f} (mean Dice of pairs)."
    if not any(appearance.members for appearance in seen):
        return _masks("members", "skipped", "Members drew nothing: that they agree tells nothing.", numbers=numbers)
    if all(appearance.suspicion == "unlike" for appearance in seen):
        advice = "Train longer: members should share at least the core of a structure."
        return _masks("members", "to look at", f"{found} That is no more than chance.", advice, numbers)
    if mean > SAME:
        advice = "The ensemble tells no uncertainty. More steps, or data with several raters, widen it."
        return _masks("members", "to look at", f"{found} They are all the same.", advice, numbers)
    return _masks("members", "good", found, numbers=numbers)


def _decided(drawn: Sequence[Float[Tensor, "m k h w"]], num_steps: int) -> Finding:
    clear = float(torch.stack([(2 * probability - 1).abs().mean() for probability in drawn]).mean())
    found, numbers = (
        f"Pixels of members are {clear:.1%} decided between background and foreground.",
        {"decided": clear},
    )
    if not clear >= GREY:
        advice = "Grey members come from too little training" + (", or from few steps." if num_steps < 5 else ".")
        return _masks("decided", "to look at", found, advice, numbers)
    return _masks("decided", "good", found, numbers=numbers)
