"""DICOM files that are whole images: volumes in frames (Enhanced CT, MR …), and pictures (CR, DX, US, OP, captures)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import DataError
from medsegdiff.io.arrays import check_image, scale_by_type
from medsegdiff.io.dicom import NO_SLICES, SECONDARY_CAPTURE, DicomHeader, read_series, read_series_geometry
from medsegdiff.io.dicom_file import SUFFIXES, Dataset, damage_named, dicom_library, frame_planes, is_dicom, open_dicom
from medsegdiff.io.dicom_grid import sort_planes, step_between
from medsegdiff.io.dicom_pixels import fill_padding, padding_in, unreadable
from medsegdiff.types import Geometry

Kind = Literal["slice", "frames", "picture", "other"]
"""One slice of a series; a volume; a picture; no image."""
COLOURS = 3
PALETTE = ("PALETTE COLOR",)
"""Colours by number."""


@dataclass(frozen=True)
class DicomPicture:
    """What a picture remembers of its file."""

    dataset: Dataset

    @property
    def single(self) -> bool:
        """Whether it is of a class with one frame a file, to which a segmentation can refer; OP is not."""
        return "NumberOfFrames" not in self.dataset

    @property
    def patient(self) -> str:
        """Number or name by which a hospital knows the patient; empty where it was taken out."""
        return str(self.dataset.get("PatientID") or "").strip()


def kind_of(path: Path) -> Kind:
    """Find out from the header what a DICOM file is."""
    header = open_dicom(path, pixels=False)
    with damage_named(path):
        return _kind(header)


def whole_file(path: Path) -> Path | None:
    """Find the file that is a whole image: the one that is given, or the only one of a folder; else there is none.

    Of a series of slices one header is read.
    """
    if not path.is_dir():
        return path if is_dicom_file(path) else None
    images = images_among(file for file in sorted(path.iterdir()) if file.is_file() and is_dicom_file(file))
    first = next(images, None)
    if first is None or not first[1]:
        return None
    if (other := next(images, None)) is not None:
        raise DataError(
            f"{path}: {first[0].name} is a whole image, and so may be {other[0].name}. Give each a folder of its own, "
            "or name the files."
        )
    return first[0]


def images_among(files: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Pick images of the patient among DICOM files, each with whether it is one by itself; a damaged one is not.

    Captures of screens (dose reports, key images) are some, but beside slices or frames.
    """
    captures = []
    volume = False
    for file in files:
        try:
            header = open_dicom(file, pixels=False)
            with damage_named(file):
                kind = _kind(header)
                captured = kind == "picture" and f"{header.get('SOPClassUID', '')}.".startswith(SECONDARY_CAPTURE)
        except DataError:
            kind, captured = "slice", False
        if captured:
            captures.append(file)
        elif kind != "other":
            volume |= kind != "picture"
            yield file, kind != "slice"
    yield from ((file, True) for file in captures if not volume)


def is_dicom_file(path: Path) -> bool:
    """Tell whether a file is DICOM: its ending promises it, or its content says so."""
    if path.name.startswith("."):
        return False
    return path.suffix.lower() in SUFFIXES or is_dicom(path)


def is_whole(path: Path) -> bool:
    """Tell whether a DICOM file is an image by itself; a damaged one is not."""
    try:
        return kind_of(path) in ("frames", "picture")
    except DataError:
        return False


def is_dicom_volume(path: Path) -> bool:
    """Tell whether a folder or a DICOM file has three axes of space."""
    found = whole_file(path)
    return kind_of(found) != "picture" if found is not None else path.is_dir()


def read_dicom(path: Path) -> tuple[Float[np.ndarray, "c *s"], Geometry]:
    """Read a series, or a file that is a whole image."""
    if (file := _file_of(path)) is None:
        return read_series(path)
    return _read_picture(file) if kind_of(file) == "picture" else _read_frames(file)


def read_dicom_geometry(path: Path) -> tuple[Geometry, int]:
    """Read where it lies, and how many channels it has, from headers alone."""
    if (file := _file_of(path)) is None:
        return read_series_geometry(path), 1
    if kind_of(file) != "picture":
        return _frames_geometry(file), 1
    header = open_dicom(file, pixels=False)
    with damage_named(file):
        return _picture_geometry(header), _channels(header)


def read_patient(path: Path) -> str:
    """Read the number or name of the patient from one header; empty where it was taken out."""
    files = sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]
    first = next((file for file, _ in images_among(filter(is_dicom_file, files))), None)
    return "" if first is None else DicomPicture(open_dicom(first, pixels=False)).patient


def _file_of(path: Path) -> Path | None:
    if (file := whole_file(path)) is not None and not path.is_dir():
        kind = kind_of(file)
        if kind == "slice":
            raise DataError(f"{path}: is a slice of a series. Give the folder that holds the slices.")
        if kind == "other":
            raise DataError(f"{path}: is a DICOM file without an image of the patient. Give the file of the image.")
    return file


