"""What is written for nnU-Net passes nnU-Net's own check of data sets.

It needs a Python of its own, for nnU-Net is no dependency: ``python -m venv nnu && nnu/bin/pip install nnunetv2``, then
``pytest tests/integration/test_nnunet_check.py --nnunet-python=nnu/bin/python``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.data.convert import convert
from tests.described import SHAPE, make_msd, make_nnunet, voxels
from tests.makers import make_folder, write_png
from tests.volumes import oblique, save

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

if __name__ == "__main__":
    verify_dataset_integrity(sys.argv[1], 1)
"""
FINE = "verify_dataset_integrity Done."


@pytest.fixture
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], str]:
    """Run nnU-Net's check on a folder; it must end well and say nothing of errors."""
    python = request.config.getoption("--nnunet-python")
    if python is None:
        pytest.skip("nnU-Net's own check needs --nnunet-python=PATH, a Python with nnunetv2 (pip install nnunetv2)")
    if subprocess.run([python, "-c", "import nnunetv2"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} can't import nnunetv2 (pip install nnunetv2)")
    program = tmp_path / "check.py"
    program.write_text(PROGRAM)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(root: Path) -> str:
        done = subprocess.run(
            [python, str(program), str(root)],
            capture_output=True,
            text=True,
            check=False,
            env=environment | {"OMP_NUM_THREADS": "1"},
        )
        return done.stdout + done.stderr

    return run


def accepted(said: str) -> bool:
    return FINE in said and "Error" not in said and "Warning: " not in said


def regions(root: Path) -> Path:
    """Volumes of four files, and a file per region."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(2):
        for channel in ("t1", "t1ce", "t2", "flair"):
            save(root / channel / f"{i}.nii.gz", rng.integers(0, 900, SHAPE).astype(np.int16), oblique())
        labels = rng.integers(0, 4, SHAPE)
        for name, values in (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,))):
            save(root / name / f"{i}.nii.gz", np.isin(labels, values).astype(np.uint8), oblique())
        lines.append(f"b{i}," + ",".join(f"{c}/{i}.nii.gz" for c in ("t1", "t1ce", "t2", "flair", "WT", "TC", "ET")))
    file = root / "cases.csv"
    file.write_text("\n".join(["id,image_t1,image_t1ce,image_t2,image_flair,mask_WT,mask_TC,mask_ET", *lines]))
    return file


def colours(root: Path) -> Path:
    rng = np.random.default_rng(0)
    make_folder(root, count=3)
    for path in (root / "images").iterdir():
        write_png(path, rng.integers(0, 256, (40, 32, 3), dtype=np.uint8))
    return root


def ignoring(root: Path) -> Path:
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    return make_nnunet(root, labels=labels, regions_class_order=[1, 2])


def single(root: Path) -> Path:
    """Volumes with one structure; not gzipped, so that they have to be written anew."""
    for i in range(2):
        save(root / "images" / f"v{i}.nii", voxels(i), oblique())
        save(root / "masks" / f"v{i}.nii", (voxels(i) > 900).astype(np.uint8), oblique())
    return root


MADE: dict[str, Callable[[Path], Path]] = {
    "grey pictures": lambda root: make_folder(root, count=3),
    "colour pictures": colours,
    "one structure": single,
    "classes": make_msd,
    "regions of four channels": regions,
    "regions and pixels to ignore": ignoring,
}


@pytest.mark.parametrize("kind", MADE)
def test_nnunet_accepts_what_is_written_for_it(kind: str, check: Callable[[Path], str], tmp_path: Path) -> None:
    root = MADE[kind](tmp_path / "source")
    said = check(convert(root, tmp_path / "Dataset001_Written", to="nnunet").out)
    assert accepted(said), said


def test_real_pictures_and_real_volumes_are_accepted(
    check: Callable[[Path], str], real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "isic" / kind).mkdir(parents=True)
        for path in sorted((real_data("isic2016") / kind).iterdir())[:4]:
            shutil.copy(path, tmp_path / "isic" / kind)
    said = check(convert(tmp_path / "isic", tmp_path / "Dataset001_Moles", to="nnunet").out)
    assert accepted(said), said
    lines = ["id,image_t1,image_t1ce,image_t2,image_flair,mask"]
    for case in sorted(real_data("brats2021").iterdir()):
        names = [f"{case.resolve() / case.name}_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair", "seg")]
        lines.append(",".join([case.name, *names]))
    (tmp_path / "brats.csv").write_text("\n".join(lines))
    said = check(convert(tmp_path / "brats.csv", tmp_path / "Dataset002_Brains", to="nnunet").out)
    assert accepted(said), said


def test_the_check_sees_what_is_wrong(check: Callable[[Path], str], tmp_path: Path) -> None:
    out = convert(make_msd(tmp_path / "source"), tmp_path / "Dataset001_Written", to="nnunet").out
    save(out / "labelsTr" / "v_001.nii.gz", np.full(SHAPE, 5, np.uint8), oblique())
    assert not accepted(check(out))
