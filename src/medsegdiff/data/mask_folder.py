"""Folders of masks: which file is of which case, and whether sub-folders stand for raters or for structures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from medsegdiff.config.data import MaskFolders
from medsegdiff.data.instances import united
from medsegdiff.data.masks import Kind, Masks
from medsegdiff.errors import DataError, some
from medsegdiff.io.listing import folders_in, foreign, in_words, list_images
from medsegdiff.io.names import composed, image_name

MASK_ENDINGS = ("_segmentation", "_mask", "_seg", "_labels", "_label", "_gt", "_manual1", "_manual")
"""What people append to an image's name to name its mask."""
RATER_WORDS = ("rater", "reader", "expert", "annotator", "observer", "grader")


def mask_folder(
    root: Path,
    *,
    kind: MaskFolders = "auto",
    names: Collection[str] = (),
) -> Masks:
    """Look through a folder with masks: flat, or in sub-folders that stand for raters or for structures."""
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; masks are expected there.")
    whole = list_images(root)
    folders = {folder: held for folder in folders_in(root) if (held := list_images(folder)).images}
    if whole.images and folders:
        raise DataError(
            f"{root}: holds both pictures ({whole.images[0].name}, …) and folders of pictures "
            f"({some([folder.name for folder in folders])}). "
            "Masks lie either here or in one folder per rater or structure; move the others away."
        )
    if not whole.images and not folders:
        allowed = "Expected PNG, TIFF or NIfTI files, or a folder per rater or structure."
        seen = f"{in_words(whole.left_out)} {foreign(entry.path for entry in whole.left_out)}".strip()
        raise DataError(f"{root}: holds no masks. {allowed} {seen}".rstrip())
    left_out = [entry for entry in whole.left_out if entry.path not in folders]
    left_out += [entry for held in folders.values() for entry in held.left_out]
    known = names or _told_apart([*whole.images, *(path for held in folders.values() for path in held.images)])
    if whole.images:
        return Masks({"": by_name(whole.images, known)}, kind="flat", where=root, left_out=left_out)
    files = {composed(folder.name): by_name(held.images, known) for folder, held in folders.items()}
    if kind == "instances":
        return united(files, where=root, left_out=left_out)
    return Masks(files, kind=kind_of(files, root, asked=kind), where=root, left_out=left_out)


def _told_apart(paths: Iterable[Path]) -> set[str]:
    """Find the names of which a mark is a part, for without it they would be those of others: images tell nothing."""
    stems = {image_name(path) for path in paths}
    return {stem for stem in stems if without_mark(stem) in stems}


def by_name(
    paths: Iterable[Path], names: Collection[str] = (), *, name_of: Callable[[Path], str] = image_name
) -> dict[str, Path]:
    """Index files by case name: the stem, without what marks it as a mask."""
    known, found = {*names}, dict[str, Path]()
    for path in paths:
        stem = name_of(path)
        name = stem if stem in known else without_mark(stem)
        if name in found:
            raise DataError(f"{found[name]} and {path} are both named '{name}'. Keep one of them.")
        found[name] = path
    return found


def without_mark(stem: str) -> str:
    """Drop the ending that marks a file as a mask: ``a_Segmentation`` → ``a``."""
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return stem


def kind_of(folders: Collection[str], where: Path, *, asked: MaskFolders = "auto") -> Kind:
    """Tell raters from structures by their names; where these contradict each other, the user has to say."""
    if asked in ("raters", "structures"):
        return asked
    raters = [name for name in folders if name.lower().startswith(RATER_WORDS)]
    if raters and len(raters) < len(folders):
        others = [name for name in folders if name not in raters]
        raise DataError(
            f"{where}: {some(raters)} are named as raters, {some(others)} not. Say what all of them are with "
            "data.mask_folders=raters or data.mask_folders=structures, or move away those that are neither."
        )
    return "raters" if raters else "structures"
