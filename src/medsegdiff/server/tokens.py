"""Who may ask: a file of tokens, one for each user, who sees the jobs made with it and no others."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from medsegdiff.errors import ConfigError

SHORTEST = 16
"""Letters of a token, at least."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of users; without any, everybody is the same user."""

    users: dict[bytes, str] = field(default_factory=dict)
    """Hash of a token → name of its user."""

    @classmethod
    def read(cls, file: Path) -> Tokens:
        """Read a file with a line for each user: a token, or a name and a token."""
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{file}: can't be read ({error}). Write a token of {SHORTEST} letters a line."
            ) from error
        users: dict[bytes, str] = {}
        for number, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) > 2 or len(words[-1]) < SHORTEST:
                raise ConfigError(
                    f"{file}, line {number}: expected is a token of {SHORTEST} letters at least, or a name and a token."
                )
            digest = _digest(words[-1])
            users[digest] = words[0] if len(words) > 1 else digest.hex()[:12]
        if not users:
            raise ConfigError(f"{file}: holds no token. Write one a line, of {SHORTEST} letters at least.")
        return cls(users)

    def user(self, authorization: str | None) -> str | None:
        """Tell whose token a header ``Authorization`` has; ``None``: nobody's."""
        if not self.users:
            return ""
        kind, _, token = (authorization or "").partition(" ")
        given = _digest(token.strip()) if kind.lower() == "bearer" else b""
        found = [name for known, name in self.users.items() if hmac.compare_digest(known, given)]
        return found[0] if found else None


def check_host(host: str, tokens: Tokens) -> None:
    """Refuse to be seen by other machines without knowing who asks."""
    if not tokens.users and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, and nobody is asked for a token. "
            "Add --token-file FILE, or stay on --host 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Tell whether a name is that of this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
