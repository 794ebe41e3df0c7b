"""PNG, JPEG and TIFF: what is shown is what is read, or the file is refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from medsegdiff.io.image import read_geometry, read_image, read_mask
from tests.fuzz.conftest import Fuzz
from tests.fuzz.images import FORMATS, Picture, damaged_pictures, pictures
from tests.fuzz.promise import SMALL, Ground, at_the_door
from tests.makers import disc, write_png

DOORS = ("check", "check masks", "convert", "segment", "evaluate", "evaluate masks")
"""Commands that meet a picture, as an image or as a mask."""


@pytest.mark.parametrize("format", FORMATS)
def test_pictures_are_what_viewers_show_or_refused(fuzz: Fuzz, format: str) -> None:
    def read(picture: Picture) -> None:
        path = picture.write(fuzz.ground.data / "images")
        compare(path, picture)
        compare_mask(path)

    def command(given: tuple[Picture, str]) -> None:
        picture, door = given
        picture.write(fuzz.ground.data / ("masks" if door.endswith("masks") else "images"))
        among_others(fuzz.ground, picture, door)

    inputs = pictures(format) | damaged_pictures(format)
    fuzz.each(inputs, read, share=0.07)
    fuzz.each(st.tuples(inputs, st.sampled_from(DOORS)), command, share=0.01)


def compare(path: Path, picture: Picture) -> None:
    """Read a picture, and its size from the header."""
    with at_the_door(path.name, valid=picture.valid):
        geometry, channels = read_geometry(path)
        image, _ = read_image(path)
        assert image.shape == (channels, *geometry.shape)
        assert np.isfinite(image).all()
        assert image.max() > image.min()
        Image.open(io.BytesIO(picture.content)).load()  # whoever reads it whole does not fail
        if picture.shown is not None:
            shown = picture.shown if picture.shown.ndim == 3 else picture.shown[..., None]
            assert np.allclose(image.transpose(1, 2, 0), shown, atol=1e-6)


def compare_mask(path: Path) -> None:
    """Read a picture as a mask: it has the size that the header tells."""
    with at_the_door(path.name, valid=False):
        geometry, _ = read_geometry(path)
        assert read_mask(path).shape == geometry.shape


def among_others(ground: Ground, picture: Picture, door: str) -> None:
    """Meet the picture among others, as commands do."""
    image = np.random.default_rng(0).integers(0, 256, (12, 10), dtype=np.uint8)
    mask = disc((12, 10), (5, 5), 3).astype(np.uint8) * np.uint8(255)
    for name in ("other", "third", "case"):
        if name != "case" or door.endswith("masks"):
            write_png(ground.data / "images" / f"{name}.png", image)
        if name != "case" or not door.endswith("masks"):
            write_png(ground.data / "masks" / f"{name}.png", mask)
    if door.startswith("check"):
        ground.check("data", "check", ground.data, names=("case",))
    elif door.startswith("evaluate"):  # images are no masks, but nobody knows that before they are read
        ground.check("evaluate", ground.data / "images", ground.data / "masks", names=("case", str(ground.data)))
    elif door == "convert":
        ended = ground.check("data", "convert", ground.data, "--to", "nnunet", "--out", ground.out, names=("case",))
        assert (ground.out / "dataset.json").exists() == (ended.code in (0, 3))
    else:
        ended = ground.check(
            *("segment", ground.data / "images", "--model", ground.run, "--out", ground.out, *SMALL), names=("case",)
        )
        assert ended.code == 0 or not picture.valid or picture.shown.ndim == 3
        for name in ("other", "third"):
            with Image.open(ground.out / "masks" / f"{name}.png") as found:
                assert found.size == (10, 12)
