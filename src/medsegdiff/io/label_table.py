"""Names and colours of labels, for the viewers in which people look at label maps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from medsegdiff.io.atomic import write_text

ITK_SNAP, SLICER = "itk-snap.txt", "slicer.ctbl"
Colour = tuple[int, int, int]


def write_label_tables(folder: Path, labels: Mapping[str, tuple[int, Colour]]) -> None:
    """Write a label description for ITK-SNAP (``itk-snap.txt``) and a colour table for 3D Slicer (``slicer.ctbl``)."""
    named = sorted((value, name, colour) for name, (value, colour) in labels.items())
    rows = [(0, "background", (0, 0, 0)), *named]
    write_text(folder / ITK_SNAP, "\n".join(["# IDX  R  G  B  A  VIS  MSH  LABEL", *map(_itk_snap, rows), ""]))
    write_text(folder / SLICER, "\n".join([f"# Color table file, {len(rows)} values", *map(_slicer, rows), ""]))


def _itk_snap(row: tuple[int, str, Colour]) -> str:
    value, name, colour = row
    seen = int(value > 0)
    quoted = name.replace('"', "'")
    return f'{value:5d} {" ".join(f"{part:4d}" for part in colour)} {seen:4d} {seen:3d} {seen:3d}    "{quoted}"'


def _slicer(row: tuple[int, str, Colour]) -> str:
    value, name, colour = row
    return f"{value} {re.sub(r'[^0-9A-Za-z_.-]+', '_', name)} {' '.join(map(str, colour))} {255 if value else 0}"
