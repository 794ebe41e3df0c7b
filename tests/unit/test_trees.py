"""Folders as people have them, opened, looked at, converted and listed for segmenting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.data.convert import convert
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.open import detect, list_cases, open_source
from medsegdiff.errors import DataError
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.io.listing import Reason
from medsegdiff.pictures.cases import preview
from tests.dicom_makers import make_slices, write_slices
from tests.makers import make_folder, write_png
from tests.trees import TREES, a_folder_each, in_parts, other_words, write_tree
from tests.volumes import oblique, save

GREY = np.eye(8, dtype=np.uint8)


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A tree, and the true mask of each image."""
    return tmp_path / "tree", write_tree(tmp_path / "tree", TREES[request.param]())


def test_each_tree_opens_with_the_true_masks(tree: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, truth = tree
    source = open_source(root, DataConfig())
    assert (source.info.layout, source.info.labels.task) == ("tree", "binary")
    assert len(source.info.split) == len(truth)
    for name, case in list_cases(root, DataConfig()).cases.items():
        assert np.array_equal(source.load(name).mask[0, 0], truth[case.images[0].relative_to(root).as_posix()])


def test_each_tree_passes_the_check_and_is_told_in_words(tree: tuple[Path, dict[str, np.ndarray]]) -> None:
    found = inspect_folder(tree[0], DataConfig())
    assert (found.ok, found.remarks, found.images) == (True, [], len(tree[1]))
    assert " is an image with the mask" in found.understood[0]
    preview(found.shown, found.drawn, tree[0].parent / "shown.png", most=3)
    assert (tree[0].parent / "shown.png").is_file()


@pytest.mark.parametrize("to", ["folder", "nnunet"])
def test_each_tree_becomes_other_layouts(tree: tuple[Path, dict[str, np.ndarray]], to: str, tmp_path: Path) -> None:
    done = convert(tree[0], tmp_path / "Dataset001_Tree", to=to)
    assert (done.failed, len(done.done)) == ({}, len(tree[1]))
    source = open_source(done.out, DataConfig())
    areas = [source.load(name).mask[0, -1].sum() for name in source.info.split]
    assert sorted(areas) == sorted(mask.sum() for mask in tree[1].values())
    before = open_source(tree[0], DataConfig()).info.split
    if set(before.values()) == {"train", "val", "test"} and to == "folder" and "Val" in str(list(tree[1])):
        assert sorted(source.info.split.values()) == sorted(before.values())


def test_segmenting_a_tree_means_its_images(tree: tuple[Path, dict[str, np.ndarray]]) -> None:
    found = find_inputs([tree[0]])
    assert {case.images[0].relative_to(tree[0]).as_posix() for case in found} == set(tree[1])


def test_images_of_a_tree_without_masks_can_be_segmented(tmp_path: Path) -> None:
    write_tree(tmp_path, dict.fromkeys([path for path in in_parts() if path.startswith("Test")], ()))
    like = assumed(load_preset("v2-tiny"))
    like = like.model_copy(update={"spec": like.spec.model_copy(update={"layout": "tree"})})
    names = [case.name for case in find_inputs([tmp_path], like=like)]
    assert names == ["north-x0", "north-x1", "south-x0", "south-x1"]
    with pytest.raises(DataError, match="4 of 4 images have no mask: north-x0"):
        open_source(tmp_path, DataConfig())


def test_what_masks_are_does_not_matter_where_images_are_segmented(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"img/{i}.png": [f"labels/{i}.png", f"masks/{i}.png"] for i in range(4)})
    assert len(find_inputs([tmp_path])) == 4
    with pytest.raises(DataError, match=r"4 images have masks of several kinds: .*data\.mask_dir=labels or masks"):
        open_source(tmp_path, DataConfig())
    assert "data.mask_dir=labels or masks" in inspect_folder(tmp_path, DataConfig()).problems[0]
    assert open_source(tmp_path, DataConfig(mask_dir="masks")).info.labels.task == "binary"
    assert open_source(tmp_path, DataConfig(mask_folders="structures")).info.labels.classes == ("labels", "masks")
    raters = open_source(tmp_path, DataConfig(mask_folders="raters"))
    assert (raters.info.raters, raters.load("1").mask.shape[0]) == (("labels", "masks"), 2)


def test_official_parts_are_kept_and_split_csv_goes_before(tmp_path: Path) -> None:
    write_tree(tmp_path, in_parts())
    split = open_source(tmp_path, DataConfig()).info.split
    assert {name: part for name, part in split.items() if name.endswith("north-x0")} == {
        f"{part}-north-x0": part for part in ("train", "val", "test")
    }
    (tmp_path / "split.csv").write_text("id,split\ntrain-north-x0,test\ntrain-north-x1,val\ntrain-north-x2,train\n")
    assert sorted(open_source(tmp_path, DataConfig()).info.split.values()) == ["test", "train", "val"]


