"""Saving beside computing: order, overlap, volumes, errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medsegdiff.inference.saving import save_beside

WAIT = 20.0
"""Seconds after which something that should have happened has not."""


def result(name: str, *, volume: bool = False) -> Any:
    """Make what counts of a result: its name, and whether it is a volume."""
    return SimpleNamespace(name=name, geometry=SimpleNamespace(affine=np.eye(4) if volume else None))


def test_a_picture_is_saved_while_the_next_one_is_computed() -> None:
    """The save of the first ends only when the second has been computed: one after the other it never would."""
    second_is_there = threading.Event()

    def computed() -> Iterator[Any]:
        yield result("first")
        second_is_there.set()
        yield result("second")

    def save(one: Any) -> bool:
        return second_is_there.wait(WAIT)

    saved = [(name, future.result()) for name, future in save_beside(computed(), save)]
    assert saved == [("first", True), ("second", True)]


def test_a_volume_is_saved_before_the_next_is_begun() -> None:
    happened: list[str] = []

    def computed() -> Iterator[Any]:
        for name in ("first", "second"):
            happened.append(f"compute {name}")
            yield result(name, volume=True)

    for name, future in save_beside(computed(), lambda one: happened.append(f"save {one.name}")):
        future.result()
        happened.append(f"done {name}")
    assert happened == [f"{what} {name}" for name in ("first", "second") for what in ("compute", "save", "done")]


def test_one_result_is_saved_at_a_time_and_in_order() -> None:
    busy, begun = threading.Lock(), list[str]()

    def save(one: Any) -> None:
        assert busy.acquire(blocking=False)
        begun.append(one.name)
        threading.Event().wait(0.01)
        busy.release()

    names = [f"{number}" for number in range(5)]
    told = [name for name, future in save_beside(map(result, names), save) if future.result() is None]
    assert told == begun == names


def test_an_error_of_saving_belongs_to_its_result_and_the_others_go_on() -> None:
    def save(one: Any) -> str:
        if one.name == "second":
            raise OSError("no space left")
        return one.name

    kept, lost = [], []
    for name, future in save_beside(map(result, ("first", "second", "third")), save):
        if future.exception():
            lost.append((name, str(future.exception())))
        else:
            kept.append(future.result())
    assert (kept, lost) == (["first", "third"], [("second", "no space left")])


def test_an_error_of_computing_comes_after_what_is_begun_is_saved() -> None:
    saved: list[str] = []

    def computed() -> Iterator[Any]:
        yield result("first")
        raise ValueError("the model broke")

    with pytest.raises(ValueError, match="the model broke"):
        for _, future in save_beside(computed(), lambda one: saved.append(one.name)):
            future.result()
    assert saved == ["first"]
