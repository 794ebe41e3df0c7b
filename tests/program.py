"""The program as a user types it, run in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medsegdiff import cli
from tests.makers import SMALL

SETS = [part for value in SMALL for part in ("--set", value)]
"""Options that make the network of a command small."""


def call(*arguments: str | Path) -> int:
    """Run a command and give its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medsegdiff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
    return int(ended.value.code or 0)
