"""Opening DICOM files, whatever their names. What they mean is said in `dicom`, `dicom_seg` and `rtstruct`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from medsegdiff.errors import ConfigError, DataError

SUFFIXES = (".dcm", ".dicom", ".ima")
"""Endings that promise DICOM. Files without any ending may be DICOM too."""
BROKEN = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, struct.error)
"""What pydicom raises, now or when a value is first asked for, on a file that is damaged."""
Dataset: TypeAlias = Any
"""A ``pydicom.Dataset``; pydicom is optional, so the type is not known here."""


def dicom_library(name: str) -> Any:
    """Import a module of the extra ``dicom``."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"DICOM needs the package '{name.partition('.')[0]}', which can't be imported ({error}). "
            "Install it: pip install 'medsegdiff[dicom]'"
        ) from error


def is_dicom(path: Path) -> bool:
    """Tell by the mark behind the preamble whether a file is DICOM."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_dicom(path: Path, *, pixels: bool = True) -> Dataset:
    """Read one DICOM file."""
    pydicom = dicom_library("pydicom")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    with damage_named(path):
        if is_dicom(path):
            return pydicom.dcmread(path, stop_before_pixels=not pixels)
    raise DataError(f"{path}: is not a DICOM file (no 'DICM' behind the preamble). Export it again.")


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while reading a damaged file into one kind of error that names the file."""
    try:
        yield
    except BROKEN as error:
        raise DataError(f"{path}: the file is damaged ({error}). Copy or export it again.") from error


def open_object(path: Path, modality: str) -> Dataset:
    """Read one DICOM file that must be of one kind."""
    dataset = open_dicom(path)
    found = dataset.get("Modality", "none")
    if found != modality:
        raise DataError(f"{path}: has the modality {found}; needed is {modality}. Give the file that holds the masks.")
    return dataset
