"""What the command line tells of networks and their costs."""

from __future__ import annotations

import json

import pytest

from medsegdiff.models.base import MODELS
from tests.integration.test_cli import call


def test_models_are_listed_with_paper_kind_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "models", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {entry.name for entry in MODELS}
    assert rows["ensdiff"]["parameters"] == pytest.approx(113.7e6, rel=1e-3)
    assert rows["segdiff"]["gmac"] == pytest.approx({"condition": 575, "denoiser": 278.3}, rel=1e-3)
    assert rows["anchor"]["kind"] == "deterministic"
    assert (rows["segdiff"]["condition_cached"], rows["ensdiff"]["condition_cached"]) == (True, False)


def test_the_table_of_models_is_readable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsegdiff.cli.list_.out.width", 200)
    assert call("list", "models") == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if " segdiff " in line]
    assert row.split() == [
        "segdiff",
        *"Amit et al., SegDiff, arXiv:2112.00390, 2021".split(),
        *"575.1 + 278.3".split(),
        *"164.2 M".split(),
        "once",
    ]


def test_info_tells_the_memory_of_seven_billion_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", "pp", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == pytest.approx(7594e6, rel=1e-3)
    memory = facts["memory_gb"]
    assert memory["weights"] == pytest.approx(7.5967 * 4, abs=0.01)
    assert memory["training"] == pytest.approx(5 * memory["weights"], rel=0.01)
    assert memory["batch"] == pytest.approx(memory["training"] + 64 * memory["per_image"], rel=0.01)
