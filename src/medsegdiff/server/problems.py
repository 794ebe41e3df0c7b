"""What is answered to requests that can't be met: a status of HTTP, and words."""

from __future__ import annotations

from pydantic import BaseModel


class Problem(BaseModel):
    """What went wrong, in words: what was given, what is allowed, what to do."""

    error: str


class Refusal(Exception):  # noqa: N818 - it is an answer
    """A request is not met."""

    def __init__(self, status: int, words: str, *, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.retry_after = status, words, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Those that go with it."""
        told = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        return told | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
