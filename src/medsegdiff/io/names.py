"""Names of classes and cases as names of files."""

from __future__ import annotations

import re

REFUSED = re.compile(r'[\\/:*?"<>|]+')
"""What some file system does not allow in a name."""


def file_name(name: str) -> str:
    """Make a name that every file system takes."""
    return REFUSED.sub("-", name)
