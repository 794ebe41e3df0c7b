"""Which images are meant by a path: channels in several files, layouts, splits."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.open import list_cases
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.inference import inputs
from medsegdiff.inference.inputs import check_files, find_inputs, read_case
from tests.described import make_nnunet
from tests.dicom_makers import make_slices, write_slices
from tests.makers import as_told, write_png
from tests.volumes import save

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])

FOUR = as_told(DataConfig(), layout="nnunet", channel_files=4)


def make_channels(folder: Path, name: str, count: int) -> None:
    for channel in range(count):
        save(folder / f"{name}_{channel:04d}.nii.gz", np.full((3, 4, 2), channel + 1, np.int16), AFFINE)


def test_numbered_files_are_channels_of_one_case(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 4)
    make_channels(tmp_path, "b_1", 4)
    found = find_inputs([tmp_path], like=FOUR)
    assert [case.name for case in found] == ["a", "b_1"]
    assert read_case(found[1]).image[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert find_inputs([tmp_path / "a_0002.nii.gz"], like=FOUR) == found[:1]  # its channels lie beside it


def test_a_folder_of_many_listed_files_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, list_images = list[Path](), inputs.list_images
    monkeypatch.setattr(inputs, "list_images", lambda folder: looked.append(folder) or list_images(folder))
    for case in "abc":
        make_channels(tmp_path, case, 4)
    found = find_inputs(sorted(tmp_path.glob("*.nii.gz")), like=FOUR)
    assert [(case.name, len(case.images)) for case in found] == [("a", 4), ("b", 4), ("c", 4)]
    assert looked == [tmp_path]


def test_one_channel_of_nnunet_loses_its_number(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 1)
    assert [case.name for case in find_inputs([tmp_path], like=as_told(DataConfig(), layout="nnunet"))] == ["a"]
    assert [case.name for case in find_inputs([tmp_path])] == ["a_0000"]


def test_frames_of_a_film_are_images_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / f"frame_{number:04d}.png", np.eye(8, dtype=np.uint8))
    assert len(find_inputs([tmp_path])) == 3


def test_a_missing_channel_is_named_when_the_case_is_read(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 4)
    make_channels(tmp_path, "b", 4)
    (tmp_path / "a_0001.nii.gz").unlink()
    *broken, whole = find_inputs([tmp_path], like=FOUR)
    check_files(whole, FOUR.spec)
    assert [case.name for case in broken] == ["a_0000", "a_0002", "a_0003"]
    for case in broken:
        with pytest.raises(
            DataError, match=rf"{case.name}: .* 4 files per case.*found a_0000\.nii\.gz, a_0002.*a_0003"
        ):
            check_files(case, FOUR.spec)


def test_numbers_of_a_camera_and_dates_are_no_channels(tmp_path: Path) -> None:
    one, two = (as_told(DataConfig(), layout="nnunet", channel_files=count) for count in (1, 2))
    for name in ("IMG_0000", "IMG_0001", "IMG_0002", "p1_2021", "p1_2022", "q_0001", "r_0000", "r_0001", "s_0000"):
        write_png(tmp_path / f"{name}.png", np.eye(8, dtype=np.uint8))

    def found(like: ResolvedConfig, *paths: Path) -> dict[str, int]:
        return {case.name: len(case.images) for case in find_inputs(paths or [tmp_path], like=like)}

    own = {"IMG_0000": 1, "IMG_0001": 1, "IMG_0002": 1, "p1_2021": 1, "p1_2022": 1, "q_0001": 1}
    assert found(one) == {**own, "r_0000": 1, "r_0001": 1, "s": 1}
    assert found(two) == {**own, "r": 2, "s_0000": 1}
    assert found(one, tmp_path / "IMG_0001.png") == {"IMG_0001": 1}
    assert found(two, tmp_path / "p1_2021.png") == {"p1_2021": 1}
    assert found(two, tmp_path / "r_0000.png", tmp_path / "r_0001.png") == {"r": 2}


def test_a_file_that_holds_all_channels_may_end_in_digits(tmp_path: Path) -> None:
    save(tmp_path / "scan_2021.nii.gz", np.ones((3, 4, 2, 4), np.int16), AFFINE)
    (case,) = find_inputs([tmp_path], like=FOUR)
    check_files(case, FOUR.spec)
    assert read_case(case).image.shape == (4, 3, 4, 2)


def test_a_case_and_a_channel_of_its_name_do_not_replace_each_other(tmp_path: Path) -> None:
    for name in ("a", "a_0000"):
        write_png(tmp_path / f"{name}.png", np.eye(8, dtype=np.uint8))
    with pytest.raises(DataError, match="Several images are named a;"):
        find_inputs([tmp_path], like=as_told(DataConfig(), layout="nnunet"))


def test_images_beside_the_folder_of_images_and_those_of_no_part_are_noted(tmp_path: Path) -> None:
    for path in ("images/a.png", "b.png", "c.png"):
        write_png(tmp_path / "data" / path, np.eye(8, dtype=np.uint8))
    noted: list[str] = []
    assert [case.name for case in find_inputs([tmp_path / "data"], noted=noted.append)] == ["a"]
    assert noted == [f"Images are taken from {tmp_path}/data/images; beside it lie b.png, c.png."]
    root = make_nnunet(tmp_path / "Dataset001_X")
    (root / "split.csv").write_text("id,split\nc0,train\nc1,val\n")
    assert [case.name for case in find_inputs([root], noted=noted.append)] == ["c0", "c1"]
    assert noted[1] == "3 images are in no part of the split and are not used: c2, c3, c4."


def test_what_is_not_segmented_is_noted(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.eye(8, dtype=np.uint8))
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "c.bmp").write_bytes(b"x")
    (tmp_path / "split.csv").write_text("id,split\na,test\nd,test\ne,train\n")
    noted: list[str] = []
    find_inputs([tmp_path], split_file=tmp_path / "split.csv", split="test", noted=noted.append)
    assert noted == [
        f"Left out of {tmp_path}, 2 entries: b.png (a link that leads nowhere); c.bmp (of a format that is not read).",
        "1 of 2 cases of the split 'test' are not among the images: d.",
    ]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"holds no images\..*Left out of .*b\.png"):
        find_inputs([tmp_path])


def test_what_lies_beside_the_channels_is_none_of_them(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 2)
    save(tmp_path / "a_mask.nii.gz", np.ones((3, 4, 2), np.int16), AFFINE)
    two = as_told(DataConfig(), layout="nnunet", channel_files=2)
    (case,) = find_inputs([tmp_path / "a_0000.nii.gz"], like=two)
    assert [path.name for path in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 1)
    save(tmp_path / "a_0001.nii.gz", np.ones((3, 4, 3), np.int16), AFFINE)
    two = as_told(DataConfig(), layout="nnunet", channel_files=2)
    with pytest.raises(GeometryError, match=r"3×4×2 but .*a_0001\.nii\.gz is 3×4×3.*one grid"):
        read_case(find_inputs([tmp_path], like=two)[0])


def test_a_table_may_name_files_with_their_endings(tmp_path: Path) -> None:
    for name in ("a.png", "b.v2.png"):
        write_png(tmp_path / "in" / name, np.eye(8, dtype=np.uint8))
    (tmp_path / "split.csv").write_text("id,split\na.png,test\nb.v2.png,test\n")
    found = find_inputs([tmp_path / "in"], split_file=tmp_path / "split.csv", split="test")
    assert [case.name for case in found] == ["a", "b.v2"]


def test_umlauts_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / f"{unicodedata.normalize('NFD', 'Müller')}.png", np.eye(8, dtype=np.uint8))
    write_png(tmp_path / "masks" / "Müller.png", np.eye(8, dtype=np.uint8))
    listing = list_cases(tmp_path, DataConfig())
    assert list(listing.cases) == listing.masks.names == ["Müller"]


def test_dicom_without_endings_is_a_series(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    write_slices(tmp_path / "series", make_slices(np.zeros((2, 4, 4), np.int16)), suffix="")
    assert [case.name for case in find_inputs([tmp_path])] == ["series"]
    assert read_case(find_inputs([tmp_path / "series"])[0]).image.shape == (1, 4, 4, 2)
