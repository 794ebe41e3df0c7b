"""DICOM files as dciodvfy judges them, which is no part of this package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def errors_of(path: Path) -> list[str]:
    """List what dciodvfy calls an error."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
