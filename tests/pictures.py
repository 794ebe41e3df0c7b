"""Miniatures of published 2-D data sets, laid out exactly as their archives unpack."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.config.data import DataConfig
from medsegdiff.data.open import ListedSource, open_source
from tests.makers import write_png

SIZE = (20, 30)
ISIC = {
    "isic2016": {
        "train": ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
        "test": ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
    },
    "isic2017": {
        "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        "val": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    },
    "isic2018": {
        "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    },
}
CUP, DISC = (slice(8, 12), slice(12, 16)), (slice(5, 15), slice(9, 19))
Polygons = Sequence[Sequence[tuple[float, float]]]


def open_pictures(root: Path, **values: object) -> ListedSource:
    """Open a data set as a loading process gets it."""
    opened = pickle.loads(pickle.dumps(open_source(root, DataConfig(image_size=32, **values))))
    assert isinstance(opened, ListedSource)
    return opened


def photograph(path: Path, *, size: tuple[int, int] = SIZE, colour: bool = True) -> None:
    shape = (*size, 3) if colour else size
    write_png(path, np.random.default_rng(len(path.name)).integers(0, 256, shape, dtype=np.uint8))


def box(row: slice, column: slice, value: int = 255, *, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[row, column] = value
    return mask


LESION = box(slice(2, 9), slice(5, 25))


def make_isic(root: Path, name: str, *, around: dict[str, str] | None = None) -> dict[str, str]:
    """Three cases a part; gives the part of each."""
    parts = {}
    for part, (images, masks) in ISIC[name].items():
        home = root / (around or {}).get(part, "")
        for _ in range(3):
            case = f"ISIC_{len(parts):07d}"
            photograph(home / images / f"{case}.jpg")
            write_png(home / masks / f"{case}_Segmentation.png", LESION)
            parts[case] = part
    return parts


def make_challenge(root: Path) -> None:
    stored = np.full(SIZE, 255, np.uint8)
    stored[DISC], stored[CUP] = 128, 0
    masks = "Annotation-Training400/Disc_Cup_Masks"
    for images, drawn, name in (
        ("Training400/Glaucoma", f"{masks}/Glaucoma", "g0001"),
        ("Training400/Non-Glaucoma", f"{masks}/Non-Glaucoma", "n0001"),
        ("Training400/Non-Glaucoma", f"{masks}/Non-Glaucoma", "n0002"),
        ("REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks", "V0001"),
        ("Test400", "REFUGE-Test-GT/Disc_Cup_Masks/G", "T0001"),
    ):
        photograph(root / images / f"{name}.jpg")
        write_png(root / drawn / f"{name}.bmp", stored)
    photograph(root / "Annotation-Training400" / "Disc_Cup_Fovea_Illustration" / "g0001.jpg")
    (root / "Training400" / "Glaucoma" / "._g0001.jpg").write_bytes(b"of a Mac")


def make_rated(root: Path) -> None:
    """The cup of rater n is n pixels wide, and that of the second lies outside of the disc; no other rule."""
    for part, names in (("Training-400", ("0001", "0003", "0004")), ("Test-400", ("0002",))):
        for name in names:
            photograph(root / part / name / f"{name}.jpg")
            for rater in range(1, 8):
                column = 0 if rater == 2 else 10
                cup, disc = box(slice(6, 9), slice(column, column + rater)), box(*DISC)
                write_png(root / part / name / f"{name}_seg_cup_{rater}.png", cup)
                write_png(root / part / name / f"{name}_seg_disc_{rater}.png", disc)


def save_jpeg(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path, quality=60)


def make_tn3k(root: Path, *, count: int = 5) -> None:
    for folder, number in (("trainval", count), ("test", 2)):
        for index in range(number):
            photograph(root / f"{folder}-image" / f"{index:04d}.jpg")
            save_jpeg(root / f"{folder}-mask" / f"{index:04d}.jpg", LESION if folder == "test" else LESION[::-1])
    (root / "label4trainval.csv").write_text("0000.jpg,1\n")


def write_marks(file: Path, marks: Sequence[tuple[object, Polygons]]) -> None:
    """Write corners (x, y) by image."""
    text = ""
    for number, polygons in marks:
        drawn = [
            {"points": [{"x": x, "y": y} for x, y in polygon], "annotation": {}, "regionType": "freehand"}
            for polygon in polygons
        ]
        text += f"<mark><image>{number}</image><svg>{json.dumps(drawn) if polygons else ''}</svg></mark>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<?xml version='1.0'?><case><number>{file.stem}</number><tirads>4a</tirads>{text}</case>")


def rectangle(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


LEFT, RIGHT, ACROSS = rectangle(2.5, 3.5, 6.5, 9.5), rectangle(19.5, 0.5, 24.5, 2.5), rectangle(4.5, 7.5, 8.5, 12.5)


def make_ddti(root: Path) -> None:
    for name in ("1_1", "2_1", "2_2", "3_1", "10_1", "10_2"):
        photograph(root / f"{name}.jpg", colour=False)
    write_marks(root / "1.xml", [(1, [LEFT, RIGHT])])
    write_marks(root / "2.xml", [(1, [LEFT]), (" 2\n", [RIGHT]), (2, [ACROSS, LEFT])])
    write_marks(root / "3.xml", [(1, [])])
    write_marks(root / "10.xml", [(1, [[(0, 0), (9, 0), (0, 9)]]), (2, [LEFT[:2]]), (3, [LEFT])])


def make_lidc(root: Path, *, flat: bool) -> None:
    """Rater n of the first crop draws n pixels, the first one none."""
    for part, patients in (("train", ("0001", "0002")), ("val", ("0003",)), ("test", ("0004",))):
        for patient in patients:
            for crop in ("z-105.0_c0", "z-105.0_c1"):
                images, masks = ("images", "lesions") if flat else ("images", "gt")
                join = "_" if flat else "/"
                photograph(root / part / images / f"LIDC-IDRI-{patient}{join}{crop}.png", colour=False)
                for rater in range(4):
                    drawn = box(slice(3, 4), slice(5, 5 + rater))
                    write_png(root / part / masks / f"LIDC-IDRI-{patient}{join}{crop}_l{rater}.png", drawn)
