"""What is decided of a picture that is restored strip by strip: the fused mask, and what is said beside it."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import UInt8

from medsegdiff.fusion.fusers import FUSERS, Decided, decide
from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.whole import WHOLE, DecidedWhole
from medsegdiff.inference.canvas import Canvas
from medsegdiff.inference.certainty import Certainty, Confidence
from medsegdiff.inference.native import Restored, Strip
from medsegdiff.inference.parts import Part
from medsegdiff.inference.uncertainty import Uncertainty, disagreement_of, entropy_of, std_of
from medsegdiff.labels import Labels

log = logging.getLogger(__name__)


class Fusing:
    """How the members of a picture are fused: strip by strip where a fusion can, else when all of it is known."""

    def __init__(self, labels: Labels, *, fusion: str, raters: Raters) -> None:
        self.labels, self.fusion, self.raters = labels, fusion, raters
        self.each = "each" in FUSERS[fusion].facts
        self.sees_members = fusion not in WHOLE
        """Whether it takes more of members than what each of them draws."""

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
        assert strip.members is not None
        told = strip.probability
        return decide(strip.members, self.labels, fusion=self.fusion, marginal=told, raters=self.raters)


def fused_mask(restored: Restored, fusing: Fusing) -> UInt8[np.ndarray, " *shape"]:
    """Fuse the members of a picture, and look at nothing else."""
    canvas = Canvas(restored.native[0])
    for strip in restored.strips(members=fusing.sees_members):
        canvas.paste(strip.rows, mask=fusing.of_strip(strip), **_drawn(strip))
    return fusing.of_all(restored, canvas).mask


def _drawn(strip: Strip) -> dict[str, np.ndarray]:
    """Give what fusing a picture takes: the label map of each member, and the probability."""
    return {"members": strip.drawn, "probability": strip.probability.cpu().numpy()}


def part_of(restored: Restored, fusing: Fusing, *, name: str, entropy_alone: bool = False) -> Part:
    """Put together what is said of one image, and see where its members differ; or how unsure they are, and no more."""
    labels, canvas = restored.labels, Canvas(restored.native[0])
    certainty: Certainty | None = None
    confidence: Confidence | None = None
    for strip in restored.strips(members=fusing.sees_members or not entropy_alone):
        anchor, told = strip.anchor, _drawn(strip)
        canvas.paste(strip.rows, mask=fusing.of_strip(strip), **told)
        canvas.paste(strip.rows, entropy=entropy_of(strip.mean, exclusive=labels.exclusive))
        if strip.members is not None and not entropy_alone:
            apart = disagreement_of(strip.drawn, tuple(strip.mean.shape), exclusive=labels.exclusive)
            canvas.paste(strip.rows, std=std_of(strip.members), disagreement=apart)
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
        uncertainty=Uncertainty(canvas.arrays.get("std"), canvas["entropy"], canvas.arrays.get("disagreement")),
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
