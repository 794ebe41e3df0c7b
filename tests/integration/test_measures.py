"""``measures.csv``: what is measured of the masks that were written, beside what members say of their size."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medsegdiff import Segmenter
from medsegdiff.config.run import Config
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.telling import told_of
from medsegdiff.io.image import read_mask
from medsegdiff.types import Case, Geometry
from tests.integration.test_volumes import Doubtful, identity, phantom
from tests.makers import small_config, write_png
from tests.volumes import oblique, save


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "measures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def floats(row: dict[str, str], *columns: str) -> list[float]:
    return [float(row[column]) for column in columns]


def test_a_box_in_an_oblique_volume_has_a_row_with_its_measures(tmp_path: Path) -> None:
    box, affine = np.zeros((12, 10, 8), np.uint8), oblique((0.5, 0.8, 2.5))
    box[3:9, 2:7, 4:8] = 1
    path = save(tmp_path / "a.nii.gz", box, affine)
    noted: list[str] = []
    segment_files(identity(), find_inputs([path]), tmp_path / "out", members=2, steps=1, noted=noted.append)
    (row,) = rows(tmp_path / "out")
    assert (row["name"], row["structure"], row["voxels"], row["components"]) == ("a", "lesion", "120", "1")
    assert floats(row, "size", "size_low", "size_high", "size_mean") == pytest.approx([0.12] * 4)
    assert (row["size_unit"], row["diameter_unit"], row["incomplete"]) == ("mL", "mm", "yes")
    assert float(row["diameter"]) == pytest.approx(np.linalg.norm([5 * 0.5, 4 * 0.8, 3 * 2.5]))
    assert floats(row, "centroid_0", "centroid_1", "centroid_2") == [5.5, 4, 5.5]
    place = floats(row, "centroid_right_mm", "centroid_front_mm", "centroid_up_mm")
    assert place == pytest.approx(affine[:3, :3] @ (5.5, 4, 5.5) + affine[:3, 3], rel=1e-5)
    assert [row[f"{end}_{axis}"] for end in ("first", "last") for axis in range(3)] == ["3", "2", "4", "8", "6", "7"]
    assert noted[-1] == "In 1 of 1 images a structure reaches the border; see measures.csv."
    record = SegmentationFolder(tmp_path / "out").read()
    assert record is not None
    assert record.images[0].incomplete == ("lesion",)


def pictures(tmp_path: Path, count: int) -> tuple[Segmenter, list[Path]]:
    config: Config = small_config("data.channels=1", "data.task=binary", "data.classes=[x]")
    rng = np.random.default_rng(0)
    files = [write_png(tmp_path / f"{n}.png", rng.integers(0, 255, (20, 16), np.uint8)) for n in range(count)]
    return Segmenter(Doubtful(), config, device="cpu", precision="fp32"), files


def test_rows_of_pictures_are_of_the_masks_and_the_intervals_of_their_members(tmp_path: Path) -> None:
    segmenter, files = pictures(tmp_path, 3)
    finished = segment_files(segmenter, find_inputs(files), tmp_path / "out", members=4, steps=1, parts=("masks",))
    for row, image in zip(rows(tmp_path / "out"), finished.done, strict=True):
        mask = read_mask(tmp_path / "out" / "masks" / f"{row['name']}.png") > 0
        size = image.sizes["x"]
        assert (row["name"], row["size_unit"], row["diameter_unit"]) == (image.name, "px", "px")
        assert row["voxels"] == row["size"] == str(np.count_nonzero(mask))
        assert floats(row, "size_low", "size_high", "size_mean") == pytest.approx([size.low, size.high, size.mean])
        assert (row["centroid_2"], row["centroid_right_mm"], row["last_2"]) == ("", "", "")


def test_an_empty_mask_has_zeros_and_empty_fields_and_one_member_no_interval(tmp_path: Path) -> None:
    result = identity()(save(tmp_path / "a.nii.gz", phantom()), members=1, steps=1)
    (row,) = told_of(replace(result, mask=np.zeros_like(result.mask)), None)["measures"]
    zeros = {"name": "a", "structure": "lesion", "voxels": "0", "size": "0", "size_unit": "mL", "components": "0"}
    assert {column: value for column, value in row.items() if value} == {
        **zeros,
        "diameter_unit": "mm",
        "incomplete": "no",
    }


def test_measures_go_with_the_results_that_they_are_of(tmp_path: Path) -> None:
    segmenter, files = pictures(tmp_path, 2)
    for path in files:
        segment_files(segmenter, find_inputs([path]), tmp_path / "out", members=2, steps=1, overwrite=path != files[0])
    assert [row["name"] for row in rows(tmp_path / "out")] == ["1"]


def test_a_picture_of_known_spacing_is_measured_in_millimetres(tmp_path: Path) -> None:
    segmenter, _ = pictures(tmp_path, 0)
    image = np.random.default_rng(1).random((1, 20, 16)).astype(np.float32)
    result = segmenter(Case("slice", image, None, Geometry((20, 16), (0.5, 2.0))), members=3, steps=1)
    (found,), (size,) = result.measures().values(), result.sizes().values()
    assert (found.size, found.unit, size.unit) == (np.count_nonzero(result.mask), "mm2", "mm2")
    assert size.mean == pytest.approx(np.mean([np.count_nonzero(member) for member in result.members]))
