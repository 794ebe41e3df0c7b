"""DDTI, the Digital Database of Thyroid Ultrasound Images: nodules as polygons in an XML file per patient.

``N_1.jpg``, ``N_2.jpg`` … are the images of patient N. ``N.xml`` holds one or more ``<mark>``: the number of an image,
and as ``<svg>`` a JSON list of what was drawn on it. The path ``N.xml#1`` stands for the mask of ``N_1.jpg``.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.config.run import DataConfig
from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.masks import MaskReader, Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError
from medsegdiff.io.image import read_geometry
from medsegdiff.io.rtstruct import fill_even_odd
from medsegdiff.types import Geometry

CODING = MaskCoding("binary", ("nodule",))
IMAGE = re.compile(r"(?P<patient>\d+)_(?P<number>\d+)")
FILES = "1_1.jpg, 1_2.jpg … of the patient 1, 1.xml with what was drawn on them"

Polygon = Float[np.ndarray, "n 2"]
"""Corners as (row, column)."""


class DrawnReader(MaskReader):
    """Fills polygons on the grid of their image."""

    def values(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """Fill what was drawn on an image."""
        file, number = _parts(path)
        height, width = self.geometry(path).shape
        mask = np.zeros((height, width), np.uint8)
        for polygon in read_marks(file).get(number, []):
            mask |= fill_even_odd([polygon], (height, width))
        return mask

    def geometry(self, path: Path) -> Geometry:
        """Give the grid of the image."""
        file, number = _parts(path)
        return read_geometry(file.with_name(f"{file.stem}_{number}.jpg"))[0]


def looks_like_ddti(root: Path) -> bool:
    """Tell whether a folder holds DDTI."""
    return bool(_images(root)) and any(path.stem.isdecimal() for path in root.glob("*.xml"))


def list_ddti(root: Path, config: DataConfig) -> Listing:
    """List the images on which something was drawn, by patient. There is no official split."""
    images = _images(root)
    files = sorted(path for path in root.glob("*.xml") if path.stem.isdecimal())
    if not images or not files:
        raise expected(FILES, root)
    masks = {f"{file.stem}_{number}": Path(f"{file}#{number}") for file in files for number in read_marks(file)}
    found = [CaseFiles(name, (path,), group=name.partition("_")[0]) for name, path in images.items() if name in masks]
    if not found:
        raise DataError(f"{root}: expected XML files that tell of polygons; found none on {len(images)} images.")
    cases = assign(indexed(found, root), root / "split.csv")
    return Listing(
        root,
        "ddti",
        cases,
        Masks(
            {"": {case.name: masks[case.name] for case in found}},
            kind="flat",
            where=root,
            declared=CODING,
            reader=DrawnReader(),
        ),
        unlisted=tuple(case.name for case in found if case.name not in cases),
        remarks=_remarks(len(set(images) - set(masks)), len(set(masks) - set(images))),
    )


def read_marks(file: Path) -> dict[str, list[Polygon]]:
    """Read what was drawn on the images of a patient."""
    found: dict[str, list[Polygon]] = defaultdict(list)
    try:
        for mark in ElementTree.parse(file).getroot().iter("mark"):
            drawn = json.loads(mark.findtext("svg", "").strip() or "[]")
            corners = [[(float(point["y"]), float(point["x"])) for point in item["points"]] for item in drawn]
            if polygons := [np.array(polygon) for polygon in corners if len(polygon) >= 3]:
                found[str(int(mark.findtext("image", "")))] += polygons
    except (ElementTree.ParseError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{file}: expected <mark><image>1</image><svg>[{{"points": [{{"x": …, "y": …}}, …]}}]</svg></mark>; '
            f"found {error!r}. Take the file of the release again, or remove it."
        ) from error
    return dict(found)


def _images(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(root.glob("*.jpg")) if IMAGE.fullmatch(path.stem)}


def _parts(path: Path) -> tuple[Path, str]:
    file, _, number = str(path).rpartition("#")
    return Path(file), number


def _remarks(unmarked: int, lost: int) -> tuple[str, ...]:
    """Say what is left out."""
    return (
        *([f"images left out because nothing was drawn on them: {unmarked}"] if unmarked else []),
        *([f"images that are not there though something was drawn on them: {lost}"] if lost else []),
    )


DATASETS.register(
    "ddti",
    kind="benchmark",
    task="binary",
    classes=CODING.classes,
    licence="see its home page",
    home="http://cimalab.unal.edu.co/?lang=en&mod=program&id=5",
    paper="table 1, column TNMIX (with tn3k)",
    layout=FILES,
)(Layout(looks_like_ddti, list_ddti))
