"""A folder with ``images/``, ``masks/`` and maybe ``split.csv``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, CaseFiles, Layout, Listing, indexed
from medsegdiff.data.layouts.dicom_masks import dicom_mask_files, dicom_masks
from medsegdiff.data.masks import Kind, Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, some
from medsegdiff.io.listing import SUFFIXES, list_images
from medsegdiff.io.names import image_name


def _match(root: Path) -> bool:
    """Tell whether a folder holds images and masks."""
    return (root / "images").is_dir()


def _list(root: Path, config: DataConfig) -> Listing:
    """List images and masks of the same name, as most people have them."""
    folder = root / "images"
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder.")
    paths = list_images(folder).images if folder.is_dir() else []
    if not paths:
        seen = folder if folder.is_dir() else root
        here = some(sorted(p.name for p in seen.iterdir()), most=8) or "nothing"
        raise DataError(
            f"{root}: expected images ({', '.join(SUFFIXES)}, folders of DICOM) in images/ and masks in "
            f"{config.mask_dir}/; found in {seen}: {here}."
        )
    cases = indexed((CaseFiles(image_name(path), (path,)) for path in paths), folder)
    where = root / config.mask_dir
    masks = _masks(where, cases, config)
    listed = assign(cases, root / "split.csv")
    return Listing(root, "folder", listed, masks, unlisted=tuple(name for name in cases if name not in listed))


def _masks(where: Path, cases: Mapping[str, CaseFiles], config: DataConfig) -> Masks:
    if not where.exists() and config.mask_dir == "masks":  # images alone can be segmented
        return Masks({}, kind="flat", where=where)
    if drawn := dicom_mask_files(where):
        return dicom_masks(drawn, cases, where=where, classes=config.classes)
    return mask_folder(where, kind=config.mask_folders, names=cases)


DATASETS.register(
    "folder",
    kind="layout",
    layout="images/NAME.png|jpg|tif|nii|nii.gz or NAME/*.dcm, masks/[rater or structure/]NAME.png|nii.gz, split.csv",
)(Layout(_match, _list))


MASK_ENDINGS = ("_segmentation", "_mask", "_seg", "_labels", "_label", "_gt", "_manual1", "_manual")
"""What people append to an image's name to name its mask."""
RATER_WORDS = ("rater", "reader", "expert", "annotator", "observer", "grader")


def mask_folder(
    root: Path,
    *,
    kind: Literal["auto", "raters", "structures"] = "auto",
    names: Collection[str] = (),
) -> Masks:
    """Look through a folder with masks: flat, or in sub-folders that stand for raters or for structures."""
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; masks are expected there.")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and list_images(p).images)
    flat = list_images(root).images
    if flat and folders:
        raise DataError(
            f"{root}: holds both pictures ({flat[0].name}, …) and folders of pictures "
            f"({some([p.name for p in folders])}). "
            "Masks lie either here or in one folder per rater or structure; move the others away."
        )
    if not flat and not folders:
        raise DataError(f"{root}: holds no masks. Expected PNG or TIFF files, or a folder per rater or structure.")
    if flat:
        return Masks({"": by_name(flat, names)}, kind="flat", where=root)
    files = {folder.name: by_name(list_images(folder).images, names) for folder in folders}
    return Masks(files, kind=kind_of(files) if kind == "auto" else kind, where=root)


def by_name(
    paths: Iterable[Path], names: Collection[str] = (), *, name_of: Callable[[Path], str] = image_name
) -> dict[str, Path]:
    """Index files by case name: the stem, without what marks it as a mask."""
    found: dict[str, Path] = {}
    for path in paths:
        stem = name_of(path)
        name = stem if stem in names else case_name(stem)
        if name in found:
            raise DataError(f"{found[name]} and {path} are both named '{name}'. Keep one of them.")
        found[name] = path
    return found


def case_name(stem: str) -> str:
    """Drop the ending that marks a file as a mask: ``a_Segmentation`` → ``a``."""
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return stem


def kind_of(folders: Iterable[str]) -> Kind:
    """Tell raters from structures by their names."""
    return "raters" if all(name.lower().startswith(RATER_WORDS) for name in folders) else "structures"
