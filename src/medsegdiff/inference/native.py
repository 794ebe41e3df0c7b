"""What an ensemble says of a picture on its native grid: made a strip at a time, so that memory stays bounded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medsegdiff.data.placement import Placement
from medsegdiff.data.restoring import Restoring
from medsegdiff.fusion.fusers import FUSERS, Decided, decide
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.whole import WHOLE, DecidedWhole
from medsegdiff.hardware import exact_dtype
from medsegdiff.inference.blocks import BLOCK, in_blocks
from medsegdiff.inference.canvas import ON_DEVICE, STRIP, Canvas, cut
from medsegdiff.inference.certainty import Certainty, Confidence
from medsegdiff.inference.ensemble import Ensemble
from medsegdiff.inference.parts import Part
from medsegdiff.inference.uncertainty import Uncertainty, uncertainty_of
from medsegdiff.labels import Labels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Strip:
    """Some rows of a picture."""

    rows: slice
    members: Float[Tensor, "m k s w"]
    anchor: Float[Tensor, "k s w"] | None
    probability: Float[Tensor, "k s w"]
    """Of each channel, by the mixture."""


@dataclass(frozen=True)
class Share:
    """What a run says of one picture of its batch, on its own grid."""

    ensemble: Ensemble
    index: int
    placement: Placement
    mixture: Mixture
    once: bool = False
    """Whether its probability is its only member: of a run that draws none, beside others."""

    @property
    def numbers(self) -> Sequence[int]:
        """Of its members in the ensemble of all runs."""
        return (0,) if self.once else self.ensemble.numbers or range(len(self.ensemble.probability))

    def strips(self, cuts: Sequence[slice], *, exclusive: bool) -> Iterator[Strip]:
        """Give the picture on its native grid, strip by strip."""
        given = {name: Restoring(values, self.placement) for name, values in self._given().items()}
        for rows in cuts:
            restored = {name: values.rows(rows) for name, values in given.items()}
            anchor = restored["anchor"][0] if "anchor" in restored else None
            probability = self._mixed(anchor, restored["expected"][0], exclusive=exclusive)
            yield Strip(rows, restored.get("members", probability[None]), anchor, probability)

    def _given(self) -> dict[str, Float[Tensor, "n k gh gw"]]:
        ensemble, index = self.ensemble, self.index
        expected = ensemble.expected[self.mixture.nearest(ensemble.times), index, None].float()
        given = {"expected": expected} | ({} if self.once else {"members": ensemble.probability[:, index]})
        return given | ({} if ensemble.anchor is None else {"anchor": ensemble.anchor[index, None]})

    def _mixed(
        self, anchor: Float[Tensor, "k s w"] | None, expected: Float[Tensor, "k s w"], *, exclusive: bool
    ) -> Float[Tensor, "k s w"]:
        """Mix exactly: in float32 the last pixels of a strip, which fill no vector, have other logarithms."""
        exact = exact_dtype(expected.device)

        def mixed(expected: Tensor, *anchor: Tensor) -> Tensor:
            known = anchor[0].to(exact) if anchor else None
            return self.mixture(known, expected.to(exact), exclusive=exclusive).to(expected.dtype)

        together = BLOCK if expected.device.type == "cpu" else expected[0].numel()
        return in_blocks(mixed, expected, *([] if anchor is None else [anchor]), size=together)


@dataclass(frozen=True)
class Restored:
    """What the ensemble of one run or several says of one picture, brought to the native grid.

    Deviation: the members are restored first and fused then, so that STAPLE or the majority of the saved
    members is the saved mask, and contours keep the precision of the members' continuous values.
    """

    shares: Sequence[Share]
    """By run."""
    labels: Labels

    @property
    def native(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.shares[0].placement.native

    @property
    def pooled(self) -> Float[np.ndarray, " f"] | None:
        """What the networks saw of the picture, run after run; ``None`` if one of them does not show it."""
        of_runs = [(share.ensemble.pooled, share.index) for share in self.shares]
        return joined_looks([None if pooled is None else pooled[index] for pooled, index in of_runs])

    def strips(self) -> Iterator[Strip]:
        """Give the picture strip by strip; each value is the same however many they are."""
        numbers = [number for share in self.shares for number in share.numbers]
        most = STRIP if self.shares[0].ensemble.probability.device.type == "cpu" else ON_DEVICE
        cuts = cut(self.native, per_pixel=len(numbers) * len(self.labels.classes), most=most)
        of_runs = [share.strips(cuts, exclusive=self.labels.exclusive) for share in self.shares]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        for strips in zip(*of_runs, strict=True):
            yield strips[0] if len(strips) == 1 else _together(strips, order)

    def whole(self) -> Strip:
        """Give all of it at once, for fusions that know no other way."""
        strips = list(self.strips())
        anchors = [strip.anchor for strip in strips if strip.anchor is not None]
        return Strip(
            slice(0, self.native[0]),
            torch.cat([strip.members for strip in strips], dim=-2),
            torch.cat(anchors, dim=-2) if anchors else None,
            torch.cat([strip.probability for strip in strips], dim=-2),
        )


def joined_looks(shown: Sequence[Float[Tensor, " _"] | None]) -> Float[np.ndarray, " f"] | None:
    """Put what networks saw of a picture one after the other; ``None`` if one of them does not show it."""
    given = [of.cpu().numpy() for of in shown if of is not None]
    return np.concatenate(given) if len(given) == len(shown) else None


def _together(strips: Sequence[Strip], order: Sequence[int]) -> Strip:
    """Put the members of several runs in their order, and average what else these say; an anchor if all have one."""
    anchors = [strip.anchor for strip in strips if strip.anchor is not None]
    return Strip(
        strips[0].rows,
        torch.cat([strip.members for strip in strips])[list(order)],
        torch.stack(anchors).mean(dim=0) if len(anchors) == len(strips) else None,
        torch.stack([strip.probability for strip in strips]).mean(dim=0),
    )


class Fusing:
    """How the members of a picture are fused: strip by strip where a fusion can, else when all of it is known."""

    def __init__(self, labels: Labels, *, fusion: str, raters: Raters) -> None:
        self.labels, self.fusion, self.raters = labels, fusion, raters
        self.each = "each" in FUSERS[fusion].facts

    def of_strip(self, strip: Strip) -> UInt8[np.ndarray, " *shape"] | None:
        """Decide some rows, by a fusion that decides each pixel by itself."""
        return self._decided(strip).mask if self.each else None

    def of_all(self, restored: Restored, canvas: Canvas) -> DecidedWhole:
        """Decide all of a picture, whose members and probability are on a canvas."""
        if self.each:
            return DecidedWhole(canvas["mask"])
        if self.fusion in WHOLE:
            fuse = WHOLE[self.fusion]
            return fuse(canvas["members"], self.labels, marginal=canvas["probability"], raters=self.raters)
        found = self._decided(restored.whole())
        if found.sensitivity is None or found.specificity is None:
            return DecidedWhole(found.mask, converged=found.converged)
        held = found.probability.double().sum(dim=(1, 2)).numpy()
        return DecidedWhole(found.mask, found.sensitivity.numpy(), found.specificity.numpy(), held, found.converged)

    def _decided(self, strip: Strip) -> Decided:
        told = strip.probability
        return decide(strip.members, self.labels, fusion=self.fusion, marginal=told, raters=self.raters)


def fused_mask(restored: Restored, fusing: Fusing) -> UInt8[np.ndarray, " *shape"]:
    """Fuse the members of a picture, and look at nothing else."""
    canvas = Canvas(restored.native[0])
    for strip in restored.strips():
        canvas.paste(strip.rows, mask=fusing.of_strip(strip), **drawn(strip, restored.labels))
    return fusing.of_all(restored, canvas).mask


def drawn(strip: Strip, labels: Labels) -> dict[str, np.ndarray]:
    """Give what fusing a picture takes: the label map of each member, and the probability."""
    return {"members": labels.decide_each(strip.members), "probability": strip.probability.cpu().numpy()}


def part_of(restored: Restored, fusing: Fusing, *, name: str) -> Part:
    """Put together what is said of one image, and see where its members differ."""
    labels, canvas = restored.labels, Canvas(restored.native[0])
    certainty: Certainty | None = None
    confidence: Confidence | None = None
    for strip in restored.strips():
        anchor, told = strip.anchor, drawn(strip, labels)
        maps = uncertainty_of(strip.members, exclusive=labels.exclusive, drawn=told["members"])
        canvas.paste(strip.rows, mask=fusing.of_strip(strip), **told, **vars(maps))
        sure = Confidence.of(told["probability"], labels)
        confidence = sure if confidence is None else confidence + sure
        if anchor is not None:
            canvas.paste(strip.rows, anchor=labels.decide(anchor), anchor_probability=anchor.cpu().numpy())
            certain = Certainty.of(anchor, labels)
            certainty = certain if certainty is None else certainty + certain
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
        confidence=confidence,
        pooled=restored.pooled,
        sensitivity=decided.sensitivity,
        specificity=decided.specificity,
        held=decided.held,
    )
