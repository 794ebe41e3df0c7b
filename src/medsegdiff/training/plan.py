"""What training would do, before it does it: the recipe of another run, and the configuration completed by the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from accelerate import PartialState

from medsegdiff.config.load import load_preset, make_config
from medsegdiff.config.run import Config, Precision, TrainConfig
from medsegdiff.config.spec import DataSpec, ResolvedConfig, resolved
from medsegdiff.data.dataset import DataInfo, DataSource, Track, no_progress
from medsegdiff.data.fingerprint import check_neighbours, normalisation_of
from medsegdiff.data.open import open_source
from medsegdiff.data.split import Before
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.errors import ConfigError, some
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.hardware import on_cpu, pick_device, pick_precision
from medsegdiff.models.base import MODELS, SUPERVISIONS, ModelFacts
from medsegdiff.models.checkpoint import load_config
from medsegdiff.models.packed import packed_facts
from medsegdiff.training.origin import told_of
from medsegdiff.training.run import Run

Asked = TypeVar("Asked", bound=Config)


@dataclass(frozen=True)
class Plan:
    """What training would do: the data, and the configuration completed by them."""

    source: DataSource
    config: ResolvedConfig


def plan(
    data: str | Path,
    config: Config,
    *,
    device: str | None = None,
    begun: ResolvedConfig | None = None,
    before: Before | None = None,
    track: Track = no_progress,
) -> Plan:
    """Look at the data and complete the configuration.

    A run that is resumed goes on normalising as it ``begun``. Cases stay in the part that they had ``before``, in the
    run that training starts with, unless the data tell of another.
    """
    source = open_source(data, config.data, before=before, track=track)
    check_neighbours(source.info, config.data)
    check_sampling(config)
    state = PartialState(cpu=on_cpu(device))
    precision = pick_precision(config.train.precision, state.device)
    if precision == "fp16" and config.train.sharding:
        raise ConfigError("train.sharding does not scale a loss, which fp16 needs. Set train.precision=fp32.")
    config = with_precision(config, precision)
    if config.loss.recycled and state.num_processes > 1:
        raise ConfigError(
            f"loss.recycled is {config.loss.recycled:g}, and there are {state.num_processes} processes, which would "
            "make different forward passes. Set loss.recycled=0, or train in one process."
        )
    return Plan(source, resolve(source, config, where=data, begun=begun, track=track))


def with_precision(config: Asked, precision: Precision) -> Asked:
    """Compute in another precision."""
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})


def resolve(
    source: DataSource,
    config: Config,
    *,
    where: str | Path,
    begun: ResolvedConfig | None = None,
    track: Track = no_progress,
) -> ResolvedConfig:
    """Check what is asked of the data against what they tell, and put both together."""
    info = source.info
    _check_asserted(info, config, where)
    asked = config.data
    if begun is not None:  # where the user asks for something else, the run refuses it later
        kept = {"modalities": begun.spec.modalities, "window": begun.spec.window}
        asked = asked.model_copy(update={key: value for key, value in kept.items() if getattr(asked, key) is None})
    modalities, window = normalisation_of(source, asked, track=track)
    spec = DataSpec(
        labels=info.labels,
        channels=info.channels,
        modalities=modalities,
        window=window,
        plane=info.plane,
        channel_files=info.channel_files,
        layout=info.layout,
        raters=len(info.raters),
    )
    return resolved(config, spec)


def _check_asserted(info: DataInfo, config: Config, where: str | Path) -> None:
    asked, labels = config.data, info.labels
    for key, given, found in (("task", asked.task, labels.task), ("channels", asked.channels, info.channels)):
        if given is not None and given != found:
            raise ConfigError(
                f"data.{key} is {given!r}, but the data in {where} are {found!r}. Leave it out, or change the data."
            )


def check_sampling(config: Config) -> None:
    """Find out now, not at the first validation, whether samples can be drawn and fused as asked."""
    schedule = schedule_of(config.diffusion)
    for steps in (config.sampling.steps, config.train.val_steps):
        table_of(config.sampling.model_copy(update={"steps": steps}), schedule)
    FUSERS[config.sampling.fusion]
    facts = MODELS[config.model.name].facts
    if config.train.draws > 1 and not facts.condition_cached:
        raise ConfigError(
            f"train.draws is {config.train.draws}; the network '{config.model.name}' looks at the image anew for each "
            "noisy mask, so more of them at a look are not possible. Set train.draws=1."
        )
    if config.train.anchor_alone and (not _has_own_anchor(facts) or config.train.sharding):
        raise ConfigError(
            f"train.anchor_alone is {config.train.anchor_alone:g}; the network '{config.model.name}' has no anchor "
            "that can learn by itself, or is split over processes (train.sharding). Set train.anchor_alone=0."
        )
    _check_supervision(config)
    learned = getattr(config.model, "learn_sigma", False)
    if config.diffusion.residual and (not _has_own_anchor(facts) or learned):
        raise ConfigError(
            "diffusion.residual adds to what an anchor says of the image alone, and to nothing else; the network "
            f"'{config.model.name}' has no such anchor, is nothing but one, or learns the variance too. "
            "Set diffusion.residual=false."
        )
    if config.loss.recycled and config.diffusion.target != "x0":
        raise ConfigError(
            f"loss.recycled is {config.loss.recycled:g}, but what a network says of {config.diffusion.target} tells of "
            "the mask that x_t was made of, which then is not the rater's. Set diffusion.target=x0, or loss.recycled=0."
        )


def _check_supervision(config: Config) -> None:
    """Refuse a loss that there is not, or that compares what the network does not say."""
    asked, network = config.loss.supervision, config.model.name
    if asked is None:
        return
    facts = SUPERVISIONS[asked].facts
    if not MODELS[network].facts.has_anchor or facts.get("of", network) != network:
        whose = f"of the network '{facts['of']}'" if "of" in facts else "of networks that segment by themselves"
        raise ConfigError(
            f"loss.supervision '{asked}' is {whose}; this is '{network}'. Set loss.supervision=null, or another."
        )


def _has_own_anchor(facts: ModelFacts) -> bool:
    """Tell whether there is an anchor that is the same whatever x_t, and something that adds to it."""
    return facts.has_anchor and facts.condition_cached and facts.kind == "diffusion"


Recipe = Literal["own", "common"]
"""How a preset is trained: as it says, or as V2 is."""
NO_LIMIT = 1_000_000_000
"""More steps than anybody makes."""
SCORED = 4
"""Samples of an image that are scored together."""


def default_preset(device: str | None = None) -> str:
    """Choose a preset by the device at hand."""
    return "v2-fast-tiny" if pick_device(device).type == "cpu" else "v2-fast"


def config_for(
    out: Path,
    *,
    preset: str | None = None,
    recipe: Recipe = "own",
    changes: Sequence[str] = (),
    minutes: float | None = None,
    resume: bool = False,
    start: Path | None = None,
    distill: bool = False,
    score: bool = False,
    device: str | None = None,
) -> Config:
    """Choose the configuration; ``minutes`` are the only limit of training where they are given.

    The ``recipe`` ``common`` trains whatever network with the optimizer, loss and augmentation of V2's fast presets.
    """
    if start and (resume or preset):
        raise ConfigError("--start takes network and settings from that run: leave --preset and --resume out.")
    if resume and preset:
        raise ConfigError("--resume goes on with the run's own configuration; leave --preset out. --set may extend it.")
    if distill and not start:
        raise ConfigError("--distill learns from a trained run: name it with --start RUN.")
    if score and (distill or not start):
        raise ConfigError("--score goes on with a trained run, best one that was distilled: name it with --start RUN.")
    timed = [] if minutes is None else [f"train.max_minutes={minutes}", f"train.max_steps={NO_LIMIT}"]
    if recipe == "common" and (resume or start):
        raise ConfigError("--recipe is that of a preset; --resume and --start take what their run has. Leave it out.")
    changes = [*(common_recipe(device) if recipe == "common" else ()), *changes, *timed]
    if start:
        if score:
            return _begun(start, [*_scored(start), *changes], one_step=True)
        return _begun(start, [*_distilled(start), *changes] if distill else changes)
    if resume and Run(out).imported:
        return _begun(out, changes)
    if resume:
        return make_config(load_config(out).asked.model_dump(mode="json"), changes)
    return load_preset(preset or default_preset("cpu" if device == "cpu" else None), changes)


def common_recipe(device: str | None = None) -> list[str]:
    """Change whatever a preset says of its recipe to that of V2's fast preset for the device: for fair comparisons."""
    v2 = load_preset(default_preset(device))
    of_training = ("optimizer", "betas", "learning_rate", "lr_schedule", "warmup_steps", "weight_decay")
    same = [("train", key) for key in (*of_training, "max_grad_norm", "ema_decay", "batch_size")]
    same += [("loss", key) for key in ("beta", "batch_dice", "supervision")]
    same += [("data", key) for key in ("augment", "augmentation")]
    told = [(section, key, getattr(getattr(v2, section), key)) for section, key in same]
    return [f"{section}.{key}={json.dumps(value)}" for section, key, value in told]


