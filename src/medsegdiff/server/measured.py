"""What a server counts, for Prometheus: nothing that tells of users or images."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (1, 3, 10, 30, 60, 180, 600, 1800)


class Measured:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._ended = Counter("medsegdiff_jobs", "Jobs that have ended", ["state"], registry=self.registry)
        self._refused = Counter("medsegdiff_refused", "Requests not met", ["status"], registry=self.registry)
        self._seconds = Histogram("medsegdiff_job_seconds", "Time of a job", buckets=SECONDS, registry=self.registry)

    def follow(self, name: str, what: str, count: Callable[[], float]) -> None:
        """Ask for a number whenever somebody looks."""
        Gauge(f"medsegdiff_{name}", what, registry=self.registry).set_function(count)

    def ended(self, state: str, seconds: float) -> None:
        """Count a job."""
        self._ended.labels(state).inc()
        self._seconds.observe(seconds)

    def refused(self, status: int) -> None:
        """Count a request."""
        self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """Write all of it."""
        return generate_latest(self.registry)
