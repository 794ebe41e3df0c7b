"""DICOM series: voxels are those that pydicom tells, slice by slice, or the series is refused by name."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medsegdiff.io.image import read_geometry, read_image
from tests.dicom_makers import OBLIQUE, make_slices
from tests.fuzz.conftest import Fuzz
from tests.fuzz.promise import Ground, at_the_door
from tests.fuzz.strategies import edited
from tests.volumes import save

VALUES: dict[str, tuple[object, ...]] = {
    "Rows": (0, 1, 3, 65535),
    "Columns": (0, 1, 5, 65535),
    "PixelSpacing": ("", "0\\0", "1", "-1\\1", "nan\\nan", "1e30\\1e30", "x\\y"),
    "ImageOrientationPatient": ("", "1\\0\\0\\1\\0\\0", "0\\0\\0\\0\\0\\0", "1\\0\\0", "2\\0\\0\\0\\2\\0"),
    "ImagePositionPatient": ("", "0\\0\\0", "1e9\\0\\0", "0\\0", "nan\\0\\0", "a\\b\\c"),
    "RescaleSlope": ("", "0", "-1", "1e300", "nan", "x"),
    "RescaleIntercept": ("", "1e300", "nan", "y"),
    "BitsAllocated": (0, 1, 8, 12, 32, 64),
    "BitsStored": (0, 8, 12, 17),
    "HighBit": (0, 7, 11, 31),
    "PixelRepresentation": (0, 2, 7),
    "SamplesPerPixel": (0, 3),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", "", "X"),
    "NumberOfFrames": ("0", "2", "-1", "x"),
    "SOPClassUID": ("", "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.1.3.10", "1.2"),
    "SeriesInstanceUID": ("", "1.2.3"),
    "PixelData": (b"", b"ab", bytes(1000)),
    "InstanceNumber": ("", "1", "-5", "x"),
    "SliceThickness": ("", "0", "x"),
    "ImageType": ("LOCALIZER", ""),
    "PixelPaddingValue": (0, 65535),
}
"""What may stand in a slice that is not as it should be."""
PIXELS = np.random.default_rng(0).integers(-500, 500, (3, 4, 5))
Change = tuple[int, str, object]


def changes() -> st.SearchStrategy[list[Change]]:
    """Change a value of a slice, or of all (-1); ``None`` removes it."""
    one = st.sampled_from(sorted(VALUES)).flatmap(
        lambda key: st.tuples(st.integers(-1, 2), st.just(key), st.none() | st.sampled_from(VALUES[key]))
    )
    return st.lists(one, max_size=2)


@st.composite
def series(draw: st.DrawFn) -> tuple[list[bytes], bool]:
    """Draw the slices of a series; whether it has to be read."""
    edits, damaged = draw(changes()), draw(st.integers(0, 2)) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = [
            changed(dataset, [edit for edit in edits if edit[0] in (-1, number)])
            for number, dataset in enumerate(made(oblique=draw(st.booleans())))
        ]
    if damaged:
        slices[1] = draw(edited(slices[1]))
    return slices, not edits and not damaged


def test_series_are_what_pydicom_tells_or_refused(fuzz: Fuzz) -> None:
    def read(given: tuple[list[bytes], bool]) -> None:
        slices, valid = given
        compare(write(fuzz.ground, slices), valid=valid)

    def command(given: tuple[tuple[list[bytes], bool], str]) -> None:
        (slices, _), door = given
        write(fuzz.ground, slices)
        with_a_mask(fuzz.ground, door)

    fuzz.each(series(), read, share=0.07)
    fuzz.each(st.tuples(series(), st.sampled_from(("check", "convert"))), command, share=0.02)


def write(ground: Ground, slices: Sequence[bytes]) -> Path:
    folder = ground.data / "images" / "case"
    folder.mkdir(parents=True)
    for number, content in enumerate(slices):
        (folder / f"IM{number}.dcm").write_bytes(content)
    return folder


def made(*, oblique: bool) -> list[Dataset]:
    """Make three slices, the same each time."""
    slices = make_slices(PIXELS, orientation=OBLIQUE) if oblique else make_slices(PIXELS)
    for number, dataset in enumerate(slices):
        dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.{number}", "1.3", "1.4"
    return slices


def changed(dataset: Dataset, changes: Sequence[Change]) -> bytes:
    """Set values whatever their kind allows, and write the slice; what can't be written stays as it was."""
    content = written(dataset)
    for _, key, value in changes:
        try:
            if value is not None:
                with pydicom.config.disable_value_validation():
                    setattr(dataset, key, value)
            elif key in dataset:
                delattr(dataset, key)
            content = written(dataset)
        except (TypeError, ValueError, OverflowError, AttributeError, OSError, struct.error):
            return content
    return content


def written(dataset: Dataset) -> bytes:
    file = pydicom.filebase.DicomBytesIO()
    with pydicom.config.disable_value_validation():
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def compare(series: Path, *, valid: bool) -> None:
    """Read a series and its place; each slice is one that pydicom reads."""
    with at_the_door("case", valid=valid):
        told, _ = read_geometry(series)
        image, geometry = read_image(series)
        assert image.shape[1:] == geometry.shape == told.shape
        assert geometry.affine is not None
        assert np.isfinite(image).all()
        assert np.isfinite(geometry.affine).all()
        read = [stored(pydicom.dcmread(file)) for file in sorted(series.iterdir())]
        for k in range(image.shape[3]):
            found = image[0, :, :, k].T
            assert any(values.shape == found.shape and np.allclose(values, found, rtol=1e-5) for values in read)


def stored(dataset: Dataset) -> np.ndarray:
    """Read pixels and scale them: DICOM PS3.3, C.7.6.16.2.9."""
    try:
        pixels = np.asarray(dataset.pixel_array, dtype=np.float64)
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        return pixels * float(1 if slope in (None, "") else slope) + float(intercept or 0)
    except Exception:  # noqa: BLE001  (pydicom raises whatever a damaged file leads to)
        return np.empty(0)


def with_a_mask(ground: Ground, door: str) -> None:
    """Meet the series as a data set."""
    mask = np.random.default_rng(0).integers(0, 2, (5, 4, 3), dtype=np.uint8)
    save(ground.data / "masks" / "case.nii.gz", mask)
    if door == "check":
        ground.check("data", "check", ground.data, names=("case", "images"))
    else:
        ground.check("data", "convert", ground.data, "--to", "folder", "--out", ground.out, names=("case", "images"))
