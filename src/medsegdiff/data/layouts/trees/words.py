"""Words by which people name folders and files: what an image is, what a mask, what a part of the split."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Role = Literal["", "image", "mask", "aside"]
"""What a name says that files are; empty: nothing; ``aside``: what the user did not ask for."""

IMAGE = r"images?|imaging|imgs?|inputs?|scans?|pictures?|photos?|frames?|originals?|orig|raw|volumes?"
MASK = (
    r"masks?|msks?|labels?|lbls?|annotations?|annot|anno|gts?|groundtruths?|truths?|seg|segs|segm|segmentations?|segmented|"
    r"targets?|manual|delineations?"
)
PART_WORDS = {
    **dict.fromkeys(("train", "training", "trainval", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
FILLER = re.compile(r"data|dataset|sets?|all|the|of|and|part|stage|phase|task|split|ground|public|png|jpg|tif|.|\d+")
"""What names of folders have beside the words for a part."""
CENTRE = re.compile(r"site|cent(?:er|re)|hospital|scanner|vendor")
"""Where an image was made: patients of several centres may have one number."""
KIND = re.compile(rf"class|category|grade|type|kind|stage|level|score|birads|fold|batch|{CENTRE.pattern}")
"""Before the number of a kind of cases; other numbers are those of patients."""
PATIENT = re.compile(r"patient|subject|subj")
"""Before what tells one patient from another, be it a number or not."""
PATIENT_OR_NOT = re.compile(rf"{PATIENT.pattern}|sub|case|pt")
"""The same before a number or a letter; before other words these have other meanings (``case_positive``)."""

GAP = " _.-"
"""Between the words of a name."""
_IMAGE, _MASK = re.compile(IMAGE), re.compile(MASK)
_MARK = r"(?:^|(?<=[ _.\-]))(?:{})(?=$|[ _.\-(\d])"
MASK_MARK = re.compile(_MARK.format(rf"(?:ground[ _.\-]?)?(?:{MASK})"), re.IGNORECASE)
IMAGE_MARK = re.compile(_MARK.format(f"{IMAGE}|training|test"), re.IGNORECASE)
NUMBER = re.compile(rf"(?:(?P<word>.*?)[{GAP}]+)?\(?(?P<number>\d+)\)?")
"""At the end of the name of a mask: 1, disc_1, (1)."""


@dataclass(frozen=True)
class FolderName:
    """What the name of a folder says."""

    role: Role = ""
    part: str = ""
    """``train``, ``val`` or ``test``."""
    numbered: bool = False
    """Whether it may be that of one case, too: ``label_3`` of image and label, ``manual1`` of many masks."""

    @property
    def speaks(self) -> bool:
        """Whether it says what lies there, and is no sub-folder that belongs to the names of cases."""
        return bool((self.role and not self.numbered) or self.part)


@dataclass(frozen=True)
class MaskName:
    """One reading of the name of a mask."""

    of: str
    """The image; empty: the name says no more than that it is a mask."""
    mark: str = ""
    """The word that marks it."""
    rest: str = ""
    """What distinguishes it from other masks of the image."""


def words_of(name: str) -> list[str]:
    """Take a name apart: ``imagesTr`` → images, tr; ``Test_GT`` → test, gt."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.casefold() for word in re.findall(r"[^\W\d_]+|\d+", spaced)]


@functools.lru_cache(maxsize=65536)
def folder_name(name: str) -> FolderName:
    """Understand the name of a folder."""
    words = words_of(name)
    masks, images = (list(filter(known.fullmatch, words)) for known in (_MASK, _IMAGE))
    role: Role = "mask" if masks else "image" if images else ""
    if role and _is_numbered(words, (masks or images)[-1]):
        return FolderName("mask", numbered=True) if masks else FolderName()
    parts = {PART_WORDS[word] for word in words if word in PART_WORDS and (role or word not in ("tr", "ts"))}
    if parts == {"train", "val"}:  # together, as in TrainVal: validation is drawn from it
        parts = {"train"}
    alone = all(word in PART_WORDS or FILLER.fullmatch(word) for word in words)
    return FolderName(role, parts.pop() if len(parts) == 1 and (role or alone) else "")


def _is_numbered(words: list[str], role: str) -> bool:
    """Tell the folder of one case (``scan_12``) from one of many (``scans``, ``images_part_1``)."""
    behind = words[words.index(role) + 1 :]
    return not role.endswith("s") and behind[:1] != [] and behind[0].isdigit()


def mask_names(stem: str) -> list[MaskName]:
    """List how the name of a mask can be read, the likeliest first; nothing where no word marks it as one.

    ``x_mask``, ``x_mask_1``, ``x_mask_disc``, ``mask_x``, ``x_mask_1`` of ``x_1``, and ``mask`` alone, which is of the
    only image beside it.
    """
    found = []
    for match in reversed(list(MASK_MARK.finditer(stem))):
        before, behind = stem[: match.start()].strip(GAP), stem[match.end() :].strip(GAP)
        mark = "_".join(words_of(match[0]))
        found.append(MaskName(before, mark, "" if all(map(_MASK.fullmatch, words_of(behind))) else behind))
        if behind:
            found.append(MaskName(stem[: match.start()] + behind, mark))
    return sorted(found, key=lambda name: not name.of)


def split_number(rest: str) -> tuple[str, str]:
    """Take what distinguishes a mask apart: a word, and a number that says no more than "another"."""
    match = NUMBER.fullmatch(rest)
    return (match["word"] or "", match["number"]) if match else (rest, "")


def bare_image(stem: str) -> str | None:
    """Take the word for an image, or for a part, off its name: ``x_image``, ``img_x``, ``x_training`` → x.

    ``None`` where it has none.
    """
    match = next(reversed(list(IMAGE_MARK.finditer(stem))), None)
    if match is None or mask_names(stem):
        return None
    ends = stem[: match.start()].strip(GAP), stem[match.end() :].strip(GAP)
    return None if all(ends) else ends[0] or ends[1]


def key_of(name: str) -> str:
    """Bring a name to the form in which names are compared: capital letters and ways to write umlauts are alike."""
    return unicodedata.normalize("NFC", name).casefold()
