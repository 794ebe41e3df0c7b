"""Finding what was predicted: masks, members and probabilities in folders, in DICOM, or as ``segment`` left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medsegdiff.data.drawn import drawn_files, drawn_masks
from medsegdiff.data.listing import CaseFiles
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError, some
from medsegdiff.evaluation.maps import find_maps
from medsegdiff.evaluation.predictions import Predictions
from medsegdiff.evaluation.segmented import inner
from medsegdiff.io.image import images_in
from medsegdiff.io.names import file_name
from medsegdiff.labels import TWO_VALUES, Labels


def find_predictions(
    folder: Path,
    kind: str,
    coding: Labels,
    *,
    names: Sequence[str],
    cases: Mapping[str, CaseFiles],
    fusion: str,
    checked: bool,
) -> Predictions:
    """Look through predictions."""

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
    one = Labels("binary", ("uncertainty",))
    return Predictions(
        folder,
        coding,
        masks=masks_in(folder),
        members=tuple(map(masks_in, _members(folder / "members"))),
        maps=find_maps(maps, coding, names=names) if maps.is_dir() else None,
        uncertainty=find_maps(uncertainty, one, names=names) if uncertainty.is_dir() else None,
    )


def find_masks(
    folder: Path, coding: Labels, *, names: Sequence[str], cases: Mapping[str, CaseFiles], checked: bool
) -> Masks:
    """Look through predicted masks: one per case and structure."""
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


def _check_values(found: Masks, coding: Labels) -> None:
    """Refuse grey values, which are no masks."""
    if (values := values_of(found)) not in TWO_VALUES:
        shown = some([str(value) for value in sorted(values)])
        raise DataError(
            f"{found.root}: predicted values are {shown}; masks hold 0/1 or 0/255. If these are probabilities, say "
            f"--as probabilities; if every value above 0 is foreground, set data.task={coding.task}."
        )


def values_of(folder: Masks) -> set[int]:
    """List the values of all masks."""
    return {value for name in folder.names for value in folder.values(name)}


def _members(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _drawn(folder: Path) -> dict[str, Path]:
    """Find masks in DICOM; probabilities beside them are none."""
    found = drawn_files(inner(folder, "dicom-seg") if not (folder / "masks").is_dir() else folder)
    return {name: path for name, path in found.items() if "_probability" not in name}
