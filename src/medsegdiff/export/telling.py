"""What an exported run tells of itself: its settings, tables and calibration as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import Table
from medsegdiff.diffusion.schedule import Level
from medsegdiff.diffusion.spacing import make_table, table_of, tells_nothing
from medsegdiff.errors import ConfigError
from medsegdiff.inference.quality import QualityModel
from medsegdiff.inference.runs import Trained, quality_of
from medsegdiff.inference.walk import mirrors_of, telling_times
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.runtime.facts import Facts, Images, Probability, Row, Sampling


def facts_of(run: Trained, sampling: SamplingConfig, *, grid: tuple[int, int]) -> Facts:
    """Tell all that segmenting takes beside the graphs."""
    config, process = run.config, Process.of(run.config)
    table = table_of(sampling, process.schedule)
    spec, fitted = config.spec, run.calibration.as_for(sampling, volumes=bool(config.spec.plane))
    judged = judged_of(run, sampling)
    return Facts(
        network=config.model.name,
        image=_images(config, stride=run.model.stride, grid=grid),
        labels=spec.labels,
        coding=process.coding,
        table=_rows(table, process, pixels=math.prod(grid), together=sampling.spacing == "regions" and len(table) > 1),
        once=() if config.diffusion.target == "eps" else _rows(_once(sampling, process), process),
        sampling=Sampling(
            mode=sampling.mode,
            members=sampling.members,
            candidates=sampling.candidates,
            fusion=sampling.fusion,
            mirrors=tuple(mirrors_of(sampling, config)),
            antithetic=sampling.antithetic,
            shared_noise=sampling.shared_noise,
            batch_size=sampling.batch_size,
        ),
        probability=_probability(run, telling_times(table, process)),
        sizes=_sizes(fitted.stretch),
        judged=_sizes(judged.stretch) if judged is not None else {},
        judged_volumes=judged is not None and judged.volumes,
        raters=sampling.raters or spec.raters,
        dependence=run.calibration.dependence,
    )


def judged_of(run: Trained, sampling: SamplingConfig) -> QualityModel | None:
    """Take what ``medsegdiff calibrate`` has taught, if that holds of masks that are not cleaned."""
    known = quality_of([run])
    return known if known is not None and known.fits(sampling, {}) else None


def _sizes(stretch: Mapping[str, Stretch]) -> dict[str, tuple[float, float, float]]:
    return {name: (of.below, of.above, of.least) for name, of in stretch.items()}


def _images(config: ResolvedConfig, *, stride: int, grid: tuple[int, int]) -> Images:
    spec, data = config.spec, config.data
    return Images(
        channels=spec.channels,
        neighbours=data.neighbours,
        image_size=data.image_size,
        resize=data.resize,
        stride=stride,
        grid=grid,
        values=data.values,
        modalities=spec.modalities,
        window=spec.window,
        volumes=bool(spec.plane),
        plane=config.plane,
    )


def _once(sampling: SamplingConfig, process: Process) -> Table:
    """Write the table of a single step, which begins where there is no signal."""
    return make_table(sampling.sampler, process.schedule, num_steps=1, spacing=sampling.spacing)


def _rows(table: Table, process: Process, *, pixels: int = 0, together: bool = False) -> tuple[Row, ...]:
    """Write a table with the levels of its times; see `medsegdiff.inference.walk.Moments` for what is shared."""
    levels = [Level.of(process.schedule.lam_at(row.t)) for row in table]
    return tuple(
        Row(
            t=row.t,
            alpha=level.alpha,
            sigma=level.sigma,
            x=row.x,
            x_0=row.x_0,
            previous=row.previous,
            noise=row.noise,
            shared=together and number == 0 and tells_nothing(level.lam, pixels),
        )
        for number, (row, level) in enumerate(zip(table, levels, strict=True))
    )


def _probability(run: Trained, times: Sequence[float]) -> Probability:
    mixture = run.calibration.mixture
    return Probability(
        weight=mixture.weight,
        slopes=mixture.slopes,
        offsets=mixture.offsets,
        at=times[mixture.nearest(times)],
        cases=run.calibration.cases,
    )


def grid_of(config: ResolvedConfig, stride: int, asked: tuple[int, int] | None) -> tuple[int, int]:
    """Settle the size of the images that graphs are made for; a run that takes any size must be asked for one."""
    if config.data.resize != "none":
        if asked is not None:
            raise ConfigError(
                f"--size is for runs that take images as they are; this one scales them to {config.data.image_size} "
                f"pixels (data.resize {config.data.resize}). Leave it out."
            )
        return (config.data.grid_side(stride),) * 2
    if asked is None:
        raise ConfigError(
            "The run takes images as they are (data.resize none), and a graph has one size. Give it: --size 512x512; "
            "images of other sizes are then refused."
        )
    if any(side % stride for side in asked):
        raise ConfigError(f"--size is {asked[0]}x{asked[1]}; allowed are multiples of {stride}, the stride of the run.")
    return asked
