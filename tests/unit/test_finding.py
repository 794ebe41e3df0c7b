"""Which images are meant by a path: channels in several files, layouts, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config import DataConfig
from medsegdiff.errors import DataError
from medsegdiff.inference.finding import find_inputs
from medsegdiff.inference.inputs import read_case
from tests.makers import write_png
from tests.volumes import save

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])

FOUR = DataConfig(layout="nnunet", channel_files=4)


def make_channels(folder: Path, name: str, count: int) -> None:
    for channel in range(count):
        save(folder / f"{name}_{channel:04d}.nii.gz", np.full((3, 4, 2), channel + 1, np.int16), AFFINE)


def test_numbered_files_are_channels_of_one_case(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 4)
    make_channels(tmp_path, "b_1", 4)
    found = find_inputs([tmp_path], data=FOUR)
    assert [case.name for case in found] == ["a", "b_1"]
    assert read_case(found[1]).image[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert find_inputs([tmp_path / "a_0002.nii.gz"], data=FOUR) == found[:1]  # its channels lie beside it


def test_one_channel_of_nnunet_loses_its_number(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 1)
    assert [case.name for case in find_inputs([tmp_path], data=DataConfig(layout="nnunet"))] == ["a"]
    assert [case.name for case in find_inputs([tmp_path])] == ["a_0000"]


def test_frames_of_a_film_are_images_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / f"frame_{number:04d}.png", np.eye(8, dtype=np.uint8))
    assert len(find_inputs([tmp_path])) == 3


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 4)
    (tmp_path / "a_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"a: the model was trained on 4 files per case, a_0000 … a_0003; found a_0000"):
        find_inputs([tmp_path], data=FOUR)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    make_channels(tmp_path, "a", 1)
    save(tmp_path / "a_0001.nii.gz", np.ones((3, 4, 3), np.int16), AFFINE)
    two = DataConfig(layout="nnunet", channel_files=2)
    with pytest.raises(DataError, match=r"3×4×2 but .*a_0001\.nii\.gz is 3×4×3") as refused:
        try:
            read_case(find_inputs([tmp_path], data=two)[0])
        except ValueError as error:
            raise DataError(str(error)) from error
    assert "one grid" in str(refused.value)
