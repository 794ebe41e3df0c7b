"""Parts of an evaluation, put together: the files of one process, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.errors import DataError
from medsegdiff.evaluation.asked import Asked
from medsegdiff.evaluation.scoring import evaluate_part, evaluate_parts, score
from medsegdiff.inference.team import Part
from medsegdiff.metrics.lesions import LesionRule
from tests.makers import write_png
from tests.program import call

COUNT = 9


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """Masks, members and probabilities against two raters, one case empty."""
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        name, drawn = f"case{number}.png", rng.random((20, 16)) * (number != 4)
        for folder, level in (("masks", 0.5), ("members/00/masks", 0.4), ("members/01/masks", 0.6)):
            write_png(tmp_path / "pred" / folder / name, 255 * (drawn > level).astype(np.uint8))
        write_png(tmp_path / "pred" / "probability" / name, (65535 * drawn).astype(np.uint16))
        for rater in ("rater1", "rater2"):
            noise = rng.normal(0, 0.2, drawn.shape)
            write_png(tmp_path / "ref" / "masks" / rater / name, 255 * (drawn + noise > 0.5).astype(np.uint8))
    return Asked(tmp_path / "pred", tmp_path / "ref", reference="each", lesions=LesionRule())


def test_parts_are_as_one_bit_by_bit(asked: Asked, tmp_path: Path) -> None:
    whole, out = score(asked), tmp_path / "scores"
    whole.save(tmp_path / "whole")
    assert evaluate_part(asked, out, Part(index=2, count=3)) == ["part 1 of 3", "part 3 of 3"]
    with pytest.raises(DataError, match="part 1 of 3, part 3 of 3 of the scores are not there yet, or older"):
        evaluate_parts(out)
    assert evaluate_part(asked, out, Part(index=1, count=3)) == ["part 3 of 3"]
    assert evaluate_part(asked, out, Part(index=3, count=3)) == []
    evaluate_parts(out).save(out)
    for name in ("metrics.json", "metrics.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_parts_that_do_not_belong_together_are_refused(asked: Asked, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    evaluate_part(asked, out, Part(index=1, count=2))
    other = Asked(asked.predictions, asked.references, tolerance=2.0)
    evaluate_part(other, out, Part(index=2, count=2))
    with pytest.raises(DataError, match="scored with different options"):
        evaluate_parts(out)
    evaluate_part(asked, out, Part(index=2, count=2))
    for folder in ("masks", "members/00/masks", "members/01/masks", "probability"):
        (asked.predictions / folder / "case0.png").rename(asked.predictions / folder / "new.png")
    for rater in ("rater1", "rater2"):
        (asked.references / "masks" / rater / "case0.png").rename(asked.references / "masks" / rater / "new.png")
    with pytest.raises(DataError, match="part 1 of 2, part 2 of 2 of the scores are not there yet, or older"):
        evaluate_parts(out)
    with pytest.raises(DataError, match="holds parts of 2, 3"):
        evaluate_part(asked, out, Part(index=1, count=3))


def test_a_part_of_masks_that_were_made_anew_is_not_there(asked: Asked, tmp_path: Path) -> None:
    out, (first, second) = tmp_path / "scores", (Part(index=number, count=2) for number in (1, 2))
    evaluate_part(asked, out, first)
    assert evaluate_part(asked, out, second) == []
    before = evaluate_parts(out).mean("dice").mean
    for path in (asked.predictions / "masks").iterdir():
        write_png(path, np.zeros((20, 16), np.uint8))
    assert evaluate_part(asked, out, first) == ["part 2 of 2"]
    with pytest.raises(DataError, match="part 2 of 2 of the scores are not there yet, or older"):
        evaluate_parts(out)
    assert evaluate_part(asked, out, second) == []
    assert evaluate_parts(out).mean("dice").mean < before / 2


def test_a_part_whose_patients_or_stated_sizes_have_changed_is_not_there(asked: Asked, tmp_path: Path) -> None:
    out, (first, second) = tmp_path / "scores", (Part(index=number, count=2) for number in (1, 2))
    names = [f"case{number}" for number in range(COUNT)]
    moved, sized = (next(filter(part.holds, names)) for part in (first, second))

    def told(patient: str, low: float) -> None:
        rows = [f"{name},test,{patient if name == moved else name}" for name in names]
        (asked.references / "split.csv").write_text("\n".join(["id,split,patient", *rows]) + "\n")
        size = {"lesion": {"unit": "px", "mean": 160.0, "low": low, "high": 320.0}}
        images = [{"name": name, "sizes": size if name == sized else {}} for name in names]
        record = {"format": 2, "task": "binary", "classes": ["lesion"], "images": images}
        (asked.predictions / "segment.json").write_text(json.dumps(record))

    told("a", 100.0)
    evaluate_part(asked, out, first)
    assert evaluate_part(asked, out, second) == []
    told("b", 100.0)
    with pytest.raises(DataError, match="part 1 of 2 of the scores are not there yet, or older"):
        evaluate_parts(out)
    assert evaluate_part(asked, out, first) == []
    told("b", 300.0)
    with pytest.raises(DataError, match="part 2 of 2 of the scores are not there yet, or older"):
        evaluate_parts(out)
    assert evaluate_part(asked, out, second) == []
    assert evaluate_parts(out).scores.groups[moved] == "b"


def test_parts_can_be_scored_again_with_another_option(asked: Asked, tmp_path: Path) -> None:
    out, (first, second) = tmp_path / "scores", (Part(index=number, count=2) for number in (1, 2))
    evaluate_part(asked, out, first)
    assert evaluate_part(asked, out, second) == []
    other = replace(asked, tolerance=3.0)
    assert evaluate_part(other, out, first) == ["part 2 of 2"]
    assert evaluate_part(other, out, second) == []
    assert evaluate_parts(out).setup.tolerance == 3


def test_parts_are_joined_from_another_folder(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_part(
        replace(asked, predictions=Path("pred"), references=Path("ref")), Path("scores"), Part(index=1, count=1)
    )
    monkeypatch.chdir("/")
    assert len(evaluate_parts(tmp_path / "scores").scores) == COUNT


def test_parts_of_a_disk_that_is_mounted_elsewhere_are_joined(asked: Asked, tmp_path: Path) -> None:
    out, (first, second) = tmp_path / "scores", (Part(index=number, count=2) for number in (1, 2))
    evaluate_part(asked, out, first)
    mounted = tmp_path.rename(tmp_path.with_name("mounted"))
    elsewhere = replace(asked, predictions=mounted / "pred", references=mounted / "ref")
    assert evaluate_part(elsewhere, mounted / "scores", second) == []
    assert len(evaluate_parts(mounted / "scores").scores) == COUNT


def test_parts_that_were_asked_with_relative_paths_are_joined(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_part(asked, Path("scores"), Part(index=1, count=1))
    (file,) = Path("scores", "parts").iterdir()
    told = file.read_text()  # as earlier versions wrote them
    file.write_text(told.replace(str(asked.predictions), "pred").replace(str(asked.references), "ref"))
    assert len(evaluate_parts(Path("scores")).scores) == COUNT


def test_the_command_line_scores_parts_and_joins_them(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", asked.predictions, asked.references, "--reference", "each")
    assert call(*command, "--part", "1/2") == 2
    assert "parts meet in a folder. Add --out" in capsys.readouterr().err
    assert call(*command, "--part", "1/2", "--out", tmp_path / "scores") == 0
    assert "part 1 of 2 is scored; not yet: part 2 of 2" in capsys.readouterr().err
    assert call(*command, "--part", "2/2", "--out", tmp_path / "scores", "--no-report") == 0
    first = (tmp_path / "scores" / "metrics.json").read_bytes()
    (tmp_path / "scores" / "metrics.json").unlink()
    assert call("collect", tmp_path / "scores") == 0
    assert (tmp_path / "scores" / "metrics.json").read_bytes() == first
    assert (tmp_path / "scores" / "report.html").is_file()
    assert call(*command, "--out", tmp_path / "scores", "--no-report") == 0
    assert not (tmp_path / "scores" / "report.html").exists()  # it would show other numbers than those beside it
