"""What was predicted: fused masks, members, probabilities, in folders or as ``medsegdiff segment`` wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from medsegdiff.data.coding import TWO_VALUES, MaskCoding
from medsegdiff.data.drawn import drawn_files, drawn_masks
from medsegdiff.data.listing import CaseFiles
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError, some
from medsegdiff.evaluation.maps import Maps, find_maps
from medsegdiff.fusion import FUSERS
from medsegdiff.io.image import images_in, read_geometry
from medsegdiff.io.names import file_name
from medsegdiff.types import Geometry

Predicted = tuple[Bool[np.ndarray, "*s"], Bool[np.ndarray, "m *s"] | None, Float[np.ndarray, "*s"] | None]
"""Of a structure: the mask, the members' masks, the probability."""


@dataclass(frozen=True)
class Predictions:
    """Files of predictions by case; at least one of masks, members and maps is there."""

    root: Path
    coding: MaskCoding
    masks: Masks | None = None
    """Fused, or the only ones."""
    members: tuple[Masks, ...] = ()
    maps: Maps | None = None
    uncertainty: Maps | None = None
    """One map per case, 0 … 1, as ``segment`` writes it."""
    fusion: str = "staple"
    """How members are fused where there are no masks; each structure by itself."""

    @property
    def names(self) -> list[str]:
        """Cases of which there is a prediction."""
        first = self.masks or (self.members[0] if self.members else self.maps)
        return [] if first is None else first.names

    @property
    def where(self) -> Path:
        """The folder of the files, named in errors."""
        return self.masks.root if self.masks is not None else self.root

    @property
    def probability_is(self) -> str:
        """Where the foreground's probability comes from, in words; empty where there is none."""
        if len(self.members) > 1:
            return "The share of members that drew a pixel."
        return "" if self.maps is None else f"The values in {self.maps.root.name}/." + _surer(self.root)

    def folders(self) -> list[Masks]:
        """List all folders of masks.

        Returns:
            Fused masks and members.
        """
        return ([] if self.masks is None else [self.masks]) + list(self.members)

    def count(self, name: str) -> int:
        """Count the members of a case; where they were drawn on demand, cases differ.

        Args:
            name: The case.

        Returns:
            How many there are.

        Raises:
            DataError: If one is missing before others.
        """
        there = [member.has(name) for member in self.members]
        if there and (not there[0] or there != sorted(there, reverse=True)):
            missing = self.members[there.index(False)]
            raise DataError(
                f"{missing.root}: '{name}' is missing, but later members have it. Members of a case are numbered "
                "without gaps; segment again, or remove the others of this case."
            )
        return sum(there)

    def grids(self, name: str) -> list[tuple[Path, Geometry]]:
        """Find out where the files of a case lie, from their headers.

        Args:
            name: The case.

        Returns:
            File and grid.
        """
        found = [(path, of.reader.geometry(path)) for of in self.folders() for path in of.files(name)]
        if self.uncertainty is not None:
            found += [(path, read_geometry(path)[0]) for path in self.uncertainty.paths(name)]
        if self.maps is not None:
            found += [(path, read_geometry(path)[0]) for path in self.maps.paths(name)]
        return found

    def reader(self, name: str) -> Callable[[int], Predicted]:
        """Read the masks of a case.

        Args:
            name: The case.

        Returns:
            Gives mask, members and probability of a channel.
        """
        fused = None if self.masks is None else _channels(self.masks, self.coding, name)
        parts = [_channels(member, self.coding, name) for member in self.members if member.has(name)]

        def predicted(channel: int) -> Predicted:
            members = np.stack([part(channel) for part in parts]) if parts else None
            p = self._probability(name, channel, members)
            mask = self._fused(name, channel, members) if fused is None else fused(channel)
            return mask, members, p

        return predicted

    def _probability(self, name: str, channel: int, members: np.ndarray | None) -> np.ndarray | None:
        if members is not None and len(members) > 1:
            return members.mean(axis=0, dtype=np.float32)
        return None if self.maps is None else self.maps.read(name, channel)

    def _fused(self, name: str, channel: int, members: np.ndarray | None) -> np.ndarray:
        if members is None:
            assert self.maps is not None
            return self.maps.decided(name, channel, exclusive=self.coding.task == "exclusive")
        votes = torch.from_numpy(members.reshape(len(members), 1, 1, 1, -1)).float()
        fused = FUSERS.build(self.fusion, votes).probability >= 0.5
        return fused.numpy().reshape(members.shape[1:])


