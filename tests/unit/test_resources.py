from __future__ import annotations

import logging
import shutil
from collections import namedtuple

import pytest

from medsegdiff.errors import DataError
from medsegdiff.inference.resources import Needs, check_needs, needs_of


def test_a_large_ct_with_many_classes_and_members_stays_below_8_gb() -> None:
    found = needs_of((512, 512, 800), channels=1, classes=16, members=10, task="exclusive", batch_size=16)
    assert found.memory < 8e9
    voxels = 512 * 512 * 800
    assert found.disk == voxels * (2 * (16 + 3) + 12)  # 16-bit probabilities and maps; label maps of 8 bits


def test_more_of_anything_needs_more() -> None:
    least = needs_of((64, 64, 64), channels=1, classes=1, members=2, task="binary")
    for more in (
        needs_of((256, 256, 256), channels=1, classes=1, members=2, task="binary"),
        needs_of((64, 64, 64), channels=4, classes=1, members=2, task="binary"),
        needs_of((64, 64, 64), channels=1, classes=3, members=2, task="regions"),
    ):
        assert more.memory > least.memory
        assert more.disk >= least.disk


def test_large_needs_are_told_and_too_large_ones_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert check_needs("small", Needs(memory=10**6, disk=10**6), memory=8e9) == ""
    told = check_needs("large", Needs(memory=3 * 10**9, disk=10**6), memory=8e9)
    assert told.startswith("large: needs at most 3.0 GB of memory beyond the model, and 0.0 GB in ")
    assert not caplog.messages
    check_needs("larger", Needs(memory=3 * 10**9, disk=10**6), memory=2e9)
    assert "larger: may need 3.0 GB of memory; the machine has 2.0 GB" in caplog.text
    usage = namedtuple("usage", "total used free")(0, 0, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DataError, match="needs 2.0 GB for temporary files, and .* has 1.0 GB. Set TMPDIR"):
        check_needs("huge", Needs(memory=0, disk=2 * 10**9))
