"""A folder with ``images/``, ``masks/`` and maybe ``split.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, CaseFiles, Layout, Listing, indexed
from medsegdiff.data.layouts.dicom_masks import dicom_mask_files, dicom_masks, lacking
from medsegdiff.data.layouts.trees.words import folder_name
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, some
from medsegdiff.io.listing import SUFFIXES, Contents, folders_in, foreign, list_images
from medsegdiff.io.names import image_name


def _match(root: Path) -> bool:
    """Tell whether a folder holds images and masks."""
    return (root / "images").is_dir()


def _list(root: Path, config: DataConfig) -> Listing:
    """List images and masks of the same name, as most people have them."""
    folder = root / (config.image_dir or "images")
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder.")
    held = list_images(folder) if folder.is_dir() else Contents()
    if not held.images:
        seen = folder if folder.is_dir() else root
        here = sorted(p.name for p in seen.iterdir())
        raise DataError(
            f"{root}: expected images ({', '.join(SUFFIXES)}, folders of DICOM) in images/ and masks in "
            f"{mask_dir(config)}/, or images and masks that belong together by their names; found in {seen}: "
            f"{some(here, most=8) or 'nothing'}. If folders are called otherwise, set data.image_dir and "
            f"data.mask_dir. {foreign(seen.iterdir())}".rstrip()
        )
    cases = indexed((CaseFiles(image_name(path), (path,)) for path in held.images), folder)
    where = root / mask_dir(config)
    masks = _masks(where, cases, config)
    listed = assign(cases, root / "split.csv")
    unlisted = tuple(name for name in cases if name not in listed)
    told = (*_beside(root, config), *(lacking(masks) if masks.declared else ()))
    return Listing(root, "folder", listed, masks, unlisted=unlisted, left_out=held.left_out, understood=told)


def _beside(root: Path, config: DataConfig) -> Iterator[str]:
    """Tell of folders that are called as if they held images or masks too, and of the settings that would take them."""
    taken = {"image": config.image_dir or "images", "mask": mask_dir(config)}
    asked = {"image": config.image_dir, "mask": config.mask_dir}
    used = {Path(path).parts[0] for path in taken.values()}
    for folder in folders_in(root):
        role, name = folder_name(folder.name).role, folder.name
        if role not in taken or asked[role] or name in used or not (root / taken[role]).is_dir():
            continue
        if any(list_images(place).images for place in (folder, *folders_in(folder))):
            yield f"{role}s come from {taken[role]}/ and none from {name}/; data.{role}_dir={name} takes those instead"


def mask_dir(config: DataConfig) -> str:
    """Name the folder of the masks, beside that of the images."""
    return config.mask_dir or "masks"


def _masks(where: Path, cases: Mapping[str, CaseFiles], config: DataConfig) -> Masks:
    if not where.exists() and mask_dir(config) == "masks":  # images alone can be segmented
        return Masks({}, kind="flat", where=where)
    if drawn := dicom_mask_files(where):
        taken = set(drawn.values())
        left_out = [entry for entry in list_images(where).left_out if entry.path not in taken]
        return dicom_masks(drawn, cases, where=where, classes=config.classes, left_out=left_out)
    return mask_folder(where, kind=config.mask_folders, names=cases)


DATASETS.register(
    "folder",
    kind="layout",
    layout="images/NAME.png|jpg|tif|nii|nii.gz or NAME/*.dcm, masks/[rater or structure/]NAME.png|nii.gz, split.csv",
)(Layout(_match, _list))
