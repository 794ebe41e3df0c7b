"""What STAPLE says of the members: their sensitivity and specificity, over the slices of a volume and on file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.io.atomic import write_text

COLUMNS = ("name", "structure", "member", "sensitivity", "specificity")


def rates_of(result: Segmentation) -> list[dict[str, Any]]:
    """List the rates of a result, by structure and member."""
    if result.sensitivity is None or result.specificity is None:
        return []
    first = result.labels.foreground.start  # the background is no structure
    return [
        {
            "name": result.name,
            "structure": structure,
            "member": f"{member:02d}",  # as its folder is called
            "sensitivity": f"{result.sensitivity[member, channel]:.6f}",
            "specificity": f"{result.specificity[member, channel]:.6f}",
        }
        for channel, structure in enumerate(result.labels.structures, start=first)
        for member in range(len(result.sensitivity))
    ]


def write_rates(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rates as CSV, or nothing if there are none."""
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
