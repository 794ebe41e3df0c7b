"""Where the files of a case lie in a folder of results, without looking through folders of many cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from medsegdiff.errors import DataError
from medsegdiff.inference.folder import PARTS
from medsegdiff.io.names import class_folders, file_name
from medsegdiff.labels import Labels
from medsegdiff.server.schema import MasksShown

REFERENCES = "references"
"""Folder of masks that somebody has corrected; it is no part of the results, and outlasts new ones."""
MAPS = (".png", ".nii.gz")
"""Endings of masks and maps, of pictures and of volumes."""
GIVEN = (*MAPS, ".dcm", ".geojson")
"""Endings of what is given away."""


@dataclass(frozen=True)
class Places:
    """The folders of a folder of results."""

    root: Path
    labels: Labels

    def masks(self, name: str, inside: str = "") -> dict[str, Path]:
        """Find the masks of a case: a label map, named ``""``, or a file by structure, as regions that overlap have."""
        if self.labels.task != "regions" and (found := self._file(f"{inside}labels", name)):
            return {"": found}
        files = {of: self._file(place, name) for of, place in self._by_structure(f"{inside}masks").items()}
        there = {of: file for of, file in files.items() if file is not None}
        return there if len(there) == len(files) else {}

    def members(self, name: str) -> Iterator[dict[str, Path]]:
        """Find the masks of members, in their order."""
        for inside in self._numbers():
            if not (masks := self.masks(name, inside)):
                return
            yield masks

    def probability(self, name: str) -> dict[str, Path]:
        """Find probabilities, by structure."""
        files = {of: self._file(place, name) for of, place in self._by_class("probability").items()}
        return {of: file for of, file in files.items() if file is not None and of in self.labels.structures}

    def uncertainty(self, name: str) -> Path | None:
        """Find the map of uncertainty."""
        return self._file("uncertainty", name)

    def files(self, name: str) -> list[Path]:
        """List all files of a case."""
        candidates = (self.root / folder / f"{name}{ending}" for folder in self._folders() for ending in GIVEN)
        endings = ("", *(f"_{file_name(of)}" for of in self.labels.structures))
        maps = (f"dicom-pm/{name}_probability", f"dicom-fractional/{name}")
        dicom = (self.root / f"{begins}{ending}.dcm" for begins in maps for ending in endings)
        found = dict.fromkeys((*candidates, self.root / "dicom-pm" / f"{name}_uncertainty.dcm", *dicom))
        return [file for file in found if file.is_file()]

    def given(self, address: str) -> Path:
        """Find a file by its address; nothing else in the folder, or outside of it, is given away."""
        parts = address.split("/")
        file = self.root.joinpath(*parts)
        named = parts[0] in (*PARTS, REFERENCES) and file.name.endswith(GIVEN) and not {"", ".", ".."} & {*parts}
        if not (named and file.is_file() and file.resolve().is_relative_to(self.root.resolve())):
            raise DataError("There is no such file among the results.")
        return file

    def address(self, file: Path) -> str:
        """Give the address of a file."""
        return f"files/{quote(file.relative_to(self.root).as_posix())}"

    def shown(self, masks: Mapping[str, Path]) -> MasksShown | None:
        """Give the addresses of masks; nothing where there are none."""
        addresses = {of: self.address(file) for of, file in masks.items()}
        return MasksShown(labels=addresses.pop("", None), structures=addresses) if addresses else None

    def _file(self, folder: str, name: str) -> Path | None:
        files = (self.root / folder / f"{name}{ending}" for ending in MAPS)
        return next((file for file in files if file.is_file()), None)

    def _folders(self) -> Iterator[str]:
        for inside in ("", "anchor/", *self._numbers(), f"{REFERENCES}/"):
            yield f"{inside}labels"
            yield from self._by_structure(f"{inside}masks").values()
        for inside in ("", "anchor/"):
            yield from self._by_class(f"{inside}probability").values()
        yield from ("uncertainty", "overlay", "dicom-seg", "rtstruct", "dicom-sr", "geojson")

    def _numbers(self) -> Iterator[str]:
        number = 0
        while (self.root / "members" / f"{number:02d}").is_dir():
            yield f"members/{number:02d}/"
            number += 1

    def _by_structure(self, folder: str) -> dict[str, str]:
        return _inner(folder, self.labels.structures)

    def _by_class(self, folder: str) -> dict[str, str]:
        return _inner(folder, self.labels.classes)


def _inner(folder: str, names: tuple[str, ...]) -> dict[str, str]:
    """Name the folder of each class; a single one has none of its own."""
    if len(names) == 1:
        return {names[0]: folder}
    return {name: f"{folder}/{inner}" for name, inner in zip(names, class_folders(names), strict=True)}
