from __future__ import annotations

import json
from pathlib import Path

import torch

from medsegdiff.diffusion.noise import MemberNoise
from medsegdiff.seeding import derive_seed

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden" / "noise.json"


def test_noise_of_a_member_does_not_depend_on_its_batch_or_order() -> None:
    members = [("a", 0), ("b", 0), ("a", 1)]
    together = MemberNoise(3, members, (1, 4, 4), device=CPU)
    alone = MemberNoise(3, [("a", 1)], (1, 4, 4), device=CPU)
    turned = MemberNoise(3, members[::-1], (1, 4, 4), device=CPU)
    for _ in range(3):  # x_T, then what stochastic samplers add
        drawn = together()
        assert torch.equal(drawn[2:], alone())
        assert torch.equal(drawn.flip(0), turned())


def test_seed_image_and_member_each_make_other_noise() -> None:
    base = MemberNoise(0, [("a", 0)], (1, 4, 4), device=CPU)()
    for seed, member in ((1, ("a", 0)), (0, ("b", 0)), (0, ("a", 1))):
        assert not torch.equal(base, MemberNoise(seed, [member], (1, 4, 4), device=CPU)())


def test_noise_is_that_of_earlier_versions() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert derive_seed(0, "member", "lesion", 0) == golden["seed"]
    drawn = MemberNoise(0, [("lesion", 0)], (1, 1, 4), device=CPU)().flatten().tolist()
    assert [round(v, 5) for v in drawn] == golden["noise"]


def test_seeds_distinguish_parts_that_would_read_alike() -> None:
    assert derive_seed(1, "2") != derive_seed("12")
    assert derive_seed("a", "b") != derive_seed("ab")
    assert 0 <= derive_seed(5, "x") < 2**63
