"""Going on with a folder of results: what is valid stays, the rest is made, and it is as if made in one go."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff import Segmenter
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.inference.attempt import held
from medsegdiff.inference.case_record import CaseRecord, record_file
from medsegdiff.inference.collect import collect
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import Settings
from medsegdiff.inference.remaining import remaining
from tests.makers import write_png
from tests.program import call
from tests.results import contents, segmented


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in "abcd":
        write_png(tmp_path / "photos" / f"{name}.png", rng.integers(0, 256, (24, 20), dtype=np.uint8))
    return tmp_path / "photos"


def test_a_folder_that_was_gone_on_with_is_that_of_one_go(segmenter: Segmenter, photos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    segmented(segmenter, [photos], whole)
    segmented(segmenter, [photos / "a.png", photos / "c.png"], out)
    finished, told = segmented(segmenter, [photos], out, resume=True)
    assert (finished.made, finished.tally.count) == (2, 4)
    assert "Of 4 images 2 are done; 2 are to do." in told
    assert contents(out) == contents(whole)
    finished, told = segmented(segmenter, [photos], out, resume=True)
    assert (finished.made, finished.tally.count) == (0, 4)
    assert contents(out) == contents(whole)
    for path in ("segment.json", "staple.csv", "measures.csv"):
        (out / path).unlink()
    assert collect(out).rest() == ""
    assert contents(out) == contents(whole)


def test_what_is_no_longer_valid_is_made_again_and_it_is_said_why(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    segmented(segmenter, [photos], out)
    write_png(photos / "a.png", np.eye(24, 20, dtype=np.uint8))
    os.utime(photos / "b.png", (1, 1))  # copied to elsewhere, say
    (out / "masks" / "c.png").unlink()
    record_file(out, "d").write_text("")
    finished, told = segmented(segmenter, [photos], out, resume=True)
    assert finished.made == 3
    assert (
        "3 of them again (1: the image has changed; 1: files are missing or changed; 1: the record is damaged)" in told
    )
    assert [path.name for path in sorted((out / "masks").iterdir())] == ["a.png", "b.png", "c.png", "d.png"]


def test_a_mask_that_somebody_has_corrected_is_not_lost(
    segmenter: Segmenter, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = photos.parent / "out"
    segmented(segmenter, [photos], out)
    before = (out / "masks" / "c.png").read_bytes()
    for corner in (3, 5):
        corrected = np.zeros((24, 20), np.uint8)
        corrected[:corner, :corner] = 255
        write_png(out / "masks" / "c.png", corrected)
        finished, told = segmented(segmenter, [photos], out, resume=True)
        assert finished.made == 1
        assert "1 of them again (1: files are missing or changed)" in told
    assert (out / "masks" / "c.png").read_bytes() == before
    for name, corner in (("c.png", 3), ("2-c.png", 5)):
        assert np.asarray(Image.open(out / "changed" / "masks" / name)).sum() == 255 * corner**2
    assert "1 files had been changed by somebody" in caplog.text
    assert str(out / "changed") in caplog.text


def test_an_image_of_the_same_name_size_and_time_elsewhere_is_another(segmenter: Segmenter, photos: Path) -> None:
    out, other = photos.parent / "out", photos.parent / "other"
    segmented(segmenter, [photos], out)
    shutil.copytree(photos, other)
    values = np.asarray(Image.open(photos / "a.png"))
    for path in (photos / "a.png", other / "a.png"):
        Image.fromarray(values if path.parent == photos else 255 - values).save(path.with_suffix(".tif"))
        path.unlink()
        os.utime(path.with_suffix(".tif"), (1, 1))
    segmented(segmenter, [photos], out, resume=True)
    finished, told = segmented(segmenter, [other], out, resume=True)
    assert finished.made == 1
    assert "1 of them again (1: the image has changed)" in told


def test_an_image_does_not_count_twice_where_a_second_folder_gives_it_another_name(
    segmenter: Segmenter, photos: Path
) -> None:
    out, more = photos.parent / "out", photos.parent / "more"
    segmented(segmenter, [photos], out)
    shutil.copytree(photos, more)
    with pytest.raises(ConfigError, match="results of 4 of these images by other names .*a is photos-a now"):
        segmented(segmenter, [photos, more], out, resume=True)
    assert json.loads((out / "segment.json").read_text())["images"][0]["name"] == "a"


def test_a_run_that_reads_images_otherwise_makes_all_again(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    segmented(segmenter, [photos], out)
    spec = segmenter.config.spec.model_copy(update={"window": (0.2, 0.7)})
    otherwise = Segmenter(segmenter.model, segmenter.config.model_copy(update={"spec": spec}))
    finished, told = segmented(otherwise, [photos], out, resume=True)
    assert finished.made == 4
    assert "4 of them again (4: configuration" in told


def test_other_options_make_all_again_and_drop_what_is_not_asked_any_more(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    segmented(segmenter, [photos], out)
    finished, told = segmented(segmenter, [photos], out, resume=True, parts=("masks",), seed=5)
    assert finished.made == 4
    assert "4 of them again (4: seed 0, now 5, write labels,masks,probability, now masks)" in told
    assert not list(out.glob("labels/*.png"))
    assert {image["name"] for image in json.loads((out / "segment.json").read_text())["images"]} == set("abcd")
    _, told = segmented(segmenter, [photos], out, resume=True, parts=("masks",), seed=5, batch_size=7)
    assert "Of 4 images 4 are done" in told


def test_results_of_other_images_and_other_options_are_not_mixed_with(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    segmented(segmenter, [photos], out)
    before = contents(out)
    with pytest.raises(ConfigError, match=r"results of 2 other images \(c, d\) that were made otherwise \(seed 0, now"):
        segmented(segmenter, [photos / "a.png", photos / "b.png"], out, resume=True, seed=1)
    assert contents(out) == before
    finished, _ = segmented(segmenter, [photos / "a.png"], out, resume=True)
    assert (finished.made, finished.tally.count) == (0, 4)


def test_failures_are_remembered_and_tried_again_when_asked(segmenter: Segmenter, photos: Path) -> None:
    out, broken = photos.parent / "out", photos / "b.png"
    broken.write_bytes(b"not a picture")
    finished, _ = segmented(segmenter, [photos], out)
    assert (finished.made, list(finished.failed)) == (3, [str(broken)])
    finished, told = segmented(segmenter, [photos], out, resume=True)
    assert (finished.made, list(finished.failed)) == (0, [str(broken)])
    assert "3 are done, 1 have failed (--retry-failed does these again); 0 are to do." in told
    record = json.loads(record_file(out, "b").read_text())
    assert record["error"]["kind"] == "DataError"
    finished, told = segmented(segmenter, [photos], out, resume=True, retry_failed=True)
    assert (finished.made, list(finished.failed)) == (0, [str(broken)])
    assert "1 of them again (1: it has failed)" in told
    write_png(broken, np.eye(24, 20, dtype=np.uint8))
    finished, told = segmented(segmenter, [photos], out, resume=True)
    assert (finished.made, finished.failed) == (1, {})
    assert "(1: the image has changed)" in told


def test_an_earlier_result_stays_where_a_new_one_fails_at_first(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    segmented(segmenter, [photos / "a.png"], out)
    before = contents(out)
    (photos / "a.png").write_bytes(b"not a picture")
    finished, _ = segmented(segmenter, [photos / "a.png"], out, resume=True)
    assert finished.made == 0
    assert contents(out) == before
    (photos / "e.png").write_bytes(b"no picture either")
    finished, _ = segmented(segmenter, [photos / "a.png", photos / "e.png"], out, resume=True)
    assert (finished.tally.count, list(finished.failed)) == (1, [str(photos / "e.png")])
    assert contents(out).items() >= {key: value for key, value in before.items() if "json" not in key}.items()


def test_failures_are_not_compared_with_each_other(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten thousand, half a hundred million pairs would be."""
    compared = list[CaseRecord]()
    monkeypatch.setattr(CaseRecord, "__eq__", lambda self, other: compared.append(self) or self is other)
    for name in "abcd":
        (photos / f"{name}.png").write_bytes(b"not a picture")
    finished, _ = segmented(segmenter, [photos], photos.parent / "out", resume=True)
    assert (len(finished.failed), compared) == (4, [])


