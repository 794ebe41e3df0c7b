"""Names of users in pictures: matplotlib has a language of its own, and names are not written in it."""

from __future__ import annotations


def literal(name: str, *, most: int = 60) -> str:
    """Write a name so that it is drawn as it is: dollars make no formula of it, and what is no text becomes ``?``.

    Of one that is longer than ``most`` letters the beginning and the end are left.
    """
    if len(name) > most:
        name = f"{name[: most // 2]}…{name[1 - most + most // 2 :]}"
    return name.encode(errors="replace").decode().replace("$", r"\$")
