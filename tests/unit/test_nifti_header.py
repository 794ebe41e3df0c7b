from __future__ import annotations

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel.nifti1 import Nifti1Extension, Nifti1Image
from nibabel.nifti2 import Nifti2Image

from medsegdiff.io.image import check_same_grid
from medsegdiff.io.nifti import read_volume, write_labels, write_map
from medsegdiff.types import Geometry
from tests.volumes import LABELS, VOXELS, oblique, raw_header, save, to_canonical

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def test_labels_keep_the_header_but_not_what_it_says_of_the_image(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.nii.gz",
        np.stack([VOXELS, VOXELS], axis=-1),
        codes=(2, 3),
        descrip=b"TE=5.8",
        cal_min=-100,
        cal_max=900,
        intent_code=1007,
        intent_name=b"vectors",
        toffset=3,
    )
    before = nib.load(path)
    before.header.extensions.append(Nifti1Extension("comment", b"a patient's name"))
    before.header.set_slope_inter(2, 5)
    before.header["pixdim"][4] = 2.5
    nib.save(Nifti1Image(np.asarray(before.dataobj), None, before.header), path)
    _, geometry = read_volume(path)
    kept = pickle.dumps(geometry)
    write_labels(tmp_path / "out" / "m.nii.gz", LABELS, geometry)
    assert pickle.dumps(geometry) == kept
    old, new = raw_header(path), raw_header(tmp_path / "out" / "m.nii.gz")
    for name in ("qform_code", "sform_code", "xyzt_units", "descrip", "srow_x", "srow_y", "srow_z", "quatern_b"):
        assert np.array_equal(new[name], old[name]), name
    assert np.array_equal(new["pixdim"], [*old["pixdim"][:4], 1, 1, 1, 1])
    assert new["dim"].tolist() == [3, 5, 4, 3, 1, 1, 1, 1]
    assert [float(new[name]) for name in ("scl_slope", "scl_inter", "cal_min", "cal_max", "toffset")] == [1, 0, 0, 0, 0]
    assert (int(new["intent_code"]), new["intent_name"].item(), len(new.extensions)) == (0, b"", 0)
    assert len(raw_header(path).extensions) == 1
    assert np.array_equal(np.asarray(nib.load(tmp_path / "out" / "m.nii.gz").dataobj), LABELS)


@pytest.mark.parametrize("kind", [Nifti1Image, Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 4), (0, 0)], ids=["both", "qform", "sform", "neither"])
def test_affine_and_codes_survive(tmp_path: Path, codes: tuple[int, int], kind: type[Nifti1Image]) -> None:
    path = save(tmp_path / "a.nii", VOXELS, codes=codes, kind=kind)
    _, geometry = read_volume(path)
    write_labels(tmp_path / "b.nii", LABELS, geometry)
    old, new = nib.load(path), nib.load(tmp_path / "b.nii")
    assert type(new) is kind
    assert np.array_equal(new.affine, old.affine)
    assert (int(new.header["qform_code"]), int(new.header["sform_code"])) == codes
    if codes != (0, 0):
        assert np.allclose(new.affine, oblique(), atol=1e-6)


def test_an_orientation_that_is_not_told_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_volume(save(tmp_path / "told.nii", VOXELS, codes=(0, 1)))
    assert not caplog.messages
    _, geometry = read_volume(save(tmp_path / "untold.nii", VOXELS, codes=(0, 0)))
    assert geometry.affine is not None
    assert nib.aff2axcodes(geometry.affine) == ("L", "A", "S")
    assert "untold.nii: does not say where its axes point" in caplog.text


