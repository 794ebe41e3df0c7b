"""From the paths of files alone to images and their masks: a pure function, which tells in words what it understood."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from medsegdiff.config.data import DataConfig
from medsegdiff.data.layouts.trees.layers import Arrangement, arranged
from medsegdiff.data.layouts.trees.names import Named, named
from medsegdiff.data.layouts.trees.pairs import match_all
from medsegdiff.data.layouts.trees.places import Place, keys_of, placed
from medsegdiff.data.layouts.trees.telling import parts_told, told
from medsegdiff.data.layouts.trees.words import bare_image, key_of, mask_names
from medsegdiff.data.masks import Kind
from medsegdiff.errors import some
from medsegdiff.io.listing import SUFFIXES, Reason


@dataclass(frozen=True)
class TreeCase:
    """An image, and the masks that belong to it."""

    name: str
    image: str
    masks: Mapping[str, tuple[str, ...]]
    """Rater or structure → files, which are united; one without a name where there is one of them."""
    part: str = ""
    group: str = ""


@dataclass(frozen=True)
class Reading:
    """What paths were understood to be."""

    cases: tuple[TreeCase, ...] = ()
    kind: Kind = "flat"
    understood: tuple[str, ...] = ()
    """In words, for the user to see whether it is true."""
    parts: str = ""
    """The same of the parts of the split; empty where folders name none."""
    doubts: tuple[str, ...] = ()
    """Of masks: where several readings are possible, and the settings that decide."""
    unclear: str = ""
    """The same of images; empty: there is one reading."""
    left_out: Mapping[str, Reason] = field(default_factory=dict)
    """File → why it is neither image nor mask."""
    said: bool = False
    """Whether folders say which files are images."""


@dataclass
class Candidates:
    """Images and masks, before it is known which belong together."""

    images: list[Place] = field(default_factory=list)
    masks: list[Place] = field(default_factory=list)
    left_out: dict[str, Reason] = field(default_factory=dict)


def read_tree(paths: Iterable[str], config: DataConfig) -> Reading:
    """Find images and their masks by the names of files and folders.

    Args:
        paths: Of pictures and volumes, seen from the folder of the data set, with ``/`` between their folders, and
            behind a folder that is a DICOM series.
        config: ``image_dir``, ``mask_dir``, ``mask_folders`` and ``image_folders`` decide where names do not.

    Returns:
        Cases, and each other file with the reason why it is left out.
    """
    places = placed(sorted(paths), image_dir=config.image_dir, mask_dir=config.mask_dir)
    found = _candidates(places, asked=bool(config.image_dir))
    masks = arranged(match_all(found.images, found.masks).values(), config.mask_folders)
    _leave_out(found, masks)
    names = named(found.images, config.image_folders)
    return Reading(
        cases=tuple(_case(image, names[image], masks) for image in found.images),
        kind=masks.kind,
        understood=tuple(told(found.images, masks, names)),
        parts=parts_told(found.images),
        doubts=(*masks.doubts, *_strangers(found, masks)),
        unclear=_same_image(found.images) or _same_picture(list(masks.layers)),
        left_out=dict(sorted(found.left_out.items())),
        said=any(image.role == "image" for image in found.images),
    )


def _case(image: Place, name: Named, masks: Arrangement) -> TreeCase:
    of_image = masks.layers.get(image, {})
    files = {layer: tuple(mask.path for mask in places) for layer, places in of_image.items()}
    return TreeCase(name.name, image.path, files, image.part, name.group)


def _candidates(places: Sequence[Place], *, asked: bool) -> Candidates:
    """Tell images from masks by their folders, and by their names where folders do not say.

    Where folders of images are ``asked`` for, no others hold some.
    """
    found = Candidates()
    folders = {place.source for place in places if place.role == "image"}
    beside: dict[str, set[str]] = defaultdict(set)
    has_mask: dict[str, set[str]] = defaultdict(set)
    for place in places:
        beside[place.folder].add(key_of(place.stem))
        has_mask[place.folder] |= {key_of(name.of) for name in mask_names(place.stem) if not asked and name.of}
    for place in places:
        names = mask_names(place.stem)
        has_image = any(key_of(name.of) in beside[place.folder] for name in names if name.of)
        if place.role == "aside":
            found.left_out[place.path] = Reason.ASIDE
        elif place.role == "mask" or (names and not place.role) or has_image:
            found.masks.append(place)
        elif folders and not place.role and key_of(place.stem) not in has_mask[place.folder]:
            found.left_out[place.path] = Reason.STRAY
        else:
            found.images.append(place)
    return found


def _leave_out(found: Candidates, masks: Arrangement) -> None:
    """Leave out masks without an image, and images that nothing says to be some and that differ from those with masks.

    Those lie above all of them, or lack the word for an image that the others beside them have.
    """
    used = {mask for of_image in masks.layers.values() for places in of_image.values() for mask in places}
    for mask in (mask for mask in found.masks if mask not in used):
        found.left_out[mask.path] = Reason.UNPAIRED
    folders = {image.folder for image in masks.layers}
    around = {folder[:end] for folder in folders for end in _ends(folder)}
    marked = dict.fromkeys(folders, True)
    for image in masks.layers:
        marked[image.folder] &= bare_image(image.stem) is not None
    for image in (image for image in found.images if not image.role and image not in masks.layers):
        above = image.folder not in folders and image.folder in around
        if above or (marked.get(image.folder) and bare_image(image.stem) is None):
            found.left_out[image.path] = Reason.UNMARKED
    found.images = [image for image in found.images if image.path not in found.left_out]


def _ends(folder: str) -> list[int]:
    """Tell where the names of the folders around one end."""
    return [0, *(match.start() for match in re.finditer("/", folder))]


def _same_image(images: Sequence[Place]) -> str:
    """Doubt which folder holds the images where several have files of the same names."""
    seen: dict[object, Place] = {}
    for image in images:
        first = seen.setdefault((image.shelf, key_of(image.stem)), image)
        if first.source != image.source:
            folders = " or ".join(f"data.image_dir={place.source}" for place in (first, image))
            return f"{first.path} and {image.path} may both be the image of one case. Set {folders}."
    return ""


def _same_picture(images: Sequence[Place]) -> str:
    """Doubt whether images are taken twice: from sub-folders that are named as formats, ``PNG`` and ``TIF``."""
    seen: dict[object, Place] = {}
    for image in images:
        if not any(f".{folder}" in SUFFIXES for folder in keys_of(image.within)):
            continue
        others = [folder for folder in keys_of(image.within) if f".{folder}" not in SUFFIXES]
        first = seen.setdefault((image.part, *others, key_of(image.stem)), image)
        if first.within != image.within:
            folders = " or ".join(f"data.image_dir={place.source or place.folder}" for place in (first, image))
            return f"{first.path} and {image.path} may be one image in two formats. Set {folders}."
    return ""


def _strangers(found: Candidates, masks: Arrangement) -> Iterator[str]:
    """Doubt whether the right masks were taken where all of a folder belong to no image."""
    used = {mask for of_image in masks.layers.values() for places in of_image.values() for mask in places}
    taken = {mask.kind for mask in used}
    strange = [mask for mask in found.masks if mask.kind not in taken]
    kinds = some(sorted({mask.kind for mask in strange} - {""}))
    if strange and not used:
        yield _unpaired(strange[0], found.images)
    elif kinds and "" in taken:
        yield (
            f"The masks in {kinds} belong to no image, as {strange[0].path}; those beside the images do. "
            "Name them after their images, or move them away."
        )
    elif kinds:
        yield (
            f"The masks in {kinds} belong to no image, as {strange[0].path}; those in {some(sorted(taken))} do. "
            f"Set data.mask_dir={min(taken)} if those are meant; else name the masks in {kinds} after their images."
        )


def _unpaired(mask: Place, images: Sequence[Place]) -> str:
    """Say why a mask belongs to no image: several have its name, or none."""
    alike = [image.path for image in images if key_of(image.stem) == key_of(mask.stem)]
    if len(alike) > 1:
        return f"{mask.path} may be the mask of {' or '.join(alike[:2])}. Lay masks into sub-folders as images are."
    image = f", {images[0].path} an image" if images else ""
    return f"No mask belongs to an image: {mask.path} is a mask{image}. Name each mask after its image."
