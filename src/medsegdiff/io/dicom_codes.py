"""Codes of structures in DICOM: what a structure is, in a vocabulary that other systems know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from medsegdiff.errors import ConfigError
from medsegdiff.io.dicom_file import dicom_library

CODE = re.compile(r"(?P<scheme>[A-Z0-9_]{1,16}):(?P<value>[A-Za-z0-9.\-]{1,16})(?::(?P<meaning>[^\\]{1,64}))?")
"""How a code is written: ``SCT:10200004``, or ``SCT:10200004:Liver``."""
ABNORMAL = ("cid7159", "cid7194", "cid6030")
"""Groups of types that are lesions: of segmentations, of tumours."""
OURS = "99MEDSEGDIFF"
"""Scheme of codes that no vocabulary has."""
Code: TypeAlias = Any
"""A ``pydicom.sr.coding.Code``."""


@dataclass(frozen=True)
class Coding:
    """What a structure is."""

    category: Code
    type: Code


def coding_of(name: str, codes: Mapping[str, str]) -> Coding:
    """Find what a structure is; what nobody has coded is tissue, and its name alone says more."""
    known = dicom_library("pydicom.sr.codedict").codes.SCT
    if name not in codes:
        return Coding(known.Tissue, known.Tissue)
    kind = read_code(codes[name], name)
    abnormal = any(kind in _group(group) for group in ABNORMAL)
    return Coding(known.MorphologicallyAbnormalStructure if abnormal else known.AnatomicalStructure, kind)


def read_code(text: str, name: str) -> Code:
    """Read a code; its meaning is that of the vocabulary, else the name of the structure."""
    match = CODE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"The code of {name} is '{text}'; allowed is SCHEME:VALUE or SCHEME:VALUE:MEANING, such as SCT:10200004."
        )
    meaning = match["meaning"] or _meanings(match["scheme"]).get(match["value"], name)
    return dicom_library("pydicom.sr.coding").Code(match["value"], match["scheme"], meaning[:64])


def own_code(value: str, meaning: str) -> Code:
    """Make a code of what no vocabulary knows."""
    return dicom_library("pydicom.sr.coding").Code(value, OURS, meaning)


@cache
def _meanings(scheme: str) -> Mapping[str, str]:
    """Give the meanings that pydicom knows of a vocabulary, by value."""
    codes = dicom_library("pydicom.sr.codedict").codes
    if scheme not in codes.schemes():
        return {}
    known = sorted(getattr(codes, scheme).concepts.values(), key=lambda code: -len(code.meaning))
    return {code.value: code.meaning for code in known}  # of several, the shortest: Liver, not Liver structure


@cache
def _group(name: str) -> Any:
    return getattr(dicom_library("pydicom.sr.codedict").codes, name)
