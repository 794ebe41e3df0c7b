"""What several masks of an image are: drawings of raters, structures, or instances that are united."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medsegdiff.config.data import MaskFolders
from medsegdiff.data.layouts.trees.pairs import Match
from medsegdiff.data.layouts.trees.places import Place
from medsegdiff.data.mask_folder import RATER_WORDS
from medsegdiff.data.masks import Kind
from medsegdiff.errors import some

Layers = Mapping[str, tuple[Place, ...]]
"""Rater or structure → masks; one without a name where there is one of them. Several masks of one are instances."""
ByImage = Mapping[Place, Sequence[Match]]
READINGS = (
    "data.mask_folders=raters (drawings of the same by several persons), structures (which may overlap) or instances "
    "(of one structure, united)"
)


@dataclass(frozen=True)
class Arrangement:
    """The masks of all images, in order."""

    kind: Kind
    layers: Mapping[Place, Layers]
    """By image."""
    doubts: tuple[str, ...] = ()
    """Where several readings are possible."""

    @property
    def understood(self) -> Iterator[str]:
        """What is to be told of several masks of an image."""
        if self.kind != "flat":
            way_out = "; if they drew the same, set data.mask_folders=raters" if self.kind == "structures" else ""
            yield f"{self.kind}: {', '.join(_names(self.layers))}{way_out}"
        counts = {image: max(map(len, of_image.values())) for image, of_image in self.layers.items()}
        if several := [image for image, count in counts.items() if count > 1]:
            most = max(several, key=counts.__getitem__)
            yield (
                f"{len(several)} of {len(counts)} images have up to {counts[most]} masks, as {most.path}: "
                "instances, which are united; if they are not, set data.mask_folders=raters or structures"
            )


@dataclass(frozen=True)
class Naming:
    """How masks of an image are told apart."""

    asked: MaskFolders
    by_source: bool
    """Some image has masks in several folders, or marked by several words."""
    by_layer: bool
    """There are words for raters or structures."""

    def __call__(self, match: Match) -> str:
        """Name the rater or the structure of a mask; nothing where there is one, of which masks are instances."""
        if self.asked == "instances":
            return ""
        words = [match.mask.kind or match.mark] if self.by_source else []
        words += [match.layer] if match.layer else []
        if self.asked == "raters" and not self.by_layer and (match.number or not words):
            words.append(f"rater{match.number}")
        if self.asked == "structures" and not words:
            words.append(match.number or match.mark)
        return "_".join(words)


def arranged(matches: Iterable[Match], asked: MaskFolders) -> Arrangement:
    """Find out what several masks of an image are."""
    by_image: dict[Place, list[Match]] = defaultdict(list)
    for match in sorted(matches, key=lambda match: match.mask.path):
        by_image[match.image].append(match)
    read = _by_common_names(by_image)
    layered = any(match.layer for found in read.values() for match in found)
    naming = Naming(asked, any(len(_sources(found)) > 1 for found in read.values()), layered)
    layers = {image: _layers(found, naming) for image, found in read.items()}
    names = _names(layers)
    raters = [name for name in names if name.lower().startswith(RATER_WORDS)]
    told: Kind = "raters" if len(raters) == len(names) else "structures"
    kind: Kind = "flat" if len(names) < 2 else asked if asked in ("raters", "structures") else told
    doubts = tuple(_doubts(read, layers, kind)) if asked == "auto" else ()
    return Arrangement(kind, layers, doubts)


def _by_common_names(by_image: ByImage) -> ByImage:
    """Take names of masks for layers where each image has a folder of its own, and all have masks of the same names."""
    sets = {tuple(match.number for match in found) for found in by_image.values()}
    names = next(iter(sets), ())
    if len(by_image) < 2 or len(sets) > 1 or len(names) < 2 or not all(name and not name.isdigit() for name in names):
        return by_image
    return {
        image: [replace(match, layer=match.number, number="") for match in found] for image, found in by_image.items()
    }


def _layers(matches: Sequence[Match], naming: Naming) -> Layers:
    found: dict[str, list[Place]] = defaultdict(list)
    for match in matches:
        found[naming(match)].append(match.mask)
    return {name: tuple(masks) for name, masks in sorted(found.items())}


def _names(layers: Mapping[Place, Layers]) -> list[str]:
    return sorted({name for of_image in layers.values() for name in of_image})


def _sources(matches: Sequence[Match]) -> dict[tuple[str, str], Match]:
    """Tell kinds of masks apart by their folders and by the words in their names, with the first of each."""
    found: dict[tuple[str, str], Match] = {}
    for match in matches:
        found.setdefault((match.mask.source, match.mark), match)
    return found


def _doubts(by_image: ByImage, layers: Mapping[Place, Layers], kind: Kind) -> Iterator[str]:
    """Word what may be read in several ways."""
    many = [(image, found) for image, kinds in by_image.items() if len(found := _sources(kinds)) > 1]
    if many and kind != "raters":
        image, found = many[0]
        files = some([match.mask.path for match in found.values()])
        kinds = sorted({match.mask.kind for match in found.values()} - {""})
        one = f"with data.mask_dir={' or '.join(kinds)}" if len(kinds) > 1 else "where the others are moved away"
        yield (
            f"{len(many)} images have masks of several kinds: {image.path} has {files}. One kind is taken {one}; "
            f"all of them with {READINGS}."
        )
    elif mixed := _mixed(layers) or (_one_each(layers) if kind == "structures" else ""):
        yield mixed
    else:
        counts = {len(masks) for of_image in layers.values() for masks in of_image.values()}
        if len(layers) > 1 and len(counts) == 1 and counts != {1}:
            yield f"Each of the {len(layers)} images has {max(counts)} masks: {_several(*next(iter(layers.items())))}"


def _mixed(layers: Mapping[Place, Layers]) -> str:
    """Doubt what masks are of which some are named as raters or structures, and others are not, or otherwise."""
    names = _names(layers)
    raters = {name.lower().startswith(RATER_WORDS) for name in names}
    if len(names) < 2 or ("" not in names and len(raters) == 1):
        return ""
    return _several(*max(layers.items(), key=lambda item: len(item[1])))


def _one_each(layers: Mapping[Place, Layers]) -> str:
    """Doubt whether names are those of structures where no image has two of them: they may be kinds of images."""
    if any(len(of_image) > 1 for of_image in layers.values()):
        return ""
    examples = {next(iter(of_image)): image for image, of_image in layers.items()}
    files = some([f"{image.path} of {name}" for name, image in sorted(examples.items())])
    return (
        f"Each image has a mask of one kind: {files}. Set data.mask_folders=instances if all masks show one structure, "
        "or structures, and save an empty mask for each that an image lacks."
    )


def _several(image: Place, layers: Layers) -> str:
    files = some([mask.path for masks in layers.values() for mask in masks])
    return f"{image.path} has {files}. Say what they are with {READINGS}."
