"""What segmenting takes beside a network loads neither PyTorch nor any other library that is large."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "scipy", "pydantic", "nibabel", "matplotlib", "monai")
PLAIN = (
    "data.intensity",
    "data.placement",
    "diffusion.philox",
    "fusion.herding",
    "fusion.mixing",
    "fusion.structures",
    "fusion.whole",
    "inference.canvas",
    "inference.choice",
    "inference.parts",
    "io.raster",
)


def test_modules_without_tensors_load_no_library_of_tensors() -> None:
    wanted = "; ".join(f"import medsegdiff.{module}" for module in PLAIN)
    told = f"import sys; {wanted}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
