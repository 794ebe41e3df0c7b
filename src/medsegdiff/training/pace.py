"""How many steps fit into a time: measured over the first of them."""

from __future__ import annotations

from statistics import median

WARM = 3
"""Steps that don't count: memory is asked for, workers start."""
MEASURED = 10
"""Steps that are measured, at most."""
SHARE = 0.1
"""Of the time, after which the number is settled though fewer were measured."""


class Pace:
    """Watches the first steps until it knows how many there will be.

    Example:
        >>> pace = Pace(60.0)
        >>> [pace.add(2.0) for _ in range(WARM + 1)]
        [None, None, None, 30]
    """

    def __init__(self, seconds: float, *, done: int = 0) -> None:
        """Start to watch."""
        self.seconds, self.done = seconds, done
        self.times: list[float] = []

    @property
    def step_seconds(self) -> float:
        """Median of the steps that count."""
        return median(self.times[WARM:])

    def add(self, seconds: float) -> int | None:
        """Take in a step."""
        self.times.append(seconds)
        spent, counting = sum(self.times), len(self.times) - WARM
        if counting < 1 or (counting < MEASURED and spent < SHARE * self.seconds):
            return None
        left = self.seconds - spent - self.done * self.step_seconds
        return self.done + len(self.times) + max(0, int(left / self.step_seconds))
