"""What values are is told by the files where they say it, and guessed where they don't."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert import convert
from medsegdiff.data.convert.files import survey
from medsegdiff.data.fingerprint import fingerprint
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.modality import lowest_value, warn_of_modality
from medsegdiff.data.open import list_cases, open_source
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.inference.inputs import read_case
from tests.described import make_msd
from tests.dicom_makers import make_slices, write_slices

AIR = {"CT": -1000, "MR": 0}


def make_series(root: Path, modalities: list[str], *, lowest: int | None = None, **elements: object) -> Path:
    """Series p0, p1, … with a block, each of its own modality, and their masks."""
    for number, modality in enumerate(modalities):
        stored = np.full((4, 8, 10), AIR.get(modality, 0) if lowest is None else lowest)
        stored[1:3, 2:6, 3 : 7 + number % 2] = 400
        slices = make_slices(stored)
        for dataset in slices:
            _describe(dataset, modality, elements)
        series = write_slices(root / "images" / f"p{number}", slices)
        grid = read_case(series).geometry
        (root / "masks").mkdir(exist_ok=True)
        mask = (stored == 400).transpose(2, 1, 0).astype(np.uint8)
        nib.Nifti1Image(mask, grid.affine).to_filename(root / "masks" / f"p{number}.nii.gz")
    return root


def _describe(dataset: Dataset, modality: str, elements: dict[str, object]) -> None:
    dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = modality, 1, 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)


@pytest.mark.parametrize(
    ("modality", "lowest", "expected"),
    [("CT", 50, "ct"), ("MR", -1000, "mr"), ("PT", -1000, "mr"), ("OT", -1000, ""), ("OT", 0, "")],
)
def test_what_files_say_goes_before_their_values(tmp_path: Path, modality: str, lowest: int, expected: str) -> None:
    config = DataConfig()
    source = open_source(make_series(tmp_path, [modality] * 3, lowest=lowest), config)
    assert source.info.modalities == ((expected,) if expected else ())
    guessed = "ct" if lowest < -200 else "mr"
    assert fingerprint(source, config).modalities == (expected or guessed,)


def test_padding_of_an_mr_series_moves_no_mean(tmp_path: Path) -> None:
    config = DataConfig()
    root = make_series(tmp_path, ["MR"] * 3, lowest=-32768, PixelPaddingValue=-32768)
    assert fingerprint(open_source(root, config), config).modalities == ("mr",)
    assert read_case(root / "images" / "p0").image.min() == 400


def test_series_of_several_modalities_are_refused_unless_the_user_decides(tmp_path: Path) -> None:
    root = make_series(tmp_path, ["CT", "CT", "MR"])
    with pytest.raises(DataError, match=r"modalities differ: p0 is CT, p2 is MR\. .* data\.modalities"):
        open_source(root, DataConfig())
    assert any("modalities differ" in problem for problem in inspect_folder(root, DataConfig()).problems)
    decided = DataConfig(modalities=("mr",))
    assert open_source(root, decided).info.modalities == ("mr",)
    assert inspect_folder(root, decided).ok


def test_conversion_knows_what_files_say(tmp_path: Path) -> None:
    listing = list_cases(make_series(tmp_path, ["CT", "CT"]), DataConfig())
    found = survey(listing, DataConfig(), only_foreground=False, track=lambda items, text: items)
    assert found.modalities == ("ct",)


def test_padding_of_a_volume_is_no_air() -> None:
    volume = np.full((3, 4, 5), 70, np.float32)
    volume[0] = -32768
    assert lowest_value(volume) == 70
    volume[1, 0] = -1024
    assert lowest_value(volume) == -1024


@pytest.mark.parametrize(
    ("made_by", "trained", "warned"), [("MR", "ct", True), ("CT", "mr", True), ("MR", "mr", False)]
)
def test_a_series_that_the_model_does_not_know_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, made_by: str, trained: str, warned: bool
) -> None:
    case = read_case(make_series(tmp_path, [made_by]) / "images" / "p0")
    with caplog.at_level(logging.WARNING):
        warn_of_modality(case, (trained,))
    assert (f"it is {made_by}, but the model was trained on {trained}" in caplog.text) == warned


def test_modalities_of_other_channels_than_there_are_are_told_by_check_training_and_conversion(tmp_path: Path) -> None:
    root = make_msd(tmp_path / "three", channels=("MRI", "MRI", "MRI"), modality={"0": "MRI"})
    alone = make_msd(tmp_path / "one", channels=("CT",))
    for number, (folder, config, words) in enumerate(
        (
            (root, DataConfig(), r"mr \(told by the data set\) are 1, but the images have 3 channels"),
            (
                root,
                DataConfig(modalities=("mr", "mr")),
                r"mr, mr \(given as data.modalities\) are 2, but",
            ),
            (alone, DataConfig(modalities=("ct", "mr")), r"are 2, but the images have 1 channels"),
        )
    ):
        with pytest.raises(ConfigError, match=words):
            fingerprint(open_source(folder, config), config)
        (problem,) = inspect_folder(folder, config).problems
        assert re.search(words, problem)
        with pytest.raises(ConfigError, match=words):
            convert(folder, tmp_path / f"out{number}", to="slices", config=config)
        assert not (tmp_path / f"out{number}").exists()
    assert inspect_folder(root, DataConfig(modalities=("mr", "mr", "ct"))).ok


def test_check_tells_that_pictures_are_no_ct(folder: Path) -> None:
    (problem,) = inspect_folder(folder, DataConfig(modalities=("ct",))).problems
    assert "needs volumes in Hounsfield units, and these are pictures" in problem
