"""Which images a user means: files, folders, data sets in any layout."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from medsegdiff.config import DataConfig
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles
from medsegdiff.data.opening import detect, fits, layouts, list_cases
from medsegdiff.data.split import names_in
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import SUFFIXES, image_name, images_in, is_series

NUMBERED = re.compile(r"(?P<name>.+)_(?P<channel>\d{4})")
"""How nnU-Net names the files of the channels of a case."""


def find_inputs(
    paths: Sequence[Path],
    *,
    data: DataConfig | None = None,
    split_file: Path | None = None,
    split: str | None = None,
) -> list[CaseFiles]:
    """List the images that a user means.

    Args:
        paths: Images, folders of images, or data sets.
        data: What the model was trained on: layout, and files per image.
        split_file: ``split.csv`` of the run.
        split: Take only the images of this part.

    Returns:
        The files of each case.

    Raises:
        DataError: If there are none, a channel is missing, or two have the same name and would overwrite each
            other's results.
    """
    found = [case for path in paths for case in _cases(path, data or DataConfig())]
    if split is not None and split_file is not None:
        members = names_in(split_file, split)
        found = [case for case in found if case.name in members]
        if not found:
            raise DataError(f"None of the images is in the split '{split}' of {split_file}.")
    twice = [name for name, count in Counter(case.name for case in found).items() if count > 1]
    if twice:
        raise DataError(
            f"Several images are named {some(twice)}; their results would overwrite each other. "
            "Rename them, or segment each into an --out of its own."
        )
    return found


def _cases(path: Path, data: DataConfig) -> list[CaseFiles]:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder.")
    layout = _layout_of(path, data)
    if layout not in (None, "folder"):
        return list(list_cases(path, data.model_copy(update={"layout": layout})).cases.values())
    if path.is_file() or is_series(path):
        return grouped([path], data)
    folder = path / "images" if (path / "images").is_dir() else path
    pictures = images_in(folder)
    if not pictures:
        raise DataError(f"{folder}: holds no images. Allowed: {', '.join(SUFFIXES)}.")
    return grouped(pictures, data)


def _layout_of(path: Path, data: DataConfig) -> str | None:
    """Take the layout that the model was trained on if the path looks like it, else any that it looks like."""
    if data.layout in layouts():
        shown = DATASETS[data.layout].facts.get("variant_of", data.layout)  # what is only asked for is not detected
        if fits(shown, path):
            return data.layout
    return detect(path)


def grouped(paths: Iterable[Path], data: DataConfig) -> list[CaseFiles]:
    """Group files by case: ``CASE_0000``, ``CASE_0001`` … are channels, where the model was trained on such files.

    Args:
        paths: Images; of a numbered file, its channels beside it are found.
        data: What the model was trained on.

    Returns:
        The files of each case.

    Raises:
        DataError: If a channel is missing.
    """
    if data.channel_files == 1 and data.layout != "nnunet":
        return [CaseFiles(image_name(path), (path,)) for path in paths]
    channels: dict[tuple[Path, str], dict[int, Path]] = defaultdict(dict)
    for path in paths:
        match = NUMBERED.fullmatch(image_name(path))
        name = match["name"] if match else image_name(path)
        beside = [p for p in images_in(path.parent) if match and image_name(p)[:-5] == name]
        for file in beside or [path]:
            number = NUMBERED.fullmatch(image_name(file))
            channels[path.parent, name][int(number["channel"]) if number else 0] = file
    return [_case(name, files, data.channel_files) for (_, name), files in sorted(channels.items())]


def _case(name: str, files: dict[int, Path], count: int) -> CaseFiles:
    if sorted(files) != list(range(count)):
        raise DataError(
            f"{name}: the model was trained on {count} files per case, {name}_0000 … {name}_{count - 1:04d}; "
            f"found {some([path.name for path in files.values()])}. Add the missing channels."
        )
    return CaseFiles(name, tuple(files[number] for number in sorted(files)))
