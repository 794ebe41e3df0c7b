"""What cases and classes are called: in one way, safe as names of files, and none twice."""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.cli.command import guard
from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert import convert
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.open import list_cases, open_source
from medsegdiff.errors import DataError
from medsegdiff.inference.inputs import find_inputs, read_case
from medsegdiff.io.atomic import write_text
from medsegdiff.io.listing import in_words, list_images
from medsegdiff.io.names import case_name, class_folders, composed, ending_of, folder_name, image_name
from tests.makers import write_png

GREY = np.eye(8, dtype=np.uint8)


def raw(folder: Path, name: bytes) -> Path:
    """Name a file by bytes that are no UTF-8."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a b.c-1_ü", "a b.c-1_ü"),
        (unicodedata.normalize("NFD", "Größe"), "Größe"),
        (os.fsdecode(b"B\xfcrger"), "B%FCrger"),
        ("line\nend\x1b", "line%0Aend%1B"),
        ("lone\ud800", "lone%ED%A0%80"),
        ("left\u202eright", "left%E2%80%AEright"),
        ("می\u200cشود \u202fb", "می\u200cشود \u202fb"),
    ],
)
def test_a_name_is_written_in_one_way_and_can_be_shown(given: str, name: str) -> None:
    assert composed(given) == name
    assert composed(name) == name
    assert case_name(given, where="x") == name
    name.encode()


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "a/b", "..", ".", "", "  ", "a\\b", "..\\evil", ".hidden", "a/"]
)
def test_a_name_that_leads_elsewhere_is_refused_wherever_it_comes_from(name: str) -> None:
    with pytest.raises(DataError, match="its results are files of that name"):
        case_name(name, where="dataset.json")
    with pytest.raises(DataError, match="its results are files of that name"):
        CaseFiles(name, (Path("a.png"),))


def test_files_and_folders_are_named_without_their_endings(tmp_path: Path) -> None:
    (tmp_path / "real" / "DICOM").mkdir(parents=True)
    (tmp_path / "p1").symlink_to(tmp_path / "real" / "DICOM")
    assert image_name(tmp_path / "p1") == folder_name(tmp_path / "p1") == "p1"
    assert folder_name(tmp_path / "real" / "..") == tmp_path.name
    for name, stem in (("a.v2.nii.gz", "a.v2"), ("a.NII", "a"), ("a.b.png", "a.b"), ("a\\b.png", "a%5Cb")):
        assert image_name(Path(name)) == stem
        assert ending_of(Path(name)) in (".nii.gz", ".NII", ".png")
    assert ending_of(Path(unicodedata.normalize("NFD", "Größe1.nii.gz"))) == ".nii.gz"


def test_classes_that_would_share_a_folder_are_refused() -> None:
    assert class_folders(("disc", "cup/rim")) == ("disc", "cup-rim")
    with pytest.raises(DataError, match="'left/right', 'left-right' would share the folder 'left-right'"):
        class_folders(("left/right", "disc", "left-right"))
    for name in ("..", ".", "", " ", ".x"):
        with pytest.raises(DataError, match="its masks get a folder of that name"):
            class_folders(("disc", name))


def nnunet(root: Path, *, labels: dict[str, int], names: tuple[str, ...] = ("a", "b", "c", "d")) -> Path:
    """Write a raw folder of nnU-Net that lists its own cases under any names."""
    mask = np.zeros((8, 8), np.uint8)
    mask[0, 0], mask[4, 4] = 1, 2
    for number in range(len(names)):
        write_png(root / "imagesTr" / f"{number}_0000.png", GREY)
        write_png(root / "labelsTr" / f"{number}.png", mask)
    listed = {
        name: {"images": [f"imagesTr/{number}_0000.png"], "label": f"labelsTr/{number}.png"}
        for number, name in enumerate(names)
    }
    told = {"channel_names": {"0": "x"}, "labels": labels, "file_ending": ".png", "dataset": listed}
    (root / "dataset.json").write_text(json.dumps(told))
    return root


def test_a_description_can_not_name_a_case_out_of_its_folder(tmp_path: Path) -> None:
    root = nnunet(tmp_path, labels={"background": 0, "a": 1, "b": 2}, names=("fine", "../../../outside/evil"))
    for look in (lambda: list_cases(root, DataConfig()), lambda: find_inputs([root])):
        with pytest.raises(DataError, match=r"dataset\.json: a case is named '\.\./\.\./\.\./outside/evil'"):
            look()


def test_classes_are_checked_when_a_data_set_is_opened_or_converted(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "data", labels={"background": 0, "left/right": 1, "left-right": 2})
    with pytest.raises(DataError, match="would share the folder 'left-right'"):
        open_source(root, DataConfig())
    with pytest.raises(DataError, match="would share the folder 'left-right'"):
        convert(root, tmp_path / "out", to="folder")


def test_classes_whose_names_meet_only_when_converted_are_refused(tmp_path: Path) -> None:
    for name in ("a b", "a_b"):
        for number in range(3):
            write_png(tmp_path / "in" / "images" / f"{number}.png", GREY)
            write_png(tmp_path / "in" / "masks" / name / f"{number}.png", GREY)
    with pytest.raises(DataError, match="Several classes would be written as a_b"):
        convert(tmp_path / "in", tmp_path / "out", to="folder")


@pytest.mark.parametrize("layout", ["folder", "manifest", "nnunet", "msd"])
def test_all_layouts_name_a_case_alike(tmp_path: Path, layout: str) -> None:
    apart, joined = unicodedata.normalize("NFD", "Größe"), "Größe"
    if layout == "folder":
        write_png(tmp_path / "images" / f"{apart}.png", GREY)
        write_png(tmp_path / "masks" / f"{apart}_mask.png", GREY)
    elif layout == "manifest":
        write_png(tmp_path / "x.png", GREY)
        (tmp_path / "manifest.csv").write_text(f"id,image,mask\n{apart},x.png,x.png\n", encoding="utf-8")
    elif layout == "nnunet":
        nnunet(tmp_path, labels={"background": 0, "a": 1, "b": 2}, names=(apart,))
    else:
        for folder in ("imagesTr", "labelsTr"):
            write_png(tmp_path / folder / f"{apart}.png", GREY)
        pair = {"image": f"imagesTr/{apart}.png", "label": f"labelsTr/{apart}.png"}
        told = {"modality": {"0": "x"}, "labels": {"0": "background", "1": "a"}, "training": [pair]}
        (tmp_path / "dataset.json").write_text(json.dumps(told))
    listing = list_cases(tmp_path, DataConfig())
    assert listing.layout == layout
    assert list(listing.cases) == listing.masks.names == [joined]


def test_a_name_of_two_forms_is_one_name(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write_png(tmp_path / "images" / f"{unicodedata.normalize(form, 'Größe')}.png", GREY)
    with pytest.raises(DataError, match="are both named 'Größe'"):
        list_cases(tmp_path, DataConfig())


def test_what_was_converted_is_found_again_under_its_name(tmp_path: Path) -> None:
    names = [unicodedata.normalize("NFD", "Größe1"), *"abcd"]
    for number, name in enumerate(names):
        for folder in ("images", "masks"):
            write_png(tmp_path / "in" / folder / f"{name}.png", np.roll(GREY, number, axis=0))
    for folder in ("images", "masks"):
        (tmp_path / "in" / folder / "a.png").rename(raw(tmp_path / "in" / folder, b"B\xfcrger.png"))
    rows = "".join(
        f"{name},{part}\n" for name, part in zip(names[:1] + names[2:], ("train", "val", "test", "train"), strict=True)
    )
    (tmp_path / "in" / "split.csv").write_text("id,split\nB%FCrger,train\n" + rows, encoding="utf-8")
    convert(tmp_path / "in", tmp_path / "out", to="folder")
    assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == {
        *(f"{name}.png" for name in ("Größe1", "B%FCrger", "b", "c", "d"))
    }
    written = list_cases(tmp_path / "out", DataConfig())
    assert list(written.cases) == written.masks.names == ["B%FCrger", "Größe1", "b", "c", "d"]
    assert written.cases["Größe1"].part == "train"


def test_a_case_that_is_read_keeps_a_name_that_can_be_written(tmp_path: Path) -> None:
    path = raw(tmp_path, b"B\xfcrger.png")
    Image.fromarray(GREY).save(path)
    assert read_case(path).name == "B%FCrger"


def test_a_path_that_is_no_utf8_is_written_and_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(raw(tmp_path, b"B\xfcrger.png"))
    write_text(tmp_path / "report.html", path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == path.replace("\udcfc", "\\udcfc")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8", errors="strict"))
    guard(lambda: print(path, flush=True))
    assert b"B\\udcfcrger.png" in printed.getvalue()


def test_what_was_left_out_is_told_in_one_line_that_can_be_shown(tmp_path: Path) -> None:
    raw(tmp_path, b"B\xfcr\n\x1b[31m.bmp").write_bytes(b"x")
    assert "B%FCr%0A%1B[31m.bmp" in in_words(list_images(tmp_path).left_out)
