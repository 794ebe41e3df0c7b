"""Rows of pictures read back: what is drawn in one colour is one structure, in references and predictions alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medsegdiff.config.data import DataConfig
from medsegdiff.pictures.cases import CaseRow, case_grid, saved_rows
from tests.makers import disc, write_png


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


def row(name: str, *, members: int, anchor: bool) -> CaseRow:
    mask = disc((12, 12), (6, 6), 4)[None]
    image = np.arange(144, dtype=np.float32).reshape(1, 12, 12)
    return CaseRow(
        name,
        image,
        [mask, mask & False],
        mask,
        np.zeros((12, 12)),
        [mask] * members,
        mask if anchor else None,
        note="x",
    )


def test_a_case_that_lacks_something_leaves_its_column_empty() -> None:
    figure = case_grid([row("a", members=1, anchor=False), row("b", members=11, anchor=True)], max_members=11)
    (axis,) = figure.axes
    titles = ["image", "reference", *(f"member {i}" for i in range(1, 12)), "fused", "uncertainty", "anchor"]
    heads = {text.get_position()[0]: text.get_text() for text in axis.texts if text.get_text() in titles}
    assert [heads[x] for x in sorted(heads)] == titles
    middles = [np.reshape(image.get_extent(), (2, 2)).mean(axis=1) for image in axis.images]
    first, second = sorted({round(y, 3) for _, y in middles}, reverse=True)
    under = {
        y: [heads[min(heads, key=lambda at: abs(at - x))] for x, of in middles if round(of, 3) == y]
        for y in (first, second)
    }
    assert under == {first: ["image", "reference", "member 1", "fused", "uncertainty"], second: titles}
    notes = [text for text in axis.texts if text.get_text() == "x"]
    assert [heads[text.get_position()[0]] for text in notes] == ["fused", "fused"]
    assert [text.get_position()[1] < y for text, y in zip(notes, (first, second), strict=True)] == [True, True]


def test_a_reference_is_as_bright_as_the_share_of_raters() -> None:
    shown = case_grid([row("a", members=0, anchor=False)]).axes[0].images[1]
    assert {*np.unique(shown.get_array())} == {0, 128}  # one of two raters drew the disc