def test_images_of_a_group_lie_in_one_part(tmp_path: Path) -> None:
    files = {f"p{p}/s{i}.png": [f"p{p}/s{i}_mask.png"] for p in range(6) for i in range(3)}
    write_tree(tmp_path, files)
    split = open_source(tmp_path, DataConfig()).info.split
    assert all(len({split[f"p{p}-s{i}"] for i in range(3)}) == 1 for p in range(6))
    alone = open_source(tmp_path, DataConfig(image_folders="kinds", split_seed=3)).info.split
    assert any(len({alone[f"p{p}-s{i}"] for i in range(3)}) > 1 for p in range(6))


def test_a_plain_folder_stays_one(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", count=4)
    assert detect(tmp_path / "a") == "folder"
    write_png(tmp_path / "a" / "images" / "case00_mask.png", GREY)  # no other layout because of one odd file
    assert detect(tmp_path / "a") == "folder"
    make_folder(tmp_path / "b", count=4)
    (tmp_path / "b" / "masks").rename(tmp_path / "b" / "drawn")
    assert detect(tmp_path / "b") == "folder"
    assert list_cases(tmp_path / "b", DataConfig(mask_dir="drawn")).masks.names == [f"case{i:02d}" for i in range(4)]
    (tmp_path / "b" / "images").rename(tmp_path / "b" / "pictured")
    assert detect(tmp_path / "b") is None
    assert len(list_cases(tmp_path / "b", DataConfig(mask_dir="drawn", image_dir="pictured")).masks.names) == 4
    (tmp_path / "b" / "drawn").rename(tmp_path / "b" / "labels")
    assert detect(tmp_path / "b") == "tree"


@pytest.mark.parametrize("mask", ["masks/{}_{}.png", "masks/{}/{}.png", "images/{}_mask_{}.png"])
def test_images_in_a_plain_folder_may_have_several_masks(tmp_path: Path, mask: str) -> None:
    files = {f"images/{i}.png": [mask.format(i, n) for n in range(1, 2 + i % 2)] for i in range(1, 9)}
    truth = write_tree(tmp_path, files)
    (tmp_path / "masks").mkdir(exist_ok=True)
    source = open_source(tmp_path, DataConfig())
    assert (source.info.layout, len(source.info.split)) == ("tree", 8)
    for i in range(1, 9):
        assert np.array_equal(source.load(str(i)).mask[0, 0], truth[f"images/{i}.png"])


def test_a_split_file_is_told_instead_of_the_parts_that_folders_name(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {f"{part}/img/{part}{i}.png": [f"{part}/gt/{part}{i}.png"] for part in ("Train", "Test") for i in "ab"},
    )
    assert list_cases(tmp_path, DataConfig()).understood[-1].startswith("parts by folder: 2 train, 2 test; val")
    (tmp_path / "split.csv").write_text("id,split\nTraina,train\nTesta,val\n")
    assert list_cases(tmp_path, DataConfig()).understood[-1] == "parts by split.csv, which goes before folders"


def test_folders_are_read_once_whatever_links_lead_there(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"scans/x{i}.png": [f"scans/x{i}_mask.png"] for i in range(6)})
    alone = list_cases(tmp_path, DataConfig())
    (tmp_path / "latest").symlink_to("scans")
    (tmp_path / "scans" / "self").symlink_to(".")
    (tmp_path / "scans" / "up").symlink_to("..")
    found = list_cases(tmp_path, DataConfig())
    assert found.cases == alone.cases
    assert {entry.path.name: entry.reason for entry in found.left_out} == dict.fromkeys(
        ("latest", "self", "up"), Reason.AGAIN
    )
    told = open_source(tmp_path, DataConfig()).info.passed_over[0]
    assert "latest, self, up (a folder that is read already, by another name)" in told
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked").symlink_to(tmp_path / "scans")
    assert len(list_cases(tmp_path / "elsewhere", DataConfig(layout="tree")).cases) == 6


@pytest.mark.parametrize("link", ["current", "a/current", "images/0", "set/0", "zz"])
@pytest.mark.parametrize("target", ["images/2024", "images", "masks/2024", "set/2024", "set/2024/deep"])
def test_no_link_takes_the_place_of_a_folder(link: str, target: str, tmp_path: Path) -> None:
    pairs = {f"images/{year}/{i}.png": [f"masks/{year}/{i}_mask.png"] for year in (2023, 2024) for i in range(3)}
    beside = {
        f"set/{year}/deep/{year}{i}.png": [f"set/{year}/deep/{year}{i}_mask.png"] for year in (2023, 2024) for i in "ab"
    }
    write_tree(tmp_path, pairs if target[:3] != "set" else beside)
    (tmp_path / "a").mkdir()
    for folder in ("images", "set"):
        (tmp_path / folder).mkdir(exist_ok=True)
    alone = list_cases(tmp_path, DataConfig(layout="tree"))
    (tmp_path / link).symlink_to(tmp_path / target)
    found = list_cases(tmp_path, DataConfig(layout="tree"))
    assert (found.cases, found.masks.names) == (alone.cases, alone.masks.names)
    assert [(entry.path, entry.reason) for entry in found.left_out if entry not in alone.left_out] == [
        (tmp_path / link, Reason.AGAIN)
    ]