def _channels(masks: Masks, coding: MaskCoding, name: str) -> Callable[[int], Bool[np.ndarray, "*s"]]:
    """Read the files of a case; give the mask of a channel."""
    stored = masks.stored(name)
    if masks.kind == "structures" or coding.task == "binary" or (len(coding.classes) == 1 and _two_valued(stored)):
        coding = MaskCoding(coding.task, coding.classes)  # 0 and 1, or class indices, not the data set's own values
    return lambda channel: masks.channel(stored, coding, channel)[0].astype(bool)


def _two_valued(stored: Sequence[tuple[Path, np.ndarray]]) -> bool:
    return all({*np.unique(values).tolist()} in TWO_VALUES for _, values in stored)


def find_predictions(
    folder: Path,
    kind: str,
    coding: MaskCoding,
    *,
    names: Sequence[str],
    cases: Mapping[str, CaseFiles],
    fusion: str,
    checked: bool,
) -> Predictions:
    """Look through predictions.

    Args:
        folder: Of masks, probabilities or members, or what ``medsegdiff segment`` wrote.
        kind: ``masks``, ``probabilities`` or ``members``.
        coding: What the values of masks mean.
        names: Cases that are known.
        cases: Images of the data set, for masks in DICOM.
        fusion: How members are fused where no fused mask is given.
        checked: Whether values other than 0/1 and 0/255 are refused.

    Returns:
        The files.

    Raises:
        DataError: If they fit no form, or not the structures of the references.
    """

    def masks_in(part: Path) -> Masks:
        return find_masks(part, coding, names=names, cases=cases, checked=checked)

    if kind == "probabilities":
        return Predictions(folder, coding, maps=find_maps(inner(folder, "probability"), coding, names=names))
    if kind == "members":
        parts = _members(inner(folder, "members"))
        if not parts:
            raise DataError(f"{folder}: holds no folder; expected one folder of masks per member.")
        return Predictions(folder, coding, members=tuple(map(masks_in, parts)), fusion=fusion)
    if not (folder / "masks").is_dir() and not (folder / "labels").is_dir():
        only = next((part for part in ("members", "probability") if (folder / part).is_dir()), "")
        if only and not images_in(folder):
            raise DataError(f"{folder}: holds no masks, but {only}/. Score {folder / only}.")
    maps, uncertainty = folder / "probability", folder / "uncertainty"
    one = MaskCoding("binary", ("uncertainty",))
    return Predictions(
        folder,
        coding,
        masks=masks_in(folder),
        members=tuple(map(masks_in, _members(folder / "members"))),
        maps=find_maps(maps, coding, names=names) if maps.is_dir() else None,
        uncertainty=find_maps(uncertainty, one, names=names) if uncertainty.is_dir() else None,
    )


