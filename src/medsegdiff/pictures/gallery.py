"""Rows of pictures read back from what ``medsegdiff segment`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medsegdiff.config.data import DataConfig
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.masks import Masks
from medsegdiff.data.opening import list_cases
from medsegdiff.io.names import file_name
from medsegdiff.io.raster import read_image, read_map, read_mask
from medsegdiff.labels import Labels
from medsegdiff.pictures.figures import CaseRow


def saved_rows(
    segmented: Path, data: Path, notes: Mapping[str, str], *, config: DataConfig | None = None
) -> list[CaseRow]:
    """Read cases back as rows of pictures."""
    listing = list_cases(data, config or DataConfig())
    reference = listing.masks
    values = {value for name in reference.names for value in reference.values(name)}
    coding = reference.labels(values, classes=None if config is None else config.classes)
    members = sorted(path for path in (segmented / "members").glob("*") if path.is_dir())
    return [
        CaseRow(
            name=name,
            image=read_image(listing.cases[name].images[0])[0],
            reference=_share(reference, name, coding),
            members=[_masks(folder, name, coding) for folder in members],
            fused=_masks(segmented, name, coding),
            anchor=_masks(segmented / "anchor", name, coding) if (segmented / "anchor").is_dir() else None,
            uncertainty=read_map(segmented / "uncertainty" / f"{name}.png"),
            note=note,
        )
        for name, note in notes.items()
    ]


def _masks(folder: Path, name: str, coding: Labels) -> np.ndarray:
    """Read the foreground masks of a case (k h w), one per structure, in the order of the classes."""
    found = mask_folder(folder / "masks", kind="structures")
    if found.kind == "structures":
        structures = coding.classes[int(coding.task == "exclusive") :]
        found = found.ordered([file_name(structure) for structure in structures])
    return np.stack([read_mask(path) > 0 for path in found.files(name)])


def _share(reference: Masks, name: str, coding: Labels) -> np.ndarray:
    """Read the share of raters that drew each structure (k h w)."""
    share: np.ndarray = reference.read(name, coding).mean(axis=0)
    return share[int(coding.task == "exclusive") :]
