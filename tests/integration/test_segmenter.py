"""The Segmenter: paths, arrays and tensors in; results in the image's own geometry out; repeatable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff import Segmenter
from medsegdiff.errors import ConfigError, DataError, ShapeError
from medsegdiff.fusion.fusers import staple
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.request import Request
from medsegdiff.io.picture import header_of
from medsegdiff.io.raster import read_map, read_mask
from medsegdiff.models.base import build_model
from medsegdiff.models.checkpoint import Origin
from tests.makers import randomised, small_config, write_png
from tests.program import call


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_result_lies_on_the_images_own_grid(segmenter: Segmenter) -> None:
    result = segmenter(picture(0, (50, 37)), members=4, steps=2)
    assert result.mask.shape == (50, 37)
    assert result.mask.dtype == np.uint8
    assert result.members.shape == (4, 50, 37)
    assert result.probability.shape == (1, 50, 37)
    assert result.anchor.shape == result.uncertainty.entropy.shape == (50, 37)
    assert result.geometry.shape == (50, 37)


def test_path_array_and_tensor_of_one_picture_give_the_same(segmenter: Segmenter, tmp_path: Path) -> None:
    pixels = picture(1)
    path = write_png(tmp_path / "lesion.png", pixels)
    results = [segmenter(image, steps=2) for image in (path, str(path), pixels, torch.from_numpy(pixels), pixels[None])]
    assert results[0].name == "lesion"
    for other in results[1:]:
        assert np.array_equal(results[0].members, other.members)


def test_same_seed_same_bits_and_another_seed_other_members(segmenter: Segmenter) -> None:
    a, b, c = (segmenter(picture(2), steps=3, seed=s) for s in (7, 7, 8))
    assert np.array_equal(a.probability, b.probability)
    assert np.array_equal(a.members, b.members)
    assert not np.array_equal(a.members, c.members)


def test_a_member_does_not_depend_on_batch_order_or_ensemble_size(segmenter: Segmenter) -> None:
    pictures = [picture(s) for s in range(5)]
    forward = segmenter(pictures, members=4, steps=3)
    backward = segmenter(pictures[::-1], members=4, steps=3)[::-1]
    alone = [segmenter(p, members=2, steps=3) for p in pictures]
    small = Segmenter(
        segmenter.model,
        segmenter.config.model_copy(
            update={"sampling": segmenter.config.sampling.model_copy(update={"batch_size": 3})}
        ),
        device="cpu",
        precision="fp32",
    )
    chunked = small(pictures, members=4, steps=3)
    for f, b, a, c in zip(forward, backward, alone, chunked, strict=True):
        assert (f.members == b.members).mean() > 0.999  # sums of another batch may round another way
        assert (f.members[:2] == a.members).mean() > 0.999
        assert (f.members == c.members).mean() > 0.999
        assert np.abs(f.anchor_probability - a.anchor_probability).max() < 1e-5


def test_stochastic_samplers_repeat_too(segmenter: Segmenter) -> None:
    a, b = (segmenter([picture(1), picture(2)], sampler="ddpm", steps=4) for _ in range(2))
    alone = segmenter(picture(2), sampler="ddpm", steps=4)
    assert np.array_equal(a[1].members, b[1].members)
    assert (a[1].members == alone.members).mean() > 0.999


def test_fusing_the_members_again_gives_the_mask(segmenter: Segmenter) -> None:
    result = segmenter(picture(3), members=5, steps=2, fusion="staple")
    votes = torch.from_numpy(result.members[:, None, None]).float()
    again = staple(votes).probability[0, 0].numpy()
    assert np.array_equal(again >= 0.5, result.mask > 0)


def test_images_of_several_sizes_come_in_one_list(segmenter: Segmenter) -> None:
    sizes = [(40, 30), (30, 40), (64, 64), (40, 30)]
    results = segmenter([picture(i, size) for i, size in enumerate(sizes)], members=2, steps=2)
    assert [r.mask.shape for r in results] == sizes


def test_native_resolution_is_padded_and_unpadded() -> None:
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]", "data.resize=none")
    segmenter = Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32")
    assert segmenter(picture(0, (43, 29)), steps=2).mask.shape == (43, 29)


@pytest.mark.parametrize(("task", "classes"), [("exclusive", "[bg, a, b]"), ("regions", "[disc, cup]")])
def test_classes_and_regions(task: str, classes: str, tmp_path: Path) -> None:
    config = small_config("data.channels=3", f"data.task={task}", f"data.classes={classes}")
    segmenter = Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32")
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    result = segmenter(image, members=3, steps=2)
    if task == "exclusive":
        assert result.mask.shape == (30, 40)
        assert result.mask.max() <= 2
        assert np.allclose(result.anchor_probability.sum(axis=0), 1, atol=1e-3)
    else:
        assert result.mask.shape == (2, 30, 40)
    result.save(tmp_path)
    assert (tmp_path / "overlay" / f"{result.name}.png").exists()


def test_options_that_make_no_sense_are_refused(segmenter: Segmenter) -> None:
    for options, words in (
        ({"members": 0}, "must be at least 1"),
        ({"steps": 0}, "must be at least 1"),
        ({"steps": 5000}, "1 … 1000"),
        ({"fusion": "stapel"}, "Did you mean 'staple'"),
        ({"sampler": "dpm"}, "No sampler 'dpm'"),
        ({"members": 2.5}, "members is 2.5; it must be at least 1, or 'auto'; numbers are whole"),
        ({"mode": "foo"}, "mode is 'foo'; allowed are ensemble, mean"),
        ({"shared_noise": "own"}, "shared_noise is 'own'; allowed are True, False"),
        (
            {"cleaning": {"lesion": {"keep": "most"}}},
            "cleaning of 'lesion' is .* keep: .* Allowed are remove",
        ),
        ({"cleaning": "largest"}, "cleaning is 'largest'; expected is Cleaning"),
    ):
        with pytest.raises(ConfigError, match=words):
            segmenter(picture(0), **options)


def test_an_option_that_there_is_not_names_the_nearest(segmenter: Segmenter) -> None:
    with pytest.raises(TypeError, match="no option 'member' of segmenting. Did you mean 'members'"):
        segmenter(picture(0), member=3)


def test_images_that_make_no_sense_are_refused(segmenter: Segmenter) -> None:
    with pytest.raises(DataError, match="nothing to see"):
        segmenter(np.zeros((20, 20)))
    with pytest.raises(DataError, match="NaN"):
        segmenter(np.full((20, 20), np.nan))
    with pytest.raises(ShapeError, match="allowed are"):
        segmenter(np.zeros((2, 3, 4, 5)))
    with pytest.raises(DataError, match="no such file"):
        segmenter("gone.png")


def test_a_run_is_loaded_and_saves_what_it_sees(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    segmenter = Segmenter.from_pretrained(run, device="cpu")
    result = segmenter(data / "images" / "case00.png", members=2, steps=2)
    result.save(tmp_path / "out")
    assert header_of(tmp_path / "out" / "masks" / "case00.png")[0] == (40, 32)


def test_arrays_are_named_by_what_is_in_them(segmenter: Segmenter) -> None:
    """One result must not overwrite another in a loop over arrays."""
    names = {segmenter(picture(seed), members=2, steps=1).name for seed in (0, 1, 0)}
    assert len(names) == 2


def test_results_are_not_saved_over_references(segmenter: Segmenter, tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.png", picture(0))
    reference = write_png(tmp_path / "masks" / "a.png", picture(1))
    before = reference.read_bytes()
    with pytest.raises(ConfigError, match="may be your references"):
        segmenter(tmp_path / "images" / "a.png", members=2, steps=1).save(tmp_path)
    assert reference.read_bytes() == before


def test_reasons_are_looked_for_where_they_are(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, out = tmp_path / "broken.png", tmp_path / "out"
    broken.write_bytes(b"no picture")
    assert call("segment", broken, "--model", trained[0], "--out", out) == 1
    assert not (out / "segment.json").exists()
    assert "1 images could not be segmented; the reasons are above." in " ".join(capsys.readouterr().err.split())


def test_old_results_stay_until_there_are_new_ones(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    segmenter, out = Segmenter.from_pretrained(run, device="cpu"), tmp_path / "out"
    files = find_inputs([data / "images" / "case00.png"])
    options = {"members": 2, "steps": 1}
    segment_files(segmenter, files, out, **options, split_file=run / "split.csv")
    told = json.loads((out / "segment.json").read_text())
    assert (told["sampling"]["members"], told["sampling"]["sampler"], told["seed"]) == (2, "dpmpp-2m", 0)
    assert told["model"] == {"folder": str(run), "weights": "best"}
    before = (out / "masks" / "case00.png").read_bytes()
    for wrong in ({"fusion": "stapel"}, {"members": 0}, {"steps": 5000}):
        with pytest.raises(ConfigError):
            segment_files(segmenter, files, out, overwrite=True, **wrong)
    unreadable = tmp_path / "case01.png"
    unreadable.write_bytes(b"")
    assert segment_files(segmenter, find_inputs([unreadable]), out, **options, overwrite=True).failed
    assert (out / "masks" / "case00.png").read_bytes() == before
    segment_files(segmenter, find_inputs([data / "images" / "case02.png"]), out, **options, overwrite=True)
    assert {p.name for p in (out / "masks").iterdir()} == {"case02.png"}
    assert not (out / "split.csv").exists()


def test_sizes_and_confidence_are_those_of_the_files(trained: tuple[Path, Path], tmp_path: Path) -> None:
    segmenter = Segmenter.from_pretrained(trained[0], device="cpu")
    files = find_inputs([trained[1] / "images" / "case00.png"])
    segment_files(segmenter, files, tmp_path, save_members=True, members=3, steps=2)
    record = SegmentationFolder(tmp_path).read()
    assert record is not None
    (image,) = record.images
    pixels = [np.count_nonzero(read_mask(tmp_path / f"members/0{i}/masks/case00.png")) for i in range(3)]
    (size,) = image.sizes.values()
    assert (size.mean, size.unit) == (pytest.approx(np.mean(pixels)), "px")
    assert (size.low, size.high) == pytest.approx(tuple(np.quantile(pixels, [0.05, 0.95])))
    for said, file in ((image.confidence, "probability"), (image.anchor_confidence, "anchor/probability")):
        p = read_map(tmp_path / file / "case00.png")
        assert said == pytest.approx(2 * p[p >= 0.5].sum() / (p.sum() + (p >= 0.5).sum()), abs=1e-3)
    p = np.clip(read_map(tmp_path / "anchor/probability/case00.png"), 1e-6, 1 - 1e-6)
    assert image.anchor_entropy == pytest.approx(-np.mean(p * np.log2(p) + (1 - p) * np.log2(1 - p)), abs=1e-3)


def test_only_the_parts_that_are_asked_for_are_written(trained: tuple[Path, Path], tmp_path: Path) -> None:
    segmenter, out = Segmenter.from_pretrained(trained[0], device="cpu"), tmp_path / "out"
    files = find_inputs([trained[1] / "images" / "case00.png"])
    segment_files(segmenter, files, out, parts=("labels", "uncertainty"), members=2, steps=1)
    tables = {"segment.json", "staple.csv", "measures.csv", "cases"}
    assert {path.name for path in out.iterdir()} == {"labels", "uncertainty", *tables}
    with pytest.raises(ConfigError, match=r"no part 'label'; allowed are masks, labels, .*Did you mean 'labels'"):
        segment_files(segmenter, files, tmp_path / "other", parts=("label",), members=2, steps=1)
    assert not (tmp_path / "other").exists()


def test_what_is_told_of_results_is_what_was_asked_and_is_read_back(trained: tuple[Path, Path], tmp_path: Path) -> None:
    segmenter, out = Segmenter.from_pretrained(trained[0], device="cpu"), tmp_path / "out"
    finished = segment_files(
        segmenter, find_inputs([trained[1] / "images" / "case00.png"]), out, mode="mean", shared_noise=False, seed=5
    )
    told, asked = SegmentationFolder(out).read(), Request.of(segmenter.config, mode="mean", shared_noise=False, seed=5)
    assert told is not None
    assert (told.sampling, told.members, told.seed) == (asked.sampling, 1, 5)
    assert told.model == Origin(str(trained[0]), "best")
    assert list(told.images) == finished.done
    assert told.seconds is not None
    assert 0 < told.seconds <= finished.seconds
    assert SegmentationFolder.around(out / "anchor").read() == told


def test_rates_of_members_lie_beside_the_results_of_staple_alone(trained: tuple[Path, Path], tmp_path: Path) -> None:
    segmenter, out = Segmenter.from_pretrained(trained[0], device="cpu"), tmp_path / "out"
    files = find_inputs([trained[1] / "images" / f"case{i:02d}.png" for i in range(2)])
    options = {"members": 3, "steps": 1, "fusion": "staple"}
    segment_files(segmenter, files, out, **options)
    rows = [line.split(",") for line in (out / "staple.csv").read_text().splitlines()]
    assert rows[0] == ["name", "structure", "member", "sensitivity", "specificity"]
    assert [row[0] for row in rows[1:]] == ["case00"] * 3 + ["case01"] * 3
    segment_files(segmenter, files, out, overwrite=True, **(options | {"fusion": "mean"}))
    assert not (out / "staple.csv").exists()


def test_results_may_lie_beside_the_run_and_leave_its_split(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(trained[0], tmp_path / "results")
    before = (run / "split.csv").read_text()
    segmenter = Segmenter.from_pretrained(run, device="cpu")
    files = find_inputs([trained[1] / "images" / "case00.png"])
    for overwrite in (False, True):
        options = {"members": 2, "steps": 1}
        segment_files(segmenter, files, run, **options, split_file=run / "split.csv", overwrite=overwrite)
    assert (run / "split.csv").read_text() == before
    assert (run / "masks" / "case00.png").exists()
