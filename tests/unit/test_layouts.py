"""Layouts that describe themselves: nnU-Net v2, the Decathlon, manifests. What is understood, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert import convert
from medsegdiff.data.dataset import DATASETS, Listing
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.open import ListedSource, detect, layouts, list_cases, open_source
from medsegdiff.errors import DataError
from tests.described import describe, make_msd, make_nnunet, nested, voxels
from tests.makers import make_folder, write_png
from tests.volumes import oblique, save


def listed(root: Path, **values: object) -> Listing:
    return list_cases(root, DataConfig(**values))


def whole(root: Path, name: str) -> Any:
    """A case on its native grid."""
    config = DataConfig()
    return ListedSource(list_cases(root, config), config).load(name)


def parts(listing: Listing) -> dict[str, str]:
    return {name: case.part for name, case in listing.cases.items()}


def test_each_layout_is_known_by_its_own_marks(tmp_path: Path) -> None:
    made = {
        "nnunet": make_nnunet(tmp_path / "n"),
        "msd": make_msd(tmp_path / "m"),
        "folder": make_folder(tmp_path / "f", count=3),
        "manifest": tmp_path / "t",
    }
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "manifest.csv").write_text("id,image\n")
    assert {name: detect(root) for name, root in made.items()} == {name: name for name in made}
    make_nnunet(tmp_path / "n", modality={"0": "CT"}, training=[])
    fitting = [name for name in made if DATASETS[name].factory.detect(tmp_path / "n")]
    assert fitting == ["nnunet"]


@pytest.mark.parametrize("name", layouts())
def test_no_layout_takes_what_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("[1, 2]")
    (tmp_path / "file.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset.json").write_bytes(b"\xff\xfe{")
    for path in (tmp_path, tmp_path / "file.png", tmp_path / "empty", tmp_path / "broken", tmp_path / "nowhere"):
        assert not DATASETS[name].factory.detect(path)


@pytest.mark.parametrize("name", ["nnunet", "manifest"])
def test_a_layout_offers_what_every_source_does(name: str, folder: Path, tmp_path: Path) -> None:
    if name == "nnunet":
        root = convert(folder, tmp_path / "Dataset001_Disc", to="nnunet").out
    else:
        root = rows(folder / "cases.csv", "id,image,mask", "k{i:02d},images/{n},masks/{n}")
    source = open_source(root, DataConfig(image_size=32))
    assert source.info.layout == name
    for part in ("train", "val", "test"):
        case = source.load(source.info.names(part)[0])
        assert (len(case.image), case.mask.shape[1]) == (source.info.channels, len(source.info.labels.classes))
        assert case.mask.shape[2:] == case.image.shape[1:] == case.geometry.shape


# nnU-Net


def test_nnunet_tells_parts_classes_channels_and_modality(tmp_path: Path) -> None:
    found = listed(make_nnunet(tmp_path, channels=("CT", "PET")))
    assert parts(found) == {**{f"c{i}": "train" for i in range(4)}, "c4": "test"}
    assert (found.layout, found.channels, found.modalities) == ("nnunet", ("CT", "PET"), ("ct", "mr"))
    coding = found.masks.declared
    assert (coding.task, coding.classes) == ("exclusive", ("background", "liver", "tumour"))
    case = whole(tmp_path, "c2")
    assert np.array_equal(case.image, np.stack([voxels(20), voxels(21)]))
    assert np.array_equal(case.mask[0].argmax(axis=0), nested(2))
    assert open_source(tmp_path, DataConfig()).info.channel_files == 2


def test_one_foreground_is_binary(tmp_path: Path) -> None:
    make_nnunet(tmp_path, labels={"background": 0, "liver": 1})
    coding = listed(tmp_path).masks.declared
    assert (coding.task, coding.classes, coding.values) == ("binary", ("liver",), ((1,),))


def test_regions_and_pixels_to_ignore_are_read(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    found = listed(make_nnunet(tmp_path, labels=labels, regions_class_order=[1, 2]))
    assert found.masks.declared.order == (1, 2)
    case = whole(tmp_path, "c0")
    stored = nested(0, top=3)
    assert np.array_equal(case.mask[0], [np.isin(stored, (1, 2)), stored == 2])
    assert np.array_equal(case.ignored[0], stored == 3)
    assert case.ignored.any()


def test_colour_pictures_are_one_file_of_three_channels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        write_png(tmp_path / "imagesTr" / f"a{i}_0000.png", rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
        write_png(tmp_path / "labelsTr" / f"a{i}.png", rng.integers(0, 2, (8, 9), dtype=np.uint8))
    names = {"0": "R", "1": "G", "2": "B"}
    describe(tmp_path, channel_names=names, labels={"background": 0, "mole": 1}, numTraining=3, file_ending=".png")
    found = listed(tmp_path)
    assert found.modalities == ("natural",) * 3
    assert whole(tmp_path, "a1").image.shape == (3, 8, 9)
    assert [len(case.images) for case in found.cases.values()] == [1, 1, 1]


def test_cases_may_be_listed_with_paths_of_their_own(tmp_path: Path) -> None:
    make_nnunet(tmp_path / "there", count=2)
    cases = {
        f"p{i}": {
            "images": [f"../there/imagesTr/c{i}_0000.nii.gz"],
            "label": str(tmp_path / "there" / "labelsTr" / f"c{i}.nii.gz"),
        }
        for i in range(2)
    }
    told = json.loads((tmp_path / "there" / "dataset.json").read_text())
    root = describe(tmp_path / "here", **told, dataset=cases, overwrite_image_reader_writer="SimpleITKIO")
    assert parts(listed(root)) == {"p0": "train", "p1": "train"}
    assert np.array_equal(whole(root, "p1").mask[0].argmax(axis=0), nested(1))
    cases["p1"]["label"] = "labels/gone.nii.gz"
    describe(root, **told, dataset=cases)
    with pytest.raises(DataError, match=r"of the case 'p1' it names labels/gone\.nii\.gz; there is no file"):
        listed(root)
    describe(root, **told, dataset={"p0": {"images": []}})
    with pytest.raises(DataError, match="the case 'p0' of dataset is .*expected"):
        listed(root)
    describe(root, **told, dataset={"p0": {"images": "a.nii.gz", "label": 3}})
    with pytest.raises(DataError, match="the case 'p0' of dataset is .*expected"):
        listed(root)
    describe(root, **told, dataset=["p0"])
    with pytest.raises(DataError, match="the case '' of dataset is .*expected"):
        listed(root)


def test_split_csv_overrides_the_parts_and_gives_groups(tmp_path: Path) -> None:
    make_nnunet(tmp_path)
    (tmp_path / "split.csv").write_text("id,split,patient\nc0,test,p\nc1,val,q\nc2,train,r\nc4,test,p\n")
    found = listed(tmp_path)
    assert parts(found) == {"c0": "test", "c1": "val", "c2": "train", "c4": "test"}
    assert [case.group for case in found.cases.values()] == ["p", "q", "r", "p"]
    assert found.unlisted == ("c3",)
    (tmp_path / "split.csv").write_text("id,patient\nc0,p\nc1,p\n")
    told = {name: (case.part, case.group) for name, case in listed(tmp_path).cases.items()}
    assert told == {"c0": ("", "p"), "c1": ("", "p"), "c2": ("", ""), "c3": ("", ""), "c4": ("test", "")}


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    make_nnunet(tmp_path, channels=("T1", "T2", "FLAIR"))
    (tmp_path / "imagesTr" / "c1_0002.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case 'c1' is missing: expected c1_0002\.nii\.gz \(FLAIR\); found c1_0000"):
        listed(tmp_path)
    (tmp_path / "imagesTr" / "c1_0000.nii.gz").rename(tmp_path / "imagesTr" / "c1_0002.nii.gz")
    with pytest.raises(DataError, match=r"case 'c1' is missing: expected c1_0000\.nii\.gz; found c1_0001"):
        listed(tmp_path)
    make_nnunet(tmp_path, channels=("T1", "T2"))
    with pytest.raises(DataError, match=r"c0_0002\.nii\.gz: is file 3 of the case 'c0', but channel_names tells of 2"):
        listed(tmp_path)


def test_labels_and_images_must_belong_together(tmp_path: Path) -> None:
    make_nnunet(tmp_path)
    (tmp_path / "imagesTr" / "c1_0000.nii.gz").rename(tmp_path / "imagesTr" / "d1_0000.nii.gz")
    with pytest.raises(DataError, match=r"1 labels have no image: c1 \(c1\.nii\.gz, say\)"):
        listed(tmp_path)
    (tmp_path / "labelsTr" / "c1.nii.gz").unlink()
    with pytest.raises(DataError, match="1 of 5 images have no mask: d1"):
        open_source(tmp_path, DataConfig())
    (tmp_path / "imagesTr" / "d1_0000.nii.gz").rename(tmp_path / "imagesTr" / "d1.nii.gz")
    with pytest.raises(DataError, match=r"d1\.nii\.gz: expected a name such as CASE_0000\.nii\.gz"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": {"background": 0, "liver": 2}}, "without a gap"),
        ({"labels": {"background": 0, "ignore": 1, "liver": 2}}, "'ignore' as the one after the last"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 3}}, "'ignore' as the one after the last"),
        ({"labels": {"background": 0}}, "without a gap"),
        ({"labels": {"0": "background", "1": "liver"}}, r'expected \{"background": 0'),
        ({"labels": {"background": 0, "a": [1, 2], "b": [2]}}, "regions_class_order is None; expected a list of 2"),
        ({"labels": {"background": 0, "a": [1, 2]}, "regions_class_order": [1, 2]}, "expected a list of 1 values"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1, 7]}, "regions a, b"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [[1], 2]}, "regions a, b"),
        ({"file_ending": ".mha"}, r"file_ending is '\.mha'; allowed are \.png.*SimpleITK reads \.mha"),
        ({"file_ending": None}, r"expected the keys channel_names, labels, file_ending; file_ending missing"),
        ({"channel_names": {"0": "CT", "2": "PET"}}, "numbered from 0 on"),
        ({"channel_names": ["T1", "T2", "FLAIR"]}, r"expected c0_0001\.nii\.gz \(T2\); found c0_0000"),
        ({"channel_names": ["CT", "PET"]}, r"expected c0_0001\.nii\.gz \(PET\)"),
        ({"file_ending": ".png"}, r"expected images imagesTr/CASE_0000\.png; found dataset\.json, images"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    make_nnunet(tmp_path, count=1)
    told = json.loads((tmp_path / "dataset.json").read_text())
    describe(tmp_path, **(told | changed))
    with pytest.raises(DataError, match=words):
        listed(tmp_path)


def test_a_broken_description_is_named(tmp_path: Path) -> None:
    root = make_nnunet(tmp_path / "Dataset007_Liver", count=1)
    (root / "dataset.json").write_text("{")
    assert detect(root) == "nnunet"
    with pytest.raises(DataError, match=r"dataset\.json: can't be read as JSON"):
        listed(root)


def test_a_value_that_is_not_declared_is_named(tmp_path: Path) -> None:
    make_nnunet(tmp_path, count=2)
    save(tmp_path / "labelsTr" / "c1.nii.gz", np.full((6, 5, 4), 7, np.uint8), oblique())
    with pytest.raises(
        DataError, match=r"c1\.nii\.gz: mask value 7 has no meaning; .* background 0, liver 1, tumour 2"
    ):
        whole(tmp_path, "c1")


def test_channels_of_which_nothing_is_known_have_no_modality(tmp_path: Path) -> None:
    assert listed(make_nnunet(tmp_path / "a", channels=("channel_0", "channel_1"))).modalities == ()
    assert listed(make_nnunet(tmp_path / "b", channels=("T1", "channel_1"))).modalities == ("mr", "mr")


# The Decathlon


def test_msd_tells_parts_classes_channels_and_modality(tmp_path: Path) -> None:
    make_msd(tmp_path, channels=("FLAIR", "T1w"))
    found = listed(tmp_path)
    assert parts(found) == {**{f"v_{i:03d}": "train" for i in range(4)}, "v_004": "test"}
    assert (found.layout, found.channels, found.modalities) == ("msd", ("FLAIR", "T1w"), ("mr", "mr"))
    case = whole(tmp_path, "v_002")
    assert np.array_equal(case.image, np.stack([voxels(20), voxels(21)]))
    assert np.array_equal(case.mask[0].argmax(axis=0), nested(2))
    assert listed(make_msd(tmp_path / "ct")).modalities == ("ct",)
    assert inspect_folder(tmp_path, DataConfig()).classes == ["background", "liver", "tumour"]


def test_msd_labels_may_have_gaps_and_be_turned_round(tmp_path: Path) -> None:
    make_msd(tmp_path, labels={"background": 0, "liver": 2, "tumour": 5})
    coding = listed(tmp_path).masks.declared
    assert (coding.classes, coding.values) == (("background", "liver", "tumour"), ((0,), (2,), (5,)))
    make_msd(tmp_path, labels={"0": "background", "3": "liver"})
    assert listed(tmp_path).masks.declared.values == ((3,),)
    make_msd(tmp_path, labels={"0": "background"})
    with pytest.raises(DataError, match="labels are .* expected"):
        listed(tmp_path)


def test_msd_files_of_macos_are_no_cases_and_validation_is_kept(tmp_path: Path) -> None:
    make_msd(tmp_path)
    told = json.loads((tmp_path / "dataset.json").read_text())
    pairs = told.pop("training")
    odd = [{"image": "./imagesTr/._v_000.nii.gz", "label": "./labelsTr/._v_000.nii.gz"}]
    test = [*told.pop("test"), "./imagesTs/._v_004.nii.gz"]
    describe(tmp_path, **told, training=[*odd, *pairs[1:]], validation=pairs[:1], test=test)
    assert parts(listed(tmp_path)) == {"v_000": "val", "v_001": "train", "v_002": "train", "v_003": "train"} | {
        "v_004": "test"
    }


def test_msd_test_cases_may_have_labels_beside_them(tmp_path: Path) -> None:
    make_msd(tmp_path)
    save(tmp_path / "labelsTs" / "v_004.nii.gz", nested(4), oblique())
    assert listed(tmp_path).masks.names[-1] == "v_004"


def test_msd_files_that_are_missing_are_named(tmp_path: Path) -> None:
    make_msd(tmp_path)
    (tmp_path / "labelsTr" / "v_001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"training names \./labelsTr/v_001\.nii\.gz; there is no file"):
        listed(tmp_path)
    shutil.move(tmp_path / "imagesTr" / "v_000.nii.gz", tmp_path / "imagesTr" / "v_000_0000.nii.gz")
    with pytest.raises(DataError, match=r"There is v_000_0000\.nii\.gz, as in nnU-Net v1"):
        listed(tmp_path)
    told = json.loads((tmp_path / "dataset.json").read_text())
    describe(tmp_path, **(told | {"training": [{"image": "a.nii.gz"}]}))
    with pytest.raises(DataError, match="entry 0 of training is"):
        listed(tmp_path)
    describe(tmp_path, **(told | {"training": [{"image": "a.mha", "label": "b.mha"}]}))
    with pytest.raises(DataError, match=r"names a\.mha; allowed are \.png"):
        listed(tmp_path)
    for odd in ({"a": "b"}, 3, [3], [{"image": 3, "label": "b"}]):
        describe(tmp_path, **(told | {"training": odd}))
        with pytest.raises(DataError, match="entry 0 of training is"):
            listed(tmp_path)
    describe(tmp_path, **(told | {"training": [], "test": []}))
    with pytest.raises(DataError, match="expected training cases"):
        listed(tmp_path)


# Manifests


@pytest.fixture
def table(folder: Path) -> Path:
    """The pictures of a folder, in places that no layout knows."""
    (folder / "images").rename(folder / "pictures")
    (folder / "masks").rename(folder / "drawn")
    return folder / "cases.csv"


def rows(file: Path, head: str, row: str, count: int = 12) -> Path:
    lines = [row.format(i=i, n=f"case{i:02d}.png", part=("train", "val", "test")[i % 3]) for i in range(count)]
    file.write_text("\n".join([head, *lines]), encoding="utf-8-sig")
    return file


def test_a_manifest_names_images_masks_groups_and_parts(table: Path) -> None:
    rows(table, "id,image,mask,age,patient,split", "k{i:02d},pictures/{n},drawn/{n},70,p{i},{part}")
    found = listed(table)
    assert (found.layout, found.masks.kind) == ("manifest", "flat")
    assert (found.cases["k04"].part, found.cases["k04"].group) == ("val", "p4")
    source = open_source(table, DataConfig())
    assert (source.info.labels.task, len(source.info.names("test"))) == ("binary", 4)
    assert source.load("k07").mask.any()
    table.rename(table.with_name("manifest.csv"))
    assert listed(table.parent).cases == found.cases


def test_columns_of_a_manifest_are_known_however_they_are_spelt(table: Path) -> None:
    rows(table, "ID,Image,Mask,Patient_ID, Split", "k{i:02d},pictures/{n},drawn/{n},p{i} ,{part}")
    found = listed(table)
    assert (found.cases["k04"].part, found.cases["k04"].group, len(found.masks.names)) == ("val", "p4", 12)
    file, entry = table.with_suffix(".json"), {"Id": "k", "Image": "pictures/case00.png", "MASK": "drawn/case00.png"}
    file.write_text(json.dumps([entry | {"Split": "test", "patientId": 0}]))
    read = listed(file)
    assert (read.cases["k"].part, read.cases["k"].group, read.masks.names) == ("test", "0", ["k"])


def test_cells_of_a_manifest_may_be_separated_by_semicolons(table: Path) -> None:
    rows(table, "id,image,mask,patient", "k{i:02d},pictures/{n},drawn/{n},p{i}")
    found = listed(table)
    table.write_text(table.read_text(encoding="utf-8-sig").replace(",", ";"), encoding="utf-8-sig")
    assert listed(table).cases == found.cases


@pytest.mark.parametrize("column", ["set", "Fold", "PART", "partition", "subset"])
def test_columns_that_may_tell_of_parts_and_are_not_read_are_refused(table: Path, column: str) -> None:
    for value in ("{part}", "Training", "1"):
        if value == "1" and column != "Fold":
            continue
        rows(table, f"id,image,mask,{column}", "k{i:02d},pictures/{n},drawn/{n}," + value)
        with pytest.raises(DataError, match=f"the column {column} has no meaning"):
            listed(table)
        entry = {"id": "k", "image": "pictures/case00.png", "mask": "drawn/case00.png", column: value}
        table.with_suffix(".json").write_text(json.dumps([entry | {column: "test" if "{" in value else value}]))
        with pytest.raises(DataError, match=f"the column {column} has no meaning"):
            listed(table.with_suffix(".json"))
    rows(table, f"id,image,split,{column}", "k{i:02d},pictures/{n},{part},1")
    assert listed(table).cases["k01"].part == "val"  # beside a column of parts, nobody waits for another


@pytest.mark.parametrize("column", ["set", "Part", "partition", "label", "Labels", "segmentation", "masks", "images"])
def test_columns_that_tell_of_something_else_are_let_be(table: Path, column: str) -> None:
    rows(table, f"id,image,mask,{column}", "k{i:02d},pictures/{n},drawn/{n},abdomen")
    assert len(listed(table).masks.names) == 12
    entry = {"id": "k", "image": "pictures/case00.png", "mask": "drawn/case00.png", column: "abdomen"}
    entries = [entry, entry | {"id": "l", column: None}, entry | {"id": "m", "mask": None}]
    table.with_suffix(".json").write_text(json.dumps(entries))
    assert listed(table.with_suffix(".json")).masks.names == ["k", "l"]


@pytest.mark.parametrize("column", ["Labels", "label", "masks", "segmentation"])
def test_columns_that_may_hold_masks_where_no_other_does_are_refused(table: Path, column: str) -> None:
    rows(table, f"id,image,{column}", "k{i:02d},pictures/{n},drawn/{n}")
    with pytest.raises(DataError, match=f"the column {column} has no meaning; masks are in mask"):
        listed(table)
    file = table.with_suffix(".json")
    file.write_text(json.dumps([{"id": "k", "image": "pictures/case00.png", column: "drawn/case00.png"}]))
    with pytest.raises(DataError, match=f"entry 1: the column {column} has no meaning"):
        listed(file)


def test_what_is_null_in_a_manifest_is_not_said(table: Path) -> None:
    file, entry = table.with_suffix(".json"), {"image": "pictures/case00.png", "mask": "drawn/case00.png"}
    some = [{"id": f"k{i}", "group": None, "patient": f"p{i // 2}", "set": None} for i in range(4)]
    file.write_text(json.dumps([entry | one for one in some]))
    assert [case.group for case in listed(file).cases.values()] == ["p0", "p0", "p1", "p1"]
    rows(table, "id,image,group,patient", "k{i:02d},pictures/{n},,p{i}")
    assert listed(table).cases["k04"].group == "p4"


def test_columns_of_channels_keep_their_order_and_names(table: Path) -> None:
    rows(table, "case,image_t2,mask,image_flair", "k{i:02d},pictures/{n},drawn/{n},drawn/{n}")
    assert listed(table).channels == ("t2", "flair")
    case = open_source(table, DataConfig()).load("k03")
    assert case.image.shape[0] == 2
    assert np.array_equal(case.image[1] > 0, case.mask[0, 0] > 0)


@pytest.mark.parametrize(("names", "kind"), [(("rater1", "rater2"), "raters"), (("disc", "cup"), "structures")])
def test_columns_of_masks_are_raters_or_structures(table: Path, names: tuple[str, str], kind: str) -> None:
    head = f"name,image,mask_{names[0]},mask_{names[1]}"
    rows(table, head, "k{i:02d},pictures/{n},drawn/{n},drawn/{n}")
    assert (listed(table).masks.kind, listed(table).masks.folders) == (kind, names)
    assert listed(table, mask_folders="raters").masks.kind == "raters"
    text = table.read_text().replace("drawn/case03.png,drawn/case03.png", "drawn/case03.png,")
    table.write_text(text)
    assert len(listed(table).masks.files("k03")) == 1
    if kind == "structures":
        with pytest.raises(DataError, match=r"k03 \(no cup\)"):
            open_source(table, DataConfig())


def test_a_manifest_of_json_says_the_same(table: Path) -> None:
    rows(
        table, "id,image_0,image_1,mask_disc,mask_cup,group", "k{i:02d},pictures/{n},drawn/{n},drawn/{n},drawn/{n},p{i}"
    )
    entries = [
        {
            "id": f"k{i:02d}",
            "image": [f"pictures/case{i:02d}.png", f"drawn/case{i:02d}.png"],
            "mask": {"disc": f"drawn/case{i:02d}.png", "cup": f"drawn/case{i:02d}.png"},
            "group": f"p{i}",
        }
        for i in range(12)
    ]
    file = table.with_suffix(".json")
    file.write_text(json.dumps(entries))
    one, other = listed(table), listed(file)
    assert one.cases == other.cases
    assert [one.masks.by_folder(name) for name in one.cases] == [other.masks.by_folder(name) for name in other.cases]
    file.write_text(json.dumps([{"id": "k", "image": "pictures/case00.png", "split": "training"}]))
    assert (listed(file).cases["k"].part, listed(file).masks.names) == ("train", [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,mask\na,b\n", "expected the columns id, image"),
        ("id,img\na,b\n", "found: id, img. Did you mean 'img'"),
        ("id,image\n", "names no case"),
        ("id,image\na,pictures/case00.png\nb,pictures/no.png\n", "row 3: there is no file"),
        ("id,image\na,pictures/case00.png\n,pictures/case01.png\n", "row 3: has no id"),
        ("id,image\na,pictures/case00.png\na,pictures/case01.png\n", r"row 3: 'a' stands in .*row 2 already"),
        ("id,image_0,image_1\na,pictures/case00.png,\n", "row 2: the image of 'a' is missing"),
        ("id,image,split\na,pictures/case00.png,learn\n", "row 2: unknown split 'learn'"),
        ("id,image,split\na,pictures/case00.png,train\nb,pictures/case01.png,\n", "row 3: unknown split ''"),
        ("id,image,mask,mask_a\na,b,c,d\n", "columns mask, mask_a contradict each other"),
        ("id,image\na,pictures/case00.png,more\n", "row 2: has more cells than the 2 columns"),
        ("id,image\na,cases.csv\n", r"row 2: cases\.csv can't be read; allowed are \.png"),
    ],
)
def test_tables_that_make_no_sense_are_refused(table: Path, text: str, words: str) -> None:
    table.write_text(text)
    with pytest.raises(DataError, match=words):
        listed(table)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"labels": 1}, "expected a list of .*; found dict"),
        ([{"id": "a"}], "entry 1: is .*expected"),
        ([{"id": "a", "image": 3}], "entry 1: image is 3; expected a path"),
        (
            [{"id": "a", "image": "pictures/case00.png"}, {"id": "b", "image": ["pictures/case00.png"] * 2}],
            "entry 2: has the images 0, 1",
        ),
        (
            [
                {"id": "a", "image": "pictures/case00.png", "mask": "drawn/case00.png"},
                {"id": "b", "image": "pictures/case01.png", "mask": {"x": "drawn/case00.png"}},
            ],
            "some cases have one mask and others masks by name",
        ),
    ],
)
def test_lists_that_make_no_sense_are_refused(table: Path, entries: object, words: str) -> None:
    file = table.with_suffix(".json")
    file.write_text(json.dumps(entries))
    with pytest.raises(DataError, match=words):
        listed(file)


def test_a_manifest_that_is_no_text_is_refused(table: Path) -> None:
    table.write_bytes(b"id,image\n\xff\xfe")
    with pytest.raises(DataError, match="can't be read as UTF-8 text"):
        listed(table)
