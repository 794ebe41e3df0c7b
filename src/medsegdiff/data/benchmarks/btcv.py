"""BTCV, "Beyond the Cranial Vault": thirteen organs and vessels of the abdomen in CT."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medsegdiff.config.run import DataConfig
from medsegdiff.data.benchmarks.files import named
from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.mask_folder import by_name
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.io.image import image_name

ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
"""Labels 1 … 13."""
IMAGE = re.compile(r"img\d{4}\.nii(\.gz)?")
LABEL = re.compile(r"label\d{4}\.nii(\.gz)?")
HELD_OUT = tuple(f"img{number:04d}" for number in (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38))
"""Of the 30 labelled scans the 12 that TransUNet, and many after it, report on; the challenge splits none off."""
LICENCE = "terms of Synapse, where one registers"
HOME = "https://www.synapse.org/Synapse:syn3193805"
FILES = "[RawData/]Training/img/img0001.nii.gz, Training/label/label0001.nii.gz, Testing/img/img0061.nii.gz"


@dataclass(frozen=True)
class Columns:
    """What is counted as one structure."""

    name: str
    """The entry of `DATASETS`."""
    classes: tuple[str, ...]
    """Without the background."""
    values: tuple[tuple[int, ...], ...]
    """The labels of each."""


ALL = Columns("btcv", ORGANS, tuple((label,) for label in range(1, 14)))
PAPER = Columns("btcv-12", (*ORGANS[:11], "adrenal glands"), (*ALL.values[:11], (12, 13)))
"""Table 3 has one column, AG, for both adrenal glands."""


def looks_like_btcv(root: Path) -> bool:
    """Tell whether a folder holds BTCV scans."""
    return _home(root) is not None


def list_btcv(root: Path, config: DataConfig, *, columns: Columns = ALL) -> Listing:
    """List the scans; those of ``Testing`` have no public labels and can be segmented only."""
    home = _home(root)
    if home is None:
        raise expected(FILES, root)
    labelled = named(home / "Training" / "img", IMAGE)
    secret = named(home / "Testing" / "img", IMAGE)
    found = [CaseFiles(image_name(path), (path,), _part(path)) for path in labelled]
    found += [CaseFiles(image_name(path), (path,), "test") for path in secret]
    cases = assign(indexed(found, home), root / "split.csv")
    labels = by_name(named(home / "Training" / "label", LABEL))
    files = {name.replace("label", "img"): path for name, path in labels.items()}
    coding = MaskCoding("exclusive", ("background", *columns.classes), ((0,), *columns.values))
    return Listing(
        root,
        columns.name,
        cases,
        Masks({"": files}, kind="flat", where=home / "Training" / "label", declared=coding),
        channels=("CT",),
        modalities=("ct",),
        unlisted=tuple(case.name for case in found if case.name not in cases),
        remarks=() if (root / "split.csv").is_file() else _remarks(labelled),
    )


def _home(root: Path) -> Path | None:
    """Find the folder that holds ``Training`` or ``Testing``."""
    for folder in (root, root / "RawData"):
        if any(named(folder / part / "img", IMAGE) for part in ("Training", "Testing")):
            return folder
    return None


def _part(path: Path) -> str:
    return "val" if image_name(path) in HELD_OUT else "train"


def _remarks(labelled: list[Path]) -> tuple[str, ...]:
    """Say where the split comes from, and what it does not do."""
    if not any(_part(path) == "val" for path in labelled):
        return ()
    return (
        "the challenge splits no labelled scans off; those on which TransUNet and many after it report validate here. "
        "The best checkpoint is chosen by them, which flatters it: a split.csv beside the data keeps a part unseen",
    )


DATASETS.register(
    "btcv",
    kind="benchmark",
    task="exclusive",
    classes=ALL.classes,
    licence=LICENCE,
    home=HOME,
    paper="",
    layout=FILES,
)(Layout(looks_like_btcv, list_btcv))
DATASETS.register(
    "btcv-12",
    kind="benchmark",
    variant_of="btcv",
    task="exclusive",
    classes=PAPER.classes,
    licence=LICENCE,
    home=HOME,
    paper="table 3, BTCV of table 4",
    layout=f"{FILES}; asked for with data.layout=btcv-12",
)(Layout(lambda root: False, partial(list_btcv, columns=PAPER)))
