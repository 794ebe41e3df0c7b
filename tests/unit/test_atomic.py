from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from medsegdiff.io import atomic
from medsegdiff.io.atomic import atomic_path, to_json, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_parts(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(file) as part:
        part.write_text("ne", encoding="utf-8")
        raise RuntimeError("half way")
    assert file.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


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


def test_folders_are_made_and_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"x": float("nan"), "y": [1.5, float("inf")], "z": ("a", Path("b"))})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": None, "y": [1.5, None], "z": ["a", "b"]}
    assert "NaN" not in to_json({"x": float("nan")})
