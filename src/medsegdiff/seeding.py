"""Randomness by name: a seed for every purpose, so that nothing depends on order, batches or processes."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Mix a seed with the names of what it is for.

    Args:
        *parts: The seed, then names: kind of randomness, image, member.

    Returns:
        A number in [0, 2^63).

    Example:
        >>> derive_seed(0, "noise", "lesion", 3) == derive_seed(0, "noise", "lesion", 3)
        True
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
