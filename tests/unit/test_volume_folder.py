"""Folders of volumes: slices do not depend on how a file turns its axes, and grids that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medsegdiff.config.data import DataConfig, Plane
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.intensity import intensity_of
from medsegdiff.data.loader import PreparedCases, TrainingStream
from medsegdiff.data.open import VolumeSource, open_source
from medsegdiff.data.slicing import slices_of
from medsegdiff.data.transforms import prepare
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.inference.inputs import read_case
from medsegdiff.pictures.cases import preview
from tests.makers import as_told, write_png
from tests.volumes import save

AFFINE = np.diag([1.0, 1.5, 4.0, 1.0])
SHAPE = (7, 6, 5)


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """A volume of noise, and a mask that no flip and no swap of axes leaves as it is."""
    image = np.random.default_rng(3).integers(1, 1000, SHAPE).astype(np.int16)
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:6, 1:4, 1:3], mask[0, 5, 3] = 1, 1
    return image, mask


def turned(voxels: np.ndarray, codes: str) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels, AFFINE)
    return image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes)))


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """One volume in four orientations."""
    image, mask = phantom()
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for codes in ("RAS", "LPS", "PIR", "SLA"):
        nib.save(turned(image, codes), tmp_path / "images" / f"{codes}.nii.gz")
        nib.save(turned(mask, codes), tmp_path / "masks" / f"{codes}_seg.nii")
    return tmp_path


def source(root: Path, **values: object) -> VolumeSource:
    opened = open_source(root, DataConfig(**values))
    assert isinstance(opened, VolumeSource)
    return opened


def test_slices_are_the_same_whatever_the_order_of_axes(volumes: Path) -> None:
    found, (image, mask) = source(volumes), phantom()
    assert sorted(found.info.split) == ["LPS", "PIR", "RAS", "SLA"]
    for codes in found.info.split:
        assert len(found.info.slices[codes]) == 5  # across the 4 mm
        for index in range(5):
            case = found.load(f"{codes}/{index:04d}")
            assert np.array_equal(case.image[0], image[:, ::-1, index].T)
            assert np.array_equal(case.mask[0, 0], mask[:, ::-1, index].T)
            assert case.geometry.spacing == (1.5, 1.0)


def test_slices_with_a_structure_are_known_and_drawn_every_other_time(volumes: Path) -> None:
    found = source(volumes)
    assert {item for item in found.info.foreground if item.startswith("PIR")} == {f"PIR/000{i}" for i in (1, 2, 3)}
    names = found.info.items("train")
    assert len(names) == 5 * len(found.info.names("train"))
    inside = [name for name in names if name in found.info.foreground]
    cases = PreparedCases(found, as_told(DataConfig(image_size=16), channels=1), stride=4)
    stream = TrainingStream(cases, names, seed=0, augment=False, foreground=inside)
    drawn = [bool(stream[position]["mask"].any()) for position in range(600)]
    assert np.mean(drawn) == pytest.approx(0.5 + 0.5 * 3 / 5, abs=0.06)


def test_a_volume_is_normalised_by_its_own_voxels_without_the_background() -> None:
    image = np.zeros((3, 4, 4, 4), np.float32)
    image[0, 1:3, 1:3, 1:3] = np.arange(8).reshape(2, 2, 2) - 4  # below the background, too
    image[2] = np.arange(64).reshape(4, 4, 4)
    inside = np.array([-4, -3, -2, -1, 1, 2, 3])
    assert intensity_of(image)[0] == pytest.approx([inside.mean(), inside.std()])
    assert intensity_of(image)[1].tolist() == [0, 1]  # nothing there
    assert intensity_of(image)[2] == pytest.approx([31.5, np.arange(64).std()])  # no background


@pytest.mark.parametrize("plane", ["coronal", "axial"])
def test_a_slice_is_segmented_as_it_was_trained_on(tmp_path: Path, plane: Plane) -> None:
    """The same pixels on the same place of the model grid: two channels, pixels that are not square, axes turned."""
    image, mask = phantom()
    for i in range(3):
        both = np.stack([image, 3 * image[::-1]], axis=3)
        for kind, voxels in (("images", both), ("masks", mask)):
            (tmp_path / kind).mkdir(exist_ok=True)
            nib.save(turned(voxels, "PIL"), tmp_path / kind / f"c{i}.nii")
    config = DataConfig(image_size=24, plane=plane)
    trained_on = source(tmp_path, image_size=24, plane=plane)
    cut = list(slices_of(read_case(tmp_path / "images" / "c1.nii"), plane, shared_noise=True))
    assert len(cut) == len(trained_on.info.slices["c1"])
    for item, case in zip(trained_on.info.slices["c1"], cut, strict=True):
        there, here = (prepare(c, as_told(config, channels=2), stride=4) for c in (trained_on.load(item), case))
        assert there.placement == here.placement
        assert np.array_equal(there.image, here.image)
        assert there.image.std() > 0


def test_all_volumes_are_cut_alike(volumes: Path) -> None:
    """By the middle of their spacings, so that one odd scan does not go its own way."""
    image, mask = phantom()
    odd = np.diag([6.0, 1.0, 1.0, 1.0])
    nib.save(nib.Nifti1Image(image, odd), volumes / "images" / "odd.nii")
    nib.save(nib.Nifti1Image(mask, odd), volumes / "masks" / "odd.nii")
    found = source(volumes)
    assert found.info.plane == "axial"
    assert len(found.info.slices["odd"]) == 5


def test_volumes_with_other_channels_are_refused(volumes: Path) -> None:
    image, mask = phantom()
    nib.save(nib.Nifti1Image(np.stack([image] * 2, axis=3), AFFINE), volumes / "images" / "two.nii")
    nib.save(nib.Nifti1Image(mask, AFFINE), volumes / "masks" / "two.nii")
    with pytest.raises(DataError, match=r"differ in their channels: .* has 1, .*two\.nii has 2"):
        source(volumes)
    with pytest.raises(DataError, match="the volume has 2 channels; the model expects 1"):
        prepare(read_case(volumes / "images" / "two.nii"), as_told(DataConfig(), channels=1), stride=4)


def test_pixels_are_made_square(volumes: Path) -> None:
    """A slice of 6 rows of 1.5 mm and 7 columns of 1 mm is 9 mm high and 7 mm wide."""
    found = source(volumes)
    prepared = PreparedCases(found, as_told(DataConfig(image_size=18), channels=1), stride=1)["RAS/0001"]
    assert prepared.placement.resized == (18, 14)


def test_a_plane_can_be_chosen(volumes: Path) -> None:
    found = source(volumes, plane="sagittal")
    assert len(found.info.slices["SLA"]) == 7
    assert found.load("SLA/0000").image.shape == (1, 5, 6)


def test_several_channels_and_classes_are_read(tmp_path: Path) -> None:
    image, mask = phantom()
    for i in range(3):
        save(tmp_path / "images" / f"c{i}.nii", np.stack([image, 2 * image], axis=3), AFFINE)
        save(tmp_path / "masks" / f"c{i}.nii", mask + 2 * (image > 900).astype(np.uint8) * (1 - mask), AFFINE)
    found = source(tmp_path)
    assert (found.info.channels, found.info.labels.task, len(found.info.labels.classes)) == (2, "exclusive", 3)
    case = found.load("c1/0002")
    assert np.array_equal(case.image[1], 2 * case.image[0])
    assert np.array_equal(case.mask[0, 1], mask[:, ::-1, 2].T)


def test_masks_that_lie_elsewhere_are_refused(volumes: Path) -> None:
    _, mask = phantom()
    shifted = AFFINE.copy()
    shifted[:3, 3] = 5, 0, 0
    nib.save(nib.Nifti1Image(mask, shifted), volumes / "masks" / "RAS_seg.nii")
    with pytest.raises(GeometryError, match=r"RAS\.nii\.gz and .*RAS_seg\.nii lie 5 mm apart"):
        source(volumes)
    assert "lie 5 mm apart" in str(inspect_folder(volumes, DataConfig()).problems)
    nib.save(nib.Nifti1Image(mask[:-1], AFFINE), volumes / "masks" / "RAS_seg.nii")
    with pytest.raises(GeometryError, match=r"is 7×6×5 but .*RAS_seg\.nii is 6×6×5"):
        source(volumes)


def test_pictures_and_volumes_are_not_mixed(volumes: Path) -> None:
    write_png(volumes / "images" / "photo.png", np.eye(8, dtype=np.uint8))
    with pytest.raises(DataError, match=r"holds volumes \(.*\) and pictures \(.*photo\.png\)"):
        source(volumes)


def test_a_folder_of_volumes_is_inspected(volumes: Path, tmp_path: Path) -> None:
    found = inspect_folder(volumes, DataConfig())
    assert found.ok
    assert sum(found.sizes.values()) == 4
    assert found.values == [0, 1]
    assert found.near_duplicates  # it is one volume four times
    preview(found.shown, found.drawn, tmp_path / "look.png")
    assert (tmp_path / "look.png").exists()


def test_neighbours_are_channels_and_the_last_slice_is_repeated(volumes: Path) -> None:
    found, (image, _) = source(volumes, neighbours=1), phantom()
    for index, shown in ((0, (0, 0, 1)), (2, (1, 2, 3)), (4, (3, 4, 4))):
        for codes in ("RAS", "PIR"):
            case = found.load(f"{codes}/{index:04d}")
            assert np.array_equal(case.image, np.stack([image[:, ::-1, k].T for k in shown]))
            config = DataConfig(image_size=8, neighbours=1)
            assert prepare(case, as_told(config, channels=1), stride=4).image.shape[0] == 3
    segmented = slices_of(read_case(volumes / "images" / "PIR.nii.gz"), "axial", shared_noise=True, neighbours=1)
    for index, cut in enumerate(segmented):  # as in training
        assert np.array_equal(cut.image, found.load(f"PIR/{index:04d}").image)
        assert np.allclose(cut.intensity, found.load(f"PIR/{index:04d}").intensity)


def test_a_window_of_hounsfield_units_is_the_same_in_every_slice(volumes: Path) -> None:
    found = source(volumes)
    config = DataConfig(resize="none", modalities=("ct",), window=(100.0, 300.0))
    case = found.load("RAS/0002")
    expected = np.clip((case.image - 100) / 200, 0, 1) * 2 - 1
    prepared = prepare(case, as_told(config, channels=1), stride=1)
    assert np.allclose(prepared.image.numpy(), expected, atol=1e-6)
