"""Pictures, and slices of volumes, on their way through a model: prepared, drawn, restored, fused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.split import evenly
from medsegdiff.data.transforms import Prepared, prepare
from medsegdiff.errors import MedSegDiffError, OutOfMemoryError, memory_worded
from medsegdiff.fusion.protocol import Raters
from medsegdiff.inference.adaptive import PROBED, GrowingEnsemble, together, until_stable
from medsegdiff.inference.batching import BatchSize, attempted
from medsegdiff.inference.calibration import dependence_of
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.inference.fusing import Fusing, fused_mask, part_of
from medsegdiff.inference.native import Restored, Share, joined_looks
from medsegdiff.inference.parts import Part
from medsegdiff.inference.request import Request
from medsegdiff.inference.runs import Trained
from medsegdiff.inference.uncertainty import Uncertainty
from medsegdiff.io.arrays import image_key
from medsegdiff.types import Case

Refused = Callable[[Case, MedSegDiffError], None]
"""Told of an image that the model can't take."""

TOGETHER = 1 << 22
"""Native pixels of images that go together: larger ones go alone."""
LESS = "Draw fewer members, make the image smaller, or close other programs."


@dataclass(eq=False)
class Drawing:
    """A request at work: makes a part of each picture, as many at a time as the sampler takes."""

    runs: Sequence[Trained]
    """Those that share its ensembles out; calibrated as they are for such a request."""
    _: KW_ONLY
    request: Request
    batch: BatchSize
    """How many masks go together by now."""
    precision: Precision
    entropy_alone: bool = False
    """Whether of the maps of uncertainty those of entropies are enough."""
    _samplers: list[EnsembleSampler] = field(default_factory=list, init=False)

    @property
    def config(self) -> ResolvedConfig:
        """How images are read and cut, and what masks hold, in which the runs are alike."""
        return self.runs[0].config

    @property
    def maps(self) -> int:
        """Count the maps of uncertainty that are made."""
        return 1 if self.entropy_alone else len(fields(Uncertainty))

    @property
    def samplers(self) -> list[EnsembleSampler]:
        """Draw the members of each run, as many at once as the batch size says by now."""
        size = self.batch.size
        if not self._samplers or self._samplers[0].sampling.batch_size != size:
            self._samplers = [
                EnsembleSampler(
                    run.model,
                    run.config,
                    sampling.model_copy(update={"batch_size": size}),
                    snapshots=run.snapshots,
                    precision=self.precision,
                    mixture=run.calibration.mixture,
                    turn=self.request.turn(number),
                )
                for number, (run, sampling) in enumerate(zip(self.runs, self.request.by_run, strict=True))
            ]
        return self._samplers

    @cached_property
    def fusing(self) -> Fusing:
        """How members become a mask."""
        raters = Raters(self.request.raters, dependence_of([run.calibration for run in self.runs]))
        return Fusing(self.config.spec.labels, fusion=self.request.sampling.fusion, raters=raters)

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

    def _drawn(self, batch: Sequence[_Item]) -> list[Ensemble]:
        """Draw the members of a batch of images; of one that decides how many it needs, until it has them."""
        with self.batch.watched(-(-len(batch) * self.request.sampling.drawn // len(self.runs))):  # by one run
            if self.request.auto:
                (item,) = batch
                until_stable(growing := self._growing(item))
                return growing.whole()
            images = [self._stacked([item.prepared[number] for item in batch]) for number in range(len(self.runs))]
            keys, seed = [item.key for item in batch], self.request.seed
            return [sampler.draw(of, keys, seed=seed) for sampler, of in zip(self.samplers, images, strict=True)]

    def _stacked(self, prepared: Sequence[Prepared]) -> Float[Tensor, "b c h w"]:
        return torch.stack([one.image for one in prepared]).to(self.batch.device)

    def pooled(self, case: Case) -> Float[np.ndarray, " f"] | None:
        """See what the networks see of a picture, without drawing members: as in the `Part` of it."""
        item = self._item(case)
        seen = [
            sampler.look(self._stacked([prepared])).pooled
            for sampler, prepared in zip(self.samplers, item.prepared, strict=True)
        ]
        return joined_looks([None if of is None else of[0] for of in seen])

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
        return replace(self, request=request)

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
            prepared = tuple(prepare(case, run.config, stride=run.model.stride) for run in self.runs)
            return _Item(case, prepared, case.key or image_key(case.image))

    def _growing(self, item: _Item) -> GrowingEnsemble:
        return GrowingEnsemble(
            self.samplers,
            [self._stacked([prepared]) for prepared in item.prepared],
            key=item.key,
            seed=self.request.seed,
            labels=self.config.spec.labels,
            decided=lambda drawn: fused_mask(self._restored(item, drawn, 0), self.fusing),
        )

    def _part(self, item: _Item, drawn: Sequence[Ensemble], index: int) -> Part:
        return part_of(
            self._restored(item, drawn, index), self.fusing, name=item.case.name, entropy_alone=self.entropy_alone
        )

    def _restored(self, item: _Item, drawn: Sequence[Ensemble], index: int) -> Restored:
        """Bring members and anchors to the native grid, and mix the probability there."""
        shares = [
            Share(ensemble, index, prepared.placement, run.calibration.mixture, once=self.request.once)
            for run, prepared, ensemble in zip(self.runs, item.prepared, drawn, strict=True)
        ]
        return Restored(shares, self.config.spec.labels)


@dataclass(frozen=True)
class _Item:
    """An image on the grid of each run."""

    case: Case
    prepared: tuple[Prepared, ...]
    key: str
    """What its noise follows from."""


def _differ(a: _Item, b: _Item) -> bool:
    return any(one.image.shape != other.image.shape for one, other in zip(a.prepared, b.prepared, strict=True))


def _pixels(item: _Item) -> int:
    return item.case.image[0].size


def _refuse(case: Case, error: MedSegDiffError, refused: Refused | None) -> None:
    if refused is None:
        raise error
    refused(case, error)
