"""Volumes from end to end: what comes out lies where the input lies, voxel by voxel."""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor

from medsegdiff import Segmenter
from medsegdiff.config.run import Config
from medsegdiff.errors import GeometryError
from medsegdiff.evaluation import evaluate
from medsegdiff.fusion.expected_dice import largest_expected_dice
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.request import Request
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.training.plan import plan
from medsegdiff.training.train import train
from medsegdiff.types import Condition
from tests.makers import randomised, small_config
from tests.scored import numbers
from tests.volumes import oblique, save

ORIENTATIONS = [
    "".join(codes) for order in itertools.permutations(["LR", "PA", "IS"]) for codes in itertools.product(*order)
]


class Threshold(DiffusionModel):
    """Segments what is bright, exactly: the identity on a volume of 0 and 1."""

    def __init__(self) -> None:
        super().__init__(stride=1)
        self.seen: list[tuple[int, ...]] = []

    def condition(self, image: Tensor) -> Condition:
        self.seen += [tuple(image.shape[1:])] * len(image)
        return Condition(40 * (image[:, :1] + 0.5))

    def denoise(self, x_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return condition.logits


class Doubtful(DiffusionModel):
    """Members draw what is brighter than a level of their own."""

    def __init__(self) -> None:
        super().__init__(stride=1)

    def condition(self, image: Tensor) -> Condition:
        return Condition(image - 1)

    def denoise(self, x_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return condition.logits + 20 * x_t.mean(dim=(2, 3), keepdim=True)


def identity(**values: str) -> Segmenter:
    settings = {"channels": "1", "task": "binary", "classes": "[lesion]", "resize": "none", **values}
    config: Config = small_config(*(f"data.{key}={value}" for key, value in settings.items()))
    return Segmenter(Threshold(), config, device="cpu", precision="fp32")


def phantom(shape: tuple[int, ...] = (6, 5, 4)) -> np.ndarray:
    voxels = (np.random.default_rng(1).random(shape) > 0.6).astype(np.uint8)
    voxels[:: shape[0] - 1, :: shape[1] - 1, :: shape[2] - 1] = 0  # the background, at the corners
    return voxels


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.7, 5.0), (3.0, 0.9, 0.9)])
def test_every_orientation_comes_back_voxel_by_voxel(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    """48 orders and flips of the axes, in every plane that the spacing leads to."""
    segmenter, plain = identity(), nib.Nifti1Image(phantom(), np.diag([*spacing, 1.0]))
    assert len(ORIENTATIONS) == 48
    for codes in ORIENTATIONS:
        turned = plain.as_reoriented(ornt_transform(io_orientation(plain.affine), axcodes2ornt(codes)))
        nib.save(turned, tmp_path / f"{codes}.nii.gz")
    results = segmenter([tmp_path / f"{codes}.nii.gz" for codes in ORIENTATIONS], members=2, steps=1)
    for codes, result in zip(ORIENTATIONS, results, strict=True):
        given = nib.load(tmp_path / f"{codes}.nii.gz")
        assert np.array_equal(result.mask, np.asarray(given.dataobj)), codes
        assert all(np.array_equal(member, result.mask) for member in result.members)
        result.save(tmp_path / "out")
        written = nib.load(tmp_path / "out" / "labels" / f"{codes}.nii.gz")
        assert np.array_equal(np.asarray(written.dataobj), np.asarray(given.dataobj)), codes
        assert np.array_equal(written.affine, given.affine), codes


@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_oblique_and_sheared_volumes_keep_their_affine(tmp_path: Path, shear: float) -> None:
    path = save(tmp_path / "a.nii", phantom(), oblique(shear=shear), codes=(0 if shear else 1, 2))
    result = identity()(path, members=2, steps=1)
    result.save(tmp_path / "out", members=True)
    for part in ("labels", "masks", "members/01/labels", "anchor/labels", "probability", "uncertainty"):
        written = nib.load(tmp_path / "out" / part / "a.nii.gz")
        assert np.array_equal(written.affine, nib.load(path).affine)
        assert written.header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(np.asarray(nib.load(tmp_path / "out" / "masks" / "a.nii.gz").dataobj), phantom())
    assert (tmp_path / "out" / "overlay" / "a.png").exists()


@pytest.mark.parametrize(
    "file", ["spinalcord_nifti/t2_seg-manual.nii.gz", "spinalcord_nifti/t2s_gmseg-manual.nii.gz", "brats2021"]
)
def test_real_masks_come_back(real_data: Callable[[str], Path], tmp_path: Path, file: str) -> None:
    folder = real_data(file.split("/")[0])
    path = folder.parent / file if "/" in file else sorted(folder.rglob("*seg.nii.gz"))[0]
    stored = nib.load(path)
    binary = (np.asarray(stored.dataobj) > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(binary, stored.affine, stored.header), tmp_path / "real.nii.gz")
    identity()(tmp_path / "real.nii.gz", members=1, steps=1).save(tmp_path / "out")
    written = nib.load(tmp_path / "out" / "labels" / "real.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), binary)
    assert np.allclose(written.affine, stored.affine, atol=1e-6)


def test_a_member_starts_from_one_noise_in_all_slices_if_it_shall(tmp_path: Path) -> None:
    """In a volume whose slices are all the same, a member with shared noise is the same in each of them."""
    slice_ = np.random.default_rng(0).integers(0, 255, (20, 16, 1))
    path = save(tmp_path / "a.nii", np.repeat(slice_, 4, axis=2).astype(np.int16), np.diag([1, 1, 2, 1]))
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[x]")
    segmenter = Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32")
    same = []
    for shared in (True, False):
        members = segmenter(path, members=2, steps=2, shared_noise=shared).members
        same.append((members == members[..., :1]).mean())
    assert same[0] > 0.999
    assert same[1] < 0.99


@pytest.mark.parametrize(("plane", "stretched"), [("axial", True), ("auto", False)])
def test_sizes_of_a_volume_are_stretched_if_volumes_were_calibrated_and_not_pictures(
    tmp_path: Path, plane: str, stretched: bool
) -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (20, 16, 4)).astype(np.int16)
    path = save(tmp_path / "a.nii", voxels, np.diag([1, 1, 2, 1]))
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[x]", f"data.plane={plane}")
    sampling = Request.of(config, members=4, steps=1).sampling
    known = Calibration(cases=9, sampling=sampling, stretch={"x": Stretch(0.5, 1.0)})
    segmenter = Segmenter(Doubtful(), config, device="cpu", precision="fp32", calibration=known)
    found = segmenter(path, members=4, steps=1)
    counts = np.array([np.count_nonzero(member) for member in found.members])
    low, high = np.quantile(counts, [0.05, 0.95]) + stretched * np.array([-0.5, 1]) * counts.mean()
    size = found.sizes()["x"]
    assert counts.min() > 0
    assert (size.low, size.high) == pytest.approx((max(0, low) * 0.002, min(high, voxels.size) * 0.002))


def test_the_mask_of_largest_expected_dice_is_that_of_the_whole_volume(tmp_path: Path) -> None:
    """Truth: the rule on all voxels of the volume at once, which lie in memory here."""
    voxels = np.random.default_rng(3).integers(0, 255, (18, 16, 5)).astype(np.int16)
    path = save(tmp_path / "a.nii", voxels, np.diag([1, 1, 2, 1]))
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[x]", "sampling.members=6")
    result = Segmenter(Doubtful(), config, device="cpu", precision="fp32")(path, fusion="dice", steps=1)
    votes = np.stack([np.asarray(member).ravel() > 0 for member in result.members])
    marginal = np.asarray(result.probability[0], np.float32).ravel()
    whole = largest_expected_dice(votes, marginal).mask.reshape(voxels.shape)
    assert (whole == result.mask).mean() > 0.995
    by_slice = np.stack(
        [
            largest_expected_dice(votes.reshape(6, *voxels.shape)[..., z].reshape(6, -1), of.ravel()).mask
            for z, of in enumerate(np.moveaxis(marginal.reshape(voxels.shape), 2, 0))
        ]
    )
    assert (np.moveaxis(by_slice.reshape(5, 18, 16), 0, 2) != result.mask).mean() > 0.003


def test_distances_are_in_millimetres(tmp_path: Path) -> None:
    """A cube moved by two voxels of 3 mm: every border distance at its front is 6 mm."""
    for name, start in (("ref", 2), ("pred", 4)):
        cube = np.zeros((8, 8, 12), np.uint8)
        cube[2:6, 2:6, start : start + 6] = 1
        save(tmp_path / name / "a.nii.gz", cube, np.diag([1.0, 1.0, 3.0, 1.0]))
    case = numbers(evaluate(tmp_path / "pred", tmp_path / "ref"))
    assert case["dice"] == pytest.approx(2 * 4 / 12)
    assert case["hd95"] == pytest.approx(6)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
def test_volumes_are_trained_on_segmented_and_scored(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        labels = np.zeros((24, 20, 6), np.uint8)
        x, y = rng.integers(3, 8, size=2)
        labels[x : x + 10, y : y + 8, 1:5] = 1
        labels[x + 3 : x + 6, y + 3 : y + 6, 2:4] = classes - 1
        image = (200 * labels + rng.normal(0, 20, labels.shape)).astype(np.int16)
        save(tmp_path / "data" / "images" / f"v{i}.nii.gz", image, np.diag([1.0, 1.0, 3.0, 1.0]))
        save(tmp_path / "data" / "masks" / f"v{i}.nii.gz", labels, np.diag([1.0, 1.0, 3.0, 1.0]))
    config = small_config("train.max_steps=4", "train.val_every=2", "train.save_every=2")
    outcome = train(tmp_path / "data", tmp_path / "run", config, device="cpu")
    assert outcome.reason == "finished"
    files = find_inputs([tmp_path / "data"], split_file=tmp_path / "run" / "split.csv", split="test")
    segmenter = Segmenter.from_pretrained(tmp_path / "run", device="cpu")
    segment_files(
        segmenter,
        files,
        tmp_path / "out",
        members=2,
        steps=2,
        split_file=tmp_path / "run" / "split.csv",
    )
    rates = (tmp_path / "out" / "staple.csv").read_text().splitlines()
    assert len(rates) == 1 + len(files) * (classes - 1) * 2
    told = json.loads((tmp_path / "out" / "segment.json").read_text())
    assert [image["name"] for image in told["images"]] == [path.name[:2] for path in files]
    for image in told["images"]:
        assert len(image["sizes"]) == classes - 1
        assert {size["unit"] for size in image["sizes"].values()} == {"mL"}
        assert 0 <= image["anchor_confidence"] <= 1
        assert 0 < image["anchor_entropy"] <= 1
    scored = evaluate(tmp_path / "out", tmp_path / "data", split="test")
    assert 0 <= scored.mean("dice").mean <= 1
    assert ("dice/class_2" in numbers(scored)) == (classes == 3)


def test_a_volume_that_does_not_fit_the_model_is_passed_over(tmp_path: Path) -> None:
    for name, voxels in (("a", phantom()), ("b", np.stack([phantom()] * 2, axis=3)), ("c", phantom())):
        save(tmp_path / "in" / f"{name}.nii", voxels)
    finished = segment_files(identity(), find_inputs([tmp_path / "in"]), tmp_path / "out", members=1, steps=1)
    assert [image.name for image in finished.done] == ["a", "c"]
    assert "b: the volume has 2 channels; the model expects 1" in finished.failed[str(tmp_path / "in" / "b.nii")]


def test_a_result_is_let_go_before_the_next_volume_is_read(tmp_path: Path) -> None:
    """Volumes are large: whoever drops a result of the stream has dropped it."""
    files, last, gone = [save(tmp_path / f"{name}.nii", phantom()) for name in "abc"], list[weakref.ref](), list[bool]()

    def images() -> Iterator[Path]:
        for file in files:
            gone.extend(one() is None for one in last[-1:])
            yield file

    for result in identity().stream(images(), members=2, steps=1):
        last.append(weakref.ref(result.members))
        del result
    assert gone == [True, True]


def test_raters_that_lie_elsewhere_are_not_averaged(tmp_path: Path) -> None:
    save(tmp_path / "pred" / "a.nii", phantom(), np.eye(4))
    save(tmp_path / "ref" / "rater1" / "a.nii", phantom(), np.eye(4))
    save(tmp_path / "ref" / "rater2" / "a.nii", phantom(), np.diag([-1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(GeometryError, match="rater2.* mm apart at the worst corner"):
        evaluate(tmp_path / "pred", tmp_path / "ref")


def test_the_plane_of_the_data_is_that_of_the_model(tmp_path: Path) -> None:
    for i in range(4):
        for kind in ("images", "masks"):
            save(tmp_path / "data" / kind / f"{i}.nii", phantom((8, 8, 8)), np.diag([1.0, 4.0, 1.0, 1.0]))
    planned = plan(tmp_path / "data", small_config(), device="cpu")
    assert planned.config.spec.plane == "coronal"


def test_volumes_are_cut_as_the_model_was_trained(tmp_path: Path) -> None:
    """Sagittal slices of 6×5×4 voxels: six pictures of four rows and five columns, whatever the spacing says."""
    path = save(tmp_path / "a.nii", phantom(), np.diag([1.0, 1.0, 5.0, 1.0]))
    segmenter = identity(plane="sagittal")
    assert np.array_equal(segmenter(path, members=1, steps=1).mask, phantom())
    assert segmenter.model.seen == [(1, 4, 5)] * 6
