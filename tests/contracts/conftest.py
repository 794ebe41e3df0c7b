"""What the contracts share: every registered network by name."""

from __future__ import annotations

import pytest

from medsegdiff.models.base import MODELS


@pytest.fixture(params=[entry.name for entry in MODELS])
def name(request: pytest.FixtureRequest) -> str:
    return request.param
