"""Writing the slices of volumes as pictures, in a plain folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medsegdiff.config.data import Plane
from medsegdiff.data.convert.files import PICTURE, VOLUME, CaseOutput, Survey, Target, safe
from medsegdiff.data.convert.folder import Layer, check_kept, layers_of, notes_on_classes
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.transforms import DEFAULT_WINDOW
from medsegdiff.errors import DataError
from medsegdiff.io import nifti, raster
from medsegdiff.io.image import read_channels
from medsegdiff.types import Geometry

PERCENTILES = (0.5, 99.5)
"""Of the values of a volume: they become black and white."""


@dataclass
class Left:
    """Slices that were not written."""

    constant: int = 0


def to_slices(found: Survey, out: Path) -> Target:
    """Write each slice as it is seen while training: PNG of one or three channels, NIfTI of any other number.

    Grey PNG has 16 bits, colour 8. From black to white they span the window of CT where the data are known to be in
    Hounsfield units, else the volume from its 0.5 to its 99.5 percentile, by channel. A PNG slice of one value is left
    out, for there is nothing to see. NIfTI keeps the values. Where a slice lies in the world is not kept.
    """
    if not found.volumes:
        raise DataError(f"{found.listing.root}: holds pictures already; slices are cut from volumes.")
    check_kept(found)
    plane = found.scan.plane or "axial"
    target = Target(lambda case, output: [], group=lambda case: case.name, notes=_notes(found, plane))
    left = Left()

    def write(case: CaseFiles, output: CaseOutput) -> list[str]:
        return _write_case(case, found, plane, output, left)

    def finish(done: object) -> None:
        if left.constant:
            target.notes.append(f"{left.constant} slices of a single value were left out: there is nothing to see.")

    target.write, target.finish = write, finish
    return target


def _write_case(case: CaseFiles, found: Survey, plane: Plane, output: CaseOutput, left: Left) -> list[str]:
    image, geometry = read_channels(case.images)
    slicing = Slicing(geometry, plane)
    shown = scaled(image, found) if len(image) in (1, 3) else None
    layers = list(layers_of(found, case))
    names = []
    for index in range(len(slicing)):
        cut = [replace(layer, values=slicing.cut(layer.values, index)) for layer in layers]
        if found.only_foreground and layers and not any(layer.values.any() for layer in cut):
            continue
        name = f"{safe(case.name)}_{index:04d}"
        if shown is None:
            _write_nifti(slicing.cut(image, index), cut, output, name, slicing)
        elif not _write_png(slicing.cut(shown, index), cut, output, name):
            left.constant += 1
            continue
        names.append(name)
    return names


def scaled(volume: Float[np.ndarray, "c x y z"], found: Survey) -> Float[np.ndarray, "c x y z"]:
    """Scale a volume to 0 … 1, by channel."""
    kinds = found.config.modalities or found.listing.modalities or ("mr",) * len(volume)
    result = np.empty_like(volume)
    for number, (channel, kind) in enumerate(zip(volume, kinds, strict=True)):
        ends = (found.config.window or DEFAULT_WINDOW) if kind == "ct" else np.percentile(channel, PERCENTILES)
        low, high = float(ends[0]), float(ends[1])
        if high <= low:
            low, high = float(channel.min()), float(channel.max())
        if high <= low:
            raise DataError(f"channel {number}: every voxel has the value {low:g}; there is nothing to see.")
        result[number] = np.clip((channel - low) / (high - low), 0, 1)
    return result


def _write_png(picture: Float[np.ndarray, "c h w"], layers: list[Layer], output: CaseOutput, name: str) -> bool:
    """Write a slice and its masks, unless it has one value only."""
    levels = np.round(picture * (65535 if len(picture) == 1 else 255))
    if levels.max() == levels.min():
        return False
    path = output.path("images", name + PICTURE)
    if len(picture) == 1:
        raster.write_map(path, picture[0])
    else:
        raster.write_picture(path, np.ascontiguousarray(levels.transpose(1, 2, 0)).astype(np.uint8))
    flat = Geometry(shape=picture.shape[1:], spacing=(1.0, 1.0))
    for layer in layers:
        replace(layer, values=np.ascontiguousarray(layer.values)).write(output, name, flat)
    return True


def _write_nifti(
    picture: Float[np.ndarray, "c h w"], layers: list[Layer], output: CaseOutput, name: str, slicing: Slicing
) -> None:
    """Write a slice as a volume of one: rows run down and columns to the right of an axial slice."""
    h, w = slicing.spacing
    thick = max(slicing.native.spacing)  # so that it is axially that it is cut again
    affine = np.array([[0, w, 0, 0], [-h, 0, 0, 0], [0, 0, thick, 0], [0, 0, 0, 1]], dtype=float)
    single = Geometry(shape=(*picture.shape[1:], 1), spacing=(h, w, thick), affine=affine)
    nifti.write_map(output.path("images", name + VOLUME), picture[..., None], single)
    for layer in layers:
        replace(layer, values=layer.values[..., None]).write(output, name, single)


def _notes(found: Survey, plane: Plane) -> list[str]:
    notes = [f"Slices are {plane}."]
    kinds = found.config.modalities or found.listing.modalities
    if found.channels not in (1, 3):
        return [*notes, f"Volumes of {found.channels} channels became NIfTI slices, values unchanged."]
    bits = 16 if found.channels == 1 else 8
    low, high = found.config.window or DEFAULT_WINDOW
    if "ct" in kinds:
        notes.append(f"CT is shown from {low:g} to {high:g} HU (data.window), in {bits} bits.")
    if not kinds or set(kinds) != {"ct"}:
        notes.append(f"Values are shown from the 0.5 to the 99.5 percentile of each volume, in {bits} bits.")
    return [*notes, *notes_on_classes(found)]
