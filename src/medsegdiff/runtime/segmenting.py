"""An exported run in use: images in, segmentations out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from medsegdiff.data.intensity import intensities
from medsegdiff.data.placement import place
from medsegdiff.errors import ConfigError, ShapeError, nearest
from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.structures import decide_volume
from medsegdiff.inference.choice import choose
from medsegdiff.inference.parts import Part
from medsegdiff.io.arrays import channels_first, check_image, image_key
from medsegdiff.io.graphs import Graph
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.runtime.ensemble import Plan, Sampler
from medsegdiff.runtime.facts import LOOK, STEP, Facts
from medsegdiff.runtime.native import FUSIONS, part_of
from medsegdiff.runtime.resize import to_grid
from medsegdiff.runtime.result import Result
from medsegdiff.runtime.trial import check
from medsegdiff.types import Case, Geometry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Asked:
    """How an image is segmented."""

    plan: Plan
    kept: int
    """Members that are kept, of those drawn."""
    fusion: str
    mean: bool
    """Whether there are no members, but the mean of all masks."""


class Exported:
    """An exported run that segments images; see `medsegdiff.runtime.load`."""

    def __init__(self, folder: Path, *, threads: int | None = None, providers: tuple[str, ...] = ()) -> None:
        self.folder, self.facts = folder, Facts.read(folder)
        graphs = [Graph(folder / f"{name}.onnx", threads=threads, providers=providers) for name in (LOOK, STEP)]
        self.sampler = Sampler(self.facts, *graphs)

    def check(self) -> float:
        """Compare the graphs, as this machine computes them, with PyTorch when they were exported.

        Returns:
            The largest difference, about 1e-6.

        Raises:
            CheckpointError: If it is beyond what rounding explains.
        """
        return check(self.folder, self.facts, self.sampler.look, self.sampler.step)

    def segment(
        self,
        image: str | Path | Shaped[np.ndarray, "..."] | Case,
        *,
        members: int | None = None,
        candidates: int | None = None,
        fusion: str | None = None,
        mode: Literal["ensemble", "mean"] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> Result:
        """Segment an image, as `medsegdiff.Segmenter` does with the run: the same members, the same fusion.

        Args:
            image: A path (PNG, JPEG and TIFF take Pillow, NIfTI takes nibabel), an array (h, w), (h, w, 3) or
                (c, h, w), or a case.
            members: Size of the ensemble.
            candidates: Masks that are drawn and decide; members are chosen among them.
            fusion: ``dice``, ``staple``, ``majority`` or ``mean``.
            mode: ``mean`` gives the probability alone, in one step, without members.
            seed: Noise follows from it, the image's pixels and the member's number alone.
            batch_size: Members in one call of a graph; changes memory and speed, never the result.

        Returns:
            The segmentation; what is left out is the run's default.

        Raises:
            ConfigError: If what is asked makes no sense.
            DataError: If the image is not like those that the run was trained on.
        """
        case = read_case(image)
        asked = self._asked(members, candidates, fusion, mode, seed, batch_size)
        part = self._volume(case, asked) if case.image.ndim == 4 else self._picture(case, asked)
        if asked.kept < asked.plan.members:
            part = choose(part, self.facts.labels, count=asked.kept)
        return Result(
            name=case.name,
            geometry=case.geometry,
            labels=self.facts.labels,
            stretch=self._stretch(case, asked),
            **vars(part),
        )

    def _asked(
        self,
        members: int | None,
        candidates: int | None,
        fusion: str | None,
        mode: Literal["ensemble", "mean"] | None,
        seed: int,
        batch_size: int | None,
    ) -> _Asked:
        """Complete what is asked, and refuse what makes no sense."""
        own = self.facts.sampling
        for name, number in (("members", members), ("candidates", candidates), ("batch_size", batch_size)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} is {number}; it must be at least 1.")
        if fusion is not None and fusion not in FUSIONS:
            raise ConfigError(f"No fusion '{fusion}'. Known: {', '.join(FUSIONS)}.{nearest(fusion, FUSIONS)}")
        batch = batch_size or own.batch_size
        if (mode or own.mode) == "mean":
            if clash := [name for name, of in (("members", members), ("fusion", fusion)) if of is not None]:
                raise ConfigError(f"mode mean with {' and '.join(clash)}: it is one step and draws no members.")
            if not self.facts.once:
                raise ConfigError("mode mean needs a network that predicts the mask; this one predicts noise.")
            looks, once = len(own.mirrors), self.facts.once
            return _Asked(Plan(once, looks, once[0].t, seed, batch), looks, "mean", mean=True)
        kept = members or own.members
        drawn = candidates or own.candidates or kept
        if drawn < kept:
            raise ConfigError(
                f"candidates is {drawn}, members {kept}: members are chosen among candidates. Ask for as many "
                "candidates at least."
            )
        plan = Plan(self.facts.table, drawn, self.facts.probability.at, seed, batch, own.antithetic)
        return _Asked(plan, kept, fusion or own.fusion, mean=False)

    def _picture(self, case: Case, asked: _Asked, *, fusion: str = "") -> Part:
        """Segment a picture, or a slice of a volume."""
        told = self.facts.image
        placement = place(_native(case), told, told.stride, spacing=case.geometry.spacing)
        values = intensities(
            case,
            channels=told.network_channels,
            modalities=told.modalities,
            window=told.window,
            values=told.values,
        )
        if placement.grid != told.grid:
            raise ShapeError(
                f"{case.name}: the image is {placement.grid[0]}×{placement.grid[1]} on the grid of the network; the "
                f"graphs take {told.grid[0]}×{told.grid[1]}. Export the run again with another --size."
            )
        drawn = self.sampler.draw(to_grid(values, placement), case.key or image_key(case.image), asked.plan)
        return part_of(drawn, placement, self.facts, fusion=fusion or asked.fusion, name=case.name)

    def _volume(self, case: Case, asked: _Asked) -> Part:
        """Segment a volume slice by slice, and decide on the whole where a fusion does."""
        from medsegdiff.data.slicing import slices_of  # needs nibabel
        from medsegdiff.inference.pasting import paste

        told, plane, whole = self.facts.image, self.facts.image.plane, asked.fusion == "dice"
        slices = slices_of(case, plane, shared_noise=self.facts.sampling.shared_noise, neighbours=told.neighbours)
        fusion = "majority" if whole else ""  # until the members are known as a whole
        part = paste(case, plane, (self._picture(piece, asked, fusion=fusion) for piece in slices))
        if whole:
            raters = Raters(self.facts.raters, self.facts.dependence)
            decide_volume(part.members, self.facts.labels, mask=part.mask, marginal=part.probability, raters=raters)
        return part

    def _stretch(self, case: Case, asked: _Asked) -> dict[str, Stretch] | None:
        """Take what calibrates sizes, if images of this kind are segmented as those of the calibration were."""
        own = self.facts.sampling
        if asked.mean:
            return None
        alike = (asked.kept, asked.plan.members) == (own.members, own.candidates or own.members)
        fitted, volumes = self.facts.sizes, self.facts.image.volumes
        if self.facts.judged and asked.fusion == own.fusion:
            fitted, volumes = self.facts.judged, self.facts.judged_volumes
        of_kind = (case.image.ndim == 4) == volumes
        return {name: Stretch(*of) for name, of in fitted.items()} if alike and of_kind else {}


def read_case(image: str | Path | Shaped[np.ndarray, "..."] | Case) -> Case:
    """Read whatever a user calls an image."""
    if isinstance(image, Case):
        return image
    if isinstance(image, (str, Path)):
        from medsegdiff.runtime.files import read_file

        return read_file(Path(image))
    pixels = channels_first(np.asarray(image))
    check_image(pixels, "the image")
    return Case(f"image_{image_key(pixels)[:8]}", pixels, None, Geometry(shape=pixels.shape[1:], spacing=(1.0, 1.0)))


def _native(case: Case) -> tuple[int, int]:
    return case.image.shape[1], case.image.shape[2]
