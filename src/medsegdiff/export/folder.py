"""Exporting a run: graphs, and what belongs to them, into a folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Unpack

import torch

from medsegdiff.config.diffusion import SamplingConfig, SamplingOptions
from medsegdiff.errors import CheckpointError, ConfigError, MedSegDiffError, some
from medsegdiff.export.onnx import check_library, write_onnx
from medsegdiff.export.programs import Program, programs_of
from medsegdiff.export.sample import Sample, write_trial
from medsegdiff.export.telling import facts_of, grid_of, judged_of
from medsegdiff.fusion.whole import WHOLE
from medsegdiff.inference import calibration, quality
from medsegdiff.inference.request import Request
from medsegdiff.inference.runs import Trained, quality_of
from medsegdiff.io.atomic import atomic_path, content_replaced, names_in, write_json
from medsegdiff.io.graphs import Graph
from medsegdiff.io.hashes import sha256_of
from medsegdiff.models.checkpoint import CONFIG, Weights, save_config
from medsegdiff.runtime.facts import LOOK, MEAN, SECTION, STEP, Facts
from medsegdiff.runtime.trial import FILE as TRIAL
from medsegdiff.runtime.trial import check

Format = Literal["onnx", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
FUSIONS = ("mean", "majority", *WHOLE)
"""That need no torch."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    facts: Facts
    bytes: dict[str, int]
    """Of each graph."""
    apart: float | None
    """By how much graphs and PyTorch differ; ``None`` where they were not compared."""


def export_run(
    folder: Path,
    out: Path,
    *,
    to: Format = "onnx",
    size: tuple[int, int] | None = None,
    weights: Weights = "best",
    overwrite: bool = False,
    noted: Callable[[str], None] = log.info,
    **options: Unpack[SamplingOptions],
) -> Exported:
    """Write a run as graphs.

    Args:
        folder: What ``medsegdiff train --out`` wrote.
        out: The folder to write.
        to: ``onnx``, or ``torch-export``.
        size: Of the grid, of a run that takes images as they are.
        weights: Which weights of the run.
        overwrite: Whether what was exported there before may go.
        noted: Told what is left out.
        **options: ``steps``, ``sampler``, ``spacing``, ``members`` and so on, which become the defaults.

    Returns:
        What was written.

    Raises:
        ConfigError: If the run can't be exported, or the folder is not free.
    """
    if to == "onnx":
        check_library()
    _check_room(out, overwrite=overwrite)
    run = Trained.load(folder, weights=weights)
    sampling = _sampling(run, options)
    facts = facts_of(run, sampling, grid=grid_of(run.config, run.model.stride, size))
    sample, suffix = Sample.of(facts), SUFFIXES[to]
    with content_replaced(out, lambda: _files(out)) as new:
        with _worded(run.config.model.name):
            for program in programs_of(run, facts, sample):
                _write(program, new / f"{program.name}{suffix}", to)
        if quality_of([run]) is not None and judged_of(run, sampling) is None:
            noted(
                f"The runtime's intervals of sizes are those that training fitted: {quality.FILE} is of masks that are "
                "cleaned, or drawn or fused in another way."
            )
        if not facts.once:
            noted(f"There is no {MEAN}{suffix}: the network predicts noise, from which one step tells no mask.")
        written = _finish(run, sampling, facts, sample, folder, new, suffix)
    return replace(written, folder=out)


def _sampling(run: Trained, options: SamplingOptions) -> SamplingConfig:
    """Settle how members are drawn, and refuse what graphs can't do."""
    if run.snapshots:
        raise ConfigError(
            f"The run has {len(run.snapshots)} snapshots, further weights that its members share out; a graph has one "
            "set of weights. Export a run that was trained with train.snapshots=0."
        )
    if not any(True for _ in run.model.parameters()):
        raise ConfigError("This is an exported run already. Give the folder that 'medsegdiff train --out' wrote.")
    request = Request.of(run.config, **options)
    if request.sampling.fusion not in FUSIONS:
        raise ConfigError(
            f"The run fuses by '{request.sampling.fusion}', which is a plug-in; exported runs know "
            f"{', '.join(FUSIONS)}. Ask for one of them: --fusion dice."
        )
    return request.sampling


def _write(program: Program, path: Path, to: Format) -> None:
    if to == "onnx":
        names = {"inputs": program.inputs, "outputs": program.outputs}
        write_onnx(program.program, path, **names, axis=program.axis)
        return
    with atomic_path(path) as part:
        torch.export.save(program.program, part)


def _finish(
    run: Trained, sampling: SamplingConfig, facts: Facts, sample: Sample, folder: Path, out: Path, suffix: str
) -> Exported:
    """Write what belongs to the graphs, the configuration last: a folder that has one is whole."""
    write_trial(run, facts, sample, out)
    for name in (calibration.FILE, quality.FILE):
        if (folder / name).is_file() and run.origin is not None and run.origin.weights == "best":
            shutil.copyfile(folder / name, out / name)
    files = {name: out / f"{name}{suffix}" for name in (LOOK, STEP, MEAN) if (out / f"{name}{suffix}").is_file()}
    facts = replace(facts, sha256={name: sha256_of(file) for name, file in files.items()})
    apart = check(out, facts, Graph(files[LOOK]), Graph(files[STEP])) if suffix == SUFFIXES["onnx"] else None
    save_config(out, run.config.model_copy(update={"sampling": sampling}))
    told = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    write_json(out / CONFIG, {**told, SECTION: facts.told()})
    return Exported(out, facts, {name: file.stat().st_size for name, file in files.items()}, apart)


def _files(out: Path) -> list[Path]:
    """List what an export has written."""
    graphs = (f"{name}{suffix}" for name in (LOOK, STEP, MEAN) for suffix in SUFFIXES.values())
    return [out / name for name in (CONFIG, *graphs, TRIAL, calibration.FILE, quality.FILE)]


def _check_room(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder with anything else than an export, and that too unless it may go."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder.")
    there = names_in(out)
    if not there:
        return
    known = {path.name for path in _files(out)}
    if strange := [name for name in there if name not in known]:
        raise ConfigError(f"{out} holds {some(strange)}, which no export wrote. Choose another folder.")
    if not any((out / f"{LOOK}{suffix}").is_file() for suffix in SUFFIXES.values()):
        raise ConfigError(f"{out} holds {some(there)}, perhaps of a run. Choose another folder.")
    if not overwrite:
        raise ConfigError(
            f"{out} holds an exported run already. Add --overwrite to replace it, or choose another folder."
        )


@contextmanager
def _worded(network: str) -> Iterator[None]:
    """Say which network it is that the libraries can't write."""
    try:
        yield
    except (MedSegDiffError, OSError, KeyboardInterrupt):
        raise
    except Exception as error:
        log.debug("Exporting %s", network, exc_info=error)
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"The network {network} can't be written as a graph: {first} Networks of MedSegDiff-V2 can; others segment "
            "with the run itself."
        ) from error
