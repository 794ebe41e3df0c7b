"""What a user calls an image: files, folders, data sets in any layout, arrays. Found, and read as cases."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.data import DataConfig
from medsegdiff.config.spec import DataSpec, ResolvedConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.open import detect, list_cases, matches
from medsegdiff.data.split import names_in, resolve
from medsegdiff.errors import DataError, ShapeError, some
from medsegdiff.io.image import read_channels
from medsegdiff.io.listing import SUFFIXES, is_series, list_images
from medsegdiff.io.names import image_name
from medsegdiff.io.raster import check_image, scale_by_type
from medsegdiff.types import Case, Geometry

ImageLike = str | Path | np.ndarray | Tensor | CaseFiles | Case
"""A file, an array (h w), (h w 3) or (c h w), the files of a case, or a case that was read already."""
NUMBERED = re.compile(r"(?P<name>.+)_(?P<channel>\d{4})")
"""How nnU-Net names the files of the channels of a case."""


def find_inputs(
    paths: Sequence[Path],
    *,
    like: ResolvedConfig | None = None,
    split_file: Path | None = None,
    split: str | None = None,
) -> list[CaseFiles]:
    """List the images that a user means; those of a data set ``like`` those that a model was trained on."""
    found = [case for path in paths for case in _cases(path, like)]
    if split is not None and split_file is not None:
        known = {case.name for case in found}
        members = {resolve(name, known) for name in names_in(split_file, split)}
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


def _cases(path: Path, like: ResolvedConfig | None) -> list[CaseFiles]:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder.")
    spec = None if like is None else like.spec
    layout = _layout_of(path, spec)
    if layout not in (None, "folder"):
        data = DataConfig() if like is None else like.reading
        images = {"layout": layout, "mask_threshold": None}  # masks are not read
        return list(list_cases(path, data.model_copy(update=images)).cases.values())
    if path.is_file() or is_series(path):
        return _grouped([path], spec)
    folder = path / "images" if (path / "images").is_dir() else path
    pictures = list_images(folder).images
    if not pictures:
        raise DataError(f"{folder}: holds no images. Allowed: {', '.join(SUFFIXES)}.")
    return _grouped(pictures, spec)


def _layout_of(path: Path, spec: DataSpec | None) -> str | None:
    """Take the layout that the model was trained on if the path looks like it, else any that it looks like."""
    return spec.layout if spec is not None and matches(spec.layout, path, asked=True) else detect(path)


def _grouped(paths: Iterable[Path], spec: DataSpec | None) -> list[CaseFiles]:
    """Group files by case: ``CASE_0000``, ``CASE_0001`` … are channels, where the model was trained on such files."""
    if spec is None or (spec.channel_files == 1 and spec.layout != "nnunet"):
        return [CaseFiles(image_name(path), (path,)) for path in paths]
    wanted = list(paths)
    numbered = {folder: _numbered(folder) for folder in {path.parent for path in wanted}}
    cases: dict[tuple[Path, str], tuple[Path, ...]] = {}
    for path in wanted:
        match = NUMBERED.fullmatch(image_name(path))
        name = match["name"] if match else image_name(path)
        files = numbered[path.parent].get(name, [path]) if match else [path]
        cases[path.parent, name] = tuple(files)
    return [CaseFiles(name, files) for (_, name), files in sorted(cases.items())]


def _numbered(folder: Path) -> dict[str, list[Path]]:
    """List the channels of all cases of a folder, in the order of their numbers."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in list_images(folder).images:
        if match := NUMBERED.fullmatch(image_name(path)):
            found[match["name"]].append(path)
    return found


def check_files(case: CaseFiles, spec: DataSpec) -> None:
    """Refuse a case that has not as many files as those that the model was trained on."""
    if spec.channel_files > 1 and len(case.images) not in (1, spec.channel_files):
        names = some([path.name for path in case.images])
        raise DataError(
            f"{case.name}: the model was trained on {spec.channel_files} files per case, one per channel; found "
            f"{names}. Give all channels, numbered alike ({case.name}_0000 …)."
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
    pixels = _channels_first(np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image))
    check_image(pixels, f"image {number}")
    name = f"image_{number}_{image_key(pixels)[:8]}"
    return Case(name, pixels, None, Geometry(shape=pixels.shape[1:], spacing=(1.0, 1.0)))


def _channels_first(pixels: np.ndarray) -> Float[np.ndarray, "c h w"]:
    """Bring (h w), (h w 3) or (c h w) to (c h w)."""
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.shape[0] not in (1, 3):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.ndim != 3:
        raise ShapeError(f"An image has the shape {pixels.shape}; allowed are (h, w), (h, w, 3) and (c, h, w).")
    return scale_by_type(pixels)


def image_key(image: Float[np.ndarray, "c *s"]) -> str:
    """Name an image by its pixels, so that its noise is the same under any file name and in any order."""
    digest = hashlib.blake2b(digest_size=16)
    for channel in image:
        for part in channel:  # a row, or a plane of a volume: never a copy of all of it
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
