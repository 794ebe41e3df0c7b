from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from medsegdiff.diffusion import noise
from medsegdiff.diffusion.noise import FirstNoise, MemberNoise, randn
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


def test_noise_of_a_member_does_not_depend_on_how_many_there_are_or_when_it_is_drawn() -> None:
    few, many = ([("a", number) for number in range(count)] for count in (2, 11))
    assert torch.equal(MemberNoise(3, many, (2, 5, 3), device=CPU)()[:2], MemberNoise(3, few, (2, 5, 3), device=CPU)())
    first, second = MemberNoise(3, few, (1, 4, 4), device=CPU), MemberNoise(3, few, (1, 4, 4), device=CPU)
    before = [first() for _ in range(2)]  # one after the other …
    between = [draw() for draw in (second, MemberNoise(4, many, (1, 4, 4), device=CPU), second)]  # … or by turns
    assert torch.equal(before[0], between[0])
    assert torch.equal(before[1], between[2])
    assert not torch.equal(before[0], before[1])


def test_slices_of_a_volume_that_share_noise_have_it_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(addresses: Sequence[tuple[int, int]], shape: Sequence[int], **options: Any) -> torch.Tensor:
        drawn.append(len(addresses))
        return randn(addresses, shape, **options)

    monkeypatch.setattr(noise, "randn", counted)
    first, members = FirstNoise(), [("volume", number) for number in range(3)]

    def begun(chunk: list[tuple[str, int]], shape: tuple[int, int, int] = (1, 4, 4)) -> torch.Tensor:
        return MemberNoise(0, chunk, shape, device=CPU, first=first)()

    alone = MemberNoise(0, members, (1, 4, 4), device=CPU)()
    drawn.clear()
    assert torch.equal(begun([*members[:2], *members[:2]]), alone[[0, 1, 0, 1]])  # two slices
    assert torch.equal(begun(members[2:]), alone[2:])  # the rest of their members
    assert torch.equal(begun(members), alone)  # the next slice
    assert drawn == [2, 1]
    assert begun(members, (1, 5, 5)).shape == (3, 1, 5, 5)  # a slice of another size
    assert not torch.equal(begun([("other", 0)]), alone[:1])
    assert drawn == [2, 1, 3, 1]
    assert len(first.kept) == 1  # of the last image alone


def test_images_members_and_steps_have_nothing_in_common() -> None:
    members = [(f"image {image}", number) for image in range(4) for number in range(4)]
    draw = MemberNoise(0, members, (1, 128, 128), device=CPU)
    drawn = torch.cat([draw() for _ in range(3)]).flatten(1)  # 48 noises
    spread = 1 / drawn.shape[1] ** 0.5
    assert float(drawn.mean(dim=1).abs().max()) < 4 * spread
    assert float((drawn.var(dim=1) - 1).abs().max()) < 4 * 2**0.5 * spread
    correlations = torch.corrcoef(drawn)[*torch.triu_indices(48, 48, offset=1)]
    assert float(correlations.abs().max()) < 4.5 * spread  # the largest of 1128 is seldom more
    assert 0.9 < float(correlations.std()) / spread < 1.1


def test_noise_is_that_of_earlier_versions() -> None:
    """Since Philox; drawn with Python's integers and doubles alone, as `made_with` tells."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert derive_seed(0, "member", "lesion") == golden["key"]
    draw = MemberNoise(0, [("lesion", 0), ("lesion", 1)], (1, 1, 6), device=CPU)
    for expected in golden["draws"]:
        torch.testing.assert_close(draw().flatten(1), torch.tensor(expected), rtol=0, atol=1e-6)


def test_seeds_distinguish_parts_that_would_read_alike() -> None:
    assert derive_seed(1, "2") != derive_seed("12")
    assert derive_seed("a", "b") != derive_seed("ab")
    assert 0 <= derive_seed(5, "x") < 2**63
