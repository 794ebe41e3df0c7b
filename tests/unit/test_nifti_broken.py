from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from medsegdiff.errors import DataError, GeometryError
from medsegdiff.io import nifti
from medsegdiff.io.nifti import read_labels, read_volume, write_labels
from medsegdiff.types import Geometry
from tests.volumes import LABELS, VOXELS, patched, save


def truncated(path: Path) -> None:
    path.write_bytes(save(path, VOXELS).read_bytes()[:-60])


def without_checksum(path: Path) -> None:
    path.write_bytes(save(path, VOXELS).read_bytes()[:-4])


def bit_flipped(path: Path) -> None:
    content = bytearray(gzip.compress(save(path.with_name("p.nii"), VOXELS).read_bytes(), compresslevel=0))
    content[-30] ^= 1
    path.write_bytes(content)


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.nii.gz", lambda path: None, "there is no such file"),
    "empty": ("a.nii", lambda path: path.write_bytes(b""), "not a NIfTI file"),
    "text": ("a.nii.gz", lambda path: path.write_text("not a volume"), "not a NIfTI file: its header claims a length"),
    "sizeof_hdr": ("a.nii", lambda path: patched(save(path, VOXELS), 0, np.int32(100)), r"\(sizeof_hdr\) of 100 bytes"),
    "magic": ("a.nii", lambda path: patched(save(path, VOXELS), 344, np.array(b"xyz")), "magic string 'xyz' is not"),
    "pair": ("a.nii", lambda path: patched(save(path, VOXELS), 108, np.float32(0)), "a pair of .hdr and .img"),
    "short": ("a.nii", lambda path: path.write_bytes(save(path, VOXELS).read_bytes()[:200]), "not a valid NIfTI file"),
    "truncated": ("a.nii", truncated, r"can't be read to its end \(Expected 120 bytes"),
    "truncated gzip": ("a.nii.gz", truncated, r"can't be read to its end \(Compressed file ended"),
    "no checksum": ("a.nii.gz", without_checksum, r"can't be read to its end \(Compressed file ended"),
    "bit flipped": ("a.nii.gz", bit_flipped, r"can't be read to its end \(CRC check failed"),
    "huge": (
        "a.nii",
        lambda path: patched(save(path, VOXELS), 42, np.array([32767] * 3, np.int16)),
        "can't be read to its end",
    ),
    "slices": (
        "a.nii",
        lambda path: patched(save(path, VOXELS), 46, np.int16(0)),
        r"has 0 slices along axis 3 of \(5, 4",
    ),
    "axes": ("a.nii", lambda path: save(path, np.zeros((2, 2, 2, 3, 2), "f4")), "has 5 axes, of lengths"),
    "seven axes": (
        "a.nii",
        lambda path: patched(save(path, VOXELS), 40, np.array([7, *[32767] * 7], np.int16)),
        "has 7 axes",
    ),
    "one axis": ("a.nii", lambda path: save(path, np.zeros(6, "f4")), "has 1 axes"),
    "colour": (
        "a.nii",
        lambda path: save(path, np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "allowed are real numbers",
    ),
    "complex": ("a.nii", lambda path: save(path, np.zeros((2, 2, 2), "c8")), "of type complex64; allowed are real"),
    "nan": ("a.nii", lambda path: save(path, np.array([[[1, np.nan, np.inf]]], "f4")), "2 of 3 voxels are NaN or inf"),
    "too large": ("a.nii", lambda path: save(path, np.array([[[1, 1e300]]])), "1 of 2 voxels are NaN or infinite"),
}


def test_what_lies_far_behind_the_voxels_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to its end, at least, which here is damaged: a small file may hold zeros for hours."""
    long = gzip.compress(save(tmp_path / "a.nii", VOXELS).read_bytes() + bytes(1 << 20))
    (tmp_path / "b.nii.gz").write_bytes(long[:-8])
    with pytest.raises(DataError, match="can't be read to its end"):
        read_volume(tmp_path / "b.nii.gz")
    monkeypatch.setattr(nifti, "MOST_BEHIND", 1 << 10)
    assert (read_volume(tmp_path / "b.nii.gz")[0] == VOXELS).all()


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_name_and_cause(tmp_path: Path, case: str) -> None:
    name, make, words = BROKEN[case]
    make(tmp_path / name)
    with pytest.raises(DataError, match=words) as error:
        read_volume(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize("row", [np.zeros(12), np.full(12, np.nan), [1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0]], ids=str)
def test_affines_that_do_not_span_space_are_refused(tmp_path: Path, row: np.ndarray) -> None:
    path = patched(save(tmp_path / "a.nii", VOXELS), 280, np.asarray(row, np.float32))
    with pytest.raises(GeometryError, match=r"a\.nii: the affine of the header does not span space"):
        read_volume(path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 0.5, 1], r"1 of 3 labels are not whole numbers \(0.5, say\)"),
        ([0, np.nan, np.inf], r"2 of 3 labels are not whole numbers \(nan, say\)"),
        ([0, -1, 2], "labels go from -1 to 2; allowed are 0 … 2147483647"),
        ([0, 1, 3e9], "labels go from 0 to 3000000000"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(tmp_path: Path, values: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labels(save(tmp_path / "a.nii", np.array([[values]])))


def test_labels_of_several_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the labels have 2 channels; allowed is 1"):
        read_labels(save(tmp_path / "a.nii", np.zeros((3, 3, 3, 2), np.uint8)))


def test_what_can_not_be_written_is_refused(tmp_path: Path) -> None:
    geometry = Geometry((5, 4, 3), (1.0, 1.0, 1.0), np.eye(4))
    with pytest.raises(DataError, match=r"m\.png: not the name of a volume"):
        write_labels(tmp_path / "m.png", LABELS, geometry)
    with pytest.raises(DataError, match="labels go from -1 to 4"):
        write_labels(tmp_path / "m.nii", LABELS.astype(np.int16) - (LABELS == 0), geometry)
    with pytest.raises(GeometryError, match=r"the voxels are \(3, 4, 5\), their geometry is \(5, 4, 3\)"):
        write_labels(tmp_path / "m.nii", np.ascontiguousarray(LABELS.T), geometry)
    with pytest.raises(GeometryError, match="has no affine: it is that of a picture"):
        write_labels(tmp_path / "m.nii", LABELS, Geometry((5, 4, 3), (1.0, 1.0, 1.0)))
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, parts = tmp_path / "case.1.nii.gz", []
    geometry = Geometry((5, 4, 3), (1.0, 1.0, 1.0), np.eye(4))
    write_labels(file, LABELS, geometry)
    old = file.read_bytes()

    def half(volume: Nifti1Image, stream: gzip.GzipFile) -> None:
        stream.write(b"half")
        parts.extend(p.name for p in tmp_path.iterdir() if p != file)
        raise OSError("No space left on device")

    monkeypatch.setattr(Nifti1Image, "to_stream", half)
    with pytest.raises(OSError, match="No space left"):
        write_labels(file, LABELS, geometry)
    assert file.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["case.1.nii.gz"]
    assert len(parts) == 1
    assert parts[0].startswith(".case.1-")
    assert parts[0].endswith(".nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_no_room_is_made_for_voxels_that_are_not_there(tmp_path: Path, suffix: str) -> None:
    """A damaged header that tells of 27 TB must not take the memory of the machine."""
    save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.uint8))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[42:48] = np.array([30000] * 3, "<i2").tobytes()
    (tmp_path / f"b{suffix}").write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    with pytest.raises(DataError, match="its header tells of 27000000000000 bytes of voxels, the file has"):
        read_volume(tmp_path / f"b{suffix}")
