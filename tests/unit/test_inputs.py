"""Which images are meant by a path: channels in several files, layouts, splits."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.open import list_cases
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.inference.inputs import check_files, find_inputs, read_case
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
    broken, whole = find_inputs([tmp_path], like=FOUR)
    check_files(whole, FOUR.spec)
    with pytest.raises(DataError, match=r"a: the model was trained on 4 files per case.*found a_0000\.nii\.gz, a_0002"):
        check_files(broken, FOUR.spec)


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
