"""Files are made and judged by nibabel, SimpleITK or their bytes, never by the module alone."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header, Nifti1Image

from medsegdiff.errors import DataError
from medsegdiff.io.names import volume_name
from medsegdiff.io.nifti import is_volume, read_labels, read_volume, write_labels, write_map
from medsegdiff.types import Geometry
from tests.volumes import LABELS, RNG, VOXELS, oblique, patched, raw_header, save, to_canonical, written_back


def test_names() -> None:
    assert [n for n in ("a.nii", "a.nii.gz", "A.NII.GZ", "a.gz", "a.png", "nii") if is_volume(Path(n))] == [
        "a.nii",
        "a.nii.gz",
        "A.NII.GZ",
    ]
    assert volume_name(Path("x/case.01_t1.nii.gz")) == "case.01_t1"
    assert volume_name(Path("scan.NII")) == "scan"
    with pytest.raises(DataError, match=r"a\.mha: not the name of a volume. Allowed: .nii, .nii.gz"):
        volume_name(Path("a.mha"))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    spacing=st.tuples(*[st.floats(0.0625, 12, width=32)] * 3),
    dtype=st.sampled_from(["u1", "i1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"]),
    channels=st.integers(1, 3),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_any_shape_spacing_type_and_channels_are_read_and_written_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    dtype: str,
    channels: int,
    suffix: str,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    values = np.random.default_rng(0).integers(0, 127, (*shape, channels)).astype(dtype)
    path = save(folder / f"a{suffix}", values if channels > 1 else values[..., 0], oblique(spacing))
    image, geometry = read_volume(path)
    assert image.dtype == np.float32
    assert np.array_equal(image, values.transpose(3, 0, 1, 2))
    assert geometry.shape == shape
    assert np.allclose(geometry.spacing, spacing, rtol=1e-6)
    write_map(folder / f"b{suffix}", image if channels > 1 else image[0], geometry)
    back = nib.load(folder / f"b{suffix}")
    assert np.array_equal(np.asarray(back.dataobj), values if channels > 1 else values[..., 0])
    assert np.array_equal(back.affine, nib.load(path).affine)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOXELS)
    patched(path, 112, np.array([0.5, -1024], np.float32))
    image, _ = read_volume(path)
    assert np.array_equal(image[0], VOXELS * 0.5 - 1024)
    tenths = patched(save(tmp_path / "b.nii", LABELS * np.uint8(10)), 112, np.array([0.1, 0], np.float32))
    labels, _ = read_labels(tenths)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(("top", "written", "read"), [(255, "u1", "u1"), (256, "u2", "i4"), (70000, "i4", "i4")])
def test_labels_take_the_smallest_type(tmp_path: Path, top: int, written: str, read: str) -> None:
    labels = LABELS.astype(np.int64)
    labels[1, 2, 0] = top
    write_labels(tmp_path / "a.nii.gz", labels, Geometry((5, 4, 3), (1.0, 1.0, 1.0), np.eye(4)))
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == np.dtype(written)
    back, _ = read_labels(tmp_path / "a.nii.gz")
    assert back.dtype == np.dtype(read)
    assert np.array_equal(back, labels)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", ">i4"])
def test_labels_of_any_type_are_read_as_whole_numbers(tmp_path: Path, dtype: str) -> None:
    labels, _ = read_labels(save(tmp_path / "a.nii", LABELS.astype(dtype)))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, LABELS)


def test_big_endian_files_are_read_and_written_back(tmp_path: Path) -> None:
    header = Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    header.set_sform(oblique(), 1)
    nib.save(Nifti1Image(VOXELS, None, header), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\1\x5c"
    image, geometry = read_volume(tmp_path / "a.nii")
    assert np.array_equal(image[0], VOXELS)
    write_labels(tmp_path / "b.nii", LABELS * np.uint16(999), geometry)
    back = SimpleITK.ReadImage(str(tmp_path / "b.nii"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(back).T, LABELS * np.uint16(999))


@pytest.mark.parametrize(
    ("stored", "shape", "channels"),
    [
        ((5, 4), (5, 4, 1), 1),
        ((5, 4, 1, 1), (5, 4, 1), 1),
        ((5, 4, 3, 1, 1), (5, 4, 3), 1),
        ((5, 4, 3, 2), (5, 4, 3), 2),
        ((5, 4, 3, 1, 2), (5, 4, 3), 2),
        ((5, 4, 3, 2, 1), (5, 4, 3), 2),
        ((5, 4, 1, 2), (5, 4, 1), 2),
    ],
    ids=str,
)
def test_axes_of_length_one_are_tolerated(
    tmp_path: Path, stored: tuple[int, ...], shape: tuple[int, int, int], channels: int
) -> None:
    values = np.arange(np.prod(stored), dtype=np.float32).reshape(stored)
    image, geometry = read_volume(save(tmp_path / "a.nii", values))
    assert image.shape == (channels, *shape)
    assert geometry.shape == shape
    assert np.array_equal(image, np.moveaxis(values.reshape(*shape, channels), -1, 0))
    if channels == 1:
        assert np.array_equal(read_labels(tmp_path / "a.nii")[0], image[0])


def test_vector_images_of_simpleitk_have_channels(tmp_path: Path) -> None:
    vectors = RNG.normal(size=(3, 4, 5, 2)).astype(np.float32)  # (z, y, x, c)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(vectors, isVector=True), str(tmp_path / "v.nii.gz"))
    assert raw_header(tmp_path / "v.nii.gz")["dim"][0] == 5
    image, geometry = read_volume(tmp_path / "v.nii.gz")
    assert np.array_equal(image, vectors.transpose(3, 2, 1, 0))
    assert geometry.shape == (5, 4, 3)


def test_packing_is_told_by_content_and_a_constant_volume_is_read(tmp_path: Path) -> None:
    plain = save(tmp_path / "a.nii", np.full((2, 2, 2), 7, np.uint8))
    (tmp_path / "b.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress(plain.read_bytes() + b"bytes behind the voxels"))
    for name in ("b.nii.gz", "c.nii"):
        assert (read_volume(tmp_path / name)[0] == 7).all()


def test_equal_voxels_give_equal_bytes(tmp_path: Path) -> None:
    _, geometry = read_volume(save(tmp_path / "a.nii", VOXELS))
    for name in ("b.nii.gz", "other.nii.gz"):
        write_labels(tmp_path / name, LABELS, geometry)
    content = (tmp_path / "b.nii.gz").read_bytes()
    assert content == (tmp_path / "other.nii.gz").read_bytes()
    assert content[:2] == b"\x1f\x8b"
    assert content[3:8] == b"\0\0\0\0\0"  # no name, no time


REAL = [
    ("spinalcord_nifti", "t1w_seg-manual.nii.gz"),
    ("spinalcord_nifti", "t2_seg-manual.nii.gz"),
    ("spinalcord_nifti", "t2_seg-manual_labeled.nii.gz"),
    ("spinalcord_nifti", "t2s_gmseg-manual.nii.gz"),
    ("brats2021", "BraTS2021_00000/BraTS2021_00000_seg.nii.gz"),
    ("brats2021", "BraTS2021_01201/BraTS2021_01201_seg.nii.gz"),
]


@pytest.mark.parametrize(("folder", "name"), REAL)
def test_real_labels_are_written_as_they_were(
    tmp_path: Path, real_data: Callable[[str], Path], folder: str, name: str
) -> None:
    path = real_data(folder) / name
    labels, geometry = read_labels(path)
    write_labels(tmp_path / "a.nii.gz", written_back(to_canonical(labels, geometry)[0], geometry), geometry)
    old, new = nib.load(path), nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(np.asarray(new.dataobj), np.asarray(old.dataobj))
    assert np.array_equal(new.affine, old.affine)
    for field in ("xyzt_units", "qform_code", "sform_code", "descrip"):
        assert new.header[field] == old.header[field]
    assert new.get_data_dtype() == np.uint8


@pytest.mark.parametrize("top", [3, 7, 40, 117])
def test_labels_that_a_program_scaled_are_whole_within_half_a_slope(tmp_path: Path, top: int) -> None:
    """Written as real numbers into bytes, labels lie on steps of top/255."""
    labels = np.random.default_rng(0).integers(0, top + 1, (5, 4, 3))
    labels.flat[:2] = 0, top
    scaled = nib.Nifti1Image(labels.astype(np.float32), np.eye(4))
    scaled.set_data_dtype(np.uint8)
    scaled.to_filename(tmp_path / "a.nii")
    assert np.abs(scaled.dataobj - np.asarray(nib.load(tmp_path / "a.nii").dataobj)).max() > 1e-4 or top in (3,)
    assert np.array_equal(read_labels(tmp_path / "a.nii")[0], labels)


def test_probabilities_that_a_program_scaled_are_no_labels(tmp_path: Path) -> None:
    soft = nib.Nifti1Image(np.linspace(0, 4, 60).reshape(5, 4, 3), np.eye(4))
    soft.set_data_dtype(np.uint8)
    soft.to_filename(tmp_path / "a.nii")
    with pytest.raises(DataError, match="labels are not whole numbers"):
        read_labels(tmp_path / "a.nii")


def test_a_slope_of_zero_is_none(tmp_path: Path) -> None:
    nib.Nifti1Image(LABELS, np.eye(4)).to_filename(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[112:120] = bytes(8)  # scl_slope and scl_inter
    (tmp_path / "a.nii").write_bytes(data)
    assert np.array_equal(read_labels(tmp_path / "a.nii")[0], LABELS)
