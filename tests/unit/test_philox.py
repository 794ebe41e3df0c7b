"""Philox 4×32-10: published answers, the same integers everywhere, and numbers that look as random as they should."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from medsegdiff.diffusion import noise
from medsegdiff.diffusion.philox import INTEGER, NOISE, box_muller, philox, randint, randn

CPU = torch.device("cpu")
ANSWERS = {  # counter, key → words: kat_vectors of Random123, lines "philox4x32 10"
    ((0, 0, 0, 0), (0, 0)): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)): (
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ),
}
KINDS: dict[str, Callable[[list[int]], object]] = {
    "int64 of numpy": lambda words: np.array(words, dtype=np.int64),
    "uint64 of numpy": lambda words: np.array(words, dtype=np.uint64),
    "torch": torch.tensor,
}


def by_halves(a: int, b: int) -> tuple[int, int]:
    """Upper and lower word of a product, by long multiplication of 16-bit halves, which needs no 64 bits at once."""
    (a1, a0), (b1, b0) = divmod(a, 2**16), divmod(b, 2**16)
    middle = a1 * b0 + (a0 * b0 >> 16)
    crossed = a0 * b1 + middle % 2**16
    return a1 * b1 + (middle >> 16) + (crossed >> 16), (crossed % 2**16 << 16) + a0 * b0 % 2**16


def by_the_paper(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Two multipliers on words 0 and 2, swapped, the others and the key's Weyl sequence mixed in."""
    words = counter
    for number in range(10):
        k = [(word + number * step) % 2**32 for word, step in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)]
        high_0, low_0 = by_halves(0xD2511F53, words[0])
        high_2, low_2 = by_halves(0xCD9E8D57, words[2])
        words = (high_2 ^ words[1] ^ k[0], low_2, high_0 ^ words[3] ^ k[1], low_0)
    return words


def sample_of(addresses: list[tuple[int, int]], size: int, draw: int = 0) -> np.ndarray:
    return randn(addresses, (size,), draw=draw).astype(np.float64)


@pytest.mark.parametrize(("question", "answer"), ANSWERS.items())
def test_the_words_are_those_that_its_authors_published(question: tuple, answer: tuple[int, ...]) -> None:
    assert by_the_paper(*question) == answer
    assert philox(*question) == answer
    for made in KINDS.values():
        counter, key = ([made([word]) for word in words] for words in question)
        assert tuple(int(word[0]) for word in philox(tuple(counter), tuple(key))) == answer


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_and_tensors_hold_the_integers_of_the_paper(kind: str) -> None:
    """Where a signed product overflows too: half of the words are near 2^31 and 2^32."""
    rng = np.random.default_rng(0)
    near = np.array([0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1])
    words = np.where(rng.random((6, 400)) < 0.5, rng.choice(near, (6, 400)), rng.integers(0, 2**32, (6, 400)))
    made = [KINDS[kind](row) for row in words.tolist()]
    got = np.array([np.asarray(word).astype(np.int64) for word in philox(tuple(made[:4]), tuple(made[4:]))])
    expected = [by_the_paper(tuple(column[:4]), tuple(column[4:])) for column in words.T.tolist()]
    assert np.array_equal(got.T, expected)