def test_shear_survives_in_the_sform(tmp_path: Path) -> None:
    affine = oblique(shear=0.3)
    _, geometry = read_volume(save(tmp_path / "a.nii", VOXELS, affine, codes=(0, 2)))
    assert geometry.affine is not None
    assert np.array_equal(geometry.affine, affine)
    write_labels(tmp_path / "b.nii", LABELS, geometry)
    write_labels(tmp_path / "c.nii", LABELS, Geometry((5, 4, 3), geometry.spacing, affine))
    for name, code in (("b", 2), ("c", 1)):
        header = raw_header(tmp_path / f"{name}.nii")
        assert np.array_equal(header.get_sform(), affine)
        assert (int(header["qform_code"]), int(header["sform_code"])) == (0, code)


def test_without_a_header_both_forms_are_written_in_mm(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.nii.gz", LABELS, Geometry((5, 4, 3), (0.5, 0.8, 2.5), oblique()))
    header = raw_header(tmp_path / "a.nii.gz")
    assert np.array_equal(header.get_sform(), oblique())
    assert np.allclose(header.get_qform(), oblique(), atol=1e-5)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert header.get_xyzt_units() == ("mm", "unknown")


@pytest.mark.parametrize("codes", [(2, 0), (0, 3), (1, 2)], ids=["qform", "sform", "both"])
def test_a_turned_volume_is_written_where_it_lies(tmp_path: Path, codes: tuple[int, int]) -> None:
    affine = np.array([[0, 0, 3.0, -10], [-0.5, 0, 0, 20], [0, 0.75, 0, 30], [0, 0, 0, 1]])
    path = save(tmp_path / "a.nii", VOXELS, affine, codes=codes, dim_info=27, slice_code=1, slice_end=2)
    image, geometry = read_volume(path)
    turned, canonical = to_canonical(image[0], geometry)
    write_map(tmp_path / "b.nii", turned, canonical)
    ours, theirs = nib.load(tmp_path / "b.nii"), nib.as_closest_canonical(nib.load(path))
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    assert np.allclose(ours.affine, theirs.affine, atol=1e-5)
    assert np.allclose(ours.header.get_zooms(), (3.0, 0.5, 0.75))
    assert [int(ours.header[name]) for name in ("dim_info", "slice_code", "slice_end")] == [0, 0, 0]
    q, s = int(ours.header["qform_code"]), int(ours.header["sform_code"])
    assert (q, s) == (codes[0], codes[1] or codes[0])


@pytest.mark.parametrize("unit", ["mm", "micron", "meter"])
def test_simpleitk_sees_the_same_voxels_in_the_same_place(tmp_path: Path, unit: str) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS, xyzt_units={"meter": 1, "mm": 2, "micron": 3}[unit])
    image, geometry = read_volume(path)
    write_map(tmp_path / "b.nii.gz", image[0], geometry)
    assert geometry.affine is not None
    lps = TO_LPS @ geometry.affine
    for name in ("a.nii.gz", "b.nii.gz"):
        theirs = SimpleITK.ReadImage(str(tmp_path / name))
        assert np.array_equal(SimpleITK.GetArrayFromImage(theirs).T, VOXELS)  # (z, y, x) there
        assert np.allclose(theirs.GetSpacing(), geometry.spacing, rtol=1e-5)
        direction = np.array(theirs.GetDirection()).reshape(3, 3)
        assert np.allclose(direction, lps[:3, :3] / geometry.spacing, atol=1e-5)
        assert np.allclose(theirs.GetOrigin(), lps[:3, 3], rtol=1e-5)
        corner = theirs.TransformIndexToPhysicalPoint((4, 0, 2))
        assert np.allclose(corner, (lps @ [4, 0, 2, 1])[:3], rtol=1e-5)


def test_a_geometry_goes_to_another_process(tmp_path: Path) -> None:
    _, geometry = read_volume(save(tmp_path / "a.nii", VOXELS, descrip=b"here"))
    there = pickle.loads(pickle.dumps(geometry))
    check_same_grid(there, geometry)
    write_labels(tmp_path / "b.nii", LABELS, there)
    assert raw_header(tmp_path / "b.nii")["descrip"].item() == b"here"
