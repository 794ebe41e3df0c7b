"""TN3K: thyroid nodules in ultrasound, with masks that are JPEG files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.run import DataConfig
from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.mask_folder import by_name
from medsegdiff.data.masks import MaskReader, Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import images_in, read_mask

CODING = MaskCoding("binary", ("nodule",))
HALF = 127
"""JPEG leaves a grey rim around what was drawn with 0 and 255; above this it counts as drawn."""
FOLD = "tn3k-trainval-fold0.json"
"""The first of the release's five folds: numbers of images in ``trainval-image`` that train and that validate."""
PARTS = {"trainval": "train", "test": "test"}
FILES = f"{{trainval,test}}-image/0000.jpg, {{trainval,test}}-mask/0000.jpg, {FOLD}"


class HalfReader(MaskReader):
    """Reads masks that were compressed: bright is foreground."""

    def values(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """Read a mask."""
        return (read_mask(path) > HALF).astype(np.uint8)


def looks_like_tn3k(root: Path) -> bool:
    """Tell whether a folder holds TN3K."""
    return (root / "trainval-image").is_dir() or all((root / f"test-{kind}").is_dir() for kind in ("image", "mask"))


def list_tn3k(root: Path, config: DataConfig) -> Listing:
    """List the images; the first fold of the release says which of them validate, if its file is there."""
    found: list[CaseFiles] = []
    masks: dict[str, Path] = {}
    for folder, part in PARTS.items():
        images = _pictures(root / f"{folder}-image")
        drawn = _pictures(root / f"{folder}-mask")
        if images and not drawn and part == "train":
            raise expected(f"the masks of {folder}-image in {folder}-mask/0000.jpg", root)
        found += [CaseFiles(f"{folder}-{name}", (path,), part) for name, path in images.items()]
        masks |= {f"{folder}-{name}": path for name, path in drawn.items()}
    if not found:
        raise expected(FILES, root)
    listed = _assign(indexed(found, root), root)
    return Listing(
        root,
        "tn3k",
        listed,
        Masks({"": masks}, kind="flat", where=root, declared=CODING, reader=HalfReader()),
        unlisted=tuple(case.name for case in found if case.name not in listed),
        remarks=("the masks are JPEG files: what is brighter than half counts as nodule",),
    )


def _pictures(folder: Path) -> dict[str, Path]:
    return by_name(images_in(folder)) if folder.is_dir() else {}


def _assign(cases: Mapping[str, CaseFiles], root: Path) -> dict[str, CaseFiles]:
    """Put cases into parts: as ``split.csv`` says if the user wrote one, else as the fold of the release says."""
    if (root / "split.csv").is_file() or not (root / FOLD).is_file():
        return assign(cases, root / "split.csv")
    parts = {name: case.part for name, case in cases.items() if case.part == "test"} | _read_fold(root / FOLD, cases)
    return {name: replace(case, part=parts[name]) for name, case in cases.items() if name in parts}


def _read_fold(file: Path, cases: Mapping[str, CaseFiles]) -> dict[str, str]:
    """Read which images train and which validate.

    The authors' loader takes the numbers for places in the list of images, which in the whole release, numbered from
    0, are the names of the files. Here they are names, so an image that is missing moves no other.
    """
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        parts = {_named(item): part for part in ("train", "val") for item in read[part]}
        count = sum(len(read[part]) for part in ("train", "val"))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{file}: expected {{"train": [numbers of images], "val": [numbers of images]}}; found none ({error!r}). '
            "Take the file of the release, or remove it: validation cases are then drawn."
        ) from error
    if len(parts) < count:
        raise DataError(f"{file}: expected each image once; found {count - len(parts)} twice. Correct the file.")
    if unknown := sorted(set(parts) - set(cases)):
        raise DataError(
            f"{file}: expected the images that it names in trainval-image; found all but {len(unknown)}: "
            f"{some(unknown)}. Unpack the whole release, or remove the file: validation cases are then drawn."
        )
    return parts


def _named(item: int | str) -> str:
    """Name the case of an image that a fold tells by number or by file."""
    return f"trainval-{item:04d}" if isinstance(item, int) else f"trainval-{Path(item).stem}"


DATASETS.register(
    "tn3k",
    kind="benchmark",
    task="binary",
    classes=CODING.classes,
    licence="see its home page",
    home="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
    paper="table 1, column TNMIX (with ddti)",
    layout=FILES,
)(Layout(looks_like_tn3k, list_tn3k))