def test_a_series_is_read_once_whatever_links_lead_there(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        write_slices(tmp_path / "img" / name, make_slices(np.zeros((2, 4, 4))))
    (tmp_path / "img" / "newest").symlink_to("p2")
    (tmp_path / "first").symlink_to("img/p1")
    assert set(list_cases(tmp_path, DataConfig(layout="tree")).cases) == {"p1", "p2"}
    (tmp_path / "img" / "p3").symlink_to(write_slices(tmp_path.parent / "p3", make_slices(np.zeros((2, 4, 4)))))
    assert set(list_cases(tmp_path, DataConfig(layout="tree")).cases) == {"p1", "p2", "p3"}


def test_groups_that_are_too_few_to_split_are_told(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"set{n}/{i}.png": [f"set{n}/{i}_mask.png"] for n in (1, 2) for i in "abcd"})
    with pytest.raises(DataError, match=r"8 cases in all \(4 test, 4 train\), in groups .* there are 2.*=kinds"):
        open_source(tmp_path, DataConfig())
    assert len(open_source(tmp_path, DataConfig(image_folders="kinds")).info.split) == 8


def test_a_conversion_says_that_there_are_no_masks_and_which_names_change(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {f"Train/images/a {i}.png": [] for i in range(3)})
    done = convert(tmp_path / "in", tmp_path / "out", to="folder")
    assert done.notes[-2:] == [
        "No masks were found: images alone are written.",
        "3 names are written with _ for blanks and signs: 'a 0' as a_0.",
    ]
    assert {path.name for path in (tmp_path / "out" / "images").iterdir()} == {"a_0.png", "a_1.png", "a_2.png"}


def test_a_folder_of_photographs_is_no_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, dict.fromkeys(["a.png", "b.png"], ()))
    assert detect(tmp_path) is None
    assert len(find_inputs([tmp_path])) == 2


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"img/a.png": ["labels/a.png"], "img/a.jpg": []})
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png are both named 'a'"):
        list_cases(tmp_path, DataConfig())


def test_two_folders_of_images_are_told_with_the_setting_that_decides(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{word}/{i}.png": [f"gt/{i}.png"] for word in ("img", "scans") for i in range(4)})
    for wanted in (lambda: open_source(tmp_path, DataConfig()), lambda: find_inputs([tmp_path])):
        with pytest.raises(DataError, match=r"scans/0\.png may .* data\.image_dir=img or data\.image_dir=scans"):
            wanted()
    assert len(open_source(tmp_path, DataConfig(image_dir="scans")).info.split) == 4


def test_images_without_masks_and_masks_without_images_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, other_words() | {"img/alone.png": []})
    write_png(tmp_path / "labels" / "stray_mask.png", GREY)
    (tmp_path / "labels" / "notes.mat").write_bytes(b"x")
    found = inspect_folder(tmp_path, DataConfig())
    assert found.problems == ["alone: the image has no mask"]
    assert any("notes.mat (of a format that is not read)" in line for line in found.remarks)
    assert any("stray_mask.png (a mask without an image)" in line for line in found.remarks)
    with pytest.raises(DataError, match="1 of 9 images have no mask: alone"):
        open_source(tmp_path, DataConfig())


def test_volumes_may_lie_in_trees(tmp_path: Path) -> None:
    values = np.zeros((6, 5, 4), np.uint8)
    values[2:4, 2:4, 1:3] = 1
    for number in range(4):
        save(tmp_path / f"case_{number:05d}" / "imaging.nii.gz", values.astype(np.float32) + number, oblique())
        save(tmp_path / f"case_{number:05d}" / "segmentation.nii.gz", values, oblique())
    source = open_source(tmp_path, DataConfig())
    assert set(source.info.slices) == {f"case_{number:05d}" for number in range(4)}
    assert (source.info.layout, source.info.labels.task) == ("tree", "binary")


def test_instances_are_united_and_stay_countable(tmp_path: Path) -> None:
    truth = write_tree(tmp_path, a_folder_each())
    masks = list_cases(tmp_path, DataConfig()).masks
    (name, mask), reader = next(iter(masks.by_folder("1c0ffee").items())), masks.reader
    assert (name, len(reader.files(mask))) == ("", 2)
    assert np.array_equal(reader.values(mask) > 0, truth["1c0ffee/images/1c0ffee.png"])
