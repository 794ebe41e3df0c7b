r"""Random numbers by address: Philox 4×32-10 and the normal noise made of it; no state, no order, no device.

A number follows from what it is of (a key) and where it stands there (a counter) alone. Written out, so that any
other program draws the same:

* The key of 64 bits is `derive_seed` of the user's seed and of names; its words are (low, high), 32 bits each.
* The counter of four words is (block, member, draw, stream). Pixel p of a noise, counted through channels, rows and
  columns, is number p mod 4 of block ⌊p / 4⌋; draw 0 is the first noise of a member, 1 the next; the streams are
  `NOISE` and `INTEGER`.
* The words w_0 … w_3 of a block give its four numbers in pairs (Box & Muller), the first from w_0 and w_1, the second
  from w_2 and w_3: :math:`r = \sqrt{-2 \ln((w_0 + 1) / 2^{32})}`, :math:`\theta = 2 \pi w_1 / 2^{32}`, then
  :math:`r \cos\theta` and :math:`r \sin\theta`, in double precision, rounded to single at the end. No number is beyond
  6.66, which is :math:`\sqrt{64 \ln 2}`.
* An integer below n is :math:`\lfloor w_0 n / 2^{32} \rfloor` of block 0.

Source: Salmon, Moraes, Dror & Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, section 3.3;
Box & Muller (1958), A note on the generation of random normal deviates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from medsegdiff.types import Array, namespace

Word = Any
"""Integers in [0, 2^32): Python's, or an array or a tensor of 64-bit ones."""

NOISE, INTEGER = 0, 1

_MASK = 0xFFFFFFFF
_AT_ONCE = 2**15
"""Blocks, so many that the cache of a processor holds them."""


def philox(counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]) -> tuple[Word, Word, Word, Word]:
    """Scramble a counter by ten rounds of Philox 4×32.

    A product of two words fills 64 bits. A signed integer of 64 wraps around there, and its right shift brings
    copies of the sign along; the mask takes them off, so that the words are those of unsigned arithmetic.

    Source: Salmon et al. (2011), section 3.3 and table 2.

    Args:
        counter: Four words, which broadcast.
        key: Two words.

    Returns:
        Four words, each as random as the other.

    Example:
        >>> [hex(word) for word in philox((0, 0, 0, 0), (0, 0))]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((p1 >> 32) ^ c1 ^ k0) & _MASK, p1 & _MASK
        c2, c3 = ((p0 >> 32) ^ c3 ^ k1) & _MASK, p0 & _MASK
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85  # what grows beyond 32 bits the masks above take off
    return c0, c1, c2, c3


def box_muller(
    radius: Integer[Array, "*n"], angle: Integer[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Make two standard normal numbers of two words.

    Args:
        radius: Words in [0, 2^32).
        angle: Others.

    Returns:
        Two independent numbers, in single precision.
    """
    xp = namespace(radius)
    r = xp.sqrt(-2 * xp.log(xp.asarray(radius + 1, dtype=xp.float64) * 2.0**-32))
    theta = xp.asarray(angle, dtype=xp.float64) * (2 * math.pi * 2.0**-32)
    first, second = (xp.asarray(r * part, dtype=xp.float32) for part in (xp.cos(theta), xp.sin(theta)))
    return first, second


def randn(addresses: Sequence[tuple[int, int]], shape: Sequence[int], *, draw: int = 0) -> Float[np.ndarray, "n ..."]:
    """Draw standard normal noise for each address.

    Args:
        addresses: (key in [0, 2^63), number of the member) of each noise.
        shape: Of one noise.
        draw: Which noise of the member, from 0.

    Returns:
        One noise per address, in single precision; `medsegdiff.diffusion.noise.randn` draws the same on any device.

    Example:
        >>> randn([(7, 0), (7, 1)], (1, 8, 8)).shape
        (2, 1, 8, 8)
    """
    words = np.array(laid_out(addresses, draw=draw, stream=NOISE))
    return normal(words, shape, xp=np, at_once=_AT_ONCE)


def randint(addresses: Sequence[tuple[int, int]], high: int) -> Int[np.ndarray, " n"]:
    """Draw an integer in [0, high) for each address.

    Each has its probability 1 / high up to 2^-32.

    Args:
        addresses: (key in [0, 2^63), number of the member) of each integer.
        high: In [1, 2^31].

    Returns:
        The integers.
    """
    low, upper, *rest = np.array(laid_out(addresses, draw=0, stream=INTEGER)).T
    words = philox((np.zeros(1, np.int64), *rest), (low, upper))
    return np.asarray((words[0] * high) >> 32)


def laid_out(addresses: Sequence[tuple[int, int]], *, draw: int, stream: int) -> list[list[int]]:
    """Lay out the key and the last three words of the counter of each address."""
    return [[key & _MASK, key >> 32, member, draw, stream] for key, member in addresses]


def normal(
    words: Int[Array, "n 5"], shape: Sequence[int], *, xp: ModuleType, at_once: int, **where: Any
) -> Float[Array, "n ..."]:
    """Draw noise in either library, block by block.

    Args:
        words: From `laid_out`.
        shape: Of one noise.
        xp: The library, NumPy or PyTorch.
        at_once: Blocks of all addresses that are computed together.
        **where: For PyTorch, the ``device``.

    Returns:
        One noise per address.
    """
    size = math.prod(shape)
    count, (low, high, *rest) = -(-size // 4), words.T[..., None]  # (n, 1) each
    numbers = xp.empty((len(words), count, 4), dtype=xp.float32, **where)
    step = max(1, at_once // len(words))
    for start in range(0, count, step):
        block, part = xp.arange(start, min(start + step, count), **where), numbers[:, start : start + step]
        w0, w1, w2, w3 = philox((block, *rest), (low, high))
        part[..., 0], part[..., 1] = box_muller(w0, w1)
        part[..., 2], part[..., 3] = box_muller(w2, w3)
    return numbers.reshape(len(words), -1)[:, :size].reshape(-1, *shape)
