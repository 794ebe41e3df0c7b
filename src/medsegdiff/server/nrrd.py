"""Label maps as NRRD, which OHIF reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medsegdiff.io.nifti import read_labels

TYPES = {"uint8": "<u1", "uint16": "<u2"}
"""That viewers may ask for."""


def nrrd_of(file: Path, kind: str = "uint16") -> bytes:
    """Write a label map of NIfTI as NRRD, uncompressed; the world is LPS+."""
    labels, geometry = read_labels(file)
    assert geometry.affine is not None
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine
    directions = " ".join(f"({','.join(f'{value:.9g}' for value in column)})" for column in lps[:3, :3].T)
    lines = [
        "NRRD0004",
        f"type: {kind}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, labels.shape))}",
        f"space directions: {directions}",
        f"space origin: ({','.join(f'{value:.9g}' for value in lps[:3, 3])})",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        "",
        "",
    ]
    return "\n".join(lines).encode() + labels.astype(TYPES[kind]).tobytes(order="F")