def _distilled(teacher: Path) -> list[str]:
    """Make a run learn from another, in a quarter of its steps."""
    named = json.dumps(str(teacher.resolve()), ensure_ascii=False)
    return [f"train.teacher={named}", *_in_one_step(load_config(teacher).train, share=4)]


def _scored(start: Path) -> list[str]:
    """Make a run learn by its score: as long as its distillation took, or a quarter of its steps."""
    before = load_config(start).train
    asked = [f"train.score_members={before.score_members or SCORED}", "train.teacher=null"]
    return [*asked, *_in_one_step(before, share=1 if before.one_step else 4)]


def _in_one_step(before: TrainConfig, *, share: int) -> list[str]:
    """Shorten training, and sample in one step."""
    time = [] if before.max_minutes is None else [f"train.max_minutes={before.max_minutes / share}"]
    return [
        f"train.max_steps={max(1, before.max_steps // share)}",
        f"train.warmup_steps={before.warmup_steps // share}",
        f"train.val_every={max(1, before.val_every // share)}",
        *time,
        "train.val_steps=1",
        "train.snapshots=0",
        "train.anchor_alone=0",
        "sampling.steps=1",
        "sampling.spacing=trailing",
    ]


def _begun(start: Path, changes: Sequence[str], *, one_step: bool = False) -> Config:
    """Take a run's settings, but for what its data told and where its machine kept them.

    One that samples in one step may only go on to do so.
    """
    config = load_config(start)
    if config.train.one_step and not one_step:
        source = _source(start, config.train.teacher)
        raise ConfigError(
            f"{start} was {config.train.one_step}: other training would undo what it has learned. Start with {source} "
            "and distil what comes of it; or train it on with --score."
        )
    asserted = {"channels", "task", "classes", "layout", "modalities", "window"}
    left = {"data": asserted | {"cache_dir"}, "model": {"weights"}}
    values = config.asked.model_dump(mode="json", exclude=left)
    begun = make_config(values, changes)
    if files := getattr(begun.model, "weight_files", ()):
        raise ConfigError(
            f"model.weights is {some(files)}; --start takes the weights of {start}. Leave one of them out."
        )
    return begun


def _source(run: Path, teacher: str | None) -> str:
    """Say what a run that samples in one step was made of; a path counts on the machine that it was made on alone."""
    if teacher is None:
        return "the run that it was made of"
    if not packed_facts(run) and Path(teacher).is_dir():
        return f"its teacher, {teacher},"
    name = told_of(run).get("started_from", {}).get("name")
    return f"{name}, from which it was distilled," if name else "the run that it was distilled from"


def find_config(what: str, changes: Sequence[str] = ()) -> Config:
    """Find what a name stands for: the folder of a run, a preset, or a YAML file."""
    if Path(what).is_dir():
        return make_config(load_config(Path(what)).asked.model_dump(mode="json"), changes)
    if "/" in what and not what.endswith((".yaml", ".yml")):
        raise ConfigError(f"{what}: there is no such folder. Name the folder of a run, a preset or a YAML file.")
    return load_preset(what, changes)
