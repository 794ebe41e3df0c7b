"""Conversion: what is read back is what was there: pixels, masks, parts, groups, place in the world."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert import convert
from medsegdiff.data.convert.labels import LabelScheme, fuse_raters, painting_order
from medsegdiff.data.open import ListedSource, VolumeSource, list_cases, open_source
from medsegdiff.errors import ConfigError, DataError, GeometryError
from medsegdiff.io.raster import read_map
from tests.described import SHAPE, make_msd, make_nnunet, nested, voxels
from tests.makers import write_png
from tests.volumes import oblique, save


def source(root: Path, **values: object) -> ListedSource:
    """Cases on their native grids."""
    config = DataConfig(**values)
    return ListedSource(list_cases(root, config), config)


def assert_same(one: Path, other: Path, *, masks: bool = True) -> None:
    """Every case is the same, and so is its part."""
    a, b = source(one), source(other)
    assert set(a.info.split) == set(b.info.split)
    assert a.info.split == b.info.split
    groups = [[s.listing.cases[name].group or name for name in a.info.split] for s in (a, b)]
    assert groups[0] == groups[1]
    for name in a.labelled:
        x, y = a.load(name), b.load(name)
        assert np.array_equal(x.image, y.image)
        assert x.geometry.spacing == y.geometry.spacing
        assert (x.geometry.affine is None) == (y.geometry.affine is None)
        assert x.geometry.affine is None or np.array_equal(x.geometry.affine, y.geometry.affine)
        if masks:
            assert np.array_equal(x.mask, y.mask)
            assert np.array_equal(x.ignored, y.ignored)


def described(root: Path) -> dict[str, Any]:
    return json.loads((root / "dataset.json").read_text())


def make_volumes(root: Path, count: int = 4) -> Path:
    for i in range(count):
        save(root / "images" / f"v{i}.nii.gz", voxels(i), oblique())
        save(root / "masks" / f"v{i}.nii.gz", (nested(i) == 2).astype(np.uint8), oblique())
    return root


@pytest.fixture
def split_folder(folder: Path) -> Path:
    lines = [f"case{i:02d},{('train', 'val', 'test')[i % 3]},p{i // 6}" for i in range(12)]
    (folder / "split.csv").write_text("id,split,patient\n" + "\n".join(lines))
    return folder


def test_folder_to_nnunet_and_back_loses_nothing(split_folder: Path, tmp_path: Path) -> None:
    there = convert(split_folder, tmp_path / "Dataset001_Disc", to="nnunet")
    assert (len(there.done), there.failed) == (12, {})
    assert_same(split_folder, there.out)
    assert described(there.out) == {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": 8,
        "file_ending": ".png",
    }
    assert len(list((there.out / "imagesTs").iterdir())) == len(list((there.out / "labelsTs").iterdir())) == 4
    back = convert(there.out, tmp_path / "back", to="folder")
    assert_same(split_folder, back.out)
    for path in (split_folder / "images").iterdir():
        assert (back.out / "images" / path.name).read_bytes() == path.read_bytes()


def test_without_parts_the_split_is_drawn_as_before(folder: Path, tmp_path: Path) -> None:
    there = convert(folder, tmp_path / "Dataset001_Disc", to="nnunet")
    assert not list_cases(there.out, DataConfig()).cases["case00"].part
    assert_same(folder, there.out)
    assert not (convert(folder, tmp_path / "plain", to="folder").out / "split.csv").exists()


@pytest.mark.parametrize("channels", [("CT",), ("CT", "PET")])
def test_msd_to_nnunet_to_msd_loses_nothing(tmp_path: Path, channels: tuple[str, ...]) -> None:
    make_msd(tmp_path / "a", channels=channels)
    there = convert(tmp_path / "a", tmp_path / "Dataset002_Liver", to="nnunet").out
    assert_same(tmp_path / "a", there)
    told = described(there)
    assert told["channel_names"] == {str(number): name for number, name in enumerate(channels)}
    assert told["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert (told["numTraining"], told["file_ending"]) == (4, ".nii.gz")
    assert len(list((there / "imagesTs").iterdir())) == len(channels)
    back = convert(there, tmp_path / "b", to="msd").out
    assert_same(tmp_path / "a", back)
    first = described(tmp_path / "a")
    assert {
        key: value for key, value in described(back).items() if key in ("modality", "labels", "training", "test")
    } == {key: first[key] for key in ("modality", "labels", "training", "test")}
    if len(channels) == 1:
        assert (there / "imagesTr" / "v_000_0000.nii.gz").read_bytes() == (
            tmp_path / "a" / "imagesTr" / "v_000.nii.gz"
        ).read_bytes()


def test_msd_validation_stays_validation(tmp_path: Path) -> None:
    make_volumes(tmp_path / "a")
    (tmp_path / "a" / "split.csv").write_text("id,split\nv0,train\nv1,val\nv2,test\nv3,train\n")
    there = convert(tmp_path / "a", tmp_path / "b", to="msd").out
    assert_same(tmp_path / "a", there)
    (there / "split.csv").unlink()
    parts = {name: case.part for name, case in list_cases(there, DataConfig()).cases.items()}
    assert parts == {"v0": "train", "v1": "val", "v2": "test", "v3": "train"}
    assert list_cases(there, DataConfig()).masks.names == ["v0", "v1", "v2", "v3"]


def test_labels_with_gaps_are_numbered_anew(tmp_path: Path) -> None:
    make_msd(tmp_path / "a", labels={"0": "background", "1": "liver", "2": "spleen", "7": "tumour"})
    for i in range(4):
        labels = np.array([0, 2, 7], np.uint8)[nested(i)]
        save(tmp_path / "a" / "labelsTr" / f"v_{i:03d}.nii.gz", labels, oblique())
    there = convert(tmp_path / "a", tmp_path / "Dataset002_Liver", to="nnunet").out
    assert_same(tmp_path / "a", there)
    assert described(there)["labels"] == {"background": 0, "liver": 1, "spleen": 2, "tumour": 3}


def test_regions_and_pixels_to_ignore_come_back(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [1, 3], "core of core": [3], "ignore": 4}
    make_nnunet(tmp_path / "a", labels=labels, regions_class_order=[2, 1, 3])
    there = convert(tmp_path / "a", tmp_path / "Dataset003_Again", to="nnunet").out
    assert_same(tmp_path / "a", there)
    told = described(there)
    assert told["labels"] == {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "core of core": [3], "ignore": 4}
    assert told["regions_class_order"] == [1, 2, 3]
    assert source(there).info.labels.classes == ("whole", "core", "core of core")
    for to, words in (("msd", "regions that may overlap"), ("folder", "pixels that nobody labelled")):
        with pytest.raises(DataError, match=words):
            convert(tmp_path / "a", tmp_path / "c", to=to)


def test_regions_of_labels_become_folders_and_regions_again(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    make_nnunet(tmp_path / "a", labels=labels, regions_class_order=[1, 2])
    plain = convert(tmp_path / "a", tmp_path / "plain", to="folder").out
    assert sorted(path.name for path in (plain / "masks").iterdir()) == ["core", "whole"]
    a, b = source(tmp_path / "a"), source(plain)
    assert np.array_equal(a.load("c1").mask[:, ::-1], b.load("c1").mask)  # sorted by name
    there = convert(plain, tmp_path / "Dataset003_Again", to="nnunet").out
    assert_same(tmp_path / "a", there)  # the outer region first, for it is painted first
    assert described(there)["regions_class_order"] == [1, 2]


def painted(mask: np.ndarray, order: list[int], labels: list[list[int]]) -> np.ndarray:
    """Regions → label map → regions, as nnU-Net writes predictions: each value over those before it."""
    found = np.zeros(mask.shape[1:], int)
    for region, value in zip(mask, order, strict=True):
        found[region > 0] = value
    return np.stack([np.isin(found, values) for values in labels])


def structures(root: Path, masks: dict[str, np.ndarray], count: int = 3) -> Path:
    for i in range(count):
        image = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        write_png(root / "images" / f"a{i}.png", image)
        for name, mask in masks.items():
            write_png(root / "masks" / name / f"a{i}.png", np.roll(mask, i, axis=0).astype(np.uint8) * 255)
    return root


ROWS = np.arange(8)[:, None] + np.zeros((8, 8), int)


def test_structures_that_lie_in_each_other_can_be_painted(tmp_path: Path) -> None:
    masks = {"a_core": ROWS < 2, "b_other": ROWS > 5, "c_whole": ROWS < 4, "d_empty": ROWS < 0}
    there = convert(structures(tmp_path / "a", masks), tmp_path / "Dataset004_In", to="nnunet").out
    told = described(there)
    labels = {name: value for name, value in told["labels"].items() if name != "background"}
    assert set(labels) == set(masks)
    case = source(there).load("a1")
    truth = np.stack([np.roll(masks[name], 1, axis=0) for name in labels])
    assert np.array_equal(case.mask[0], truth)
    assert np.array_equal(painted(truth, told["regions_class_order"], list(labels.values())), truth)


def test_structures_that_cross_are_kept_exactly_and_said(tmp_path: Path) -> None:
    masks = {"disc": ROWS < 5, "cup": (ROWS > 2) & (ROWS < 7)}
    done = convert(structures(tmp_path / "a", masks), tmp_path / "Dataset004_X", to="nnunet")
    assert "overlap without one holding the other" in " ".join(done.notes)
    a, b = source(tmp_path / "a"), source(done.out)
    order = [a.info.labels.classes.index(name) for name in b.info.labels.classes]
    assert np.array_equal(a.load("a2").mask[:, order], b.load("a2").mask)
    assert len(described(done.out)["regions_class_order"]) == 2


@pytest.mark.parametrize("seed", range(30))
def test_painting_order_is_found_where_there_is_one(seed: int) -> None:
    """Against all orders, one after the other."""
    rng = np.random.default_rng(seed)
    codes = {int(code) for code in rng.integers(1, 16, rng.integers(1, 5))}

    def paints(order: tuple[int, ...]) -> bool:
        last = [max(order.index(bit) for bit in range(4) if code >> bit & 1) for code in codes]
        return len(set(last)) == len(last)

    order, own = painting_order(4, codes)
    possible = any(paints(each) for each in permutations(range(4)))
    assert (set(own.values()) == codes) == possible
    assert sorted(order) == [0, 1, 2, 3]
    if possible:
        assert paints(tuple(order))


def test_too_many_overlaps_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(2):
        write_png(tmp_path / "a" / "images" / f"a{i}.png", rng.integers(0, 256, (40, 40), dtype=np.uint8))
        for name in "abcdefghij":
            write_png(tmp_path / "a" / "masks" / name / f"a{i}.png", rng.integers(0, 2, (40, 40), dtype=np.uint8))
    with pytest.raises(DataError, match=r"overlap in \d+ ways; a label map holds 255 values"):
        convert(tmp_path / "a", tmp_path / "Dataset001_A", to="nnunet")


def raters(root: Path, drawn: list[np.ndarray], names: tuple[str, ...] = ("rater1", "rater2", "rater3")) -> Path:
    for i in range(3):
        write_png(root / "images" / f"a{i}.png", np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8))
        for name, mask in zip(names, drawn, strict=False):
            write_png(root / "masks" / name / f"a{i}.png", mask.astype(np.uint8))
    return root


def test_raters_become_their_majority_and_a_tie_is_foreground(tmp_path: Path) -> None:
    root = raters(tmp_path / "a", [ROWS < 4, ROWS < 2])
    done = convert(root, tmp_path / "Dataset001_R", to="nnunet")
    assert "majority of the raters rater1, rater2; a tie is foreground" in done.notes[0]
    assert np.array_equal(source(done.out).load("a0").mask[0, 0], ROWS < 4)
    three = convert(raters(tmp_path / "b", [ROWS < 4, ROWS < 2, ROWS < 1]), tmp_path / "Dataset002_R", to="nnunet")
    assert np.array_equal(source(three.out).load("a0").mask[0, 0], ROWS < 2)
    assert_same(root, convert(root, tmp_path / "plain", to="folder").out)


def test_raters_of_classes_and_of_parts() -> None:
    """By hand: pixels by column, raters by row."""
    drawn = np.array([[0, 1, 1, 0, 2], [0, 1, 2, 1, 2], [0, 0, 2, 0, 0]])
    mask = np.stack([drawn == value for value in range(3)], axis=1).astype(np.uint8)[:, :, None]
    fused, nobody = fuse_raters(mask, None, exclusive=True)
    assert fused.argmax(axis=0)[0].tolist() == [0, 1, 2, 0, 2]
    assert nobody is None
    ignored = np.zeros((3, 1, 5), np.uint8)
    ignored[1, 0, 2], ignored[0, 0, 3], ignored[:, 0, 4] = 1, 1, 1
    fused, nobody = fuse_raters(mask, ignored, exclusive=True)
    assert fused.argmax(axis=0)[0].tolist() == [0, 1, 1, 1, 0]  # a tie of two classes is the first of them
    assert nobody[0].tolist() == [0, 0, 0, 0, 1]


def test_every_kind_of_picture_keeps_its_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, out = tmp_path / "a" / "images", tmp_path / "Dataset001_Pictures"
    write_png(images / "deep.png", rng.integers(0, 65536, (8, 8)).astype(np.uint16))
    write_png(images / "grey.tif", rng.integers(0, 256, (8, 8), dtype=np.uint8))
    write_png(images / "colour.jpg", rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    write_png(images / "plain.png", rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    opaque = np.concatenate(
        [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.full((8, 8, 1), 255, np.uint8)], axis=2
    )
    write_png(images / "opaque.png", opaque)
    Image.fromarray(opaque[..., :3]).quantize(16).save(images / "palette.png")
    turned = Image.fromarray(opaque[..., :3])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(images / "turned.png", exif=exif)
    Image.fromarray(rng.random((8, 8)).astype(np.float32)).save(images / "real.tif")
    for path in images.iterdir():
        write_png(tmp_path / "a" / "masks" / f"{path.stem}.png", rng.integers(0, 2, (8, 8), dtype=np.uint8))
    done = convert(tmp_path / "a", out, to="nnunet")
    assert sorted(done.failed) == ["deep", "real"]  # among coloured ones, 16 bits of grey have no place
    assert all("PNG holds 1 or 3 channels" in reason for reason in done.failed.values())
    assert not list(out.glob("*/real*"))
    a, b = source(tmp_path / "a"), source(out)
    for name in done.done:
        x, y = a.load(name), b.load(name)
        assert np.array_equal(np.broadcast_to(x.image, y.image.shape), y.image)
        assert len(y.image) == 3
        assert np.array_equal(x.mask, y.mask)
        with Image.open(out / "imagesTr" / f"{name}_0000.png") as picture:
            assert picture.mode == "RGB"
            assert np.array_equal(np.asarray(picture), np.round(y.image * 255).transpose(1, 2, 0))


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i, ending in enumerate(("png", "tif", "tif")):
        write_png(tmp_path / "a" / "images" / f"a{i}.{ending}", rng.integers(0, 65536, (8, 8)).astype(np.uint16))
        write_png(tmp_path / "a" / "masks" / f"a{i}.png", rng.integers(0, 2, (8, 8), dtype=np.uint8))
    assert_same(tmp_path / "a", convert(tmp_path / "a", tmp_path / "Dataset001_Deep", to="nnunet").out)


def test_a_manifest_of_channel_files_is_converted(tmp_path: Path) -> None:
    lines = []
    for i in range(3):
        for channel in ("t1", "flair"):
            save(tmp_path / channel / f"{i}.nii", voxels(i + 5 * len(channel)), oblique())
        save(tmp_path / "seg" / f"{i}.nii", nested(i), oblique())
        lines.append(f"pat {i}/a,t1/{i}.nii,flair/{i}.nii,seg/{i}.nii")
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(["id,image_t1,image_flair,mask", *lines]))
    there = convert(table, tmp_path / "Dataset001_A", to="nnunet").out
    assert described(there)["channel_names"] == {"0": "t1", "1": "flair"}
    plain = convert(table, tmp_path / "plain", to="folder").out
    before = source(table)
    for root in (there, plain, convert(table, tmp_path / "msd", to="msd").out):
        after = source(root)
        for i in range(3):
            x, y = before.load(f"pat {i}-a"), after.load(f"pat_{i}-a")
            assert np.array_equal(x.image, y.image)
            assert np.array_equal(x.mask, y.mask)
            assert np.array_equal(x.geometry.affine, y.geometry.affine)


def test_slices_are_the_slices_that_are_trained_on(tmp_path: Path) -> None:
    root = make_volumes(tmp_path / "a")
    (root / "split.csv").write_text("id,split,patient\nv0,train,p\nv1,val,q\nv2,test,r\nv3,train,p\n")
    for plane in ("axial", "coronal"):
        done = convert(root, tmp_path / plane, to="slices", config=DataConfig(plane=plane))
        volumes, pictures = open_source(root, DataConfig(plane=plane)), open_source(done.out, DataConfig())
        assert isinstance(volumes, VolumeSource)
        assert {f"{n}": p for n, p in pictures.info.split.items()} == {
            item.replace("/", "_"): volumes.info.split[name]
            for name, items in volumes.info.slices.items()
            for item in items
        }
        assert {case.group for case in pictures.listing.cases.values()} == {"p", "q", "r"}
        for name, items in volumes.info.slices.items():
            stored = np.asarray(voxels(int(name[1])), np.float32)
            low, high = np.percentile(stored, (0.5, 99.5))
            for item in items:
                x, y = volumes.load(item), pictures.load(item.replace("/", "_"))
                levels = np.round(np.clip((x.image - low) / (high - low), 0, 1) * 65535)
                assert np.abs(y.image * 65535 - levels).max() < 1.01
                assert np.array_equal(x.mask, y.mask)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_slices_are_the_same_however_the_axes_of_a_file_are_turned(tmp_path: Path, count: int, plane: str) -> None:
    """To the back, downwards, to the left; one channel becomes PNG, two NIfTI."""
    turned = np.array([[0, 0, -1.5, 9], [-1, 0, 0, 7], [0, -2, 0, 5], [0, 0, 0, 1]], float)
    for i in range(3):
        image = np.stack([voxels(i), voxels(i + 5)][:count], axis=3)
        save(tmp_path / "a" / "images" / f"v{i}.nii.gz", image, turned)
        save(tmp_path / "a" / "masks" / f"v{i}.nii.gz", (nested(i) == 2).astype(np.uint8), turned)
    done = convert(tmp_path / "a", tmp_path / "b", to="slices", config=DataConfig(plane=plane))
    volumes, slices = open_source(tmp_path / "a", DataConfig(plane=plane)), open_source(done.out, DataConfig())
    ending = "" if count == 1 else "/0000"
    for item in volumes.info.items("all"):
        x, y = volumes.load(item), slices.load(item.replace("/", "_") + ending)
        assert np.array_equal(x.mask, y.mask)
        inside = (y.image > 0) & (y.image < 1) if count == 1 else np.ones_like(y.image, bool)
        assert np.corrcoef(x.image[inside], y.image[inside])[0, 1] > 0.999999


def test_slices_are_cut_as_in_training_where_an_axis_has_one_of_them(tmp_path: Path) -> None:
    """Pictures that are stored as coronal volumes stay the pictures they are, though the voxels are thicker upwards."""
    for i in range(3):
        save(tmp_path / "a" / "images" / f"v{i}.nii.gz", voxels(i)[:, :1], np.diag([1, 1, 5, 1]))
        save(tmp_path / "a" / "masks" / f"v{i}.nii.gz", (nested(i) == 2).astype(np.uint8)[:, :1], np.diag([1, 1, 5, 1]))
    done = convert(tmp_path / "a", tmp_path / "b", to="slices")
    volumes, pictures = open_source(tmp_path / "a", DataConfig()), open_source(done.out, DataConfig())
    assert volumes.info.plane == "coronal"
    for item in volumes.info.items("all"):
        assert np.array_equal(volumes.load(item).mask, pictures.load(item.replace("/", "_")).mask)


def test_slices_of_a_volume_stay_together(tmp_path: Path) -> None:
    root = make_volumes(tmp_path / "a")
    done = convert(root, tmp_path / "b", to="slices", config=DataConfig(plane="axial"))
    assert (done.out / "split.csv").read_text().splitlines()[:2] == ["id,patient", "v0_0000,v0"]
    volumes, slices = open_source(root, DataConfig()).info.split, open_source(done.out, DataConfig()).info.split
    assert slices == {name: volumes[name.rpartition("_")[0]] for name in slices}


def test_slices_of_ct_span_the_window(tmp_path: Path) -> None:
    make_msd(tmp_path / "a")
    done = convert(
        tmp_path / "a", tmp_path / "b", to="slices", config=DataConfig(window=(-100.0, 300.0), plane="axial")
    )
    assert "CT is shown from -100 to 300 HU" in " ".join(done.notes)
    assert "data.classes=[background, liver, tumour]" in " ".join(done.notes)
    x = open_source(tmp_path / "a", DataConfig(plane="axial")).load("v_001/0002")
    y = read_map(done.out / "images" / "v_001_0002.png")
    assert y == pytest.approx(np.clip((x.image[0] + 100) / 400, 0, 1), abs=1e-5)
    assert {name.rpartition("_")[0] for name in list_cases(done.out, DataConfig()).cases} == {
        f"v_{i:03d}" for i in range(5)
    }


def test_only_slices_with_a_structure_are_written(tmp_path: Path) -> None:
    for i in range(3):
        image, mask = voxels(i), np.zeros(SHAPE, np.uint8)
        image[:, :, 3], mask[2:4, 2:4, 1] = -500, 1
        save(tmp_path / "a" / "images" / f"v{i}.nii.gz", image, np.diag([1, 1, 3, 1]))
        save(tmp_path / "a" / "masks" / f"v{i}.nii.gz", mask, np.diag([1, 1, 3, 1]))
    some = convert(tmp_path / "a", tmp_path / "b", to="slices", only_foreground=True)
    assert sorted(path.name for path in (some.out / "images").iterdir()) == [f"v{i}_0001.png" for i in range(3)]
    every = convert(tmp_path / "a", tmp_path / "c", to="slices")
    assert len(list((every.out / "images").iterdir())) == 9
    assert "3 slices of a single value were left out" in " ".join(every.notes)
    assert set(open_source(every.out, DataConfig()).info.split) == {f"v{i}_000{j}" for i in range(3) for j in range(3)}


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_slices_of_many_channels_are_volumes_of_one_slice(tmp_path: Path, plane: str) -> None:
    make_nnunet(tmp_path / "a", channels=("t1", "t2", "flair", "t1ce"))
    done = convert(tmp_path / "a", tmp_path / "b", to="slices", config=DataConfig(plane=plane))
    volumes, single = open_source(tmp_path / "a", DataConfig(plane=plane)), open_source(done.out, DataConfig())
    for item in [i for name in volumes.labelled for i in volumes.info.slices[name]]:
        x, y = volumes.load(item), single.load(item.replace("/", "_") + "/0000")
        assert np.array_equal(x.image, y.image)
        assert y.geometry.spacing == pytest.approx(x.geometry.spacing)
        assert np.array_equal(x.mask, y.mask)


def test_slices_of_three_channels_are_colour_pictures(tmp_path: Path) -> None:
    make_nnunet(tmp_path / "a", channels=("t1", "t2", "flair"))
    done = convert(tmp_path / "a", tmp_path / "b", to="slices", config=DataConfig(plane="axial"))
    x = open_source(tmp_path / "a", DataConfig(plane="axial")).load("c1/0001").image
    y = open_source(done.out, DataConfig()).load("c1_0001").image
    for channel in range(3):
        low, high = np.percentile(voxels(10 + channel), (0.5, 99.5))
        assert y[channel] == pytest.approx(np.clip((x[channel] - low) / (high - low), 0, 1), abs=0.5 / 255 + 1e-5)


def test_a_broken_case_is_left_out_and_the_others_are_written(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "images" / "case01.png").read_bytes()
    (folder / "images" / "case01.png").write_bytes(whole[: len(whole) // 2])
    write_png(folder / "masks" / "case02.png", np.zeros((3, 3), np.uint8))
    (folder / "masks" / "case03.png").unlink()
    done = convert(folder, tmp_path / "Dataset001_Disc", to="nnunet")
    assert sorted(done.failed) == ["case01", "case02", "case03"]
    assert "can't be read" in done.failed["case01"]
    assert (len(done.done), described(done.out)["numTraining"]) == (9, 9)
    assert len(list_cases(done.out, DataConfig()).cases) == 9
    assert not [path for path in done.out.rglob("*") if path.is_file() and path.name.startswith("case01")]


def test_a_case_that_breaks_half_way_is_removed(tmp_path: Path) -> None:
    """The image is fine; only the mask, read after it, holds a value that nobody declared."""
    make_nnunet(tmp_path / "a")
    save(tmp_path / "a" / "labelsTr" / "c1.nii.gz", np.full(SHAPE, 9, np.uint8), oblique())
    done = convert(tmp_path / "a", tmp_path / "Dataset001_B", to="nnunet")
    assert "mask value 9 has no meaning" in done.failed["c1"]
    assert not list(done.out.glob("*/c1*"))
    same_names = {path.name for path in (done.out / "imagesTr").iterdir()}
    assert same_names == {f"c{i}_0000.nii.gz" for i in (0, 2, 3)}


def test_what_is_asked_wrongly_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Dataset012_Name\. Write to .*Dataset001_Data, say"):
        convert(folder, tmp_path / "Disc", to="nnunet")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        convert(folder, folder, to="folder")
    with pytest.raises(ConfigError, match=r"--to is 'nnunetv2'; allowed are .* Did you mean 'nnunet'"):
        convert(folder, tmp_path / "o", to="nnunetv2")
    for to, words in (("msd", "holds pictures; .* Write 'nnunet' or 'folder'"), ("slices", "holds pictures already")):
        with pytest.raises(DataError, match=words):
            convert(folder, tmp_path / "o", to=to)
    for path in (folder / "masks").iterdir():
        path.unlink()
    (folder / "masks").rmdir()
    with pytest.raises(DataError, match="there are no masks, so there is nothing to train on"):
        convert(folder, tmp_path / "Dataset001_D", to="nnunet")
    assert len(convert(folder, tmp_path / "bare", to="folder").done) == 12
    assert not (tmp_path / "Dataset001_D").exists()


def test_names_that_would_clash_are_refused(folder: Path, tmp_path: Path) -> None:
    table = folder / "cases.csv"
    table.write_text("id,image\na_b,images/case00.png\na b,images/case01.png\n")
    with pytest.raises(DataError, match="would be written as a_b"):
        convert(table, tmp_path / "o", to="folder")


def test_pictures_of_channel_files_need_a_layout_for_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(3):
        for channel in range(3):
            write_png(tmp_path / "p" / f"{i}_{channel}.png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
        write_png(tmp_path / "m" / f"{i}.png", rng.integers(0, 2, (8, 8), dtype=np.uint8))
        lines.append(f"a{i},p/{i}_0.png,p/{i}_1.png,p/{i}_2.png,m/{i}.png")
    three, two = tmp_path / "three.csv", tmp_path / "two.csv"
    three.write_text("\n".join(["id,image_a,image_b,image_c,mask", *lines]))
    two.write_text("\n".join(["id,image_a,image_b,ignored,mask", *lines]))
    assert_same(three, convert(three, tmp_path / "Dataset001_P", to="nnunet").out)
    assert_same(three, convert(three, tmp_path / "plain", to="folder").out)
    assert_same(two, convert(two, tmp_path / "Dataset002_P", to="nnunet").out)
    with pytest.raises(DataError, match="none of the 3 cases could be converted. a0: PNG holds"):
        convert(two, tmp_path / "o", to="folder")
    assert not (tmp_path / "o").exists()


def test_pairs_of_grids_that_differ_are_told(tmp_path: Path) -> None:
    root = make_volumes(tmp_path / "a")
    shifted = oblique()
    shifted[:3, 3] += 50
    save(root / "masks" / "v2.nii.gz", nested(2), shifted)
    done = convert(root, tmp_path / "b", to="msd")
    assert list(done.failed) == ["v2"]
    with pytest.raises(GeometryError):
        source(root)


def test_raters_keep_their_names_so_that_they_are_understood(tmp_path: Path) -> None:
    root = raters(tmp_path / "a", [ROWS < 4, ROWS < 2], names=("Ann", "reader2"))
    done = convert(root, tmp_path / "b", to="folder", config=DataConfig(mask_folders="raters"))
    assert open_source(done.out, DataConfig()).info.raters == ("rater_Ann", "reader2")


def test_regions_that_no_value_stands_for_are_named() -> None:
    scheme = LabelScheme({"background": 0, "disc": [1], "cup": [2]}, (1, 2), {1: 1, 2: 2})
    assert scheme.encode(np.array([[1, 0, 0], [0, 1, 0]], np.uint8), None).tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="disc and cup hold the same pixels"):
        scheme.encode(np.array([[1, 0], [1, 1]], np.uint8), None)


def test_an_interruption_leaves_no_half_case(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medsegdiff.data.convert.nnunet.write_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "Dataset001_D", to="nnunet")
    assert not [path for path in (tmp_path / "Dataset001_D").rglob("*") if path.is_file()]


def test_what_a_killed_conversion_left_is_no_data_set_and_stops_no_other(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "whole", to="folder")
    shutil.copytree(tmp_path / "whole", tmp_path / "again" / ".unfinished")
    with pytest.raises(DataError, match="again"):
        source(tmp_path / "again")
    convert(folder, tmp_path / "again", to="folder")
    files = [{path.relative_to(root) for path in root.rglob("*")} for root in (tmp_path / "whole", tmp_path / "again")]
    assert files[0] == files[1]


def test_two_conversions_do_not_write_to_one_folder_at_once(folder: Path, tmp_path: Path) -> None:
    """The second begins while the first writes its last case."""
    out, texts = tmp_path / "out", list[str]()
    command = [sys.executable, "-m", "medsegdiff", "data", "convert", str(folder), "--to", "folder", "--out", str(out)]

    def watched(cases: Iterable[Any], _: str) -> Iterator[Any]:
        for case in cases:
            yield case
            if not texts and (out / ".unfinished").exists():
                other = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                texts.append(other.stderr)

    done = convert(folder, out, to="folder", track=watched)
    assert "another conversion writes there now" in " ".join(texts[0].split())
    assert len(list((out / "images").iterdir())) == len(done.done) > 1
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_what_the_split_does_not_name_is_left_out_and_said(split_folder: Path, tmp_path: Path) -> None:
    rows = (split_folder / "split.csv").read_text().splitlines()
    (split_folder / "split.csv").write_text("\n".join(rows[:-2]))
    done = convert(split_folder, tmp_path / "b", to="folder")
    assert done.passed_over == ["2 images are in no part of the split and are not used: case10, case11."]
    assert len(list((done.out / "images").iterdir())) == 10


def test_a_nearly_flat_volume_is_shown_and_a_flat_one_refused(tmp_path: Path) -> None:
    make_volumes(tmp_path / "a")
    flat = np.full(SHAPE, 7, np.int16)
    save(tmp_path / "a" / "images" / "v0.nii.gz", flat, oblique())
    dot = np.zeros((40, 40, 4), np.int16)
    dot[3, 3, 1] = 5
    save(tmp_path / "a" / "images" / "v1.nii.gz", dot, oblique())
    save(tmp_path / "a" / "masks" / "v1.nii.gz", (dot > 0).astype(np.uint8), oblique())
    done = convert(tmp_path / "a", tmp_path / "b", to="slices", config=DataConfig(plane="axial"))
    assert "every voxel has the value 7" in done.failed["v0"]
    assert [path.name for path in sorted((done.out / "images").glob("v1*"))] == ["v1_0001.png"]
    assert read_map(done.out / "images" / "v1_0001.png").max() == 1


def test_the_same_images_make_the_same_files(folder: Path, tmp_path: Path) -> None:
    outs = [convert(folder, tmp_path / name / "Dataset001_D", to="nnunet").out for name in "ab"]
    files = [{p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} for out in outs]
    assert files[0] == files[1]
