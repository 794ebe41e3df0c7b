"""Rows of pictures read back: what is drawn in one colour is one structure, in references and predictions alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medsegdiff.config.data import DataConfig
from medsegdiff.pictures.cases import saved_rows
from tests.makers import write_png


def test_structures_have_the_order_of_the_classes_not_of_the_alphabet(tmp_path: Path) -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[2:6, 2:6], labels[8:14, 8:14] = 1, 2
    write_png(tmp_path / "data" / "images" / "a.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    write_png(tmp_path / "data" / "labels" / "a.png", labels)
    for part in ("", "anchor", "members/00"):
        for value, organ in ((1, "pancreas"), (2, "kidney")):
            write_png(
                tmp_path / "out" / part / "masks" / organ / "a.png", (labels == value).astype(np.uint8) * np.uint8(255)
            )
    write_png(tmp_path / "out" / "uncertainty" / "a.png", np.zeros((16, 16), np.uint16))
    config = DataConfig(mask_dir="labels", classes=("background", "pancreas", "kidney"))
    (row,) = saved_rows(tmp_path / "out", tmp_path / "data", {"a": ""}, config=config)
    for drawn in (row.raters[0], row.fused, row.anchor, row.members[0]):
        assert [int(channel.sum()) for channel in drawn] == [16, 36]
