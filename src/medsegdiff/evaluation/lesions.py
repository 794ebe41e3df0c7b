"""Lesions of a case: those of its references as drawn or as components, counted against predicted components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from medsegdiff.data.instances import kept_apart
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.evaluation.pairing import Pairing, grid_of
from medsegdiff.metrics.lesions import LesionRule, Lesions, count_lesions
from medsegdiff.metrics.units import MM3_PER_ML, unit_of
from medsegdiff.types import Geometry


def unit_of_lesions(geometry: Geometry) -> tuple[float, str]:
    """Tell how large a pixel or voxel is, and in which unit: mm³ in volumes, pixels in picture files."""
    size, unit = unit_of(geometry)
    return (size * MM3_PER_ML, "mm³") if unit == "mL" else (size, unit)


def settled(rule: LesionRule, pairing: Pairing, *, ndim: int) -> LesionRule:
    """Fit a rule to the masks of a data set, and refuse lesions as drawn where nothing tells them."""
    reference = pairing.reference
    if rule.instances == "drawn" and not reference.reader.apart:
        raise DataError(
            f"{reference.root}: no image has several masks that are instances, so none are kept apart. Count connected "
            "components (evaluate --lesions components); if there are instances, set data.mask_folders=instances."
        )
    if rule.instances == "drawn" and reference.kind == "raters" and pairing.consensus != "each":
        raise ConfigError(
            f"What several raters drew one by one has no {pairing.consensus}. Compare with each of them (evaluate "
            "--reference each), or count connected components (--lesions components)."
        )
    return rule.settled(ndim)


def drawn_lesions(name: str, pairing: Pairing, structure: str) -> Int32[np.ndarray, "r *s"] | None:
    """Number the lesions of a structure as they were drawn, by rater; ``None`` where components are lesions."""
    if pairing.lesions is None or pairing.lesions.instances != "drawn":
        return None
    index = pairing.structures.scored[pairing.structures.names.index(structure)]
    return kept_apart(pairing.reference, name, pairing.labels, index=index)


def lesions_of(
    predicted: Bool[np.ndarray, "*s"],
    truths: Bool[np.ndarray, "n *s"],
    drawn: Int32[np.ndarray, "n *s"] | None,
    *,
    rule: LesionRule,
    pixel: float,
) -> list[Lesions]:
    """Count the lesions of a structure, against each reference; what is left out of that counts in none of them."""
    instances = [None] * len(truths) if drawn is None else [*np.where(truths, drawn, np.int32(0))]
    return [
        count_lesions(predicted, truth, pixel=pixel, rule=rule, drawn=of)
        for truth, of in zip(truths, instances, strict=True)
    ]


def rule_told(pairing: Pairing) -> dict[str, Any] | None:
    """Give a rule as plain values, with the unit of sizes."""
    if pairing.lesions is None or not pairing.names:
        return None
    return asdict(pairing.lesions) | {"unit": unit_of_lesions(grid_of(pairing.names[0], pairing.reference))[1]}


def rule_in_words(rule: Mapping[str, Any]) -> str:
    """Say what a lesion is and when it is found."""
    near = f"with {rule['connectivity']} neighbours"
    one = "An instance as it was drawn, a file each" if rule["instances"] == "drawn" else "A connected component"
    told = f"{one}; predicted ones are connected components, {near}. A pair has an IoU above {rule['iou']:g}."
    if rule["above"]:
        told += f" Only lesions above {rule['above']:g} {rule['unit']} count."
    if rule["dilation"]:
        told += f" For lesion_dice, components that meet when they grow by {rule['dilation']} pixels are one lesion."
    return told
