"""REFUGE2: optic disc and cup in fundus photographs, as the challenge gives them or with the masks of seven raters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.spec import Benchmark, Found, Part, files_in, in_parts, register
from medsegdiff.data.dataset import SPLITS
from medsegdiff.data.mask_values import TWO_VALUES
from medsegdiff.data.masks import MaskFile, MaskReader, whole
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.image import read_mask
from medsegdiff.labels import Labels

CLASSES = ("disc", "cup")
"""The cup lies in the disc."""
STORED = {255: 0, 128: 1, 0: 2}
"""What the challenge stores → 0 outside, 1 the rim of the disc, 2 the cup."""
CHALLENGE = (  # the archive's name, or that of the folder in it; the masks of a part may not be public
    Part("train", "Training400/**/*.jpg|REFUGE-Training400/**/*.jpg", "Annotation-Training400/**/*.bmp"),
    Part("val", "REFUGE-Validation400/**/*.jpg|Validation400/**/*.jpg", "REFUGE-Validation400-GT/**/*.bmp"),
    Part("test", "Test400/**/*.jpg|REFUGE-Test400/**/*.jpg", "REFUGE-Test-GT/**/*.bmp"),
)
RATED = (
    Part("train", "Training-400/*/*.jpg", "Training-400/*/*_seg_disc_[1-7].png"),
    Part("val", "Validation-400/*/*.jpg", "Validation-400/*/*_seg_disc_[1-7].png"),
    Part("test", "Test-400/*/*.jpg", "Test-400/*/*_seg_disc_[1-7].png"),
)
ENDINGS = {f"rater{number}": f"_seg_disc_{number}" for number in range(1, 8)}


class ChallengeReader(MaskReader):
    """Reads masks of the challenge, in which the cup is 0, the rim 128 and the background 255."""

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "h w"]:
        """Read a mask."""
        stored = read_mask(whole(path))
        if strange := [str(value) for value in np.unique(stored).tolist() if value not in STORED]:
            raise DataError(
                f"{path}: expected 0 (cup), 128 (rim of the disc) and 255 (outside); found {some(strange)}. "
                "Take the file of the challenge again."
            )
        table = np.zeros(256, np.uint8)
        table[list(STORED)] = list(STORED.values())
        return table[stored]


class RaterReader(MaskReader):
    """Reads the two files of a rater as one mask: that of the disc is named, that of the cup lies beside it."""

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "h w"]:
        """Read disc and cup of a rater."""
        disc = whole(path)
        return cup_in_disc(_drawn(disc), _drawn(disc.with_name(disc.name.replace("_disc_", "_cup_"))), disc)


def _drawn(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Read one structure as 0 and 1; where edges are grey, at their half."""
    stored = read_mask(path)
    above = 0 if set(np.unique(stored).tolist()) in TWO_VALUES else 127
    return (stored > above).astype(np.uint8)


def cup_in_disc(
    disc: UInt8[np.ndarray, "h w"], cup: UInt8[np.ndarray, "i j"], path: MaskFile
) -> UInt8[np.ndarray, "h w"]:
    """Put two structures into one mask: 1 the disc, 2 the cup, 3 both."""
    if disc.shape != cup.shape:
        raise GeometryError(
            f"{path}: the disc is {size(disc.shape)} but the cup is {size(cup.shape)}. They must be of one image."
        )
    return disc + 2 * cup


def _match(root: Path) -> bool:
    globs = [glob for part in (*CHALLENGE, *RATED) for glob in part.images.split("|")]
    return any((root / glob.partition("/")[0]).is_dir() for glob in globs)


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the photographs of the challenge, or those with seven raters, in the official parts."""
    challenge = in_parts(spec, root, config)
    if challenge.cases:
        return challenge
    found = in_parts(replace(spec, parts=RATED, mask_endings=ENDINGS, unlabelled=SPLITS), root, config)
    drawn = {whole(path) for files in found.masks.values() for path in files.values()}
    cups = files_in(spec, root, "|".join(part.masks.replace("_disc_", "_cup_") for part in RATED))
    if odd := sorted(drawn ^ {path.with_name(path.name.replace("_cup_", "_disc_")) for path in cups}):
        numbers = sorted({path.stem[-1] for path in odd if path.parent == odd[0].parent})
        raise DataError(
            f"{odd[0].parent}: expected the disc and the cup of each rater; found only one of the two by "
            f"{some([f'rater{number}' for number in numbers])}. Unpack the whole release."
        )
    cases = [case for case in found.cases if case.images[0].parent.name == case.name]
    raters = {rater: files for rater, files in found.masks.items() if files}
    return Found(cases, raters, labels=Labels("regions", CLASSES, ((1, 3), (2, 3))), reader=RaterReader())


register(
    Benchmark(
        name="refuge2",
        labels=Labels("regions", CLASSES, ((1, 2), (2,))),
        files=(
            "Training400/{Glaucoma,Non-Glaucoma}/*.jpg, "
            "Annotation-Training400/Disc_Cup_Masks/{Glaucoma,Non-Glaucoma}/*.bmp, REFUGE-Validation400/*.jpg, "
            "REFUGE-Validation400-GT/Disc_Cup_Masks/*.bmp, Test400/*.jpg, REFUGE-Test-GT/Disc_Cup_Masks/{G,N}/*.bmp; "
            "or {Training,Test}-400/0001/{0001.jpg, 0001_seg_disc_1.png … _7.png, 0001_seg_cup_1.png … _7.png}"
        ),
        parts=CHALLENGE,
        masks_named="Disc_Cup_Masks/*.bmp",
        find=_find,
        match=_match,
        reader=ChallengeReader(),
        remarks=("the photographs for training are of another camera than those for validation and test",),
        licence="research use, on registration with the challenge",
        home="https://refuge.grand-challenge.org",
        paper="table 1, columns REFUGE2-Disc and REFUGE2-Cup",
    )
)
