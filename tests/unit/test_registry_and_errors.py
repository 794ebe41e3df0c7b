from __future__ import annotations

from dataclasses import dataclass

import pytest

from medsegdiff.errors import CheckpointError, ConfigError, DataError, MedSegDiffError, ShapeError, nearest
from medsegdiff.registry import Registry


def test_what_is_registered_is_built_and_listed() -> None:
    colours: Registry = Registry("colour", dict)

    @colours.register("red", wavelength=700)
    def red(*, depth: int) -> str:
        return "red" * depth

    assert colours.build("red", depth=2) == "redred"
    assert [(entry.name, entry.facts) for entry in colours] == [("red", {"wavelength": 700})]
    assert "red" in colours
    assert red(depth=1) == "red"


def test_names_are_taken_once_and_unknown_ones_suggest_the_nearest() -> None:
    colours: Registry = Registry("colour", dict)
    colours.register("green")(lambda: None)
    with pytest.raises(ConfigError, match="'green' is registered already"):
        colours.register("green")
    with pytest.raises(ConfigError, match="No colour 'gren'. Known: green. Did you mean 'green'"):
        colours["gren"]


@dataclass(frozen=True)
class Hue:
    wavelength: int
    warm: bool = False


def test_a_record_of_facts_has_its_defaults_and_refuses_what_is_no_fact_of_its_kind() -> None:
    colours: Registry = Registry("colour", Hue)
    colours.register("red", wavelength=700)(lambda: None)
    assert colours["red"].facts == Hue(700)
    assert colours["red"].described() == {"name": "red", "wavelength": 700, "warm": False}
    with pytest.raises(ConfigError, match=r"'blue' is registered with the facts hue; .* are wavelength, warm"):
        colours.register("blue", hue=240)


def test_errors_are_of_one_family_and_of_pythons_own() -> None:
    for kind in (ConfigError, DataError, ShapeError, CheckpointError):
        assert issubclass(kind, MedSegDiffError)
        assert issubclass(kind, ValueError)


def test_nothing_near_suggests_nothing() -> None:
    assert nearest("zzz", ["alpha"]) == ""
