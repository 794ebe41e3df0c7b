"""Pictures, and slices of volumes, on their way through a model: prepared, drawn, restored, fused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.split import evenly
from medsegdiff.data.transforms import Prepared, from_grid, prepare
from medsegdiff.errors import MedSegDiffError
from medsegdiff.fusion.fusers import Decided, decide
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference.adaptive import PROBED, GrowingEnsemble, together, until_stable
from medsegdiff.inference.certainty import Certainty
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.inference.inputs import image_key
from medsegdiff.inference.members import Choice
from medsegdiff.inference.request import Request
from medsegdiff.inference.uncertainty import Uncertainty, uncertainty_of
from medsegdiff.labels import Labels
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Case

log = logging.getLogger(__name__)

Refused = Callable[[Case, MedSegDiffError], None]
"""Told of an image that the model can't take."""


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
        mixture: Mixture = Mixture(),  # noqa: B008 - it can't be changed
    ) -> None:
        self.model, self.config, self.request, self.device = model, config, request, device
        self.snapshots, self.mixture = snapshots, mixture
        self.ensembles = EnsembleSampler(
            model, config, request.sampling, snapshots=snapshots, precision=precision, mixture=mixture
        )

    def parts(self, cases: Iterable[Case], *, refused: Refused | None = None) -> Iterator[tuple[Case, Part]]:
        """Make a part of each picture, in their order; ``refused`` without a hearer, the first bad one ends all."""
        for batch in self._batches(cases, refused):
            if self.request.auto:
                yield from ((item.case, self._grown(item)) for item in batch)
                continue
            image = torch.stack([item.prepared.image for item in batch]).to(self.device)
            ensemble = self.ensembles.draw(image, [item.key for item in batch], seed=self.request.seed)
            yield from ((item.case, self._part(item, ensemble, index)) for index, item in enumerate(batch))

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
        return Drawing(
            self.model,
            self.config,
            request,
            device=self.device,
            precision=self.ensembles.precision,
            snapshots=self.snapshots,
            mixture=self.mixture,
        )

    def _batches(self, cases: Iterable[Case], refused: Refused | None) -> Iterator[list[_Item]]:
        """Put images of one size together, so that the members of a batch fill the sampler."""
        sampling, batch = self.request.sampling, list[_Item]()
        for case in cases:
            try:
                item = self._item(case)
            except MedSegDiffError as error:
                if refused is None:
                    raise
                refused(case, error)
                continue
            if batch and (len(batch) * sampling.drawn >= sampling.batch_size or _differ(batch[0], item)):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _item(self, case: Case) -> _Item:
        return _Item(case, prepare(case, self.config, stride=self.model.stride), case.key or image_key(case.image))

    def _grown(self, item: _Item) -> Part:
        growing = self._growing(item)
        until_stable(growing)
        return self._part(item, growing.whole(), 0)

    def _growing(self, item: _Item) -> GrowingEnsemble:
        return GrowingEnsemble(
            self.ensembles,
            item.prepared.image[None].to(self.device),
            key=item.key,
            seed=self.request.seed,
            labels=self.config.spec.labels,
            decided=lambda ensemble: self._decided(*self._seen(item, ensemble, 0)[::2]).mask,
        )

    def _part(self, item: _Item, ensemble: Ensemble, index: int) -> Part:
        members, anchor, probability = self._seen(item, ensemble, index)
        decided = self._decided(members, probability)
        return part_of(members, anchor, probability, decided, self.config.spec.labels, name=item.case.name)

    def _seen(self, item: _Item, ensemble: Ensemble, index: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Bring members and anchor to the native grid, and mix the probability there."""
        members, anchor, expected = _restored(ensemble, index, item, time=self.mixture.nearest(ensemble.times))
        return members, anchor, self.mixture(anchor, expected, exclusive=self.config.spec.labels.exclusive)

    def _decided(self, members: Float[Tensor, "m k h w"], probability: Float[Tensor, "k h w"]) -> Decided:
        """Fuse the members."""
        labels, fusion, raters = self.config.spec.labels, self.request.sampling.fusion, self.request.raters
        return decide(members, labels, fusion=fusion, marginal=probability, raters=raters)


@dataclass(frozen=True)
class _Item:
    """An image on the model grid."""

    case: Case
    prepared: Prepared
    key: str
    """What its noise follows from."""


def part_of(
    members: Float[Tensor, "m k h w"],
    anchor: Float[Tensor, "k h w"] | None,
    probability: Float[Tensor, "k h w"],
    decided: Decided,
    labels: Labels,
    *,
    name: str,
) -> Part:
    """Put together what is said of one image, and see where its members differ."""
    if not decided.converged:
        log.warning("%s: STAPLE did not come to rest; look at the members.", name)
    return Part(
        mask=decided.mask,
        probability=probability.cpu().numpy(),
        uncertainty=uncertainty_of(members, exclusive=labels.exclusive),
        members=np.stack([labels.decide(member) for member in members]),
        anchor=None if anchor is None else labels.decide(anchor),
        anchor_probability=None if anchor is None else anchor.cpu().numpy(),
        anchor_certainty=None if anchor is None else Certainty.of(anchor, labels),
        sensitivity=None if decided.sensitivity is None else decided.sensitivity.numpy(),
        specificity=None if decided.specificity is None else decided.specificity.numpy(),
        held=None if decided.sensitivity is None else decided.probability.double().sum(dim=(1, 2)).numpy(),
    )


def _restored(ensemble: Ensemble, index: int, item: _Item, *, time: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Bring members (m k h w), anchor (k h w), if there is one, and expectation of an image to its native grid.

    Deviation: the members are restored first and fused then, so that STAPLE or the majority of the saved
    members is the saved mask, and contours keep the precision of the members' continuous values.
    """
    placement = item.prepared.placement
    anchor = None if ensemble.anchor is None else from_grid(ensemble.anchor[index, None], placement)[0]
    expected = from_grid(ensemble.expected[time, index, None].float(), placement)[0]
    return from_grid(ensemble.probability[:, index], placement), anchor, expected


def _differ(a: _Item, b: _Item) -> bool:
    return a.prepared.image.shape != b.prepared.image.shape
