"""A result as files: pictures as PNG, volumes as NIfTI, series of DICOM as DICOM-SEG too; label tables for viewers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.errors import ConfigError, nearest
from medsegdiff.inference.dicom_writer import write_dicom
from medsegdiff.inference.folder import ON_REQUEST, PARTS
from medsegdiff.inference.parts import Part
from medsegdiff.inference.review import Quality
from medsegdiff.inference.sizes import Size
from medsegdiff.io.atomic import release, write_text
from medsegdiff.io.dicom_report import Finding
from medsegdiff.io.geojson import write_geojson
from medsegdiff.io.image import write_labels, write_map, write_mask
from medsegdiff.io.names import class_folders
from medsegdiff.io.raster import write_picture
from medsegdiff.labels import Labels
from medsegdiff.metrics.measures import Measures
from medsegdiff.pictures.overlay import colour_of, overlay, sheet
from medsegdiff.types import Case

USUAL = tuple(part for part in PARTS if part not in ON_REQUEST)
"""What is written unless it is said otherwise."""


def check_parts(parts: Iterable[str]) -> None:
    """Refuse what is no part of a result."""
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"A result has no part '{part}'; allowed are {', '.join(PARTS)}.{nearest(part, PARTS)}")


def write_result(
    out: Path,
    found: Part,
    case: Case,
    labels: Labels,
    *,
    parts: Collection[str] = USUAL,
    tables: Path | None = None,
    findings: Mapping[str, Finding] | None = None,
    codes: Mapping[str, str] | None = None,
) -> None:
    """Write what was found in an image, part by part; what all images share goes into the folder ``tables``, if any.

    ``findings``: what DICOM tells of each structure; ``codes``: what it calls them.
    """
    check_parts(parts)
    if (out / "images").exists():
        raise ConfigError(f"{out} holds images, so its masks may be your references. Save into another folder.")
    shared = out if tables is None else tables
    _write_labels(out, found.mask, case, labels, tables=shared, parts=parts)
    if "anchor" in parts and found.anchor is not None:
        _write_labels(out / "anchor", found.anchor, case, labels, tables=shared / "anchor")
    if "members" in parts:
        for number, mask in enumerate(found.members):
            of = Path("members") / f"{number:02d}"
            _write_labels(out / of, mask, case, labels, tables=shared / of)
    if "probability" in parts:
        _write_maps(out / "probability", found.probability, case, labels)
    if "anchor" in parts and found.anchor_probability is not None:
        _write_maps(out / "anchor" / "probability", found.anchor_probability, case, labels)
    if "uncertainty" in parts:
        write_map(out / "uncertainty", case.name, found.uncertainty.entropy, case.geometry)
    write_dicom(out, found, case, labels, parts=parts, findings=findings or {}, codes=codes or {})
    if "geojson" in parts and case.geometry.affine is None:
        _write_outlines(out / "geojson", found, case, labels)
    if "overlay" in parts:
        write_picture(out / "overlay" / f"{case.name}.png", _overlay(found, case, labels))


def findings_of(
    measures: Mapping[str, Measures], sizes: Mapping[str, Size], quality: Mapping[str, Quality]
) -> dict[str, Finding]:
    """Put together what DICOM tells of each structure of a volume."""
    found = {}
    for name, of in measures.items():
        size, said = sizes.get(name), quality.get(name)
        found[name] = Finding(
            volume=of.size,
            low=size.low if size else None,
            high=size.high if size else None,
            predicted_dice=said.predicted_dice if said else None,
            dice_at_least=said.dice_at_least if said else None,
            review=said.review if said else None,
            reasons=said.reasons if said else (),
        )
    return found


def rates_of(name: str, found: Part, labels: Labels) -> list[dict[str, str]]:
    """List what STAPLE says of the members, by structure and member; nothing of another fusion."""
    if found.sensitivity is None or found.specificity is None:
        return []
    return [
        {
            "name": name,
            "structure": structure,
            "member": f"{member:02d}",  # as its folder is called
            "sensitivity": f"{found.sensitivity[member, channel]:.6f}",
            "specificity": f"{found.specificity[member, channel]:.6f}",
        }
        for channel, structure in enumerate(labels.structures, start=labels.foreground.start)
        for member in range(len(found.sensitivity))
    ]


def measures_rows(name: str, measures: Mapping[str, Measures], sizes: Mapping[str, Size]) -> list[dict[str, str]]:
    """List what is measured of an image, by structure; what is not known, or has no meaning, is empty."""
    return [
        {"name": name, "structure": structure, **_cells(of, sizes.get(structure))} for structure, of in measures.items()
    ]


def _cells(of: Measures, members: Size | None) -> dict[str, str]:
    """Write measures of the mask beside the sizes of members; axes are numbered as arrays have them."""
    low, high, mean = (None, None, None) if members is None else (members.low, members.high, members.mean)
    cells: dict[str, int | float | str | None] = {
        "voxels": of.voxels,
        "size": of.size,
        "size_low": low,
        "size_high": high,
        "size_mean": mean,
        "size_unit": of.unit,
        "components": of.components,
        "diameter": of.diameter,
        "diameter_unit": of.length_unit,
        "incomplete": "yes" if of.incomplete else "no",
    }
    for columns, values in (
        ("centroid_0 centroid_1 centroid_2", of.centroid),
        ("centroid_right_mm centroid_front_mm centroid_up_mm", of.position),
        ("first_0 first_1 first_2", of.first),
        ("last_0 last_1 last_2", of.last),
    ):
        cells |= dict(itertools.zip_longest(columns.split(), values or ()))
    return {column: _cell(value) for column, value in cells.items()}


def _cell(value: int | float | str | None) -> str:
    return "" if value is None else format(value, ".10g") if isinstance(value, float) else str(value)


def _write_labels(
    out: Path,
    label_map: UInt8[np.ndarray, "..."],
    case: Case,
    labels: Labels,
    *,
    tables: Path,
    parts: Collection[str] = PARTS,
) -> None:
    structures = labels.structures
    folders = class_folders(structures) if len(structures) > 1 else ("",)
    for index, folder in enumerate(folders if "masks" in parts else ()):
        write_mask(out / "masks" / folder, case.name, labels.mask(label_map, index), case.geometry)
    written = labels.write(label_map) if "labels" in parts else None
    if written is None:
        return
    write_labels(out / "labels", case.name, written, case.geometry)
    release(label_map)
    values = zip(labels.label_values, map(colour_of, range(len(structures))), strict=True)
    write_label_tables(tables / "labels", dict(zip(structures, values, strict=True)))


def _write_maps(folder: Path, values: np.ndarray, case: Case, labels: Labels) -> None:
    folders = class_folders(labels.classes) if len(labels.classes) > 1 else ("",)
    for inner, of_class in zip(folders, values, strict=True):
        write_map(folder / inner, case.name, of_class, case.geometry)
        release(values)


def _write_outlines(folder: Path, found: Part, case: Case, labels: Labels) -> None:
    names = labels.structures
    masks = (labels.mask(found.mask, index) for index in range(len(names)))
    colours = [colour_of(index) for index in range(len(names))]
    write_geojson(folder / f"{case.name}.geojson", masks, labels=names, colours=colours)


def _overlay(found: Part, case: Case, labels: Labels) -> UInt8[np.ndarray, "h w 3"]:
    if case.geometry.affine is None:
        masks = (labels.mask(found.mask, index) for index in range(len(labels.structures)))
        return overlay(case.image, masks, found.uncertainty.entropy)
    return sheet(case.image, found.mask, found.uncertainty.entropy, case.geometry, split=labels.masks)


ITK_SNAP, SLICER = "itk-snap.txt", "slicer.ctbl"
Colour = tuple[int, int, int]


def write_label_tables(folder: Path, labels: Mapping[str, tuple[int, Colour]]) -> None:
    """Write a label description for ITK-SNAP (``itk-snap.txt``) and a colour table for 3D Slicer (``slicer.ctbl``).

    Those that are there already stay: all images of a folder have the same.
    """
    named = sorted((value, name, colour) for name, (value, colour) in labels.items())
    rows = [(0, "background", (0, 0, 0)), *named]
    tables = {
        ITK_SNAP: ["# IDX  R  G  B  A  VIS  MSH  LABEL", *map(_itk_snap, rows), ""],
        SLICER: [f"# Color table file, {len(rows)} values", *map(_slicer, rows), ""],
    }
    for name, lines in tables.items():
        file, text = folder / name, "\n".join(lines)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)


def _itk_snap(row: tuple[int, str, Colour]) -> str:
    value, name, colour = row
    seen = int(value > 0)
    quoted = name.replace('"', "'")
    return f'{value:5d} {" ".join(f"{part:4d}" for part in colour)} {seen:4d} {seen:3d} {seen:3d}    "{quoted}"'


def _slicer(row: tuple[int, str, Colour]) -> str:
    value, name, colour = row
    return f"{value} {re.sub(r'[^0-9A-Za-z_.-]+', '_', name)} {' '.join(map(str, colour))} {255 if value else 0}"
