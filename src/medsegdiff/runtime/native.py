"""What an ensemble says of a picture on its native grid, made strip by strip, and what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.data.placement import Placement
from medsegdiff.fusion.mixing import mixed, scaled
from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.whole import WHOLE, DecidedWhole
from medsegdiff.inference.blocks import in_blocks
from medsegdiff.inference.canvas import STRIP, Canvas, cut
from medsegdiff.inference.certainty import Certainty, Confidence
from medsegdiff.inference.parts import Part
from medsegdiff.inference.uncertainty import Uncertainty, disagreement_of, entropy_of, std_of, summed
from medsegdiff.labels import Labels
from medsegdiff.runtime.ensemble import Drawn
from medsegdiff.runtime.facts import Facts
from medsegdiff.runtime.resize import cropped, resized

EACH = ("mean", "majority")
"""Fusions that decide each pixel by itself."""
FUSIONS = (*EACH, *WHOLE)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Strip:
    """Some rows of a picture."""

    rows: slice
    members: Float[np.ndarray, "m k s w"]
    mean: Float[np.ndarray, "k s w"]
    anchor: Float[np.ndarray, "k s w"] | None
    probability: Float[np.ndarray, "k s w"]


def strips_of(drawn: Drawn, placement: Placement, facts: Facts) -> Iterator[Strip]:
    """Bring what was drawn to the native grid, and mix the probability there."""
    height = placement.native[0]
    given = {"members": drawn.members, "mean": summed(drawn.members) / len(drawn.members), "expected": drawn.expected}
    given |= {} if drawn.anchor is None else {"anchor": drawn.anchor}
    wide = {name: cropped(of, placement) for name, of in given.items()}
    per_pixel = len(drawn.members) * len(facts.labels.classes)
    for rows in cut(placement.native, per_pixel=per_pixel, most=STRIP):
        part = {name: resized(of, height, axis=-2, part=rows) for name, of in wide.items()}
        anchor = part.get("anchor")
        probability = probability_of(anchor, part["expected"], facts)
        yield Strip(rows, part["members"], part["mean"], anchor, probability)


def probability_of(
    anchor: Float[np.ndarray, "k *s"] | None, expected: Float[np.ndarray, "k *s"], facts: Facts
) -> Float[np.ndarray, "k *s"]:
    """Mix what the anchor says and what the members expect, in double precision."""
    told, channels = facts.probability, len(expected)
    slopes, offsets = (
        np.array(values or (rest,) * channels) for values, rest in ((told.slopes, 1.0), (told.offsets, 0.0))
    )

    def calibrated(expected: np.ndarray, *anchors: np.ndarray) -> np.ndarray:
        known = anchors[0].astype(np.float64) if anchors else None
        both = mixed(known, expected.astype(np.float64), told.weight)
        return scaled(both, slopes, offsets, exclusive=facts.labels.exclusive).astype(np.float32)

    return in_blocks(calibrated, expected, *([] if anchor is None else [anchor]))


def part_of(drawn: Drawn, placement: Placement, facts: Facts, *, fusion: str, name: str) -> Part:
    """Put together what is said of one picture, as `medsegdiff.inference.fusing.part_of` does."""
    labels, canvas = facts.labels, Canvas(placement.native[0])
    certainty: Certainty | None = None
    confidence: Confidence | None = None
    for strip in strips_of(drawn, placement, facts):
        rows, probability, members = strip.rows, strip.probability, labels.decide_each(strip.members)
        canvas.paste(rows, members=members, probability=probability)
        canvas.paste(rows, mask=_each(members, probability, labels, fusion=fusion))
        canvas.paste(
            rows,
            std=std_of(strip.members),
            entropy=entropy_of(strip.mean, exclusive=labels.exclusive),
            disagreement=disagreement_of(members, strip.mean.shape, exclusive=labels.exclusive),
        )
        sure = Confidence.of(probability, labels)
        confidence = sure if confidence is None else confidence + sure
        if strip.anchor is not None:
            canvas.paste(rows, anchor=labels.decide(strip.anchor), anchor_probability=strip.anchor)
            certain = Certainty.of(strip.anchor, labels)
            certainty = certain if certainty is None else certainty + certain
    decided = _whole(canvas, facts, fusion=fusion)
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
        pooled=drawn.pooled,
        sensitivity=decided.sensitivity,
        specificity=decided.specificity,
        held=decided.held,
    )


def _each(
    members: UInt8[np.ndarray, "m ..."], probability: Float[np.ndarray, "k s w"], labels: Labels, *, fusion: str
) -> UInt8[np.ndarray, "..."] | None:
    """Decide some rows, by a fusion that decides each pixel by itself: see `medsegdiff.fusion.fusers`."""
    if fusion == "mean":
        return labels.decide(probability)
    if fusion != "majority":
        return None
    if labels.exclusive:
        votes = np.stack([np.count_nonzero(members == index, axis=0) for index in range(len(labels.classes))])
        return votes.argmax(axis=0).astype(np.uint8)
    return (2 * members.sum(axis=0, dtype=np.int64) >= len(members)).astype(np.uint8)


def _whole(canvas: Canvas, facts: Facts, *, fusion: str) -> DecidedWhole:
    """Decide all of a picture."""
    if fusion in EACH:
        return DecidedWhole(canvas["mask"])
    raters = Raters(facts.raters, facts.dependence)
    return WHOLE[fusion](canvas["members"], facts.labels, marginal=canvas["probability"], raters=raters)
