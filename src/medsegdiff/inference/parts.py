"""Pictures, and slices of volumes, on their way through a model: prepared, drawn, restored, fused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8

from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.split import evenly
from medsegdiff.data.transforms import Prepared, prepare
from medsegdiff.errors import MedSegDiffError, OutOfMemoryError, memory_worded
from medsegdiff.fusion.protocol import Raters
from medsegdiff.inference.adaptive import PROBED, GrowingEnsemble, together, until_stable
from medsegdiff.inference.batching import BatchSize, attempted
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.certainty import Certainty
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.inference.inputs import image_key
from medsegdiff.inference.members import Choice
from medsegdiff.inference.native import Canvas, Fusing, Restored, drawn, fused_mask
from medsegdiff.inference.request import Request
from medsegdiff.inference.uncertainty import Uncertainty, uncertainty_of
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Case

log = logging.getLogger(__name__)

Refused = Callable[[Case, MedSegDiffError], None]
"""Told of an image that the model can't take."""

TOGETHER = 1 << 22
"""Native pixels of images that go together: larger ones go alone."""
LESS = "Draw fewer members, make the image smaller, or close other programs."


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a model says of a picture, or of a slice of a volume, on the native grid: arrays, and nothing of files.

    Label maps are those of `Labels`: (h, w) with class indices, (k, h, w) with 0 and 1 for ``regions``.
    Probabilities are (k, h, w); k = 1 for ``binary``. Of a volume, all have its three axes instead of h and w.
    """

    mask: UInt8[np.ndarray, ...]
    """The fused label map."""
    probability: Float[np.ndarray, "k *s"]
    """Of each channel: the calibrated mixture of anchor and members, whatever the fusion."""
    uncertainty: Uncertainty
    """Maps of std, entropy and disagreement."""
    members: UInt8[np.ndarray, "m ..."]
    """Label map of each member."""
    anchor: UInt8[np.ndarray, ...] | None
    """Label map of the Condition Model alone, never part of the fusion; ``None`` from a network without an anchor."""
    anchor_probability: Float[np.ndarray, "k *s"] | None
    """``None`` for volumes too, where it would take as much room as all the rest."""
    sensitivity: Float[np.ndarray, "m k"] | None
    """By member and channel, as STAPLE estimates it, in volumes slice by slice; ``None`` with another fusion."""
    specificity: Float[np.ndarray, "m k"] | None
    held: Float[np.ndarray, " k"] | None = None
    """Pixels of each channel that STAPLE believes in."""
    anchor_certainty: Certainty | None = None
    """How sure the anchor is, of volumes too."""
    choice: Choice | None = None
    """How members were chosen among candidates, which mask, probability and uncertainty rest on; ``None``: they were
    not."""


class Drawing:
    """A request at work: makes a part of each picture, as many at a time as the sampler takes."""

    def __init__(
        self,
        model: DiffusionModel,
        config: ResolvedConfig,
        request: Request,
        *,
        device: torch.device,
        precision: Precision = "auto",
        snapshots: Sequence[DiffusionModel] = (),
        calibration: Calibration = Calibration(),  # noqa: B008 - it can't be changed
    ) -> None:
        self.model, self.config, self.request, self.device = model, config, request, device
        self.precision, self.snapshots, self.calibration = precision, snapshots, calibration
        self._ensembles: EnsembleSampler | None = None
        self.batch = BatchSize(request.sampling.batch_size, device, asked=request.batch_asked)
        raters = Raters(request.raters, calibration.dependence)
        self.fusing = Fusing(config.spec.labels, fusion=request.sampling.fusion, raters=raters)

    @property
    def ensembles(self) -> EnsembleSampler:
        """Draws members, as many at once as the batch size says by now."""
        if self._ensembles is None or self._ensembles.sampling.batch_size != self.batch.size:
            sampling = self.request.sampling.model_copy(update={"batch_size": self.batch.size})
            self._ensembles = EnsembleSampler(
                self.model,
                self.config,
                sampling,
                snapshots=self.snapshots,
                precision=self.precision,
                mixture=self.calibration.mixture,
            )
        return self._ensembles

    def parts(self, cases: Iterable[Case], *, refused: Refused | None = None) -> Iterator[tuple[Case, Part]]:
        """Make a part of each picture, in their order; ``refused`` without a hearer, the first bad one ends all."""
        for batch in self._batches(cases, refused):
            yield from self._parts(batch, refused)

    def _parts(self, batch: Sequence[_Item], refused: Refused | None) -> Iterator[tuple[Case, Part]]:
        """Make the parts of a batch; where memory does not suffice, with fewer images and masks at once."""
        drawn = attempted(lambda: self._drawn(batch), batch[0].case.name, way_out=LESS)
        if not isinstance(drawn, OutOfMemoryError):
            for index, item in enumerate(batch):
                part = attempted(partial(self._part, item, drawn, index), item.case.name, way_out=LESS)
                if isinstance(part, OutOfMemoryError):
                    _refuse(item.case, part, refused)
                else:
                    yield item.case, part
                del part
            return
        smaller, half = self.batch.halve(), len(batch) // 2
        if not smaller and not half:
            _refuse(batch[0].case, drawn, refused)
            return
        for piece in (batch[:half], batch[half:]) if half else (batch,):
            yield from self._parts(piece, refused)

    def _drawn(self, batch: Sequence[_Item]) -> Ensemble:
        """Draw the members of a batch of images; of one that decides how many it needs, until it has them."""
        with self.batch.watched(len(batch) * self.request.sampling.drawn):
            if self.request.auto:
                (item,) = batch
                until_stable(growing := self._growing(item))
                return growing.whole()
            image = torch.stack([item.prepared.image for item in batch]).to(self.device)
            return self.ensembles.draw(image, [item.key for item in batch], seed=self.request.seed)

    def settled(self, slices: Callable[[], Iterator[Case]]) -> Drawing:
        """Decide how many members a volume needs: by slices in which the anchor sees something, else by all."""
        if not self.request.auto:
            return self
        seen = [self._growing(self._item(piece)).holds() for piece in slices()]
        chosen = evenly([index for index, holds in enumerate(seen) if holds] or range(len(seen)), PROBED)
        deciding = [self._item(piece) for index, piece in enumerate(slices()) if index in chosen]
        return self.asked(self.request.with_members(until_stable(together([self._growing(item) for item in deciding]))))

    def asked(self, request: Request) -> Drawing:
        """Answer another request in the same way."""
        other = Drawing(
            self.model,
            self.config,
            request,
            device=self.device,
            precision=self.precision,
            snapshots=self.snapshots,
            calibration=self.calibration,
        )
        other.batch = self.batch
        return other

    def _batches(self, cases: Iterable[Case], refused: Refused | None) -> Iterator[list[_Item]]:
        """Put images of one size together, so that the members of a batch fill the sampler."""
        drawn, batch = self.request.sampling.drawn, list[_Item]()
        for case in cases:
            try:
                item = self._item(case)
            except MedSegDiffError as error:
                _refuse(case, error, refused)
                continue
            if batch and _differ(batch[0], item):
                yield batch
                batch = []
            batch.append(item)
            full = len(batch) * drawn >= self.batch.size or sum(map(_pixels, batch)) >= TOGETHER
            if full or self.request.auto:  # before the next one is read: it may be large
                yield batch
                batch = []
        if batch:
            yield batch

    def _item(self, case: Case) -> _Item:
        with memory_worded(case.name, way_out=LESS):
            return _Item(case, prepare(case, self.config, stride=self.model.stride), case.key or image_key(case.image))

    def _growing(self, item: _Item) -> GrowingEnsemble:
        return GrowingEnsemble(
            self.ensembles,
            item.prepared.image[None].to(self.device),
            key=item.key,
            seed=self.request.seed,
            labels=self.config.spec.labels,
            decided=lambda ensemble: fused_mask(self._restored(item, ensemble, 0), self.fusing),
        )

    def _part(self, item: _Item, ensemble: Ensemble, index: int) -> Part:
        return part_of(self._restored(item, ensemble, index), self.fusing, name=item.case.name)

    def _restored(self, item: _Item, ensemble: Ensemble, index: int) -> Restored:
        """Bring members and anchor to the native grid, and mix the probability there."""
        return Restored(ensemble, index, item.prepared.placement, self.config.spec.labels, self.calibration.mixture)


@dataclass(frozen=True)
class _Item:
    """An image on the model grid."""

    case: Case
    prepared: Prepared
    key: str
    """What its noise follows from."""


def part_of(restored: Restored, fusing: Fusing, *, name: str) -> Part:
    """Put together what is said of one image, and see where its members differ."""
    labels, canvas, certainty = restored.labels, Canvas(restored.placement.native[1]), None
    for strip in restored.strips():
        anchor, maps = strip.anchor, uncertainty_of(strip.members, exclusive=labels.exclusive)
        canvas.paste(strip.columns, mask=fusing.of_strip(strip), **drawn(strip, labels), **vars(maps))
        if anchor is not None:
            canvas.paste(strip.columns, anchor=labels.decide(anchor), anchor_probability=anchor.cpu().numpy())
            sure = Certainty.of(anchor, labels)
            certainty = sure if certainty is None else certainty + sure
    decided = fusing.of_all(restored, canvas)
    if not decided.converged:
        log.warning("%s: STAPLE did not come to rest; look at the members.", name)
    return Part(
        mask=decided.mask,
        probability=canvas["probability"],
        uncertainty=Uncertainty(canvas["std"], canvas["entropy"], canvas["disagreement"]),
        members=canvas["members"],
        anchor=canvas.arrays.get("anchor"),
        anchor_probability=canvas.arrays.get("anchor_probability"),
        anchor_certainty=certainty,
        sensitivity=decided.sensitivity,
        specificity=decided.specificity,
        held=decided.held,
    )


def _differ(a: _Item, b: _Item) -> bool:
    return a.prepared.image.shape != b.prepared.image.shape


def _pixels(item: _Item) -> int:
    return item.case.image[0].size


def _refuse(case: Case, error: MedSegDiffError, refused: Refused | None) -> None:
    if refused is None:
        raise error
    refused(case, error)
