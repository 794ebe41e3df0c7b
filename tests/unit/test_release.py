"""What a release consists of tells one version, and names what it holds of others."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
VENDORED = ROOT / "src" / "medsegdiff" / "server" / "page" / "vendor"


def project(folder: str) -> dict[str, object]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_all_parts_have_one_version() -> None:
    version = str(project("")["version"])
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {project("runtime")["version"], project("models")["version"], cited["version"]} == {version}
    assert (
        re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0] == version
    )
    major, minor, _ = version.split(".")
    assert project("models")["dependencies"] == [f"medsegdiff>={major}.{minor},<{major}.{int(minor) + 1}"]


def test_each_vendored_file_is_named_with_its_licence_and_is_unchanged() -> None:
    told, listed = (
        (VENDORED / "README.txt").read_text(encoding="utf-8"),
        (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8"),
    )
    files = [path for path in VENDORED.iterdir() if path.name != "README.txt"]
    assert files
    for path in files:
        assert hashlib.sha256(path.read_bytes()).hexdigest() in told
        assert f"server/page/vendor/{path.name}" in listed


def test_wheels_bring_the_licences_along() -> None:
    assert project("")["license-files"] == ["LICENSE", "THIRD_PARTY.md"]
    for folder in ("runtime", "models"):
        assert (ROOT / folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
