"""Masks as label maps: several raters become one, regions that overlap become values of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from medsegdiff.errors import DataError
from medsegdiff.labels import Labels

MOST_LABELS = 255
"""Values beside the background that a label map holds."""
MOST_REGIONS = 62
"""Regions whose combinations fit into a 64-bit number."""


@dataclass(frozen=True)
class LabelScheme:
    """What the values of label maps are to mean."""

    named: dict[str, int | list[int]]
    """``labels`` of nnU-Net: name → value, or values of a region; ``background`` first, ``ignore`` last."""
    order: tuple[int, ...] = ()
    """``regions_class_order``: the value of each region, each over those before it."""
    combinations: dict[int, int] = field(default_factory=dict)
    """Of regions: which of them hold a pixel, a bit for each → its value."""
    crossing: bool = False
    """Whether regions overlap so that no order of painting makes every combination."""

    def encode(
        self, mask: UInt8[np.ndarray, "k *s"], ignored: UInt8[np.ndarray, " *s"] | None
    ) -> UInt8[np.ndarray, " *s"]:
        """Make a label map."""
        labels = self._of_regions(mask) if self.combinations else mask.argmax(axis=0) if len(mask) > 1 else mask[0]
        found = labels.astype(np.uint8)
        nobody = self.named.get("ignore")
        if ignored is not None and isinstance(nobody, int):
            found[ignored > 0] = nobody
        return found

    def _of_regions(self, mask: UInt8[np.ndarray, "k *s"]) -> np.ndarray:
        known = {0: 0, **self.combinations}
        codes, places = np.unique(combination(mask), return_inverse=True)
        if strange := [code for code in codes.tolist() if code not in known]:
            names = [name for name in self.named if name not in ("background", "ignore")]
            held = [names[bit] for bit in range(len(names)) if strange[0] >> bit & 1]
            raise DataError(
                f"{' and '.join(held)} hold the same pixels, and none of the labels says so. Write 'folder' instead."
            )
        return np.array([known[code] for code in codes.tolist()])[places].reshape(mask.shape[1:])


def combination(mask: np.ndarray) -> Integer[np.ndarray, " *s"]:
    """Tell which channels hold each pixel, as a number with a bit for each."""
    if len(mask) > MOST_REGIONS:
        raise DataError(f"There are {len(mask)} regions; at most {MOST_REGIONS} can be converted. Leave some out.")
    found = np.zeros(mask.shape[1:], np.int64)
    for bit, channel in enumerate(mask):
        found |= channel.astype(np.int64) << bit
    return found


def scheme_of(coding: Labels | None, combinations: Iterable[int], where: Path) -> LabelScheme:
    """Decide what the values of label maps are to mean; ``combinations`` of regions are those that occur."""
    if coding is None:
        raise DataError(f"{where}: there are no masks, so there is nothing to train on. Add masks, or write 'folder'.")
    if coding.task == "regions":
        return _of_regions(coding, combinations or _declared(coding))
    foreground = coding.structures
    named: dict[str, int | list[int]] = {"background": 0, **{name: i for i, name in enumerate(foreground, start=1)}}
    return LabelScheme(_with_ignore(named, coding))


def _declared(coding: Labels) -> frozenset[int]:
    """List the combinations that the values of one file stand for."""
    values = sorted({value for of_region in coding.values for value in of_region})
    return frozenset(combination(coding.table[:, values]).tolist())


def _of_regions(coding: Labels, found: Iterable[int]) -> LabelScheme:
    bits = range(len(coding.classes))
    occurring = set(found) - {0}
    occurring |= {1 << bit for bit in bits if not any(code >> bit & 1 for code in occurring)}
    if len(occurring) > MOST_LABELS - (coding.ignore is not None):
        raise DataError(
            f"The regions {', '.join(coding.classes)} overlap in {len(occurring)} ways; a label map holds "
            f"{MOST_LABELS} values. Write 'folder', which keeps a file per region."
        )
    order, own = painting_order(len(coding.classes), occurring)
    last = {code: order.index(bit) for bit, code in own.items()}
    ranked = sorted(occurring, key=lambda code: (last.get(code, len(order)), code.bit_count(), code))
    values = {code: value for value, code in enumerate(ranked, start=1)}
    crossing = set(own.values()) != occurring
    if taken := sorted({"background", "ignore"} & set(coding.classes)):
        raise DataError(f"A region is called '{taken[0]}', a word that nnU-Net keeps for itself. Rename the region.")
    named: dict[str, int | list[int]] = {"background": 0}
    classes_order = []
    for bit in order:
        holding = [code for code in ranked if code >> bit & 1]
        named[coding.classes[bit]] = [values[code] for code in holding]
        classes_order.append(values[own.get(bit, min(holding, key=lambda code: (code.bit_count(), code)))])
    return LabelScheme(_with_ignore(named, coding), tuple(classes_order), values, crossing)


def painting_order(count: int, combinations: Iterable[int]) -> tuple[list[int], dict[int, int]]:
    """Order regions so that painting them one over the other makes every combination, if there is such an order.

    The last region must be in one combination alone: where it is painted, it decides. Without that combination the
    same holds of the one before it, and so on. Regions that lie in each other or apart always have such an order.
    """
    remaining, left = set(combinations), list(range(count))
    order: list[int] = []
    own: dict[int, int] = {}
    while left:
        holding = {bit: [code for code in remaining if code >> bit & 1] for bit in left}
        fewest = min(len(codes) for codes in holding.values())
        bit = max(bit for bit in left if len(holding[bit]) <= max(fewest, 1))
        if len(holding[bit]) == 1:
            own[bit] = holding[bit][0]
        remaining -= set(holding[bit])
        left.remove(bit)
        order.insert(0, bit)
    return order, own


def _with_ignore(named: dict[str, int | list[int]], coding: Labels) -> dict[str, int | list[int]]:
    if coding.ignore is None:
        return named
    top = max(max(value) if isinstance(value, list) else value for value in named.values())
    return {**named, "ignore": top + 1}


def fuse_raters(
    mask: UInt8[np.ndarray, "r k *s"], ignored: UInt8[np.ndarray, "r *s"] | None, *, exclusive: bool
) -> tuple[UInt8[np.ndarray, "k *s"], UInt8[np.ndarray, " *s"] | None]:
    """Take the majority of the raters who labelled a pixel; a tie is foreground."""
    if len(mask) == 1:
        return mask[0], None if ignored is None else ignored[0]
    labelled = np.ones((len(mask), *mask.shape[2:]), np.uint8) if ignored is None else 1 - ignored
    votes = (mask * labelled[:, None]).sum(axis=0, dtype=np.uint16)
    raters = labelled.sum(axis=0, dtype=np.uint16)
    nobody = None if ignored is None else (raters == 0).astype(np.uint8)
    if not exclusive:
        return ((2 * votes >= raters) & (votes > 0)).astype(np.uint8), nobody
    best = votes[1:].max(axis=0)
    labels = np.where((best >= votes[0]) & (best > 0), 1 + votes[1:].argmax(axis=0), 0)
    return (labels == np.arange(len(votes)).reshape(-1, *[1] * labels.ndim)).astype(np.uint8), nobody
