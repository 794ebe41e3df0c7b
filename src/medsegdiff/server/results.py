"""A folder of results as the page sees it: which cases there are, what is known of them, masks that come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
from jaxtyping import UInt8

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.inference.case_record import read_case_record, record_file
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import ImageRecord, Record
from medsegdiff.io.image import read_geometry, write_mask
from medsegdiff.io.names import class_folders
from medsegdiff.metrics.units import unit_of
from medsegdiff.pictures.overlay import colour_of
from medsegdiff.server.command import command_of
from medsegdiff.server.images import channels_of
from medsegdiff.server.places import REFERENCES, Places
from medsegdiff.server.schema import CaseListed, CaseShown, Download, ResultsShown, StructureShown
from medsegdiff.types import Geometry

TITLES = {
    "labels": "Label map",
    "masks": "Mask",
    "probability": "Probability",
    "uncertainty": "Uncertainty",
    "overlay": "Overlay",
    "dicom-seg": "DICOM-SEG",
    "rtstruct": "RTSTRUCT",
    "dicom-sr": "Report (SR)",
    "geojson": "Outlines",
    REFERENCES: "Reference",
}
"""What parts are called that are given one by one; the others are in the archive."""
KINDS = {"gz": "NIfTI", "dcm": "DICOM", "geojson": "GeoJSON"}
"""What files are called, by the last letters of their names."""
ABSENT = {
    "members": "Members were not written. Segment with --write members (or all) to have them.",
    "probability": "Probabilities were not written. Segment with --write probability (or all) to have them.",
    "uncertainty": "Uncertainty was not written. Segment with --write uncertainty (or all) to have it.",
    "anchor": "There is no mask of the anchor: the network has none, or it was not written (--write anchor).",
    "image": "The image is not where it lay when it was segmented. Say where it is: view RESULTS --images FOLDER.",
}
"""What may be missing, and what to do."""


@dataclass(frozen=True)
class Results:
    """A folder that ``medsegdiff segment`` wrote."""

    root: Path
    images: Mapping[str, CaseFiles] = field(default_factory=dict)
    """Where the images lie, by case; of others the records of the results tell where they lay."""
    title: str = ""
    """What the page calls them; empty: the folder's name."""

    def __post_init__(self) -> None:
        if not SegmentationFolder(self.root).exists:
            raise ConfigError(f"{self.root} holds no results. Give a folder that 'medsegdiff segment --out' has made.")

    @cached_property
    def record(self) -> Record:
        """How they were made."""
        record = SegmentationFolder(self.root).read()
        assert record is not None
        return record

    @cached_property
    def places(self) -> Places:
        """Where their files lie."""
        return Places(self.root, self.record.labels)

    @cached_property
    def _facts(self) -> dict[str, ImageRecord]:
        return {image.name: image for image in self.record.images}

    def shown(self) -> ResultsShown:
        """Tell what there is."""
        record, labels = self.record, self.record.labels
        values: Sequence[int | None] = labels.label_values or [None] * len(labels.structures)
        structures = [
            StructureShown(name=name, colour="#{:02x}{:02x}{:02x}".format(*colour_of(place)), value=value)
            for place, (name, value) in enumerate(zip(labels.structures, values, strict=True))
        ]
        return ResultsShown(
            title=self.title or self.root.resolve().name,
            task=record.task,
            structures=tuple(structures),
            model=", ".join(record.models),
            made=_made(record),
            cases=tuple(map(_listed, record.images)),
            failed={Path(file).name: why for file, why in record.failed.items()},
        )

    def case(self, name: str) -> CaseShown:
        """Tell all of a case."""
        facts, places = self._known(name), self.places
        geometry, uncertainty = self._geometry(name), places.uncertainty(name)
        pixel, unit = unit_of(geometry)
        image = self._image(name)
        found = {
            "anchor": places.shown(places.masks(name, "anchor/")),
            "members": tuple(filter(None, map(places.shown, places.members(name)))),
            "probability": {of: places.address(file) for of, file in places.probability(name).items()},
            "uncertainty": None if uncertainty is None else places.address(uncertainty),
            "image": f"image/{quote(name)}" if image else None,
        }
        return CaseShown.model_validate(
            {
                "name": name,
                "kind": "volume" if len(geometry.shape) == 3 else "picture",
                "shape": geometry.shape,
                "pixel": pixel,
                "unit": unit,
                "channels": channels_of(image) if image else 1,
                "fused": places.shown(places.masks(name)),
                "reference": places.shown(places.masks(name, f"{REFERENCES}/")),
                "absent": {part: ABSENT[part] for part, value in found.items() if not value},
                "facts": facts,
                "downloads": tuple(self._downloads(name)),
                "command": command_of(self.record, image.images[0].name if image else "IMAGE", "OUT"),
                **found,
            }
        )

    def image(self, name: str) -> CaseFiles:
        """Find the image of a case."""
        self._known(name)
        if (found := self._image(name)) is None:
            raise DataError(ABSENT["image"])
        return found

    def _image(self, name: str) -> CaseFiles | None:
        if name in self.images:
            return self.images[name]
        record = read_case_record(record_file(self.root, name))
        if record is None or not record.inputs:
            return None
        paths = tuple(path for of in record.inputs if (path := of.place(self.root)) is not None)
        return CaseFiles(name, paths) if len(paths) == len(record.inputs) else None

    def archived(self, name: str) -> list[Path]:
        """List the files that a case's archive holds."""
        self._known(name)
        return self.places.files(name)

    def correct(self, name: str, values: bytes) -> None:
        """Keep masks that somebody has corrected, in files like those of a data set.

        Args:
            name: Of the case.
            values: A byte by pixel, 0 or the number of a structure from 1; of regions a plane of 0 and 1 for each. The
                pixels of a picture go row by row, those of a volume as in its file, the first axis fastest.

        Raises:
            DataError: If there are more or fewer, or other values.
        """
        self._known(name)
        geometry, labels = self._geometry(name), self.record.labels
        names = labels.structures
        maps = _maps(values, geometry, structures=len(names), planes=len(names) if labels.task == "regions" else 0)
        for place, folder in enumerate(class_folders(names) if len(names) > 1 else ("",)):
            write_mask(self.root / REFERENCES / "masks" / folder, name, labels.mask(maps, place), geometry)

    def _geometry(self, name: str) -> Geometry:
        if not (files := self.places.masks(name)):
            raise DataError(f"The masks of {name} are not among the results. Segment with --write labels, or masks.")
        return read_geometry(next(iter(files.values())))[0]

    def _known(self, name: str) -> ImageRecord:
        if name not in self._facts:
            raise DataError(f"There is no case '{name}' among the results.")
        return self._facts[name]

    def _downloads(self, name: str) -> Iterator[Download]:
        files = self.places.files(name)
        whole = any(path.parent.name == "labels" for path in files)
        for path in files:
            part, *inner, file = path.relative_to(self.root).parts
            if part in TITLES and not (part == "masks" and whole):
                kind = KINDS.get(file.rpartition(".")[2]) or file.rpartition(".")[2].upper()
                what = " · ".join([TITLES[part], *inner, kind])
                yield Download(what=what, href=self.places.address(path), file="_".join([part, *inner, file]))
        yield Download(what="All of this case · ZIP", href=f"archive/{quote(name)}", file=f"{name}.zip")