def test_every_number_is_the_one_that_its_address_says() -> None:
    """Written out in Python's own integers and doubles, as another program would do it."""
    key, shape = 0x0123456789ABCDEF, (2, 3, 5)  # 30 numbers: the last block is not used up
    for member, draw in ((0, 0), (3, 0), (2**32 - 1, 2), (1, 2**32 - 1)):
        got = randn([(key, member)], shape, draw=draw).ravel().tolist()
        expected = []
        for block in range(8):
            words = by_the_paper((block, member, draw, NOISE), (0x89ABCDEF, 0x01234567))
            for a, b in (words[:2], words[2:]):
                radius, angle = math.sqrt(-2 * math.log((a + 1) / 2**32)), 2 * math.pi * b / 2**32
                expected += [radius * math.cos(angle), radius * math.sin(angle)]
        assert got == pytest.approx(expected[:30], rel=2e-7, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_extreme_words_give_finite_numbers(kind: str) -> None:
    first, second = box_muller(KINDS[kind]([0, 2**32 - 1]), KINDS[kind]([0, 2**32 - 1]))
    assert first.tolist() == pytest.approx([math.sqrt(64 * math.log(2)), 0])
    assert second.tolist() == pytest.approx([0, 0])


def test_integers_are_those_that_their_addresses_say() -> None:
    addresses = [(5 + (7 << 32), 0), (2**63 - 1, 9)]
    words = [by_the_paper((0, member, 0, INTEGER), (key % 2**32, key >> 32))[0] for key, member in addresses]
    for high in (1, 1000, 2**31):
        assert randint(addresses, high).tolist() == [word * high // 2**32 for word in words]


def test_numbers_are_standard_normal() -> None:
    numbers = sample_of([(11, member) for member in range(16)], 2**16).ravel()  # 2^20
    n = len(numbers)
    for order, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10_170)):
        assert abs((numbers**order).mean() - moment) < 4 * math.sqrt(variance / n)  # E x^2k − (E x^k)²
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    assert 4.5 < np.abs(numbers).max() < math.sqrt(64 * math.log(2))


def test_the_four_words_are_uniform_in_their_upper_and_lower_bits() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    words = philox((torch.arange(2**18), zero, zero, zero), (zero + 1, zero + 2))
    for word in words:
        for bits in (word >> 24, (word >> 12) & 255, word & 255):
            assert stats.chisquare(torch.bincount(bits, minlength=256).numpy()).pvalue > 0.001


def test_steps_of_training_are_uniform() -> None:
    steps = randint([(key * 0x9E3779B97F4A7C15 % 2**63, 0) for key in range(100_000)], 1000)
    assert (int(steps.min()), int(steps.max())) == (0, 999)
    assert stats.chisquare(np.bincount(steps, minlength=1000)).pvalue > 0.01


def test_what_differs_in_one_part_of_the_address_is_independent() -> None:
    """Neighbouring keys, members and draws, pixels beside each other, the two of a pair, a key's halves swapped."""
    n, low, high = 2**18, 3, 5
    key = low + (high << 32)
    base = sample_of([(key, 1)], n)[0]
    others = {
        "key": sample_of([(key + 1, 1)], n)[0],
        "swapped": sample_of([(high + (low << 32), 1)], n)[0],
        "member": sample_of([(key, 2)], n)[0],
        "draw": sample_of([(key, 1)], n, draw=1)[0],
        "member and draw swapped": sample_of([(key, 0)], n, draw=1)[0],
    }
    others |= {f"{shift} pixels on": np.roll(base, shift) for shift in (1, 2, 3, 4, 8, 256)}
    for name, other in others.items():
        for power in (1, 2):  # the squares too: a pair shares its radius
            assert abs(np.corrcoef(base**power, other**power)[0, 1]) < 4 / math.sqrt(n), (name, power)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 30, 1001, 200_003])
def test_noise_of_an_address_is_the_same_beside_others(size: int) -> None:
    addresses = [(key, member) for key in (1, 2**40) for member in range(5)]
    together = randn(addresses, (1, size, 1), draw=1)
    for number, address in enumerate(addresses):
        assert np.array_equal(randn([address], (1, size, 1), draw=1)[0], together[number])


@pytest.mark.parametrize("size", [1, 30, 200_003])
def test_tensors_hold_the_noise_of_arrays(size: int) -> None:
    addresses = [(2**62 + 1, 0), (3, 2**32 - 1)]
    drawn = noise.randn(addresses, (size,), draw=2, device=CPU)
    torch.testing.assert_close(drawn, torch.from_numpy(randn(addresses, (size,), draw=2)), rtol=2e-7, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_noise_of_the_cpu() -> None:
    addresses = [(2**62 + 1, 0), (3, 2**32 - 1)]
    drawn = noise.randn(addresses, (1, 256, 256), draw=2, device=torch.device("cuda"))
    expected = noise.randn(addresses, (1, 256, 256), draw=2, device=CPU)
    torch.testing.assert_close(drawn.cpu(), expected, rtol=2e-7, atol=0)