def test_results_of_others_are_not_kept_in_memory(tmp_path: Path) -> None:
    row = {"note": "x" * 100_000}
    with held(tmp_path) as attempt:
        for number in range(40):
            attempt.commit(CaseRecord(name=f"case{number}", settings=Settings(), rates=(row,)))
    tracemalloc.start()
    assert remaining(tmp_path, [], Settings()).others == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_who_begins_at_the_same_time_takes_nothing_away(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, noted = photos.parent / "out", list[str]()
    segmented(segmenter, [photos / "a.png"], out, resume=True)

    class Late(list[str]):
        """Makes the folder look as it did before the other began, from the first sentence on."""

        def append(self, line: str) -> None:
            monkeypatch.setattr(SegmentationFolder, "exists", False)

    segmented(segmenter, [photos / "b.png"], out, resume=True, noted=Late(noted).append)
    monkeypatch.undo()
    assert collect(out).count == 2


def test_an_error_of_who_listens_is_raised_as_it_is(segmenter: Segmenter, photos: Path) -> None:
    def heard(result: object) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        segmented(segmenter, [photos], photos.parent / "out", heard=heard)


def test_a_folder_of_nobody_and_one_without_records_are_not_gone_on_with(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    (out / "masks").mkdir(parents=True)
    with pytest.raises(ConfigError, match="did not write, perhaps your data"):
        segmented(segmenter, [photos], out, resume=True)
    (out / "segment.json").write_text('{"task": "binary", "classes": ["lesion"]}')
    with pytest.raises(ConfigError, match="of an earlier version, without records of its cases"):
        segmented(segmenter, [photos], out, resume=True)
    with pytest.raises(ConfigError, match="resume keeps those that are valid"):
        segmented(segmenter, [photos], out, resume=True, overwrite=True)
    with pytest.raises(DataError, match="no records of cases to collect"):
        collect(out)


def test_what_is_missing_is_told(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    segmented(segmenter, [photos], out)
    record_file(out, "a").unlink()
    record_file(out, "b").write_text("{")
    (out / "masks" / "c.png").unlink()
    tally = collect(out)
    assert tally.count == 1
    assert tally.rest() == (
        "1 are left out (with damaged records); 1 are left out (with missing or changed files); "
        "1 have no record yet; 'medsegdiff segment --resume' does them."
    )
    assert call("collect", out) == 3


def test_the_command_line_goes_on_from_a_list(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    pictures, out = [tmp_path / side / "scan.png" for side in ("left", "right")], tmp_path / "out"
    for number, picture in enumerate(pictures):
        picture.parent.mkdir()
        picture.write_bytes((data / "images" / f"case0{number}.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no")
    lines = "\n".join(map(str, [*pictures, tmp_path / "broken.png", ""]))
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8-sig")  # as Notepad writes it
    asked = ("segment", "--input-list", tmp_path / "list.txt", "-m", run, "-o", out, "--members", "2", "--steps", "1")
    assert call(*asked, "--write", "masks") == 3
    assert "named after their folders too: left-scan, right-scan" in capsys.readouterr().err
    assert call(*asked, "--write", "masks", "--resume") == 3
    assert "Of 3 images 2 are done, 1 have failed" in capsys.readouterr().err
    (out / "measures.csv").unlink()
    assert call("collect", out) == 3
    assert (out / "measures.csv").read_text().count("scan") == 2
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["left-scan.png", "right-scan.png"]
    assert call("segment", "-m", run, "-o", out) == 2
    assert "There is nothing to segment" in capsys.readouterr().err
