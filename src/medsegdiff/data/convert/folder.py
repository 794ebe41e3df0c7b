"""Writing data as a folder of images and masks, whole or as the slices of volumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.config.data import Plane
from medsegdiff.data.convert.files import (
    PICTURE,
    VOLUME,
    CaseOutput,
    Survey,
    Target,
    check_names,
    copy,
    safe,
    write_picture,
)
from medsegdiff.data.convert.nnunet import write_volume
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.intensity import DEFAULT_WINDOW
from medsegdiff.data.mask_folder import RATER_WORDS
from medsegdiff.data.masks import MaskReader, whole
from medsegdiff.data.modality import check_modalities
from medsegdiff.data.slicing import Slicing
from medsegdiff.errors import DataError
from medsegdiff.io import nifti, raster
from medsegdiff.io.image import read_channels, write_labels, write_mask
from medsegdiff.io.names import ending_of
from medsegdiff.types import Geometry


@dataclass(frozen=True)
class Layer:
    """A mask of a case, as a plain folder holds it."""

    folder: str
    """``masks``, or below it."""
    values: UInt8[np.ndarray, " *s"]
    indices: bool
    """Whether the values are class indices; 0 and 1 of one structure otherwise."""

    def write(self, output: CaseOutput, name: str, geometry: Geometry) -> None:
        """Write it."""
        path = output.path(self.folder, name + (PICTURE if geometry.affine is None else VOLUME))
        (write_labels if self.indices else write_mask)(path.parent, name, self.values, geometry)


def to_folder(found: Survey, out: Path) -> Target:
    """Write a file per image, and masks as they are, or of what ``dataset.json`` told a file per region."""
    check_kept(found)
    masks = found.listing.masks
    copied = masks.declared is None and type(masks.reader) is MaskReader

    def write(case: CaseFiles, output: CaseOutput) -> list[str]:
        name = safe(case.name)
        _write_image(case, output, name, volumes=found.volumes)
        if copied:
            for rater, mask in masks.by_folder(case.name).items():
                path = whole(mask)
                copy(path, output.path(_below_masks(found, rater), f"{name}{ending_of(path)}"))
            return [name]
        geometry = found.scan.grids[case.name]
        for layer in layers_of(found, case):
            layer.write(output, name, geometry)
        return [name]

    return Target(write, notes=notes_on_classes(found))


def check_kept(found: Survey) -> None:
    """Refuse what a plain folder has no way to say."""
    root, coding = found.listing.root, found.labels
    if found.ignores:
        raise DataError(
            f"{root}: has pixels that nobody labelled; a plain folder has no word for them. Write 'nnunet'."
        )
    if coding is not None and coding.task == "regions" and found.listing.masks.kind == "raters":
        raise DataError(f"{root}: several raters drew regions; a plain folder holds one or the other. Write 'nnunet'.")
    if found.listing.masks.kind == "raters":
        check_names(map(_rater_folder, found.listing.masks.folders), of="raters")
    elif coding is not None and coding.task == "regions":
        check_names(coding.classes, of="classes")


def notes_on_classes(found: Survey) -> list[str]:
    """Say which names the user has to give again."""
    coding = found.labels
    told = found.listing.masks.declared is not None or found.config.classes is not None
    if coding is None or coding.task == "regions" or coding.classes == ("foreground",) or not told:
        return []
    names = ", ".join(coding.classes)
    return [f"A plain folder does not keep the names of classes: give --set 'data.classes=[{names}]' when training."]


def layers_of(found: Survey, case: CaseFiles) -> Iterator[Layer]:
    """Read the masks of a case as files of a plain folder: one, or one per rater or region."""
    masks = found.masks_of(case)
    if masks is None or found.labels is None:
        return
    if found.labels.task == "regions":
        for name, channel in zip(found.labels.classes, masks[0][0], strict=True):
            yield Layer(_below_masks(found, name), channel, indices=False)
        return
    exclusive = found.labels.exclusive
    for rater, mask in zip(found.listing.masks.by_folder(case.name), masks[0], strict=True):
        values = mask.argmax(axis=0).astype(np.uint8) if exclusive else mask[0]
        yield Layer(_below_masks(found, rater), values, indices=exclusive)


def _below_masks(found: Survey, name: str) -> str:
    """Name a sub-folder so that it is understood: raters by a word for one."""
    if found.listing.masks.kind == "raters":
        return f"masks/{safe(_rater_folder(name))}"
    regions = found.labels is not None and found.labels.task == "regions"
    return f"masks/{safe(name)}" if regions else "masks"


def _rater_folder(name: str) -> str:
    return name if name.lower().startswith(RATER_WORDS) else f"rater_{name}"


def _write_image(case: CaseFiles, output: CaseOutput, name: str, *, volumes: bool) -> None:
    image, _ = read_channels(case.images)
    if len(case.images) == 1 and case.images[0].is_file():
        copy(case.images[0], output.path("images", f"{name}{ending_of(case.images[0])}"))
    elif volumes:
        write_volume(case, output, "images")
    else:
        write_picture(output.path("images", f"{name}{PICTURE}"), image)


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
    check_modalities(found.modalities, found.config, channels=found.channels, volumes=True)
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
    kinds = found.modalities or ("mr",) * len(volume)
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
    kinds = found.modalities
    if found.channels not in (1, 3):
        return [*notes, f"Volumes of {found.channels} channels became NIfTI slices, values unchanged."]
    bits = 16 if found.channels == 1 else 8
    low, high = found.config.window or DEFAULT_WINDOW
    if "ct" in kinds:
        notes.append(f"CT is shown from {low:g} to {high:g} HU (data.window), in {bits} bits.")
    if not kinds or set(kinds) != {"ct"}:
        notes.append(f"Values are shown from the 0.5 to the 99.5 percentile of each volume, in {bits} bits.")
    return [*notes, *notes_on_classes(found)]
