"""The votes of members as a table without repetition: any subset is fused and scored quickly from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from medsegdiff.errors import ShapeError
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.fusion.staple import binary_staple, multi_label_staple
from medsegdiff.fusion.votes import Votes
from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import argmax_channels, one_hot
from medsegdiff.metrics.overlap import Counts, dice

SLAB = 1 << 22
"""Pixels of each member that are looked at together."""


@dataclass(frozen=True)
class VoteTable:
    """A case as a table: pixels on which all members vote alike are one column."""

    labels: UInt8[np.ndarray, "m p"]
    """What each member says: 0, or 1 … k for a structure."""
    pixels: Float[np.ndarray, " p"]
    """How many pixels each column stands for."""
    scored: Float[np.ndarray, " p"]
    """How many of them count: those that somebody labelled."""
    truth: Float[np.ndarray, "k p"]
    """How many of these are of each structure in the reference."""
    exclusive: bool
    """Whether labels are fused as classes that exclude each other; else there is one structure."""


def tables_of(
    members: Bool[np.ndarray, "m k *s"], reference: Bool[np.ndarray, "k *s"], *, exclusive: bool
) -> list[VoteTable]:
    """Make tables of masks.

    Args:
        members: By member and structure.
        reference: By structure.
        exclusive: Whether structures exclude each other.

    Returns:
        One table if they do, else one per structure.
    """
    if not exclusive:
        masks = members.view(np.uint8)
        return [tabulate(masks[:, k], reference[k : k + 1], exclusive=False) for k in range(len(reference))]
    labels = np.zeros((len(members), *members.shape[2:]), np.uint8)
    for index in range(len(reference)):
        labels[members[:, index]] = index + 1
    return [tabulate(labels, reference, exclusive=True)]


def tabulate(
    labels: UInt8[np.ndarray, "m *s"],
    reference: Bool[np.ndarray, "k ..."],
    *,
    known: Bool[np.ndarray, "..."] | None = None,
    exclusive: bool,
) -> VoteTable:
    """Make a table of label maps, a part of the grid after the other: those of a volume need not fit into memory.

    Args:
        labels: 0, or 1 … k for a structure, by member.
        reference: By structure.
        known: Pixels that somebody labelled; ``None``: all.
        exclusive: Whether structures exclude each other; else there must be one.

    Returns:
        The table.

    Raises:
        ShapeError: If the grids differ, or overlapping structures are given together.
    """
    if not labels.shape[1:] == reference.shape[1:] == (labels.shape[1:] if known is None else known.shape):
        raise ShapeError(f"The members lie on a grid {labels.shape[1:]}, the reference on {reference.shape[1:]}.")
    if len(reference) > 1 and not exclusive:
        raise ShapeError(f"There are {len(reference)} structures that may overlap; make a table of each.")
    axis = outer_axis(labels[0])
    length = labels.shape[1 + axis]
    step = max(1, SLAB * length // max(1, labels[0].size))
    parts = []
    for start in range(0, length, step):
        part = (slice(None),) * axis + (slice(start, start + step),)
        scored = np.ones_like(reference[0][part]) if known is None else known[part]
        parts.append(_counted(labels[:, *part], reference[:, *part] & scored, scored))
        release(labels)
    labels_of_parts, *counts = zip(*parts, strict=True)
    joined = _collapsed(np.concatenate(labels_of_parts, axis=1), *(np.concatenate(c, axis=-1) for c in counts))
    return VoteTable(*joined, exclusive)


Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The first four fields of `VoteTable`."""


def _counted(labels: np.ndarray, truth: np.ndarray, scored: np.ndarray) -> Columns:
    table = np.ascontiguousarray(labels.reshape(len(labels), -1))
    counts = [a.astype(np.float64) for a in (scored.reshape(-1), truth.reshape(len(truth), -1))]
    return _collapsed(table, np.ones_like(counts[0]), *counts)


def _collapsed(labels: np.ndarray, pixels: np.ndarray, scored: np.ndarray, truth: np.ndarray) -> Columns:
    """Join the columns that are alike."""
    packed = Votes.of(labels, len(truth) + 1, pixels)

    def total(counts: np.ndarray) -> np.ndarray:
        return np.bincount(packed.of_pixel, counts, len(packed.count))

    return packed.labels, packed.count, total(scored), np.stack([total(t) for t in truth])


def fused(votes: VoteTable, chosen: Int[np.ndarray, " n"], fusion: str) -> Int[np.ndarray, " p"]:
    """Fuse some members, as `medsegdiff.fusion.fusers` does with all pixels.

    Args:
        votes: The table.
        chosen: Numbers of members.
        fusion: ``staple``, ``majority`` or ``mean``.

    Returns:
        Label of each column.
    """
    labels, num_labels = votes.labels[chosen], len(votes.truth) + 1
    if fusion == "staple" and not votes.exclusive:
        probability = binary_staple(labels, weight=votes.pixels).posterior
    elif fusion == "staple":
        probability = multi_label_staple(labels, num_labels, weight=votes.pixels).posterior
    else:
        drawn = torch.from_numpy(labels[:, None].astype(np.int64))
        samples = one_hot(drawn, num_labels) if votes.exclusive else drawn[:, None].float()
        probability = FUSERS[fusion].factory(samples[:, None], exclusive=votes.exclusive).probability[0, :, 0].numpy()
    return argmax_channels(probability, dim=0) if votes.exclusive else (probability[0] >= 0.5).astype(np.int64)


def dice_of(votes: VoteTable, labels: Int[np.ndarray, " p"]) -> list[float]:
    """Compute Dice from the columns that have a label.

    Args:
        votes: The table.
        labels: From `fused`.

    Returns:
        Of each structure, with the conventions of `medsegdiff.metrics.overlap.dice` for empty masks.
    """
    found = []
    for index, truth in enumerate(votes.truth, start=1):
        own = labels == index
        counted = (votes.scored[own].sum(), truth.sum(), truth[own].sum(), votes.scored.sum())
        found.append(dice.of(Counts(*(int(count) for count in counted))))
    return found
