"""Peak memory of segmenting a CT of 512×512×800 voxels with 16 classes, beside the estimate made before the start.

python benchmarks/volume_memory.py --members 2
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from medsegdiff.config.load import load_preset
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.resources import needs_of
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import build_model
from medsegdiff.nn.unet import Decoder

CLASSES = ("background", *(f"organ_{i}" for i in range(1, 16)))
TINY = (
    "model.condition_widths=[8, 16, 16]",
    "model.diffusion_widths=[8, 16, 16]",
    "model.ss_former_dim=32",
    "data.image_size=64",
    "data.channels=1",
    "data.task=exclusive",
    f"data.classes=[{', '.join(CLASSES)}]",
    "data.modalities=[ct]",
    "data.window=[-160, 240]",
)
PAGE = Path(__file__).with_name("volume_memory.md")


def main() -> None:
    """Segment in a process of its own, so that its peak is of nothing else; write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 800))
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        segment(given.worker, given.members)
        return
    with tempfile.TemporaryDirectory() as folder:
        scan = make_scan(Path(folder) / "scan.nii.gz", tuple(given.shape))
        command = [sys.executable, __file__, "--worker", str(scan), "--members", str(given.members)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    needs = needs_of(
        tuple(given.shape), channels=1, classes=len(CLASSES), members=given.members, task="exclusive", batch_size=16
    )
    write_page(given, told.strip().splitlines()[-1], needs.memory / 1e9, needs.disk / 1e9)


def make_scan(path: Path, shape: tuple[int, ...]) -> Path:
    """Write a CT of air with a body of noise in it."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    body = np.hypot(x, y) < 0.8
    voxels = np.full(shape, -1000, np.int16)
    for k in range(shape[2]):
        voxels[body, k] = rng.integers(-100, 200, int(body.sum()), dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([0.7, 0.7, 1.0, 1.0])), path)
    return path


def segment(scan: Path, members: int) -> None:
    """Segment the scan, and print seconds and the peak of the memory before and after, in GB."""
    config = load_preset("v2-tiny", TINY)
    model = build_model(config).eval()
    for part in model.modules():
        if isinstance(part, Decoder):  # organs are rare, as they are in a trained model
            torch.nn.init.constant_(part.head[2].bias[: config.model.patch**2], 8.0)
    segmenter = Segmenter(model, config, device="cpu")
    before, start = peak(), time.perf_counter()
    files = find_inputs([scan], data=config.data)
    with tempfile.TemporaryDirectory() as out:
        finished = segment_files(segmenter, files, Path(out), members=members, steps=1)
    if finished.failed:
        sys.exit(str(finished.failed))
    print(f"{time.perf_counter() - start:.0f} {before:.2f} {peak():.2f}")


def peak() -> float:
    """Tell the most memory that this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def write_page(given: argparse.Namespace, told: str, memory: float, disk: float) -> None:
    """Write the figures beside the command that made them."""
    seconds, before, after = told.split()
    shape = "×".join(map(str, given.shape))
    command = f"python benchmarks/volume_memory.py --shape {' '.join(map(str, given.shape))} --members {given.members}"
    page = f"""# Memory of segmenting a large volume

`{command}`: a generated CT of {shape} voxels, {len(CLASSES)} classes, {given.members} members,
one step of a tiny untrained model at 64 px ({platform.machine()}, Python {platform.python_version()}).

| | GB |
|---|---|
| before reading (libraries and model) | {before} |
| peak | {after} |
| peak beyond the model | {float(after) - float(before):.2f} |
| estimated beyond the model, at most | {memory:.2f} |
| temporary files, estimated | {disk:.2f} |

{seconds} s from file to files: reading, slices, fusion on the native grid, masks, probabilities of each class,
uncertainty, overlay.
"""
    PAGE.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