def _kind(header: Dataset) -> Kind:
    if "Rows" not in header or f"{header.get('SOPClassUID', '')}.".startswith(NO_SLICES):
        return "other"
    if "PerFrameFunctionalGroupsSequence" in header:
        return "frames"
    placed = all(header.get(word) for word in ("ImageOrientationPatient", "ImagePositionPatient"))
    return "slice" if placed and int(header.get("NumberOfFrames") or 1) == 1 else "picture"


def _frames_geometry(path: Path) -> Geometry:
    """Sort the frames of a file as the slices of a series are sorted."""
    header = open_dicom(path, pixels=False)
    if _channels(header) > 1:
        raise DataError(f"{path}: is a volume in colour. Convert it to grey.")
    try:
        with damage_named(path):
            planes = {f"frame {number}": plane for number, plane in frame_planes(header).items()}
            thickness = _thickness(header)
        names = sort_planes(planes)
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    ordered = [planes[name] for name in names]
    step = step_between(ordered, thickness)
    return Geometry(
        shape=(*ordered[0].size, len(names)),
        spacing=(*ordered[0].spacing, round(float(np.linalg.norm(step)), 6)),
        affine=ordered[0].affine(step),
        header=DicomHeader((header,), frames=tuple(int(name.split()[1]) for name in names)),
    )


def _thickness(header: Dataset) -> float:
    groups = (header.PerFrameFunctionalGroupsSequence[0], header.SharedFunctionalGroupsSequence[0])
    measures = next(group.PixelMeasuresSequence[0] for group in groups if "PixelMeasuresSequence" in group)
    return abs(float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1))


def _read_frames(path: Path) -> tuple[Float[np.ndarray, "1 i j k"], Geometry]:
    """Read a volume in the units of the modality; padding is as low as the lowest of the rest, as of a series."""
    geometry = _frames_geometry(path)
    assert isinstance(geometry.header, DicomHeader)
    (header,), frames = geometry.header.slices, list(geometry.header.frames)
    values = _transformed(path, frames, apply_voi_transform=False, apply_presentation_lut=False)
    if bad := int((~np.isfinite(values)).sum()):
        raise DataError(f"{path}: {bad} of {values.size} values are NaN or infinite. Export it again.")
    if "PixelPaddingValue" in header and header.get("Modality") != "CT":
        with unreadable(path):
            stored = dicom_library("highdicom").imread(path).get_stored_frames(frames)
        values[padding_in(stored, header)] = np.nan
        fill_padding(values, path)
    return values.transpose(2, 1, 0)[None], geometry


def _read_picture(path: Path) -> tuple[Float[np.ndarray, "c h w"], Geometry]:
    """Read a picture as a viewer shows it: windowed as the file says, inverted and coloured, 0 … 1."""
    header = open_dicom(path, pixels=False)
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise DataError(f"{path}: is a clip of {frames} frames without places. Save those you need as pictures.")
    if _channels(header) > 1:
        image = _coloured(path, header)
    elif "WindowCenter" in header or "VOILUTSequence" in header:
        image = _transformed(path, [1], apply_voi_transform=True)
    else:
        image = _by_bits(_transformed(path, [1], apply_modality_transform=False, apply_presentation_lut=False), header)
    check_image(image, str(path))
    return image, _picture_geometry(header)


def _by_bits(stored: Float[np.ndarray, "1 h w"], header: Dataset) -> Float[np.ndarray, "1 h w"]:
    """Scale stored values by the range of their bits; what is shown bright is high."""
    whole = 2 ** int(header.BitsStored)
    low = -whole // 2 if int(header.PixelRepresentation) else 0
    share = (stored - low) / np.float32(whole - 1)
    return (1 - share if header.PhotometricInterpretation == "MONOCHROME1" else share).astype(np.float32)


def _coloured(path: Path, header: Dataset) -> Float[np.ndarray, "3 h w"]:
    """Decode a picture in colour, whichever way it codes them."""
    pixels = dicom_library("pydicom.pixels")
    with unreadable(path):
        stored: np.ndarray = pixels.pixel_array(path)
        shown = pixels.apply_color_lut(stored, header) if header.PhotometricInterpretation in PALETTE else stored
        return scale_by_type(shown).transpose(2, 0, 1)


def _transformed(path: Path, frames: list[int], **transforms: Any) -> Float[np.ndarray, "n h w"]:
    """Decode frames, with what highdicom makes of their values."""
    with unreadable(path):
        image = dicom_library("highdicom").imread(path)
        found: np.ndarray = image.get_frames(frames, dtype=np.float32, apply_real_world_transform=False, **transforms)
    return found


def _channels(header: Dataset) -> int:
    colour = int(header.get("SamplesPerPixel") or 1) > 1 or header.get("PhotometricInterpretation") in PALETTE
    return COLOURS if colour else 1


def _picture_geometry(header: Dataset) -> Geometry:
    return Geometry((int(header.Rows), int(header.Columns)), (1.0, 1.0), header=DicomPicture(header))
