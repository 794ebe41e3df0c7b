"""The fingerprint of a data set: what is CT, which window suits its structures, and who has the last word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medsegdiff.config.data import DataConfig
from medsegdiff.config.run import Config
from medsegdiff.data import fingerprint as module
from medsegdiff.data.dataset import DataInfo, DataSource
from medsegdiff.data.fingerprint import Fingerprint, fingerprint, fit_window
from medsegdiff.data.modality import guess_modalities, shown_modalities, told_modalities
from medsegdiff.data.open import open_source
from medsegdiff.data.slicing import slices_of
from medsegdiff.data.transforms import prepare
from medsegdiff.errors import ConfigError
from medsegdiff.inference.inputs import read_case
from medsegdiff.labels import Labels
from medsegdiff.training.plan import plan
from medsegdiff.training.train import summary, train
from tests.makers import make_folder, small_config, write_png
from tests.scans import make_scans


def taken(root: Path, **values: object) -> Fingerprint:
    config = DataConfig(**values)
    return fingerprint(open_source(root, config), config)


def resolved(root: Path, *overrides: str) -> Config:
    return plan(root, small_config(*overrides), device="cpu").config


def test_air_tells_ct_and_structures_its_window(tmp_path: Path) -> None:
    found = taken(make_scans(tmp_path))
    assert (found.modalities, found.told) == (("ct",), "guessed from values")
    assert found.window == (30, 300)
    assert (found.kind, found.plane, found.sampled) == ("volumes", "axial", found.cases["train"])
    assert sum(found.cases.values()) == 8
    assert found.spacing is not None
    assert found.num_slices is not None
    assert found.spacing.median == (0.5, 0.75, 3.0)
    assert (found.size.low, found.num_slices.high) == ((10, 12), (6,))
    assert found.structure_intensity == ((30.0, 165.0, 300.0),)
    assert found.intensity[0][0] == -1000
    assert found.foreground == pytest.approx(2 * 2 * 4 * 4 / 720)


def test_a_window_of_one_tissue_is_widened_about_it(tmp_path: Path) -> None:
    assert taken(make_scans(tmp_path, structures=(40.0, 60.0))).window == (-25, 125)
    assert fit_window(np.array([], np.float32)) == (-160, 240)
    tails = np.concatenate([np.full(4, -900.0), np.linspace(-100.4, 100.4, 991), np.full(4, 3000.0)])
    low, high = fit_window(tails.astype(np.float32))
    assert -101 <= low <= -99
    assert 99 <= high <= 101
    assert low == round(low)


def test_mr_has_no_window(tmp_path: Path) -> None:
    config = resolved(make_scans(tmp_path, kinds="m"))
    assert (config.spec.modalities, config.spec.window) == (("mr",), None)
    assert resolved(tmp_path, "data.window=[0, 9]").spec.window == (0, 9)  # nobody uses it, but nobody drops it


def test_one_odd_volume_does_not_make_mr_to_ct() -> None:
    assert guess_modalities(np.array([[0.0, -1000], [-3, -1024], [-400, 0]], np.float32)) == ("mr", "ct")


def test_channels_are_told_apart_and_only_ct_is_cut_off(tmp_path: Path) -> None:
    """The window is that of the structures in CT; in MR, the same voxels have other values."""
    root = make_scans(tmp_path, kinds="mcmc")
    planned = plan(root, small_config(), device="cpu")
    spec = planned.config.spec
    assert spec.modalities == ("mr", "ct", "mr", "ct")
    assert spec.window == (30, 300)
    item = sorted(planned.source.info.foreground)[0]
    image = prepare(planned.source.load(item), planned.config, stride=4).image
    assert torch.equal(image[1], image[3])
    assert (image[1].min(), image[1].max()) == (-1, 1)
    assert image[0].max() > 1


def test_pictures_are_natural_and_not_read_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(folder).modalities == ("natural",)
    monkeypatch.setattr(module, "fingerprint", None)
    assert resolved(folder).spec.modalities == ("natural",)
    assert resolved(folder).spec.window is None


def test_what_the_user_says_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_scans(tmp_path)
    assert resolved(root, "data.window=[-50, 50]").spec.window == (-50, 50)
    assert taken(root, window=(-50, 50)).window == (-50, 50)
    assert taken(root, modalities=("mr",)).told == "given as data.modalities"
    assert resolved(root, "data.modalities=[ct]").spec.window == (30, 300)
    monkeypatch.setattr(module, "fingerprint", None)  # nothing has to be read any more
    assert resolved(root, "data.modalities=[mr]").spec.modalities == ("mr",)
    assert resolved(root, "data.modalities=[ct]", "data.window=[0, 99]").spec.window == (0, 99)


def test_what_the_data_set_says_goes_before_its_values() -> None:
    info = DataInfo(
        2, Labels("binary", ("x",)), ("r",), {"a": "train"}, slices={"a": ("a/0",)}, modalities=("mr", "ct")
    )
    assert told_modalities(info, DataConfig()) == (("mr", "ct"), "told by the data set")
    assert told_modalities(info, DataConfig(modalities=("mr", "mr")))[0] == ("mr", "mr")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.modalities=[ct, mr]"], "ct, mr .* are 2, but the images have 1 channels"),
        (["data.modalities=[ct]"], "these are pictures, whose values were scaled"),
        (["data.neighbours=1"], "data.neighbours is 1, but these are pictures"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolved(folder, *overrides)


def test_only_training_cases_are_looked_at_and_not_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Values of the test cases must not reach the normalisation."""
    root = make_scans(tmp_path / "v")
    source = open_source(root, DataConfig())
    seen: list[str] = []

    def watched(items: list[str], description: str) -> list[str]:
        seen.extend(items)
        return items

    monkeypatch.setitem(module.MOST, "volumes", 3)
    assert fingerprint(source, DataConfig(), track=watched).sampled == 3
    names = source.info.names("train")
    assert seen == [names[0], names[(len(names) - 1) // 2], names[-1]]
    monkeypatch.setitem(module.MOST, "pictures", 4)
    assert taken(folder).sampled == 4


def test_few_voxels_stand_for_all_and_are_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_scans(tmp_path)
    monkeypatch.setattr(module, "MOST_VOXELS", 16)
    few = taken(root)
    assert few == taken(root)
    assert few.window == (30, 300)


@pytest.mark.parametrize("kind", ["structures", "raters"])
def test_structures_are_found_in_every_kind_of_mask(folder: Path, kind: str) -> None:
    share = taken(folder).foreground
    other = make_folder(folder.parent / "other", seed=5)
    for name, masks in (("rater1", folder / "masks"), ("rater2", other / "masks")):
        masks.rename(folder / name)
    for name in ("rater1", "rater2"):
        target = folder / "masks" / (name if kind == "raters" else f"organ{name[-1]}")
        target.parent.mkdir(exist_ok=True)
        (folder / name).rename(target)
    found = taken(folder)
    assert share < found.foreground < 2 * share
    assert found.labels.classes == (("foreground",) if kind == "raters" else ("organ1", "organ2"))


def test_the_background_is_no_structure(folder: Path) -> None:
    share = taken(folder).foreground
    for path in (folder / "masks").iterdir():
        labels = np.zeros((40, 32), np.uint8)
        labels[:8], labels[8:12] = 1, 2
        write_png(path, labels)
    assert taken(folder).foreground == pytest.approx(12 / 40)
    assert share != pytest.approx(12 / 40)


def test_the_line_tells_of_modality_and_window(tmp_path: Path) -> None:
    planned = plan(make_scans(tmp_path), small_config("data.window=[-160, 240]"), device="cpu")
    assert "; ct, window −160 … 240 HU;" in summary(planned.source.info, planned.config)
    assert shown_modalities(("mr", "ct"), (-5.0, 200.0)) == "mr + ct, window −5 … 200 HU"
    assert shown_modalities(("mr", "mr"), None) == "mr"


def test_a_resumed_run_keeps_its_window_and_segments_with_it(tmp_path: Path) -> None:
    """Though the data have changed: the weights know the old values alone."""
    root = make_scans(tmp_path / "data")
    first = small_config("train.max_steps=1", "data.augment=false")
    train(root, tmp_path / "run", first, device="cpu")
    make_scans(root, structures=(500.0, 900.0))
    more = small_config("train.max_steps=2", "data.augment=false")
    train(root, tmp_path / "run", more, device="cpu", resume=True)
    from medsegdiff.models.checkpoint import load_config

    config = load_config(tmp_path / "run")
    assert (config.spec.modalities, config.spec.window) == (("ct",), (30, 300))
    cut = list(slices_of(read_case(root / "images" / "v0.nii"), config.spec.plane, shared_noise=True))[2]
    image = prepare(cut, config, stride=4).image
    assert image.max() == 1  # of 500 and 900 HU
    assert image.min() == -1


def test_another_window_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    root = make_scans(tmp_path / "data")
    train(root, tmp_path / "run", small_config("train.max_steps=1"), device="cpu")
    with pytest.raises(ValueError, match=r"other values of data\.window"):
        train(root, tmp_path / "run", small_config("data.window=[0, 1]"), device="cpu", resume=True)


def test_a_source_of_ones_own_has_a_fingerprint(tmp_path: Path) -> None:
    """The phantom, made on the fly: whatever has cases is a source."""
    source: DataSource = open_source("phantom", DataConfig(image_size=32))
    found = fingerprint(source, DataConfig())
    assert (found.kind, found.sampled, found.size.median) == ("pictures", 100, (32, 32))
    assert found.spacing is None


def test_grey_and_coloured_pictures_are_measured_alike(folder: Path) -> None:
    """A grey picture has three equal channels among coloured ones, as in training."""
    grey = read_case(folder / "images" / "case00.png").image[0]
    for path in sorted((folder / "images").iterdir())[1:]:
        write_png(path, np.dstack([np.asarray(Image.open(path))] * 3))
    found = taken(folder)
    assert (found.channels, found.modalities) == (3, ("natural",) * 3)
    assert found.intensity[0] == found.intensity[1] == found.intensity[2]
    assert found.intensity[0][0] <= np.median(grey) <= found.intensity[0][2]
