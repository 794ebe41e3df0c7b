"""AMOS 2022: fifteen organs of the abdomen in CT, and in MR."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.benchmarks.spec import Benchmark, Found, Part, in_parts, register
from medsegdiff.errors import DataError
from medsegdiff.labels import Labels

# 1 … 15; the aorta is "arota" in dataset.json
ORGANS = (  # noqa: SIM905
    "spleen, right kidney, left kidney, gall bladder, esophagus, liver, stomach, aorta, postcava, pancreas, "
    "right adrenal gland, left adrenal gland, duodenum, bladder, prostate/uterus"
).split(", ")
SCANS = "amos_[0-9][0-9][0-9][0-9].nii*"
FIRST_MR = 500
"""Numbers from here on are MR scans, those below CT."""
NAMES: dict[Modality, str] = {"ct": "amos2022", "mr": "amos2022-mr"}


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the scans of one modality.

    Scans of ``imagesVa`` validate where ``labelsVa`` is there; without it they are for testing, as those of
    ``imagesTs`` are, whose labels may be secret.
    """
    found, (modality,) = in_parts(spec, root, config), spec.modalities
    cases = [case for case in found.cases if _modality(case.name) == modality]
    masks = {name: path for name, path in found.masks[""].items() if _modality(name) == modality}
    if not any(case.name in masks for case in cases if case.part == "val"):
        cases = [replace(case, part="test") if case.part == "val" else case for case in cases]
    other: Modality = "ct" if modality == "mr" else "mr"
    count = len(found.cases) - len(cases)
    if count and not cases:
        raise DataError(
            f"{root}: expected {modality.upper()} scans; found {count} {other.upper()} scans alone. "
            f"data.layout={NAMES[other]} takes them."
        )
    left_out = f"{count} {other.upper()} scans are left out; data.layout={NAMES[other]} takes them instead"
    return replace(found, cases=cases, masks={"": masks}, remarks=(left_out,) if count else ())


def _modality(name: str) -> Modality:
    return "mr" if int(name.removeprefix("amos_")) >= FIRST_MR else "ct"


AMOS = register(
    Benchmark(
        name=NAMES["ct"],
        labels=Labels("exclusive", ("background", *ORGANS)),
        parts=tuple(
            Part(part, f"images{end}/{SCANS}", f"labels{end}/{SCANS}")
            for part, end in {"train": "Tr", "val": "Va", "test": "Ts"}.items()
        ),
        around=("amos22",),
        unlabelled=("train", "val", "test"),
        files="imagesTr|Va|Ts/amos_0001.nii.gz, labelsTr|Va/amos_0001.nii.gz, dataset.json, all maybe in amos22/",
        find=_find,
        channels=("CT",),
        modalities=("ct",),
        licence="CC BY 4.0",
        home="https://amos22.grand-challenge.org",
        paper="table 2, AMOS of table 4, figure 3",
    )
)
register(replace(AMOS, name=NAMES["mr"], variant_of=AMOS.name, channels=("MR",), modalities=("mr",), paper=""))
