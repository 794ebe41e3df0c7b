"""dataset.json, manifests and split.csv: understood, or refused with the file named."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.described import make_msd, make_nnunet
from tests.fuzz.conftest import Fuzz
from tests.fuzz.promise import SMALL, Ground, converted
from tests.fuzz.strategies import changed, edited, json_texts, names
from tests.makers import make_folder

PARTS = ("train", "val", "test", "training", "", "TRAIN", "other")


def make_listed(root: Path) -> Path:
    """nnU-Net's other way: ``dataset`` lists the files by case."""
    make_nnunet(root, count=2)
    entries = {f"c{i}": {"images": [f"imagesTr/c{i}_0000.nii.gz"], "label": f"labelsTr/c{i}.nii.gz"} for i in range(2)}
    told = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**told, "dataset": entries}))
    return root


def make_manifest(root: Path) -> Path:
    """A list of cases, in JSON."""
    make_folder(root, count=3)
    entries = [
        {"id": f"c{i}", "image": f"images/case{i:02d}.png", "mask": f"masks/case{i:02d}.png", "group": "p", "split": s}
        for i, s in enumerate(("train", "val", "test"))
    ]
    (root / "manifest.json").write_text(json.dumps(entries))
    return root


DESCRIBED = {
    "nnunet": (lambda root: make_nnunet(root, count=2), "dataset.json"),
    "nnunet, listed": (make_listed, "dataset.json"),
    "msd": (lambda root: make_msd(root, count=2), "dataset.json"),
    "manifest": (make_manifest, "manifest.json"),
}
COMMANDS = {"check": 0.025, "convert": 0.01}
"""Shares of all inputs."""


@pytest.mark.parametrize("layout", DESCRIBED)
def test_descriptions_are_understood_or_refused(fuzz: Fuzz, layout: str, tmp_path: Path) -> None:
    make, name = DESCRIBED[layout]
    told = json.loads((make(tmp_path / "told") / name).read_text())

    def check(given: tuple[bytes, str]) -> None:
        text, command = given
        make(fuzz.ground.data)
        (fuzz.ground.data / name).write_bytes(text)
        look(fuzz.ground, command)

    fuzz.ground.clear()
    make(fuzz.ground.data)
    assert is_sound(fuzz.ground)  # what nobody has changed is understood
    for command, share in COMMANDS.items():
        fuzz.each(st.tuples(json_texts(told), st.just(command)), check, share=share)


def is_sound(ground: Ground) -> bool:
    """Tell whether `data check` finds nothing wrong with the data set as it is."""
    return ground.check("data", "check", ground.data, "--json").code == 0


def look(ground: Ground, command: str) -> None:
    """Check or convert a data set: cases that are told to be done are there."""
    here = (str(ground.data), "case", "c0", "c1", "v_0")
    if command == "check":
        ended = ground.check("data", "check", ground.data, "--json", names=here)
        assert not ended.out or json.loads(ended.out)["ok"] == (ended.code == 0)
    else:
        ended = ground.check("data", "convert", ground.data, "--to", "folder", "--out", ground.out, names=here)
        assert converted(ended) == len(set((ground.out / "images").glob("*")))


@st.composite
def tables(draw: st.DrawFn, rows: Sequence[Sequence[str]]) -> bytes:
    """Change cells of a table, its separator, its encoding, or bytes."""
    cells = [list(row) for row in draw(changed([list(row) for row in rows])) if isinstance(row, list)]
    text = io.StringIO()
    separator, ends = draw(st.sampled_from(",,,;\t")), draw(st.sampled_from(("\n", "\n", "\r\n", "\r")))
    csv.writer(text, delimiter=separator, lineterminator=ends, escapechar="\\").writerows(cells)
    content = text.getvalue().encode(draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16"))), "surrogatepass")
    return content if draw(st.integers(0, 3)) else draw(edited(content))


@pytest.mark.parametrize("name", ["split.csv", "manifest.csv"])
def test_tables_are_understood_or_refused(fuzz: Fuzz, name: str) -> None:
    cases = [f"case{i:02d}" for i in range(4)]
    parts = ("train", "train", "val", "test")
    if name == "split.csv":
        rows = [("id", "split", "patient"), *((case, part, case) for case, part in zip(cases, parts, strict=True))]
    else:
        paths = [(case, f"images/{case}.png", f"masks/{case}.png") for case in cases]
        rows = [("id", "image", "mask", "split"), *((*row, part) for row, part in zip(paths, parts, strict=True))]

    def check(given: tuple[bytes, str]) -> None:
        text, command = given
        make_folder(fuzz.ground.data, count=4)
        (fuzz.ground.data / name).write_bytes(text)
        look(fuzz.ground, command)

    fuzz.ground.clear()
    make_folder(fuzz.ground.data, count=4)
    (fuzz.ground.data / name).write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    assert is_sound(fuzz.ground)
    for command, share in COMMANDS.items():
        fuzz.each(st.tuples(tables(rows), st.just(command)), check, share=share)


def test_cases_of_any_name_stay_inside_of_out(fuzz: Fuzz) -> None:
    """Names that a list gives, not the file system: they may hold what no file name can."""

    def check(given: tuple[str, str, Any]) -> None:
        name, layout, command = given
        ground = fuzz.ground
        DESCRIBED[layout][0](ground.data)
        file = ground.data / DESCRIBED[layout][1]
        told = json.loads(file.read_text())
        if layout == "manifest":
            told[0]["id"] = name
        else:
            told["dataset"][name] = told["dataset"].pop("c0")
        file.write_text(json.dumps(told))
        if command == "segment":  # volumes are refused by a run on pictures; pictures are segmented
            ground.check("segment", ground.data, "--model", ground.run, "--out", ground.out, *SMALL)
        else:
            look(ground, command)

    inputs = st.tuples(
        names(), st.sampled_from(("manifest", "nnunet, listed")), st.sampled_from(("convert", "convert", "segment"))
    )
    fuzz.each(inputs, check, share=0.01)
