from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from medsegdiff.io import atomic
from medsegdiff.io.atomic import atomic_path, content_replaced, names_in, remove_parts, to_json, write_json, write_text
from medsegdiff.io.raster import write_mask


def test_a_failed_write_leaves_the_old_file_and_no_parts(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(file) as part:
        part.write_text("ne", encoding="utf-8")
        raise RuntimeError("half way")
    assert file.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_content_of_a_folder_is_the_old_one_until_all_of_the_new_one_has_its_place(tmp_path: Path) -> None:
    """The last of the new files can't get its place here: a folder that nobody listed has its name."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (folder / name).write_text("old")

    def replace_by(*names: str) -> None:
        with content_replaced(folder, lambda: [folder / "a", folder / "gone", folder / "sub"]) as new:
            for name in names:
                (new / name).write_text("new")

    (folder / "z").mkdir()
    (folder / "z" / "kept").touch()
    with pytest.raises(OSError, match="z"):
        replace_by("a", "c", "z")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "sub", "z"]
    assert (folder / "a").read_text() == (folder / "sub" / "b").read_text() == "old"
    (folder / ".new-00000000").mkdir()  # of somebody who was killed
    assert names_in(folder) == ["a", "sub", "z"]
    replace_by("a", "c")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c", "z"]
    assert (folder / "a").read_text() == "new"


def test_who_holds_the_old_file_keeps_it_whole(tmp_path: Path) -> None:
    """The new file takes the name; the old one is not written into, where a reader would see it half."""
    write_text(tmp_path / "a.txt", "old")
    (tmp_path / "held.txt").hardlink_to(tmp_path / "a.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "held.txt").read_text(encoding="utf-8") == "old"
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_with_a_way_out_whoever_says_so(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(OSError, match="a.bin: No space left.*another disk"),
        atomic_path(tmp_path / "a.bin"),
    ):
        raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_may_be_read_by_whom_the_umask_lets(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "a")
        write_mask(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
        with atomic_path(tmp_path / "a.safetensors") as part:
            save_file({"a": np.zeros(2)}, part)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


def test_a_share_that_takes_no_permissions_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    write_text(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "a"


def test_long_names_leave_room_for_those_of_neighbours(tmp_path: Path) -> None:
    path = tmp_path / ("𝒳" * 62 + ".nii.gz")  # 255 bytes
    with atomic_path(path) as part:
        assert part.name.endswith(".nii.gz")
    assert path.is_file()


def test_only_what_can_not_be_made_again_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network each wait takes tens of milliseconds, and a picture has a dozen files."""
    waited: list[str] = []
    monkeypatch.setattr(atomic, "flush", lambda path: waited.append(path.suffix))
    write_mask(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    write_json(tmp_path / "a.json", {})
    assert waited == [".json"]


def test_folders_are_made_and_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"x": float("nan"), "y": [1.5, float("inf")], "z": ("a", Path("b"))})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": None, "y": [1.5, None], "z": ["a", "b"]}
    assert "NaN" not in to_json({"x": float("nan")})


def test_what_a_killed_process_had_begun_to_write_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {".hidden", ".last-notes.txt", "last.safetensors", ".DS_Store"}
    for name in (*kept, ".last-0123abcd.safetensors", ".case.1-89abcdef.nii.gz", ".run-00000000"):
        (tmp_path / name).write_text("half")
    remove_parts(tmp_path, tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == kept
