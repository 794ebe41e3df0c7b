"""The command that makes results again, as a person would type it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from medsegdiff.inference.record import Record


def command_of(record: Record, image: str, out: str) -> str:
    """Write it; models are named without their paths, so that it tells nothing of the machine."""
    runs = ",".join(record.models) or "RUN"
    words = ["medsegdiff", "segment", image, "--model", runs, "--out", out, *_options(record)]
    return shlex.join(words)


def _options(record: Record) -> Iterator[str]:
    weights = {run.weights for run in record.runs}
    if weights == {"last"}:
        yield from ("--weights", "last")
    if record.sampling is not None:
        yield from _of_sampling(record)
    yield from ("--seed", str(record.seed))
    for name, of in record.cleaning.items():
        yield from ("--keep", f"{name}={of.keep}") if of.keep != "all" else ()
        yield from ("--remove-below", f"{name}={of.remove_below.replace(' ', '')}") if of.remove_below else ()
        yield from ("--fill-holes-in", name) if of.fill_holes else ()


def _of_sampling(record: Record) -> Iterator[str]:
    asked = record.sampling
    assert asked is not None
    if asked.mode == "mean":
        yield from ("--mode", "mean")
        return
    yield from ("--members", str(record.members or asked.members))
    if asked.candidates is not None:
        yield from ("--candidates", str(asked.candidates))
    for option in ("steps", "sampler", "spacing", "fusion", "views"):
        yield from (f"--{option}", str(getattr(asked, option)))
    if not asked.shared_noise:
        yield from ("--slice-noise", "own")
