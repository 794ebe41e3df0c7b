"""Tests check the types of what they call, and the shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from medsegdiff.fusion.fusers import Fused
from medsegdiff.nn.nbp_filter import softmax_affinity
from medsegdiff.seeding import derive_seed

TOKENS = torch.ones(1, 4, 4)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: softmax_affinity(TOKENS, torch.ones(1, 8, 4)), TypeCheckError),
        (lambda: softmax_affinity(TOKENS.long(), TOKENS.long()), TypeCheckError),
        (lambda: Fused(torch.ones(4, 4)), TypeCheckError),
        (lambda: derive_seed(0.5), BeartypeCallHintViolation),
    ],
    ids=["axes that differ", "kind of numbers", "fields of a dataclass", "no array at all"],
)
def test_a_call_that_its_signature_does_not_allow_is_an_error(
    call: Callable[[], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call()
