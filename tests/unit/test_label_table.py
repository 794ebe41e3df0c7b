"""Tables of labels: read back as the viewers read them."""

from __future__ import annotations

import re
from pathlib import Path

from medsegdiff.inference.writer import ITK_SNAP, SLICER, write_label_tables

LABELS = {"kidney left": (2, (255, 171, 0)), "liver": (1, (0, 230, 118))}
LINE = re.compile(r'^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"(.*)"$')
"""A line of an ITK-SNAP label description: index, red, green, blue, opacity, visible, mesh, name."""


def test_itk_snap_reads_every_line(tmp_path: Path) -> None:
    write_label_tables(tmp_path, LABELS)
    lines = [line for line in (tmp_path / ITK_SNAP).read_text().splitlines() if not line.startswith("#")]
    found = [LINE.fullmatch(line).groups() for line in lines]
    assert [(int(f[0]), f[7]) for f in found] == [(0, "background"), (1, "liver"), (2, "kidney left")]
    assert found[1][1:4] == ("0", "230", "118")
    assert [f[5] for f in found] == ["0", "1", "1"]


def test_slicer_reads_six_words_per_line(tmp_path: Path) -> None:
    write_label_tables(tmp_path, LABELS)
    lines = [line.split() for line in (tmp_path / SLICER).read_text().splitlines() if not line.startswith("#")]
    assert all(len(words) == 6 for words in lines)
    assert lines[2] == ["2", "kidney_left", "255", "171", "0", "255"]
    assert lines[0][-1] == "0"  # the background is not shown
