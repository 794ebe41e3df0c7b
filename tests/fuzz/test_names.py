"""Names, and trees of folders: nothing written elsewhere, nothing waited for, nothing passed over without a word."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.conftest import Fuzz
from tests.fuzz.promise import SMALL, converted
from tests.fuzz.strategies import stems
from tests.makers import disc

ENDINGS = (".png", ".PNG", ".jpg", ".tif", ".nii", ".nii.gz", ".dcm", ".txt", "", ".json", ".png.bak")
KINDS = ("picture", "mask", "empty", "garbage", "folder", "link", "loop", "nowhere", "pipe")


def test_pictures_of_any_name_are_segmented_under_it(fuzz: Fuzz) -> None:
    def check(stem: str) -> None:
        ground = fuzz.ground
        draw(ground.data / f"{stem}.png")
        draw(ground.data / "other.png")
        ended = ground.check("segment", ground.data, "--model", ground.run, "--out", ground.out, *SMALL, "--json")
        if stem.startswith("."):
            return
        expected = {0: (2, 0), 3: (1, 1)}.get(ended.code, (0, 0))
        told = json.loads(ended.out) if ended.code in (0, 3) else {"done": [], "failed": {}}
        assert (len(told["done"]), len(told["failed"])) == expected
        assert len(list((ground.out / "masks").glob("*.png"))) == expected[0]
        assert ended.code in (0, 1, 3)

    fuzz.each(stems(), check, share=0.01)


@pytest.mark.parametrize("to", ["folder", "nnunet"])
def test_cases_and_structures_of_any_name_are_converted_or_refused(fuzz: Fuzz, to: str) -> None:
    def check(given: tuple[str, str, str]) -> None:
        stem, *structures = given
        ground = fuzz.ground
        for name in (stem, "other"):
            draw(ground.data / "images" / f"{name}.png")
            for structure in structures:
                draw_mask(ground.data / "masks" / structure / f"{name}.png")
        ended = ground.check("data", "convert", ground.data, "--to", to, "--out", ground.out)
        written = ground.out / ("images" if to == "folder" else "imagesTr")
        assert converted(ended) == len(list(written.glob("*.png")))
        seen = {structure for structure in structures if not structure.startswith(".")}  # others are hidden
        if ended.code == 0 and to == "folder" and len(seen) == 2:
            assert len(list((ground.out / "masks").iterdir())) == 2

    fuzz.each(st.tuples(stems(), stems(), stems()), check, share=0.01)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, str]:
    """Draw paths in a data folder, and what lies there."""
    folders = st.sampled_from(("images", "images", "masks", "imagesTr", ".git")) | stems()
    found = {}
    for _ in range(draw(st.integers(1, 8))):
        within = draw(st.lists(folders, max_size=3))
        name = draw(stems() | st.sampled_from(("case", "other"))) + draw(st.sampled_from(ENDINGS))
        found["/".join([*within, name])] = draw(st.sampled_from(KINDS))
    return found


def test_trees_of_any_kind_are_looked_through(fuzz: Fuzz) -> None:
    def check(given: tuple[dict[str, str], str]) -> None:
        tree, command = given
        ground = fuzz.ground
        for path, kind in tree.items():
            plant(ground.data / path, kind)
        if command == "segment":
            ended = ground.check("segment", ground.data, "--model", ground.run, "--out", ground.out, *SMALL)
            assert bool(list((ground.out / "masks").glob("*"))) == (ended.code in (0, 3))
        elif command == "convert":
            ground.check("data", "convert", ground.data, "--to", "folder", "--out", ground.out)
        elif command == "evaluate":
            ground.check("evaluate", ground.data / "masks", ground.data)
        else:
            ground.check("data", "check", ground.data)

    fuzz.each(st.tuples(trees(), st.just("check")), check, share=0.06)
    fuzz.each(st.tuples(trees(), st.sampled_from(("convert", "evaluate", "segment"))), check, share=0.02)


def plant(path: Path, kind: str) -> None:
    """Put something at a path, where nothing is in the way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind in ("link", "loop", "nowhere"):
            path.symlink_to({"link": "../images", "loop": path.name, "nowhere": "gone"}[kind])
        elif kind == "pipe":
            os.mkfifo(path)
        elif not path.exists():
            path.write_bytes(b"" if kind == "empty" else b"\x00\x01no picture" * 20)
            if kind in ("picture", "mask"):
                {"picture": draw, "mask": draw_mask}[kind](path)
    except (FileExistsError, NotADirectoryError, OSError):
        return


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (12, 10), dtype=np.uint8)
    with path.open("wb") as file:
        Image.fromarray(noise).save(file, "PNG")


def draw_mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = disc((12, 10), (5, 5), 3).astype(np.uint8) * np.uint8(255)
    with path.open("wb") as file:
        Image.fromarray(mask).save(file, "PNG")
