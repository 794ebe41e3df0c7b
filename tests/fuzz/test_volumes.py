"""NIfTI: voxels and place are those that nibabel tells, or the file is refused by name."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import strategies as st

from medsegdiff.io.image import read_geometry, read_image, read_mask
from tests.fuzz.conftest import Fuzz
from tests.fuzz.images import Volume, damaged_volumes, volumes
from tests.fuzz.promise import Ground, at_the_door
from tests.volumes import oblique, save

MM = {1: 1000.0, 3: 0.001}
"""What a metre and a micrometre are, by their code in ``xyzt_units``; nibabel leaves numbers in their unit."""


def test_volumes_are_what_nibabel_tells_or_refused(fuzz: Fuzz) -> None:
    def read(volume: Volume) -> None:
        path = volume.write(fuzz.ground.data / "images")
        compare(path, volume)
        compare_mask(path)

    def command(given: tuple[Volume, str]) -> None:
        given[0].write(fuzz.ground.data / "images")
        beside_another(fuzz.ground, given[1])

    inputs = volumes() | damaged_volumes()
    fuzz.each(inputs, read, share=0.1)
    fuzz.each(st.tuples(inputs, st.sampled_from(("check", "convert"))), command, share=0.02)


def compare(path: Path, volume: Volume) -> None:
    """Read voxels, place and shape."""
    with at_the_door(path.name, valid=volume.valid):
        told, channels = read_geometry(path)
        image, geometry = read_image(path)
        assert image.shape == (channels, *told.shape)
        assert np.isfinite(image).all()
        oracle = nib.load(path)
        voxels = np.asarray(oracle.dataobj, dtype=np.float64)
        voxels = np.moveaxis(voxels.reshape(*voxels.shape, *(1,) * (4 - voxels.ndim)), -1, 0)
        assert np.allclose(image, voxels, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(voxels).max()))
        assert geometry.affine is not None
        in_mm = np.diag([MM.get(int(oracle.header["xyzt_units"]) & 7, 1.0)] * 3 + [1.0]) @ oracle.affine
        assert np.allclose(geometry.affine, in_mm, rtol=1e-4, atol=1e-4)


def compare_mask(path: Path) -> None:
    """Read a volume as a mask: whole numbers, those that are stored."""
    with at_the_door(path.name, valid=False):
        mask = read_mask(path)
        voxels = np.asarray(nib.load(path).dataobj, dtype=np.float64)
        assert np.allclose(mask, voxels.reshape(mask.shape), atol=0.01)


def beside_another(ground: Ground, door: str) -> None:
    """Meet the volume beside another."""
    rng = np.random.default_rng(0)
    save(ground.data / "images" / "other.nii.gz", rng.integers(0, 99, (5, 4, 3), dtype=np.int16), oblique())
    for name in ("case", "other"):
        save(ground.data / "masks" / f"{name}.nii.gz", rng.integers(0, 2, (5, 4, 3), dtype=np.uint8), oblique())
    if door == "check":
        ground.check("data", "check", ground.data, names=("case",))
    else:
        ground.check("data", "convert", ground.data, "--to", "msd", "--out", ground.out, names=("case",))
