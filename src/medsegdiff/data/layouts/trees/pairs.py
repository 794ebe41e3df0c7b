"""Which mask belongs to which image, by their names and the folders around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medsegdiff.data.layouts.trees.names import begins
from medsegdiff.data.layouts.trees.places import Folder, Place, keys_of
from medsegdiff.data.layouts.trees.words import GAP, MaskName, bare_image, key_of, mask_names, split_number
from medsegdiff.data.mask_folder import RATER_WORDS


@dataclass(frozen=True)
class Match:
    """A mask, its image, and what distinguishes it from other masks of that."""

    image: Place
    mask: Place
    mark: str = ""
    """The word in its name that marks it as a mask."""
    layer: str = ""
    """A word that may be that of a rater or a structure."""
    number: str = ""
    """A number, or another name that says no more than one."""
    loose: bool = False
    """Whether the name of the image is followed by something, and no word for a mask."""


class Shelf:
    """Images in one sub-folder, by name."""

    def __init__(self) -> None:
        """Begin with none."""
        self.images: list[Place] = []
        self._named: dict[str, list[Place]] = defaultdict(list)

    def put(self, image: Place) -> None:
        """Add an image."""
        self.images.append(image)
        for name in _names_of(image):
            self._named[name].append(image)

    def find(self, name: str) -> Place | None:
        """Find the image of a name: written alike, else the only one that differs in nothing but capital letters."""
        found = self._named.get(key_of(name), [])
        alike = [image for image in found if image.stem == name] or found
        return alike[0] if len(alike) == 1 else None


def _names_of(image: Place) -> set[str]:
    """List the names of an image: its own, with its ending too, and without the word for an image (``x_img`` → x)."""
    file = image.path.rstrip("/").rpartition("/")[2]
    return {key_of(image.stem), key_of(file), key_of(bare_image(image.stem) or image.stem)}


class Shelves:
    """All images, by part and sub-folders."""

    def __init__(self, images: Sequence[Place]) -> None:
        """Put them in order."""
        self._shelves: dict[tuple[str, Folder], Shelf] = defaultdict(Shelf)
        self._within: dict[Folder, set[str]] = defaultdict(set)
        """Sub-folders → the parts that have them."""
        self._holding: dict[str, set[tuple[str, Folder]]] = defaultdict(set)
        """Name of an image → where there is one of that name."""
        for image in images:
            self._shelves[image.shelf].put(image)
            self._within[keys_of(image.within)].add(image.part)
            for name in _names_of(image):
                self._holding[name].add(image.shelf)
        self.one_each = all(image.within for image in images) and len(self._shelves) == len(images)
        """Whether each image has a folder of its own."""

    def match(self, mask: Place) -> Match | None:
        """Find the image of a mask."""
        for shelf, layer in self._around(mask):
            for match in self._named(mask, shelf, layer):
                return match
        return self._elsewhere(mask)

    def _elsewhere(self, mask: Place) -> Match | None:
        """Find the only image of a name where parts or sub-folders are those of images alone: one folder for masks."""
        within = keys_of(mask.within)
        names = {mask.stem, *(name.of for name in mask_names(mask.stem))}
        places = (
            {(part, within) for part in self._within.get(within, ())}
            if within
            else {place for name in names for place in self._holding.get(key_of(name), ())}
        )
        found = [
            match
            for place in places
            if mask.part in ("", place[0])
            for match in self._named(mask, self._shelves[place], "")
            if not match.loose
        ]
        images = {match.image for match in found}
        return found[0] if len(images) == 1 else None

    def in_its_folder(self, mask: Place) -> Match | None:
        """Find the image that is named as the innermost sub-folder of masks: ``masks/x/1.png`` → ``images/x.png``."""
        if not mask.after:
            return None
        shelf = self._shelves.get((mask.part, keys_of(mask.within[:-1])))
        image = shelf.find(mask.after[-1]) if shelf else None
        return Match(image, mask, number=mask.stem) if image else None

    def _around(self, mask: Place) -> Iterator[tuple[Shelf, str]]:
        """List the sub-folder of a mask, then those that it has where one folder is a rater's or a structure's."""
        places = [(mask.within, "")]
        for number, layer in enumerate(mask.after):
            places.append((mask.before + mask.after[:number] + mask.after[number + 1 :], layer))
        for within, layer in places:
            if shelf := self._shelves.get((mask.part, keys_of(within))):
                yield shelf, layer

    def _named(self, mask: Place, shelf: Shelf, layer: str) -> Iterator[Match]:
        """Read the name of a mask in all ways that lead to an image, the likeliest first."""
        names = mask_names(mask.stem)
        if mask.role == "mask" and (image := shelf.find(mask.stem)):
            yield Match(image, mask, layer=layer)
        for name in names:
            if name.of and (image := shelf.find(name.of)) and image != mask:
                yield _read(Match(image, mask, name.mark), layer, name.rest)
        if mask.role == "mask":
            for name in _beginnings(mask.stem):
                if image := shelf.find(name.of):
                    yield _read(Match(image, mask, loose=True), layer, name.rest)
        if len(shelf.images) == 1 and mask.within:
            alone = [name for name in names if not name.of or (self.one_each and begins(shelf.images[0].stem, name.of))]
            for name in alone:
                yield _read(Match(shelf.images[0], mask, name.mark), layer, name.rest)
            if mask.role == "mask" and self.one_each:
                yield Match(shelf.images[0], mask, layer=layer, number=mask.stem)


def _beginnings(stem: str) -> Iterator[MaskName]:
    """List what a name may be that goes on after the name of an image, the longest first."""
    for end in range(len(stem) - 1, 0, -1):
        if stem[end] in GAP + "(":
            yield MaskName(stem[:end].rstrip(GAP), rest=stem[end:].strip(GAP))


def _read(match: Match, layer: str, rest: str) -> Match:
    """Tell words from numbers."""
    word, number = (rest, "") if rest.lower().startswith(RATER_WORDS) else split_number(rest)
    joined = "_".join(filter(None, (layer, word)))
    return Match(match.image, match.mask, match.mark, joined, number, match.loose)


def match_all(images: Sequence[Place], masks: Sequence[Place]) -> Mapping[Place, Match]:
    """Find the image of each mask that has one.

    Masks may be named with something behind the name of their image if all are: where some are named as images are, one
    with more behind is the mask of another image, which is missing. Sub-folders of masks are of an image each, and not
    of a rater, if more images get masks in that way.
    """
    shelves = Shelves(images)
    found = {mask: match for mask in masks if (match := shelves.match(mask))}
    own = {mask: match for mask in masks if (match := shelves.in_its_folder(mask))}
    if len(own) >= len(found) and len(_images(own)) > len(_images(found)):
        return own
    if all(match.loose for match in found.values()):
        return found
    return {mask: match for mask, match in found.items() if not match.loose}


def _images(matches: Mapping[Place, Match]) -> set[Place]:
    return {match.image for match in matches.values()}
