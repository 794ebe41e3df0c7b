from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medsegdiff.config.data import DataConfig
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.mask_folder import by_name
from medsegdiff.data.open import open_source
from medsegdiff.errors import DataError
from medsegdiff.pictures.cases import preview
from tests.makers import disc, write_png
from tests.trees import write_tree
from tests.volumes import save


def test_a_sound_folder_is_described(folder: Path, tmp_path: Path) -> None:
    found = inspect_folder(folder, DataConfig())
    assert found.ok
    assert (found.images, found.sizes, found.channels) == (12, {"40×32": 12}, {"grey": 12})
    assert (found.task, found.values, found.masks) == ("binary", [0, 255], "flat")
    assert sum(found.split.values()) == 12
    preview(found.shown, found.drawn, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_everything_wrong_is_collected_not_only_the_first(folder: Path, tmp_path: Path) -> None:
    (folder / "masks" / "case00.png").unlink()
    (folder / "images" / "case01.png").unlink()
    (folder / "images" / "case02.png").write_bytes(b"nothing")
    write_png(folder / "masks" / "case03.png", np.zeros((40, 32), np.uint8))
    write_png(folder / "masks" / "case04.png", np.full((40, 32), 77, np.uint8))
    whole = (folder / "masks" / "case05.png").read_bytes()
    (folder / "masks" / "case05.png").write_bytes(whole[: len(whole) // 2])
    write_png(folder / "masks" / "case06.png", np.random.default_rng(0).integers(0, 255, (40, 32, 3), dtype=np.uint8))
    found = inspect_folder(folder, DataConfig())
    said = "\n".join(found.problems)
    for words in (
        "case00: the image has no mask",
        "images/case02.png: can't be read",
        "77",
        "masks/case05.png: can't be",
        "masks/case06.png: the mask is coloured",
    ):
        assert words in said
    assert found.remarks[0] == "case01: the mask has no image"
    assert [words for words in found.remarks[1:] if "draw one" not in words] == []
    assert found.empty_masks == ["masks/case03"]
    assert not found.ok
    preview(found.shown, found.drawn, tmp_path / "p.png")
    assert (tmp_path / "p.png").exists()


def test_folders_that_are_no_data_are_told_apart(folder: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in inspect_folder(tmp_path / "typo", DataConfig()).problems[0]
    for i, path in enumerate(sorted((folder / "masks").iterdir())):
        path.rename(path.with_name(f"other{i}.png"))
    found = inspect_folder(folder, DataConfig())
    assert sum("has no mask" in problem for problem in found.problems) == 12
    for path in (folder / "masks").iterdir():
        path.unlink()
    assert "holds no masks" in inspect_folder(folder, DataConfig()).problems[0]


@pytest.mark.parametrize(
    ("images", "others", "way_out"),
    [
        ("images/{}.png", ["annotations.json"], "save them as PNG masks .labelme_export_json, or annToMask"),
        ("images/{}.png", ["masks/coco.json"], "save them as PNG masks"),
        ("{}.png", ["0.json", "1.json"], "save them as PNG masks"),
        ("images/{}.nrrd", ["masks/0.nrrd"], "save them as NIfTI"),
        ("{}.mha", ["0_seg.mha"], "save them as NIfTI"),
        ("images/{}.nii", ["masks/0.nrrd"], "save them as NIfTI"),
        ("images/{}.png", ["dataset.json", "metrics.json"], ""),
    ],
)
def test_what_other_programs_write_is_told_with_the_way_here(
    tmp_path: Path, images: str, others: list[str], way_out: str
) -> None:
    for name in (*map(images.format, range(3)), *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"version": "5.0", "shapes": []}' if way_out else '{"Name": "of a data set"}')
    (told,) = inspect_folder(tmp_path, DataConfig()).problems
    assert re.search(way_out, told) if way_out else "save them" not in told


def test_masks_of_a_format_that_is_not_read_are_named(tmp_path: Path) -> None:
    write_png(tmp_path / "img" / "a.png", np.eye(8, dtype=np.uint8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.bmp").write_bytes(b"BM")
    found = inspect_folder(tmp_path, DataConfig())
    assert "there are no masks" in found.problems[0]
    assert "a.bmp (of a format that is not read)" in found.problems[0]
    with pytest.raises(DataError, match=r"1 of 1 images have no mask: a\. .*a\.bmp \(of a format that is not read\)"):
        open_source(tmp_path, DataConfig())


def test_test_images_without_a_mask_are_remarked(tmp_path: Path) -> None:
    files = {f"{part}/img/{part}{i}.png": [f"{part}/gt/{part}{i}.png"] for part in ("train", "test") for i in "abc"}
    write_tree(tmp_path, files | {"test/img/testb.png": []})
    found = inspect_folder(tmp_path, DataConfig())
    assert (found.ok, found.remarks) == (True, ["1 of 3 test images have no mask and get no score: testb."])


def test_folders_of_people_that_lack_masks_are_told_what_makes_them_raters(tmp_path: Path) -> None:
    people = ("Dr. Groß", "Dr. Klein")
    for name, person in [(f"eye{i}", person) for i in range(6) for person in people]:
        write_png(tmp_path / "images" / f"{name}.png", np.arange(480, dtype=np.uint8).reshape(24, 20))
        if (name, person) != ("eye3", "Dr. Klein"):
            write_png(tmp_path / "masks" / person / f"{name}.png", disc((24, 20), (10, 10), 5).astype(np.uint8))
    found = inspect_folder(tmp_path, DataConfig())
    assert found.problems == ["masks are missing: eye3 (no Dr. Klein)"]
    assert "if the sub-folders are raters, set data.mask_folders=raters" in found.remarks[0]
    assert inspect_folder(tmp_path, DataConfig(mask_folders="raters")).ok


def test_a_mixture_of_codings_is_told_with_the_threshold_that_keeps_all(tmp_path: Path) -> None:
    truth = write_tree(tmp_path, {f"img/{i}.png": [f"gt/{i}.png"] for i in range(8)})
    write_png(tmp_path / "gt" / "3.png", truth["img/3.png"].astype(np.uint8))
    assert "Some files hold 0/1 and others 0/255, perhaps: set data.mask_threshold=1" in "".join(
        inspect_folder(tmp_path, DataConfig()).problems
    )
    source = open_source(tmp_path, DataConfig(mask_threshold=1))
    assert all(np.array_equal(source.load(str(i)).mask[0, 0], truth[f"img/{i}.png"]) for i in range(8))


@pytest.mark.parametrize(
    ("values", "settings", "said", "unsaid"),
    [
        (
            (0, 128, 255),
            {},
            "classes drawn in grey values: save them as 0, 1, 2 ….*data.layout=refuge2",
            "data.classes",
        ),
        ((0, 85, 170, 255), {}, "classes drawn in grey values: save them as 0, 1, 2 …", "=128|refuge"),
        ((0, 85, 170), {"classes": ("ground", "a", "b")}, "classes drawn in grey values", "Name all classes"),
        ((0, 1, 128, 255), {}, "1: all that is not black; with 128, masks of 0/1 would be empty", "drawn in grey"),
        ((0, 40, 90, 128, 200, 255), {}, "data.mask_threshold=128.*set data.classes", "would be empty|drawn in grey"),
    ],
)
def test_grey_levels_are_told_from_grey_edges(
    tmp_path: Path, values: tuple[int, ...], settings: dict[str, Any], said: str, unsaid: str
) -> None:
    write_tree(tmp_path, {f"img/{i}.png": [f"gt/{i}.png"] for i in range(8)})
    write_png(tmp_path / "gt" / "3.png", np.resize(np.array(values, np.uint8), (24, 20)))
    (told,) = inspect_folder(tmp_path, DataConfig(**settings)).problems
    assert re.search(said, told)
    assert not re.search(unsaid, told)


def test_grey_levels_of_a_folder_for_each_structure_are_no_classes(tmp_path: Path) -> None:
    for number in range(4):
        write_png(tmp_path / "images" / f"{number}.png", np.eye(16, dtype=np.uint8) * (number + 9))
        for name, white in (("disc", 128), ("cup", 255)):
            write_png(tmp_path / "masks" / name / f"{number}.png", np.eye(16, dtype=np.uint8) * white)
    (told,) = inspect_folder(tmp_path, DataConfig()).problems
    assert "Allowed are 0/1 or 0/255 in the folder of each structure" in told
    assert "(1: all that is not black)" in told
    assert "classes" not in told
    assert open_source(tmp_path, DataConfig(mask_threshold=1)).load("0").mask.sum() == 32


def test_too_few_images_and_images_not_listed_are_said(folder: Path) -> None:
    (folder / "split.csv").write_text("id,split\ncase00,train\ncase01,val\n", encoding="utf-8")
    found = inspect_folder(folder, DataConfig())
    assert (found.ok, found.unlisted) == (True, 10)
    assert "10 images are in no part of the split and are not used: case02, " in found.remarks[0]
    (folder / "split.csv").write_text("id,split\ncase00,train\n", encoding="utf-8")
    found = inspect_folder(folder, DataConfig())
    assert not found.ok
    assert found.near_duplicates is None


@pytest.mark.parametrize("name", ["isic2016", "chase_db1", "curvas_ct"])
def test_real_folders_are_sound(real_data: object, name: str, tmp_path: Path) -> None:
    assert inspect_folder(real_data(name), DataConfig()).problems == []


def test_what_training_would_refuse_is_a_problem(tmp_path: Path) -> None:
    root = tmp_path / "Dataset001_A"
    for number in range(4):
        write_png(root / "imagesTr" / f"c{number}_0000.png", np.eye(16, dtype=np.uint8) * (number + 9))
        write_png(root / "labelsTr" / f"c{number}.png", np.eye(16, dtype=np.uint8) * (7 if number else 1))
    told = {"channel_names": {"0": "a"}, "labels": {"background": 0, "a": 1}, "numTraining": 4, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(told))
    assert any("mask value 7 has no meaning" in problem for problem in inspect_folder(root, DataConfig()).problems)
    for number, channels in enumerate((1, 2, 1)):
        voxels = np.random.default_rng(0).integers(1, 99, (4, 4, 3, channels), dtype=np.int16)
        save(tmp_path / "v" / "images" / f"{number}.nii", voxels)
        save(tmp_path / "v" / "masks" / f"{number}.nii", np.ones((4, 4, 3), np.uint8))
    found = inspect_folder(tmp_path / "v", DataConfig())
    assert any("The volumes differ in their channels" in problem for problem in found.problems)


def test_patients_in_several_parts_are_leaks(folder: Path) -> None:
    lines = [f"case{i:02d},{('train', 'val', 'test')[i % 3]},p{i // 3}" for i in range(12)]
    (folder / "split.csv").write_text("\n".join(["id,split,patient", *lines]))
    assert inspect_folder(folder, DataConfig()).leaks[0] == "p0 (test, train, val)"


def test_a_file_of_some_patients_leaves_all_other_images_as_they_are(folder: Path) -> None:
    (folder / "split.csv").write_text("id,patient\ncase00,anna\ncase01,anna\n", encoding="utf-8")
    found = inspect_folder(folder, DataConfig())
    assert (found.images, found.unlisted, sum(found.split.values()), found.remarks) == (12, 0, 12, [])
    source = open_source(folder, DataConfig())
    assert source.info.groups == {"case00": "anna", "case01": "anna"}
    assert source.info.split["case00"] == source.info.split["case01"]


def test_a_check_opens_each_picture_twice_and_each_mask_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100,000 cases each further time takes a minute."""
    opened, open_ = [], Image.open

    def counted(stream: object, **options: object) -> Image.Image:
        opened.append(Path(stream.name).parent.name)
        return open_(stream, **options)

    monkeypatch.setattr(Image, "open", counted)
    assert inspect_folder(folder, DataConfig()).ok
    assert (opened.count("images"), opened.count("masks")) == (2 * 12, 12)


def test_names_of_masks_are_looked_up_not_searched() -> None:
    """20,000 names take a moment; where each was compared with all, a minute."""
    names = [f"case_{number:05d}" for number in range(20_000)]
    paths = [Path(f"{name}_mask.png") for name in names]
    start = time.process_time()
    assert list(by_name(paths, names, name_of=lambda path: path.stem)) == names
    assert time.process_time() - start < 5
