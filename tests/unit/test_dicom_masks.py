"""DICOM-SEG and RTSTRUCT files as the masks of a data folder."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.layouts.dicom_masks import read_masks
from medsegdiff.data.open import list_cases, open_source
from medsegdiff.errors import DataError
from medsegdiff.io.dicom import read_series
from medsegdiff.io.dicom_seg import write_segmentation
from tests.dicom_makers import make_slices, write_slices

pytest.importorskip("highdicom")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Three patients with a series and a DICOM-SEG of two structures that overlap."""
    rng = np.random.default_rng(0)
    (tmp_path / "masks").mkdir()
    for number in range(3):
        folder = write_slices(tmp_path / "images" / f"p{number}", make_slices(rng.integers(0, 900, (3, 8, 6))))
        geometry = read_series(folder)[1]
        masks = np.zeros((2, *geometry.shape), np.uint8)
        masks[0, 1:4, 2:5, 1], masks[1, 2:5, 3 : 5 + number, 1] = 1, 1
        write_segmentation(tmp_path / "masks" / f"p{number}.dcm", masks, geometry=geometry, labels=("liver", "lesion"))
    return tmp_path


def test_structures_become_regions_on_the_slices_of_their_series(series: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source(series, DataConfig())))
    assert (source.info.labels.task, source.info.labels.classes) == ("regions", ("lesion", "liver"))
    case = source.load("p2/0001")
    truth = read_masks(series / "masks" / "p2.dcm", read_series(series / "images" / "p2")[1])[1]
    for channel, name in enumerate(("lesion", "liver")):
        drawn = truth[("liver", "lesion").index(name)]
        assert case.mask[0, channel].sum() == drawn[:, :, 1].sum() > 0
    assert (case.mask[0, 0] & case.mask[0, 1]).any()
    assert not source.load("p2/0000").mask.any()


def test_one_structure_may_be_chosen(series: Path) -> None:
    listing = list_cases(series, DataConfig(classes=("lesion",)))
    assert (listing.masks.declared.task, listing.masks.declared.classes) == ("binary", ("lesion",))
    assert open_source(series, DataConfig(classes=("lesion",))).load("p0/0001").mask.shape[:2] == (1, 1)
    with pytest.raises(DataError, match="no file holds spleen; there are lesion, liver"):
        list_cases(series, DataConfig(classes=("spleen",)))


def test_a_folder_per_case_will_do_but_not_with_two_files(series: Path) -> None:
    inner = series / "masks" / "p1"
    inner.mkdir()
    shutil.move(series / "masks" / "p1.dcm", inner / "exported.dcm")
    assert open_source(series, DataConfig()).info.labels.classes == ("lesion", "liver")
    shutil.copy(inner / "exported.dcm", inner / "again.dcm")
    with pytest.raises(DataError, match="holds 2 DICOM files; expected one DICOM-SEG or RTSTRUCT per case"):
        list_cases(series, DataConfig())


def test_masks_that_are_slices_say_what_they_are(series: Path) -> None:
    shutil.copy(next((series / "images" / "p0").iterdir()), series / "masks" / "p0.dcm")
    found = inspect_folder(series, DataConfig())
    assert "has the modality CT; allowed are SEG, RTSTRUCT" in found.problems[0]


def test_real_files_are_references_of_their_series(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    for name, file, slices in (
        ("dcmqi_ct_liver_seg", "liver.dcm", ("01.dcm", "02.dcm", "03.dcm")),
        ("rtutils_ct_rtstruct", "rt.dcm", ("ct_1.dcm", "ct_2.dcm")),
    ):
        origin, data = real_data("dicom") / name, tmp_path / name
        for number in range(2):  # two patients, so that there is one to validate with
            (data / "images" / f"p{number}").mkdir(parents=True)
            (data / "masks").mkdir(exist_ok=True)
            for one in slices:
                shutil.copy(origin / one, data / "images" / f"p{number}" / one)
            shutil.copy(origin / file, data / "masks" / f"p{number}.dcm")
        source = open_source(data, DataConfig(test_fraction=0))
        held = [source.load(item).mask.sum() for item in source.info.items("all")]
        truth = read_masks(origin / file, read_series(data / "images" / "p0")[1])[1]
        assert sum(held) == 2 * truth.sum() > 0
