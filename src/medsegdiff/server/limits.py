"""How much a server takes, and how it is written: 1GB, 30m."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medsegdiff.errors import ConfigError

BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Limits:
    """What is refused beyond."""

    upload: int = 10**9
    """Bytes of a request; what is in an archive may be as large unpacked."""
    voxels: int = 300_000_000
    """Of an image, all channels together."""
    files: int = 5000
    """Of a request, those in archives too."""
    queue: int = 32
    """Jobs that wait, of all users together."""
    keep: float = 3600.0
    """Seconds that a job is kept after it has ended."""


def bytes_of(text: str) -> int:
    """Read a size such as ``1GB``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in BYTES or float(found[1]) <= 0:
        raise ConfigError(f"--max-upload is {text}; allowed are sizes such as 500MB, 1GB or 2GiB.")
    return int(float(found[1]) * BYTES[found[2]])


def seconds_of(text: str) -> float:
    """Read a duration such as ``1h``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip().lower())
    if found is None:
        raise ConfigError(f"--keep is {text}; allowed are durations such as 90s, 30m, 1h or 7d.")
    return float(found[1]) * SECONDS[found[2]]
