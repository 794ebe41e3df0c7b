"""What a folder holds: which entries are images, and why each of the others is none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.io.listing import Reason, in_words, is_series, list_images
from tests.makers import write_png

GREY = np.eye(8, dtype=np.uint8)
DICOM = b"\0" * 128 + b"DICM"
"""How every DICOM file begins."""


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def reasons(folder: Path) -> dict[str, Reason]:
    return {entry.path.name: entry.reason for entry in list_images(folder).left_out}


def test_each_entry_is_an_image_or_has_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_png(folder / "good.PNG", GREY)
    write(folder / "series" / "IM0", DICOM)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "round.png").symlink_to("round.png")
    os.mkfifo(folder / "pipe.png")
    for name in ("a.bmp", "b.webp", "c.nrrd", "README"):
        write(folder / name)
    write(folder / "slice.dcm", DICOM)
    write(folder / "IM7", DICOM)
    write_png(folder / "ward" / "deeper.png", GREY)
    (folder / "named.png").mkdir()
    write(folder / "good.json")
    hidden = [write(folder / name) for name in (".DS_Store", "._good.png", "Thumbs.db")]
    hidden += [folder / name for name in (".ipynb_checkpoints", "@eaDir")]
    for path in hidden[3:]:
        write_png(path / "good.png", GREY)
    assert [path.name for path in list_images(folder).images] == ["good.PNG", "series"]
    assert reasons(folder) == {
        **dict.fromkeys(("gone.png", "round.png"), Reason.DANGLING),
        "pipe.png": Reason.SPECIAL,
        **dict.fromkeys(("a.bmp", "b.webp", "c.nrrd", "README"), Reason.FORMAT),
        **dict.fromkeys(("slice.dcm", "IM7"), Reason.SLICE),
        **dict.fromkeys(("ward", "named.png"), Reason.FOLDER),
        "good.json": Reason.DOCUMENT,
        **{path.name: Reason.HIDDEN for path in hidden},
    }
    assert len(list_images(folder).images) + len(list_images(folder).left_out) == len(list(folder.iterdir()))


def test_a_folder_that_may_not_be_opened_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    listed = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert reasons(tmp_path) == {"locked": Reason.LOCKED}


def test_a_series_may_lie_beside_what_discs_bring_along(tmp_path: Path) -> None:
    for name in ("AUTORUN.INF", "LICENSE", "VERSION", "preview.jpg", ".hidden"):
        write(tmp_path / "p" / name)
    assert not is_series(tmp_path / "p")
    write(tmp_path / "p" / "slice.1", DICOM)
    assert is_series(tmp_path / "p")


def test_a_stray_slice_makes_no_series_of_pictures(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / f"{number}.png", GREY)
    write(tmp_path / "stray.dcm", DICOM)
    assert not is_series(tmp_path)
    assert reasons(tmp_path) == {"stray.dcm": Reason.SLICE}


def test_what_was_left_out_is_said_in_a_line(tmp_path: Path) -> None:
    for name in ("a.bmp", "b.bmp", "c.bmp", "d.bmp", ".e.bmp", "f.txt"):
        write(tmp_path / name)
    (tmp_path / "below").mkdir()
    told = in_words(list_images(tmp_path).left_out)
    assert told == (
        f"Left out of {tmp_path}, 5 entries: a.bmp, b.bmp, c.bmp and 1 more (of a format that is not read); "
        "below (a folder, which is not searched)."
    )
    assert in_words([]) == ""
    (tmp_path / "g").mkdir()
    write(tmp_path / "g" / ".DS_Store")
    assert in_words(list_images(tmp_path / "g").left_out) == ""
