"""BTCV, "Beyond the Cranial Vault": thirteen organs and vessels of the abdomen in CT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.spec import Benchmark, Found, Part, in_parts, register
from medsegdiff.io.names import image_name
from medsegdiff.labels import Labels

# 1 … 13
ORGANS = (  # noqa: SIM905
    "spleen, right kidney, left kidney, gallbladder, esophagus, liver, stomach, aorta, inferior vena cava, "
    "portal and splenic veins, pancreas, right adrenal gland, left adrenal gland"
).split(", ")
NUMBER = "[0-9][0-9][0-9][0-9]"
VALUES = tuple((label,) for label in range(14))
HELD_OUT = tuple(f"img{number:04d}" for number in (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38))
"""Of the 30 labelled scans the 12 that TransUNet, and many after it, report on; the challenge splits none off."""
SPLIT = (
    "the challenge splits no labelled scans off; those on which TransUNet and many after it report validate here. "
    "The best checkpoint is chosen by them, which flatters it: a split.csv beside the data keeps a part unseen"
)


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the scans; say where their split comes from, and what it does not do."""
    found = in_parts(spec, root, config)
    cases = [replace(case, part="val") if case.name in HELD_OUT else case for case in found.cases]
    told = any(case.part == "val" for case in cases) and not (root / "split.csv").is_file()
    return replace(found, cases=cases, remarks=(SPLIT,) if told else ())


BTCV = register(
    Benchmark(
        name="btcv",
        labels=Labels("exclusive", ("background", *ORGANS), VALUES),
        parts=(
            Part("train", f"Training/img/img{NUMBER}.nii*", f"Training/label/label{NUMBER}.nii*"),
            Part("test", f"Testing/img/img{NUMBER}.nii*"),
        ),
        around=("RawData",),
        name_of=lambda path: image_name(path).replace("label", "img"),
        unlabelled=("train", "test"),
        files="[RawData/]Training/img/img0001.nii.gz, Training/label/label0001.nii.gz, Testing/img/img0061.nii.gz",
        find=_find,
        channels=("CT",),
        modalities=("ct",),
        licence="terms of Synapse, where one registers",
        home="https://www.synapse.org/Synapse:syn3193805",
    )
)
register(  # table 3 has one column, AG, for both adrenal glands
    replace(
        BTCV,
        name="btcv-12",
        variant_of="btcv",
        labels=Labels("exclusive", ("background", *ORGANS[:11], "adrenal glands"), (*VALUES[:12], (12, 13))),
        paper="table 3, BTCV of table 4",
    )
)
