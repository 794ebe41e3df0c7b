"""What the command line and the documents tell of networks and their costs, which are counted once for all tests."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from medsegdiff.models.base import MODELS
from tests.program import call

ROOT = Path(__file__).parents[2]


def test_models_are_listed_with_paper_kind_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "models", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {entry.name for entry in MODELS}
    assert rows["ensdiff"]["parameters"] == pytest.approx(113.7e6, rel=1e-3)
    assert rows["segdiff"]["gmac"] == pytest.approx({"condition": 575, "denoiser": 278.3}, rel=1e-3)
    assert rows["anchor"]["kind"] == "deterministic"
    assert (rows["segdiff"]["condition_cached"], rows["ensdiff"]["condition_cached"]) == (True, False)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_of_models_has_a_line_for_each_and_then_the_papers(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegdiff.cli.info.out.width", width)
    assert call("list", "models") == 0
    table, told = capsys.readouterr().out.split("Of the defaults at 256×256")
    assert "…" not in table + told
    assert max(map(len, (table + told).splitlines())) <= width
    rows = {words[0]: words[1:] for line in table.splitlines() if (words := line.split())}
    assert rows["segdiff"] == [*"Amit 2021 diffusion 164.2 M 575.1 + 278.3 once".split()]
    assert rows["medsegdiff-transunet"] == [*"Wu 2024 diffusion 116.3 M 35.2 + 129.0 each step".split()]
    assert {entry.name for entry in MODELS} <= set(rows)
    papers = " ".join(told.split())
    assert all(f"{entry.name} {entry.facts.paper}, {entry.facts.year}" in papers for entry in MODELS)


def test_info_tells_the_memory_of_seven_billion_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", "pp", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == pytest.approx(7594e6, rel=1e-3)
    memory = facts["memory_gb"]
    assert memory["weights"] == pytest.approx(7.5967 * 4, abs=0.01)
    assert memory["training"] == pytest.approx(5 * memory["weights"], rel=0.01)
    assert memory["batch"] == pytest.approx(memory["training"] + 64 * memory["per_image"], rel=0.01)


def test_info_and_list_speak_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", "v2-paper", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["gmac"]) >= {"condition", "denoiser"}
    assert 44.6e6 < facts["parameters"] < 47.4e6
    assert call("info", "v2-tiny", "--size", "64") == 0
    assert "image_size" in capsys.readouterr().out
    for kind in ("presets", "models", "datasets", "samplers", "fusers", "metrics"):
        assert call("list", kind, "--json") == 0
        assert json.loads(capsys.readouterr().out)[0]["name"]
    assert call("list") == 0
    assert "v2-paper" in capsys.readouterr().out


def test_the_costs_in_the_document_of_the_networks_are_those_counted() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "models.py"))
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert "| `pp` |" in page
    assert tables["refreshed"](page) == page, "run 'make docs'"
