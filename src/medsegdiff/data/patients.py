"""Which cases are of one patient, as DICOM files say where the data set does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import MedSegDiffError
from medsegdiff.io.image import read_patient


@dataclass(frozen=True)
class Patients:
    """Cases that DICOM files group by patient."""

    groups: Mapping[str, str] = field(default_factory=dict)
    """Case → the first case of its patient, so that nobody's ID is written."""
    understood: tuple[str, ...] = ()
    """What was taken for patients, in words."""


def find_patients(cases: Mapping[str, CaseFiles], ids: Mapping[str, str]) -> Patients:
    """Group cases by the patient that their files name, where the data set tells no group.

    An ID that more than half of the cases have is that of no patient: it was put in place of theirs.
    """
    known = {name: ids[name] for name in sorted(ids) if not cases[name].group}
    found: dict[str, list[str]] = defaultdict(list)
    for name in (name for name, patient in known.items() if patient):
        found[known[name]].append(name)
    several = [names for names in found.values() if len(names) > 1]
    common = max(several, key=len, default=[])
    told = []
    if 2 * len(common) > len(known):
        several.remove(common)
        if len(common) < len(known):
            told.append(
                f"{len(common)} of {len(known)} images have one PatientID, which is taken for nobody's: each is by "
                "itself; if it is a patient's, say so in split.csv, in a column patient"
            )
    groups = {name: names[0] for names in several for name in names}
    if groups:
        told.append(
            f"{len(groups)} images are of {len(several)} patients by the PatientID of their DICOM files, each in one "
            "part; a column patient in split.csv goes before"
        )
    return Patients(groups, tuple(told))


def read_patients(cases: Mapping[str, CaseFiles]) -> Patients:
    """Read what DICOM files say; those that can't be read say nothing."""
    ids = {}
    for name, first in ((name, case.images[0]) for name, case in cases.items() if case.images):
        with suppress(MedSegDiffError, OSError):
            ids[name] = read_patient(first)
    return find_patients(cases, ids)
