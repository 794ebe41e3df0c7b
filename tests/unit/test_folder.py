"""Folders as users have them: what is understood, and what is refused with which words."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.config.data import DataConfig
from medsegdiff.data.mask_folder import mask_folder, without_mark
from medsegdiff.data.open import ListedSource, open_source
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.io.raster import read_mask
from tests.makers import make_folder, write_png


def source(root: Path, **values: object) -> ListedSource:
    opened = open_source(root, DataConfig(**values))
    assert isinstance(opened, ListedSource)
    return opened


def test_a_plain_folder_is_binary_grey_and_split_by_seed(folder: Path) -> None:
    info = source(folder).info
    assert (info.channels, info.labels.task, info.labels.classes) == (1, "binary", ("foreground",))
    parts = list(info.split.values())
    assert (parts.count("test"), parts.count("val")) == (2, 1)
    assert info.split == source(folder).info.split
    assert info.split != source(folder, split_seed=1).info.split
    case = source(folder).load("case03")
    assert case.image.shape == (1, 40, 32)
    assert case.mask is not None
    assert case.mask.shape == (1, 1, 40, 32)
    assert set(np.unique(case.mask)) == {0, 1}


@pytest.mark.parametrize("ending", ["", "_mask", "_Segmentation", "_gt"])
def test_masks_may_say_that_they_are_masks(folder: Path, ending: str) -> None:
    for path in (folder / "masks").iterdir():
        path.rename(path.with_name(path.stem + ending + ".png"))
    assert source(folder).load("case00").mask is not None
    assert without_mark(f"case00{ending}") == "case00"


def test_folders_beside_that_hold_images_or_masks_too_are_told_with_the_setting(folder: Path) -> None:
    assert source(folder).info.understood == ()
    shutil.copytree(folder / "masks", folder / "labels")
    shutil.copytree(folder / "images", folder / "scans" / "2024")
    (folder / "annotations").mkdir()
    assert source(folder).info.understood == (
        "masks come from masks/ and none from labels/; data.mask_dir=labels takes those instead",
        "images come from images/ and none from scans/; data.image_dir=scans takes those instead",
    )
    assert source(folder, mask_dir="labels", image_dir="images").info.understood == ()


def test_raters_and_structures_are_told_apart_by_name(folder: Path) -> None:
    for name in ("rater1", "rater2"):
        make_folder(folder.parent / "r", seed=0 if name == "rater1" else 1)
        (folder.parent / "r" / "masks").rename(folder.parent / name)
    masks = folder / "masks"
    for path in list(masks.iterdir()):
        path.unlink()
    for name in ("rater1", "rater2"):
        (folder.parent / name).rename(masks / name)
    two = source(folder)
    assert two.info.raters == ("rater1", "rater2")
    assert two.info.labels.task == "binary"
    assert two.load("case00").mask.shape == (2, 1, 40, 32)
    regions = source(folder, mask_folders="structures")
    assert (regions.info.labels.task, regions.info.labels.classes) == ("regions", ("rater1", "rater2"))
    assert regions.load("case00").mask.shape == (1, 2, 40, 32)


def test_a_rater_may_be_missing_but_not_a_structure(folder: Path) -> None:
    for rater in ("rater1", "rater2"):
        for path in (folder / "masks").glob("*.png"):
            write_png(folder / "masks" / rater / path.name, np.zeros((40, 32), np.uint8) + 255)
    with pytest.raises(DataError, match="both pictures .* and folders of pictures"):
        source(folder)
    for path in (folder / "masks").glob("*.png"):
        path.unlink()
    (folder / "masks" / "rater2" / "case00.png").unlink()
    assert source(folder).load("case00").mask.shape[0] == 1
    with pytest.raises(DataError, match=r"case00 \(no rater2\)"):
        source(folder, mask_folders="structures")


def test_class_indices_are_exclusive_classes(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        labels = np.zeros((40, 32), np.uint8)
        labels[:10], labels[20:30] = 1, 2
        write_png(path, labels)
    info = source(folder).info
    assert (info.labels.task, info.labels.classes) == ("exclusive", ("background", "class_1", "class_2"))
    named = source(folder, classes=("ground", "liver", "kidney"))
    assert named.info.labels.classes == ("ground", "liver", "kidney")
    mask = named.load("case00").mask
    assert mask.shape == (1, 3, 40, 32)
    assert (mask.sum(axis=1) == 1).all()
    with pytest.raises(DataError, match=r"value 2 is out of range; data\.classes names 2 \(0 … 1\): ground, liver"):
        source(folder, classes=("ground", "liver"))
    with pytest.raises(DataError, match="need a folder per structure"):
        source(folder, task="regions")


def test_grey_values_in_masks_are_refused_with_a_way_out(folder: Path) -> None:
    write_png(folder / "masks" / "case05.png", np.full((40, 32), 128, np.uint8))
    with pytest.raises(DataError, match=r"0, 128, 255.*of one structure, data\.mask_threshold says"):
        source(folder)
    assert source(folder, mask_threshold=128).load("case05").mask.all()
    assert not source(folder, mask_threshold=129).load("case05").mask.any()
    assert source(folder, task="binary").load("case05").mask.all()


@pytest.mark.parametrize("kind", ["flat", "structures"])
def test_grey_edges_are_cut_where_the_threshold_says(folder: Path, kind: str) -> None:
    drawn = {}
    for path in sorted((folder / "masks").iterdir()):
        small = Image.open(path).resize((8, 10), Image.Resampling.BILINEAR).resize((32, 40), Image.Resampling.BILINEAR)
        drawn[path.stem] = np.asarray(small)
        target = path if kind == "flat" else folder / "masks" / "lesion" / path.name
        path.unlink()
        write_png(target, drawn[path.stem])
    with pytest.raises(DataError, match=r"set data\.mask_threshold=128"):
        source(folder)
    for threshold in (1, 128):
        read = source(folder, mask_threshold=threshold)
        assert all(np.array_equal(read.load(name).mask[0, 0], drawn[name] >= threshold) for name in drawn)


def test_pixels_that_do_not_fit_are_refused_when_a_case_is_loaded(folder: Path) -> None:
    """Though the headers fitted when the data were looked through."""
    read = source(folder)
    write_png(folder / "masks" / "case02.png", np.zeros((32, 40), np.uint8))
    with pytest.raises(GeometryError, match=r"images/case02\.png is 40×32 but .*masks/case02\.png is 32×40 .* turned"):
        read.load("case02")


def test_masks_that_are_all_empty_are_refused(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        write_png(path, np.zeros((40, 32), np.uint8))
    with pytest.raises(DataError, match="every mask is empty"):
        source(folder)


def test_a_missing_mask_is_named(folder: Path) -> None:
    (folder / "masks" / "case07.png").unlink()
    with pytest.raises(DataError, match="1 of 12 images have no mask: case07"):
        source(folder)


def test_sizes_that_differ_are_named(folder: Path) -> None:
    write_png(folder / "masks" / "case02.png", np.zeros((32, 40), np.uint8))
    with pytest.raises(GeometryError, match=r"case02\.png is 40×32 but .*case02\.png is 32×40"):
        source(folder)


def test_truncated_and_unreadable_files_are_named(folder: Path) -> None:
    whole = (folder / "images" / "case01.png").read_bytes()
    (folder / "images" / "case01.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"case01\.png: can't be read"):
        source(folder).load("case01")
    (folder / "masks" / "case02.png").write_bytes(b"no picture")
    (folder / "images" / "case01.png").write_bytes(whole)
    with pytest.raises(DataError, match=r"case02\.png: can't be read"):
        source(folder)


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected images \(\.png, .*\) in images/.*: nothing"):
        source(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "scan.bmp").write_bytes(b"")
    with pytest.raises(DataError, match=r"found in .*images: scan\.bmp"):
        source(tmp_path)
    write_png(tmp_path / "images" / "a.png", np.arange(16, dtype=np.uint8).reshape(4, 4))
    with pytest.raises(DataError, match="there is no such folder; masks are expected there"):
        source(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="holds no masks"):
        source(tmp_path)


def test_two_images_of_one_name_are_refused(folder: Path) -> None:
    write_png(folder / "images" / "case00.tif", np.arange(1280, dtype=np.uint8).reshape(40, 32))
    with pytest.raises(DataError, match="both named 'case00'"):
        source(folder)


def test_two_masks_of_one_name_are_refused(folder: Path) -> None:
    write_png(folder / "masks" / "case00_mask.png", np.zeros((40, 32), np.uint8))
    with pytest.raises(DataError, match="both named 'case00'"):
        source(folder)


def test_masks_of_a_case_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    for rater, size in (("rater1", (4, 4)), ("rater2", (4, 5))):
        write_png(tmp_path / rater / "a.png", np.full(size, 255, np.uint8))
    masks = mask_folder(tmp_path)
    with pytest.raises(GeometryError, match="differ in size"):
        masks.read("a", masks.labels([0, 255]))


def test_a_mask_of_exactly_the_images_name_is_its_mask(folder: Path) -> None:
    for kind in ("images", "masks"):
        (folder / kind / "case00.png").rename(folder / kind / "case00_seg.png")
    assert "case00_seg" in source(folder).info.split


def test_structures_must_be_masks_too(folder: Path) -> None:
    for path in list((folder / "masks").iterdir()):
        write_png(folder / "masks" / "disc" / path.name, np.full((40, 32), 200, np.uint8))
        path.unlink()
    with pytest.raises(DataError, match="mask values are 200"):
        source(folder)
    assert source(folder, task="regions").info.labels.task == "regions"
    with pytest.raises(DataError, match="are structures, which may overlap"):
        source(folder, task="binary")


def test_endings_may_be_in_capitals_and_grey_may_stand_beside_colour(folder: Path) -> None:
    (folder / "images" / "case00.png").rename(folder / "images" / "case00.PNG")
    colour = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    write_png(folder / "images" / "case01.png", colour)
    mixed = source(folder)
    assert mixed.info.channels == 3
    assert mixed.load("case00").image.shape[0] == 1


def test_an_unknown_data_set_suggests_the_nearest() -> None:
    with pytest.raises(DataError, match="Did you mean 'phantom'"):
        open_source("phantm", DataConfig())
    with pytest.raises(DataError, match="there is no such folder"):
        open_source("folder", DataConfig())


def test_the_real_layouts_are_understood(real_data: object) -> None:
    isic = source(real_data("isic2016"))
    assert (isic.info.channels, isic.info.labels.task) == (3, "binary")
    parts = list(isic.info.split.values())
    assert (parts.count("train") + parts.count("val"), parts.count("test")) == (806, 339)
    chase = source(real_data("chase_db1"))
    assert chase.info.raters == ("rater1", "rater2")
    discs = source(real_data("drishti_gs_roi"))
    assert discs.info.labels.task == "regions"


def test_a_patient_stays_in_one_part(real_data: object) -> None:
    info = source(real_data("curvas_ct")).info
    patients = {
        part: {n.split("_")[0] for n, p in info.split.items() if p == part} for part in ("train", "val", "test")
    }
    assert info.labels.task == "regions"
    assert not patients["train"] & patients["val"]
    assert not patients["train"] & patients["test"]


def test_three_names_for_two_values_are_three_classes(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        write_png(path, (read_mask(path) > 0).astype(np.uint8))
    assert source(folder, classes=("ground", "liver", "tumour")).info.labels.task == "exclusive"
    assert source(folder, classes=("ground", "liver")).info.labels.classes == ("liver",)


def test_masks_without_an_image_need_no_structures(folder: Path) -> None:
    shutil.move(folder / "masks", folder / "disc")
    shutil.copytree(folder / "disc", folder / "masks" / "cup")
    shutil.move(folder / "disc", folder / "masks" / "disc")
    write_png(folder / "masks" / "disc" / "orphan.png", np.zeros((40, 32), np.uint8))
    assert source(folder).info.labels.task == "regions"


def test_jpeg_masks_are_taken_at_their_half(folder: Path) -> None:
    """Compression leaves a halo of small values around every edge; it is no foreground."""
    path = folder / "masks" / "case03.png"
    mask = read_mask(path)
    path.unlink()
    write_png(folder / "masks" / "case03.jpg", mask)
    assert len(np.unique(Image.open(folder / "masks" / "case03.jpg"))) > 2
    found = source(folder)
    assert found.info.labels.task == "binary"
    assert np.array_equal(found.load("case03").mask[0, 0], mask > 0)
