"""What a user calls an image: files, folders, data sets in any layout, arrays. Found, and read as cases."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from medsegdiff.config.data import DataConfig
from medsegdiff.config.spec import DataSpec, ResolvedConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.open import detect, list_cases, matches
from medsegdiff.data.scan import passed_over
from medsegdiff.data.split import names_in, resolve
from medsegdiff.errors import DataError, some
from medsegdiff.io.arrays import channels_first, check_image, image_key
from medsegdiff.io.image import read_channels, read_geometry
from medsegdiff.io.listing import SUFFIXES, in_words, is_image_file, is_series, list_images
from medsegdiff.io.names import file_name, image_name
from medsegdiff.types import Case, Geometry

log = logging.getLogger(__name__)

ImageLike = str | Path | np.ndarray | Tensor | CaseFiles | Case
"""A file, an array (h w), (h w 3) or (c h w), the files of a case, or a case that was read already."""
Channels = Callable[[Path, int], Mapping[Path, CaseFiles]]
"""Finds the cases of a folder whose files are so many channels."""
NUMBERED = re.compile(r"(?P<name>.+)_(?P<channel>\d{4})")
"""How nnU-Net names the files of the channels of a case."""


def find_inputs(
    paths: Sequence[Path],
    *,
    like: ResolvedConfig | None = None,
    split_file: Path | None = None,
    split: str | None = None,
    noted: Callable[[str], None] = log.warning,
) -> list[CaseFiles]:
    """List the images that a user means; those of a data set ``like`` those that a model was trained on.

    What is not among them, though it lies in the folders or is in the split, is ``noted`` in a sentence.
    """
    channels_in = lru_cache(maxsize=None)(_channels_in)  # of a folder of which many files are listed one by one
    cases = [case for path in paths for case in _cases(path, like, noted, channels_in)]
    # each channel of a case may have been named by itself
    found = list({case if len(case.images) > 1 else place: case for place, case in enumerate(cases)}.values())
    if split is not None and split_file is not None:
        found = _in_split(found, split_file, split, noted)
    return _told_apart(found, noted) if _repeated(found) else found


def _repeated(cases: Sequence[CaseFiles]) -> list[str]:
    """List the names that several cases have."""
    return [name for name, count in Counter(case.name for case in cases).items() if count > 1]


def _told_apart(cases: Sequence[CaseFiles], noted: Callable[[str], None]) -> list[CaseFiles]:
    """Put the folders, below the one that all images share, before names that repeat."""
    repeated = set(_repeated(cases))
    folders = [case.images[0].absolute().parent for case in cases]
    shared = Path(os.path.commonpath(folders))
    found = [
        replace(case, name=file_name("-".join((*folder.relative_to(shared).parts, case.name))))
        if case.name in repeated
        else case
        for case, folder in zip(cases, folders, strict=True)
    ]
    if still := _repeated(found):
        raise DataError(
            f"Several images are named {some(still)}; their results would overwrite each other. "
            "Rename them, or segment each into an --out of its own."
        )
    named = [after.name for before, after in zip(cases, found, strict=True) if before.name != after.name]
    noted(
        f"{len(named)} images have names that repeat; their results are named after their folders too: {some(named)}."
    )
    return found


def _in_split(
    cases: Sequence[CaseFiles], split_file: Path, split: str, noted: Callable[[str], None]
) -> list[CaseFiles]:
    """Choose the cases of a part, and say which of the part are not there."""
    known = {case.name for case in cases}
    members = {resolve(name, known) for name in names_in(split_file, split)}
    if members.isdisjoint(known):
        raise DataError(f"None of the images is in the split '{split}' of {split_file}.")
    if missing := sorted(members - known):
        noted(
            f"{len(missing)} of {len(members)} cases of the split '{split}' are not among the images: {some(missing)}."
        )
    return [case for case in cases if case.name in members]


def _cases(
    path: Path, like: ResolvedConfig | None, noted: Callable[[str], None], channels_in: Channels
) -> list[CaseFiles]:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder.")
    spec = None if like is None else like.spec
    layout = _layout_of(path, spec)
    if layout not in (None, "folder"):
        data = DataConfig() if like is None else like.reading
        listing = list_cases(path, data.model_copy(update={"layout": layout}), images_alone=True)
        for line in passed_over(listing, masks=False):
            noted(line)
        return list(listing.cases.values())
    paths = [path] if path.is_file() or is_series(path) else _images_of(path, noted)
    return _grouped(paths, spec, channels_in)


def _images_of(folder: Path, noted: Callable[[str], None]) -> Sequence[Path]:
    """List the images of a folder, or of the folder ``images`` in it."""
    where = folder / "images" if (folder / "images").is_dir() else folder
    held = list_images(where)
    told = in_words(held.left_out)
    if not held.images:
        raise DataError(f"{where}: holds no images. Allowed: {', '.join(SUFFIXES)}. {told}".rstrip())
    if told:
        noted(told)
    if where != folder and (beside := list_images(folder).images):
        noted(f"Images are taken from {where}; beside it lie {some([path.name for path in beside])}.")
    return held.images


def _layout_of(path: Path, spec: DataSpec | None) -> str | None:
    """Take the layout that the model was trained on if the path looks like it, else any that it looks like."""
    if is_image_file(path) and path.is_file():  # of a long list of files
        return None
    return spec.layout if spec is not None and matches(spec.layout, path, asked=True) else detect(path)


def _grouped(paths: Sequence[Path], spec: DataSpec | None, channels_in: Channels) -> list[CaseFiles]:
    """Group files by case: ``CASE_0000``, ``CASE_0001`` … are channels, where the model was trained on such files."""
    if spec is None or (spec.channel_files == 1 and spec.layout != "nnunet"):
        return [CaseFiles(image_name(path), (path,)) for path in paths]
    channels = {folder: channels_in(folder, spec.channel_files) for folder in {path.parent for path in paths}}
    cases = (channels[path.parent].get(path, CaseFiles(image_name(path), (path,))) for path in paths)
    return list(dict.fromkeys(cases))


def _channels_in(folder: Path, count: int) -> Mapping[Path, CaseFiles]:
    """Find cases whose files are numbered 0000 … ``count`` − 1: other numbers are dates, or pictures of a camera."""
    numbered: dict[str, list[Path]] = defaultdict(list)
    for path in list_images(folder).images:
        if match := NUMBERED.fullmatch(image_name(path)):
            numbered[match["name"]].append(path)
    expected = [f"{number:04d}" for number in range(count)]
    return {
        path: CaseFiles(name, tuple(files))
        for name, files in numbered.items()
        if [image_name(file)[-4:] for file in files] == expected
        for path in files
    }


def check_files(case: CaseFiles, spec: DataSpec) -> None:
    """Refuse a case that has not as many files as those that the model was trained on."""
    count, match, found = spec.channel_files, NUMBERED.fullmatch(case.name), case.images
    if count in (1, len(found)):
        return
    if len(found) == 1 and match and read_geometry(found[0])[1] < count:
        numbered = re.compile(re.escape(match["name"]) + r"_\d{4}")
        found = tuple(p for p in list_images(found[0].parent).images if numbered.fullmatch(image_name(p)))
    if len(found) == 1:  # a file may hold all channels; if it does not, that is seen when it is read
        return
    name = match["name"] if match else case.name
    raise DataError(
        f"{case.name}: the model was trained on {count} files per case, one per channel; found "
        f"{some([path.name for path in found])}. Give all channels, numbered {name}_0000 … {name}_{count - 1:04d}."
    )


def read_case(image: ImageLike, number: int = 0) -> Case:
    """Read whatever a user calls an image."""
    if isinstance(image, Case):
        return image
    if isinstance(image, (str, Path)):
        image = CaseFiles(image_name(Path(image)), (Path(image),))
    if isinstance(image, CaseFiles):
        pixels, geometry = read_channels(image.images)
        return Case(image.name, pixels, None, geometry)
    pixels = channels_first(np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image))
    check_image(pixels, f"image {number}")
    name = f"image_{number}_{image_key(pixels)[:8]}"
    return Case(name, pixels, None, Geometry(shape=pixels.shape[1:], spacing=(1.0, 1.0)))
