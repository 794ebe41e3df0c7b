from __future__ import annotations

import pytest

from medsegdiff.errors import CheckpointError, ConfigError, DataError, MedSegDiffError, ShapeError, nearest
from medsegdiff.registry import Registry


def test_what_is_registered_is_built_and_listed() -> None:
    colours: Registry = Registry("colour")

    @colours.register("red", wavelength=700)
    def red(*, depth: int) -> str:
        return "red" * depth

    assert colours.build("red", depth=2) == "redred"
    assert [(entry.name, entry.facts) for entry in colours] == [("red", {"wavelength": 700})]
    assert "red" in colours
    assert red(depth=1) == "red"


def test_names_are_taken_once_and_unknown_ones_suggest_the_nearest() -> None:
    colours: Registry = Registry("colour")
    colours.register("green")(lambda: None)
    with pytest.raises(ConfigError, match="'green' is registered already"):
        colours.register("green")
    with pytest.raises(ConfigError, match="No colour 'gren'. Known: green. Did you mean 'green'"):
        colours["gren"]


def test_errors_are_of_one_family_and_of_pythons_own() -> None:
    for kind in (ConfigError, DataError, ShapeError, CheckpointError):
        assert issubclass(kind, MedSegDiffError)
        assert issubclass(kind, ValueError)


def test_nothing_near_suggests_nothing() -> None:
    assert nearest("zzz", ["alpha"]) == ""
