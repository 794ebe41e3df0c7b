"""Folders as people have them, understood by names alone: pairs side by side, parts, sub-folders, a folder a case."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.instances import UnitedReader
from medsegdiff.data.layouts.trees.places import Place
from medsegdiff.data.layouts.trees.reading import Reading, read_tree
from medsegdiff.data.layouts.trees.words import mask_names
from medsegdiff.data.mask_folder import without_mark
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError
from medsegdiff.io.listing import LeftOut, Reason, list_images
from medsegdiff.io.names import image_name

DEEPEST = 6
"""Folders that may lie in each other."""


def _match(root: Path) -> bool:
    """Tell whether images and masks belong together by names, or folders say which files are images."""
    if not root.is_dir() or _is_plain(root):
        return False
    files = _files(root).images
    if not any("/" in path or mask_names(Place(path).stem) for path in files):  # of a hundred thousand images, say
        return False
    found = read_tree(files, DataConfig())
    return any(case.masks for case in found.cases) or (found.said and not _has_images(root / "images"))


def _is_plain(root: Path) -> bool:
    """Tell whether images and masks lie in two folders, as the layout ``folder`` has them.

    They do not where no mask is named as an image, or each image has a folder of masks.
    """
    masks = root / "masks"
    if not _has_images(root / "images") or not masks.is_dir():
        return False
    names = {image_name(path) for path in list_images(root / "images").images}
    inside = list_images(masks)
    folders = [entry.path for entry in inside.left_out if entry.reason is Reason.FOLDER]
    found = {image_name(path) for folder in (masks, *folders) for path in list_images(folder).images}
    drawn = any(entry.reason is Reason.SLICE for entry in inside.left_out)  # DICOM-SEG, RTSTRUCT
    of_each = bool(folders) and {image_name(folder) for folder in folders} <= names
    return drawn or (not of_each and any({name, without_mark(name)} & names for name in found))


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and bool(list_images(folder).images)


def _list(root: Path, config: DataConfig) -> Listing:
    """List images and masks that belong together by their names."""
    files = _files(root) if root.is_dir() else Files()
    found = read_tree(files.images, config)
    if not found.cases:
        raise expected("images, and masks that belong to them by their names", root)
    if found.unclear:
        raise DataError(f"{root}: {found.unclear}")
    cases = indexed((CaseFiles(case.name, (root / case.image,), case.part, case.group) for case in found.cases), root)
    kept = assign(cases, root / "split.csv")
    parts = "parts by split.csv, which goes before folders" if (root / "split.csv").is_file() else found.parts
    others = [LeftOut(root / path, reason) for path, reason in found.left_out.items()]
    return Listing(
        root,
        "tree",
        kept,
        _masks(found, root, [entry for entry in others if entry.reason is Reason.UNPAIRED]),
        unlisted=tuple(name for name in cases if name not in kept),
        left_out=(*files.left_out, *(entry for entry in others if entry.reason is not Reason.UNPAIRED)),
        understood=(*found.understood, *filter(None, (parts,))),
        doubts=found.doubts,
    )


def _masks(found: Reading, root: Path, left_out: Sequence[LeftOut]) -> Masks:
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    instances = {}
    for case in found.cases:
        for layer, paths in case.masks.items():
            files[layer][case.name] = root / paths[0]
            instances[root / paths[0]] = [root / path for path in paths]
    reader = UnitedReader(instances) if any(len(paths) > 1 for paths in instances.values()) else None
    return Masks(files, kind=found.kind, where=root, reader=reader, left_out=left_out)


@dataclass
class Files:
    """What lies in a folder and below it."""

    images: list[str] = field(default_factory=list)
    """Seen from that folder, a series with ``/`` behind."""
    left_out: list[LeftOut] = field(default_factory=list)


def _files(root: Path) -> Files:
    """Look through a folder and those in it, each once: a link to one of them would double its images.

    Links are followed when all folders that are none have been read, so that none takes their place.
    """
    found, seen, series = Files(), set[tuple[int, int]](), set[Path]()
    folders, links = deque([root]), deque[Path]()
    while folders or links:
        folder = (folders or links).popleft()
        within = folder.relative_to(root)
        if _identity(folder) in seen:
            found.left_out.append(LeftOut(folder, Reason.AGAIN))
        elif folder in series:
            found.images.append(f"{within.as_posix()}/")
        elif len(within.parts) > DEEPEST:
            found.left_out.append(LeftOut(folder, Reason.FOLDER))
        else:
            inside = list_images(folder)
            of_slices = {path for path in inside.images if path.is_dir()}
            below = {entry.path for entry in inside.left_out if entry.reason is Reason.FOLDER}
            for path in sorted(of_slices | below):
                (links if path.is_symlink() else folders).append(path)
            series |= of_slices
            found.images += [path.relative_to(root).as_posix() for path in inside.images if path not in of_slices]
            found.left_out += [entry for entry in inside.left_out if entry.path not in below]
        seen.add(_identity(folder))
    return found


def _identity(folder: Path) -> tuple[int, int]:
    """Tell one folder from another, whatever links lead there."""
    status = folder.stat()
    return status.st_dev, status.st_ino


DATASETS.register(
    "tree",
    kind="layout",
    layout="NAME.png and NAME_mask.png side by side; {Train,Val,Test}/{Images,Labels}/[FOLDER/]NAME.png; "
    "NAME/images/NAME.png and NAME/masks/*.png; img/NAME.png and labels/NAME_mask.png; by the words that people use",
)(Layout(_match, _list))