def find_masks(
    folder: Path, coding: MaskCoding, *, names: Sequence[str], cases: Mapping[str, CaseFiles], checked: bool
) -> Masks:
    """Look through predicted masks: one per case and structure.

    Args:
        folder: Where they are, or what ``medsegdiff segment`` wrote.
        coding: What their values mean.
        names: Cases that are known.
        cases: Images of the data set, for masks in DICOM.
        checked: Whether values other than 0/1 and 0/255 are refused.

    Returns:
        The masks.

    Raises:
        DataError: If they are not the structures of the references, or no masks.
    """
    if (drawn := _drawn(folder)) and cases:
        return drawn_masks(drawn, cases, where=folder, classes=coding.classes[int(coding.task == "exclusive") :])
    parts = ("labels", "masks") if coding.task == "exclusive" else ("masks",)
    found = mask_folder(inner(folder, *parts), kind="structures", names=names)
    single = len(coding.classes) == 1 and found.kind == "flat"
    if coding.task == "regions" and coding.values and found.folders == ("",) and not single:  # labels of regions
        return Masks({"": {name: found.files(name)[0] for name in found.names}}, kind="flat", where=found.root)
    if coding.task == "regions" and not single and set(found.folders) != set(map(file_name, coding.classes)):
        raise DataError(
            f"{found.root} holds {some([f or 'masks' for f in found.folders])}; the references hold the structures "
            f"{some(coding.classes)}. Expected one folder of predictions for each. If the folders of the references "
            "are raters, set data.mask_folders=raters."
        )
    if coding.task != "regions" and found.kind != "flat":
        raise DataError(
            f"{found.root} holds several folders: {some(found.folders)}. Score one of them at a time; "
            "if they are the members of an ensemble, say --as members."
        )
    if checked and coding.task != "exclusive":
        _check_values(found, coding)
    several = coding.task == "regions" and not single
    return found.ordered([file_name(name) for name in coding.classes]) if several else found


def _check_values(found: Masks, coding: MaskCoding) -> None:
    """Refuse grey values, which are no masks."""
    if (values := values_of(found)) not in TWO_VALUES:
        shown = some([str(value) for value in sorted(values)])
        raise DataError(
            f"{found.root}: predicted values are {shown}; masks hold 0/1 or 0/255. If these are probabilities, say "
            f"--as probabilities; if every value above 0 is foreground, set data.task={coding.task}."
        )


def values_of(folder: Masks) -> set[int]:
    """List the values of all masks.

    Args:
        folder: The masks.

    Returns:
        Every value that occurs.
    """
    return {value for name in folder.names for value in folder.values(name)}


def made_in(folder: Path) -> Path:
    """Find the folder that ``segment`` wrote, of which this may be a part: ``anchor``, ``members/00``.

    Args:
        folder: Of predictions.

    Returns:
        That folder, or the one given.
    """
    upwards = (folder, *folder.resolve().parents[:2])
    return next((place for place in upwards if (place / "segment.json").is_file()), folder)


def told_of(folder: Path) -> dict[str, Any]:
    """Read how predictions were made.

    Args:
        folder: Of predictions.

    Returns:
        The content of ``segment.json``; empty where there is none.
    """
    made = made_in(folder) / "segment.json"
    if not made.is_file():
        return {}
    try:
        told = json.loads(made.read_text(encoding="utf-8"))
        return {"task": told["task"], "classes": told["classes"], **told}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{made}: expected what 'medsegdiff segment' writes; found {type(error).__name__}: {error}. Remove the "
            "file to have the masks taken as they are."
        ) from error


def inner(folder: Path, *parts: str) -> Path:
    """Find a part of what ``segment`` wrote; any other folder is taken as it is.

    Args:
        folder: The folder.
        *parts: Names, the first that is there counts.

    Returns:
        The part, or the folder.
    """
    return next((folder / part for part in parts if (folder / part).is_dir()), folder)


def _members(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _drawn(folder: Path) -> dict[str, Path]:
    """Find masks in DICOM; probabilities beside them are none."""
    found = drawn_files(inner(folder, "dicom-seg") if not (folder / "masks").is_dir() else folder)
    return {name: path for name, path in found.items() if "_probability" not in name}


def _surer(folder: Path) -> str:
    """Say so where probabilities are STAPLE's."""
    fusion = told_of(folder).get("sampling", {}).get("fusion")
    anchor = folder.resolve().name == "anchor"
    return (
        " They are STAPLE's posterior, surer than the share of members: segment with --save-members to score that."
        if fusion == "staple" and not anchor
        else ""
    )
