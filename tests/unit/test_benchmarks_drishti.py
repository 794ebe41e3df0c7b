"""Drishti-GS as maps of agreement: what at least so many experts drew, checked by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.open import list_cases, open_source
from medsegdiff.errors import DataError
from tests.makers import write_png

LEVELS = np.array([[0, 64, 128, 191, 255, 255]] * 4, np.uint8)
"""0, 1, 2, 3, 4, 4 of 4 experts."""


def make_drishti(root: Path) -> None:
    for name in ("drishtiGS_001", "drishtiGS_002"):
        write_png(root / "images" / f"{name}.png", np.repeat(LEVELS[..., None], 3, axis=2))
        write_png(root / "softmaps" / "disc" / f"{name}.png", LEVELS)
        write_png(root / "softmaps" / "cup" / f"{name}.png", np.array([[0, 0, 0, 0, 0, 128]] * 4, np.uint8))


def test_an_expert_is_what_at_least_so_many_drew(tmp_path: Path) -> None:
    make_drishti(tmp_path)
    (tmp_path / "split.csv").write_text("id,split\ndrishtiGS_001,train\ndrishtiGS_002,val\n")
    found = open_source(tmp_path, DataConfig())
    assert (found.info.layout, found.info.labels.task, found.info.labels.classes) == (
        "drishti",
        "regions",
        ("disc", "cup"),
    )
    assert found.info.raters == ("expert1", "expert2", "expert3", "expert4")
    mask = found.load("drishtiGS_001").mask
    assert mask is not None
    assert mask[:, 0, 0].tolist() == [[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]
    assert mask[:, 1, 0].tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1], [0] * 6, [0] * 6]
    assert mask[:, 0, 0].sum(axis=0).tolist() == [0, 1, 2, 3, 4, 4]


def test_the_release_is_found_with_its_parts(tmp_path: Path) -> None:
    make_drishti(tmp_path / "plain")
    for part, folder, name in (("Training", "GT", "drishtiGS_002"), ("Test", "Test_GT", "drishtiGS_001")):
        target = tmp_path / "release" / part
        (target / "Images" / "GLAUCOMA").mkdir(parents=True)
        (tmp_path / "plain" / "images" / f"{name}.png").rename(target / "Images" / "GLAUCOMA" / f"{name}.png")
        maps = target / folder / name / "SoftMap"
        maps.mkdir(parents=True)
        for structure, ending in (("disc", "ODseg"), ("cup", "cupseg")):
            source = tmp_path / "plain" / "softmaps" / structure / f"{name}.png"
            source.rename(maps / f"{name}_{ending}Softmap.png")
    with pytest.raises(DataError, match="No case is left for the part"):  # one training case gives no validation
        open_source(tmp_path / "release", DataConfig())
    listing = list_cases(tmp_path / "release", DataConfig())
    assert {name: case.part for name, case in listing.cases.items()} == {
        "drishtiGS_001": "test",
        "drishtiGS_002": "train",
    }
    assert listing.masks.names == ["drishtiGS_001", "drishtiGS_002"]


def test_a_structure_without_its_map_is_named(tmp_path: Path) -> None:
    make_drishti(tmp_path)
    (tmp_path / "softmaps" / "cup" / "drishtiGS_002.png").unlink()
    with pytest.raises(DataError, match="'drishtiGS_002' has a map of the disc or of the cup alone"):
        open_source(tmp_path, DataConfig())


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("images", r"expected images/drishtiGS_001\.png.*; found softmaps/"),
        ("softmaps", r"expected images/drishtiGS_001\.png.*; found images/"),
        ("softmaps/disc", "has a map of the disc or of the cup alone"),
    ],
)
def test_a_folder_that_is_missing_is_named(tmp_path: Path, gone: str, words: str) -> None:
    make_drishti(tmp_path)
    shutil.rmtree(tmp_path / gone)
    with pytest.raises(DataError, match=words):
        list_cases(tmp_path, DataConfig(layout="drishti"))


def test_the_real_maps_have_discs_around_cups(real_data: object) -> None:
    found = open_source(real_data("drishti_gs_roi"), DataConfig())
    assert found.info.raters == ("expert1", "expert2", "expert3", "expert4")
    for name in sorted(found.info.split)[::25]:
        disc, cup = found.load(name).mask.swapaxes(0, 1)
        assert disc.any()
        assert (disc >= cup).all()
        assert (np.diff(disc.astype(int), axis=0) <= 0).all()