def _maps(values: bytes, geometry: Geometry, *, structures: int, planes: int) -> UInt8[np.ndarray, "..."]:
    """Read a label map, or planes of regions."""
    pixels, given = prod(geometry.shape), np.frombuffer(values, np.uint8)
    if len(given) != pixels * max(planes, 1):
        raise DataError(f"The masks have {len(given)} bytes; expected are {pixels * max(planes, 1)}, one by pixel.")
    order: Literal["F", "C"] = "C" if geometry.affine is None else "F"
    most = 1 if planes else structures
    if given.max(initial=0) > most:
        raise DataError(f"The masks hold {given.max()}; allowed are 0 … {most}.")
    maps = [plane.reshape(geometry.shape, order=order) for plane in np.split(given, max(planes, 1))]
    return np.ascontiguousarray(np.stack(maps) if planes else maps[0])


def _listed(image: ImageRecord) -> CaseListed:
    qualities = image.quality.values()
    predicted = [of.predicted_dice for of in qualities if of.predicted_dice is not None]
    return CaseListed(
        name=image.name,
        review=any(of.review for of in qualities) if image.quality else None,
        predicted_dice=min(predicted, default=None),
        trust=min((of.trust for of in qualities if of.trust is not None), default=None),
        agreement=image.agreement,
    )


def _made(record: Record) -> str:
    """Say how results came about."""
    asked = record.sampling
    if asked is None:
        return ""
    if asked.mode == "mean":
        return "probability alone, in one step"
    drawn = "members by image" if record.members == "auto" else f"{record.members} members"
    chosen = f" of {asked.candidates} candidates" if asked.candidates else ""
    return f"{drawn}{chosen}, {asked.steps} steps of {asked.sampler}, fusion {asked.fusion}"
