"""DDTI, the Digital Database of Thyroid Ultrasound Images: nodules as polygons in an XML file per patient.

``N_1.jpg``, ``N_2.jpg`` … are the images of patient N. ``N.xml`` holds one or more ``<mark>``: the number of an image,
and as ``<svg>`` a JSON list of what was drawn on it. Item 1 of ``N.xml`` is the mask of ``N_1.jpg``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.spec import Benchmark, Found, Part, in_parts, register
from medsegdiff.data.masks import MaskFile, MaskReader, MaskRef, part_of
from medsegdiff.errors import DataError
from medsegdiff.io.image import read_geometry
from medsegdiff.io.rtstruct import fill_even_odd
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry

Polygon = Float[np.ndarray, "n 2"]
"""Corners as (row, column)."""


class DrawnReader(MaskReader):
    """Fills polygons on the grid of their image."""

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "h w"]:
        """Fill what was drawn on an image."""
        file, number = part_of(path)
        height, width = self.geometry(path).shape
        mask = np.zeros((height, width), np.uint8)
        for polygon in read_marks(file).get(number, []):
            mask |= fill_even_odd([polygon], (height, width))
        return mask

    def geometry(self, path: MaskFile) -> Geometry:
        """Give the grid of the image."""
        file, number = part_of(path)
        return read_geometry(file.with_name(f"{file.stem}_{number}.jpg"))[0]


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.xml") if path.stem.isdecimal())


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the images on which something was drawn, by patient. There is no official split."""
    images = {case.name: case for case in in_parts(spec, root, config).cases}
    drawn = {f"{file.stem}_{number}": MaskRef(file, number) for file in _files(root) for number in read_marks(file)}
    cases = [case for name, case in images.items() if name in drawn]
    if images and _files(root) and not cases:
        raise DataError(f"{root}: expected XML files that tell of polygons; found none on {len(images)} images.")
    unmarked, lost = len(images) - len(cases), len(drawn) - len(cases)
    remarks = {
        f"images left out because nothing was drawn on them: {unmarked}": unmarked,
        f"images that are not there though something was drawn on them: {lost}": lost,
    }
    masks = {case.name: drawn[case.name] for case in cases}
    return Found(cases, {"": masks}, remarks=tuple(remark for remark, count in remarks.items() if count))


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


DDTI = register(
    Benchmark(
        name="ddti",
        labels=Labels("binary", ("nodule",)),
        files="1_1.jpg, 1_2.jpg … of the patient 1, 1.xml with what was drawn on them",
        parts=(Part("", "[0-9]*_[0-9]*.jpg"),),
        patient=r"\d+",
        find=_find,
        match=lambda root: any(root.glob("[0-9]*_[0-9]*.jpg")) and bool(_files(root)),
        reader=DrawnReader(),
        licence="see its home page",
        home="http://cimalab.unal.edu.co/?lang=en&mod=program&id=5",
        paper="table 1, column TNMIX (with tn3k)",
    )
)
