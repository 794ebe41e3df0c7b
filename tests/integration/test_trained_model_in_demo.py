"""The demonstration begins with a trained model, if an installed package has one with examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medsegdiff import demo
from tests.makers import disc, write_png
from tests.packages import install, packed


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a model with two examples."""
    place = install(tmp_path / "site", "demo_models", monkeypatch) / "demo-disc"
    shutil.copytree(packed(tmp_path), place)
    for number in range(2):
        mask = disc((24, 24), (12, 10 + number), 5)
        noise = np.random.default_rng(number).integers(0, 90, (24, 24), dtype=np.uint8)
        write_png(place / "examples" / "images" / f"c{number}.png", noise + mask.astype(np.uint8) * 120)
        write_png(place / "examples" / "masks" / f"c{number}.png", mask.astype(np.uint8) * 255)
    return place


def test_masks_members_sizes_and_a_picture_of_its_examples(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Console(record=True, width=200)
    (found,) = [one for one in demo._with_examples() if one.folder == model]
    section = demo.show_trained(found, tmp_path / "demo", console=said)
    text = said.export_text()
    assert "First a trained model, demo-disc (demo-models 1.0)" in text
    assert text.count(" px") == 2  # a size for each example
    assert (tmp_path / "demo" / "demo-disc" / "members" / "03" / "masks" / "c1.png").is_file()
    assert section.picture == tmp_path / "demo" / "demo-disc.png"
    assert section.picture.is_file()


def test_a_model_without_examples_is_not_spoken_of(model: Path) -> None:
    shutil.rmtree(model / "examples")
    assert model not in [one.folder for one in demo._with_examples()]
