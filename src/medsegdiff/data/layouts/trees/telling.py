"""What was understood of a tree, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from medsegdiff.data.dataset import SPLITS
from medsegdiff.data.layouts.trees.layers import Arrangement
from medsegdiff.data.layouts.trees.names import Named
from medsegdiff.data.layouts.trees.places import Place
from medsegdiff.data.layouts.trees.words import folder_name
from medsegdiff.errors import some


def told(images: Sequence[Place], masks: Arrangement, names: Mapping[Place, Named]) -> Iterator[str]:
    """Say which files are images and masks, what folders mean, and what several masks are."""
    if example := next((image for image in images if image in masks.layers), None):
        files = [mask.path for of_layer in masks.layers[example].values() for mask in of_layer]
        yield f"{example.path} is an image with the mask{'s' * (len(files) > 1)} {some(files, most=3)}"
    guessed = sorted({image.source for image in images if image.source and not folder_name(_last(image)).role})
    if guessed:
        yield f"{some(guessed)} is taken for images: it lies beside masks of the same names"
    yield from _parts(images)
    yield from _folders(images, names)
    yield from masks.understood


def _last(image: Place) -> str:
    return image.source.rpartition("/")[2]


def _parts(images: Sequence[Place]) -> Iterator[str]:
    counts = Counter(image.part for image in images if image.part)
    if counts:
        yield f"parts by folder: {', '.join(f'{counts[part]} {part}' for part in SPLITS if counts[part])}"


def _folders(images: Sequence[Place], names: Mapping[Place, Named]) -> Iterator[str]:
    """Say what sub-folders are, where they hold several images."""
    count = Counter("/".join(image.within) for image in images if image.within)
    if not count or max(count.values()) == 1:
        return
    if any(name.group for name in names.values()):
        meaning = "groups (patients, say), each in one part; if they are not, set data.image_folders=kinds"
    else:
        meaning = "kinds of images, which are no labels; if they are patients, set data.image_folders=groups"
    yield f"the sub-folders {some(sorted(count), most=4)} are taken for {meaning}"
