"""What was understood of a tree, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from medsegdiff.data.dataset import SPLITS
from medsegdiff.data.layouts.trees.layers import Arrangement
from medsegdiff.data.layouts.trees.names import Named
from medsegdiff.data.layouts.trees.places import Place
from medsegdiff.data.layouts.trees.words import folder_name
from medsegdiff.errors import some


def told(images: Sequence[Place], masks: Arrangement, names: Mapping[Place, Named]) -> Iterator[str]:
    """Say which files are images and masks, what folders mean but for parts, and what several masks are."""
    for example in _examples([image for image in images if image in masks.layers]):
        files = [mask.path for of_layer in masks.layers[example].values() for mask in of_layer]
        yield f"{example.path} is an image with the mask{'s' * (len(files) > 1)} {some(files, most=3)}"
    guessed = sorted({image.source for image in images if image.source and not folder_name(_last(image)).role})
    if guessed:
        verb, them = ("is", "it") if len(guessed) == 1 else ("are", "them")
        where = f"{them} or another part of the split" if any(image.part for image in images) else them
        yield f"{some(guessed)} {verb} taken for images: masks of the same names lie beside {where}"
    yield from _folders(images, names)
    yield from masks.understood


def _examples(images: Sequence[Place]) -> Iterable[Place]:
    """Choose one image of those that lie beside their masks, and one of those in folders of images."""
    return {bool(image.role): image for image in reversed(images)}.values()


def _last(image: Place) -> str:
    return image.source.rpartition("/")[2]


def parts_told(images: Sequence[Place]) -> str:
    """Say which parts folders name, and what becomes of the others; nothing where they name none."""
    counts = Counter(image.part for image in images)
    told = ", ".join(f"{counts[part]} {part}" for part in SPLITS if counts[part])
    others = f"; the other {counts['']} are train" if counts[""] else ""
    drawn = "; val is drawn from train" if (counts["train"] or others) and not counts["val"] else ""
    return f"parts by folder: {told}{others}{drawn}" if told else ""


def _folders(images: Sequence[Place], names: Mapping[Place, Named]) -> Iterator[str]:
    """Say what sub-folders are, where they hold several images."""
    groups = {name.group for name in names.values()} - {""}
    count = Counter("/".join(image.within) for image in images if image.within)
    if not groups and (len(count) < 2 or max(count.values()) == 1):
        return
    if groups:
        meaning = "groups (patients, say), each in one part; if they are not, set data.image_folders=kinds"
    else:
        meaning = "kinds of images, which are no labels; if they are patients, set data.image_folders=groups"
    yield f"the sub-folders {some(sorted(groups or count), most=4)} are taken for {meaning}"
