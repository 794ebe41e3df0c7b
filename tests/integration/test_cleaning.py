"""``segment --keep``, ``--remove-below``, ``--fill-holes``: what is written, measured and told is of clean masks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff import Segmenter
from medsegdiff.config.cleaning import Cleaning
from medsegdiff.config.run import Config
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.request import Request
from medsegdiff.metrics.intervals import Stretch
from tests.integration.test_measures import rows
from tests.integration.test_volumes import Doubtful, identity
from tests.makers import small_config, write_png
from tests.program import call
from tests.volumes import oblique, save

STEPS = {"members": 4, "steps": 1}
LARGEST = Cleaning(keep="largest")


def scan(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A hollow box, and an island of four voxels; the box filled and alone is what is to be."""
    voxels = np.zeros((12, 10, 8), np.uint8)
    voxels[2:8, 2:8, 2:7] = 1
    clean = voxels.copy()
    voxels[4:6, 4:6, 4] = 0
    voxels[10, 1:5, 1] = 1
    return save(tmp_path / "a.nii.gz", voxels, oblique((0.5, 0.8, 2.5))), clean


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_all_that_is_written_and_measured_is_of_clean_masks(tmp_path: Path) -> None:
    path, clean = scan(tmp_path)
    segment_files(identity(), find_inputs([path]), tmp_path / "plain", **STEPS)
    how, noted, out = Cleaning(remove_below="4.1mm3", fill_holes=True), list[str](), tmp_path / "out"
    options = {**STEPS, "cleaning": how, "noted": noted.append, "save_members": True}
    segment_files(identity(), find_inputs([path]), out, **options)
    for part in ("masks", "labels", "anchor/masks", *(f"members/0{m}/masks" for m in range(4))):
        assert np.array_equal(read(out / part / "a.nii.gz"), clean), part
    assert np.array_equal(read(out / "probability" / "a.nii.gz"), read(tmp_path / "plain" / "probability" / "a.nii.gz"))
    ((row,), (plain,)) = rows(out), rows(tmp_path / "plain")
    assert (row["voxels"], row["components"], plain["voxels"], plain["components"]) == ("180", "1", "180", "2")
    assert float(row["size_mean"]) == pytest.approx(180 * 0.5 * 0.8 * 2.5 / 1000)
    record, before = (SegmentationFolder(folder).read() for folder in (out, tmp_path / "plain"))
    assert (record and record.cleaning, before and before.cleaning) == ({"lesion": how}, {})
    told = "Cleaned, lesion: components below 4.1 mm3 removed, holes filled; in masks, anchor and members, not in the "
    assert noted[0] == f"{told}probability."


def speckled(seed: int = 0, size: tuple[int, int] = (24, 20)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size, np.uint8)


def doubtful(calibration: Calibration | None = None) -> Segmenter:
    config: Config = small_config("data.channels=1", "data.task=binary", "data.classes=[x]")
    known = {} if calibration is None else {"calibration": calibration}
    return Segmenter(Doubtful(), config, device="cpu", precision="fp32", **known)


def test_sizes_and_agreement_are_those_of_clean_members_and_of_clean_candidates() -> None:
    plain, clean = (doubtful()(speckled(), **STEPS, cleaning=how) for how in (None, LARGEST))
    counts = [np.count_nonzero(member) for member in clean.members]
    assert clean.sizes()["x"].mean == pytest.approx(np.mean(counts))
    assert np.mean(counts) < np.mean([np.count_nonzero(member) for member in plain.members])
    assert all((member <= before).all() for member, before in zip(clean.members, plain.members, strict=True))
    assert np.array_equal(clean.probability, plain.probability)
    assert {of.components for of in clean.measures().values()} == {1}
    chosen = doubtful()(speckled(), members=2, candidates=6, steps=1, cleaning=LARGEST)
    every = doubtful()(speckled(), members=6, steps=1, cleaning=LARGEST)
    assert chosen.sizes() == every.sizes()


def test_intervals_that_were_calibrated_on_other_masks_are_the_members_own() -> None:
    sampling = Request.of(doubtful().config, **STEPS).sampling
    segmenter = doubtful(Calibration(cases=9, sampling=sampling, stretch={"x": Stretch(0.5, 1.0)}))
    noted: list[str] = []
    request = segmenter.request(**STEPS, cleaning=LARGEST)
    (clean,) = segmenter.results([speckled()], request, noted=noted.append)
    counts = [np.count_nonzero(member) for member in clean.members]
    assert (clean.sizes()["x"].low, clean.sizes()["x"].high) == pytest.approx(tuple(np.quantile(counts, [0.05, 0.95])))
    assert noted == ["The intervals of sizes of what is cleaned are not calibrated, but its members' own: x."]
    assert segmenter(speckled(), **STEPS).stretch == {"x": Stretch(0.5, 1.0)}


def test_an_image_that_has_not_the_unit_is_passed_over_and_the_others_are_cleaned(tmp_path: Path) -> None:
    path, clean = scan(tmp_path)
    files = find_inputs([path, write_png(tmp_path / "b.png", speckled())])
    how = Cleaning(remove_below="0.02 mL", fill_holes=True)
    finished = segment_files(identity(), files, tmp_path / "out", **STEPS, cleaning=how)
    assert [image.name for image in finished.done] == ["a"]
    assert "b: remove_below is 0.02 mL, and the image is a picture whose" in finished.failed[str(tmp_path / "b.png")]
    assert np.array_equal(read(tmp_path / "out" / "masks" / "a.nii.gz"), clean)
    with pytest.raises(DataError, match="remove_below is 1 mm2, and the image is a volume; allowed are px, mL, mm3"):
        identity()(path, **STEPS, cleaning=Cleaning(remove_below="1mm2"))


def test_cleaning_may_be_told_by_its_fields() -> None:
    by_fields, same = (
        identity()(speckled(), **STEPS, cleaning={"lesion": of}) for of in ({"keep": "largest"}, LARGEST)
    )
    assert np.array_equal(by_fields.mask, same.mask)


def test_structures_that_the_model_does_not_draw_can_not_be_cleaned() -> None:
    with pytest.raises(ConfigError, match="There is no structure 'lesions' to clean; the model draws lesion"):
        identity()(speckled(), cleaning={"lesions": LARGEST})


@pytest.mark.parametrize(
    ("options", "voxels"),
    [
        (["--keep", "largest"], 176),
        (["--remove-below", "lesion=4.1mm3", "--fill-holes"], 180),
        (["--keep", "lesion=largest", "--fill-holes-in", "lesion"], 180),
    ],
)
def test_options_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], voxels: int
) -> None:
    path, _ = scan(tmp_path)
    monkeypatch.setattr(Segmenter, "from_runs", lambda *_, **__: identity())
    asked = ["segment", path, "-m", tmp_path, "-o", tmp_path / "out", "--members", "2", "--steps", "1", *options]
    assert call(*asked) == 0
    assert np.count_nonzero(read(tmp_path / "out" / "masks" / "a.nii.gz")) == voxels
