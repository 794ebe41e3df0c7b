"""What a user asks of a model: how many masks, how drawn and how fused. Checked once, then passed on whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Unpack

from pydantic import ValidationError

from medsegdiff.config.cleaning import Cleaning, by_structure
from medsegdiff.config.diffusion import SamplingConfig, SamplingOptions
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.diffusion.spacing import FEWEST_REGIONS, table_of
from medsegdiff.errors import ConfigError, nearest
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.inference.adaptive import ROUND
from medsegdiff.inference.ensemble import Turn, num_looks, pair
from medsegdiff.models.base import MODELS
from medsegdiff.types import Case

log = logging.getLogger(__name__)

AUTO: Literal["auto"] = "auto"
"""Stands for a number of members that each image decides."""
NUMBERS = ("members", "candidates", "steps", "batch_size")
ALLOWED = {"views": "1, 2, 4", "mode": "ensemble, mean", "shared_noise": "True, False"}
"""Values of options that are neither numbers nor names of a registry."""
MOST = 100
"""Members that an image may decide for."""
OF_ALL = ("members", "candidates", "fusion", "raters", "shared_noise", "antithetic")
"""What concerns an ensemble as a whole, whichever run draws a member."""


@dataclass(frozen=True)
class Request:
    """How images are segmented: what was asked, completed with what the model was made for."""

    sampling: SamplingConfig
    """Where each image decides about its members: with the most that there may be."""
    by_run: tuple[SamplingConfig, ...]
    """How each run draws the members whose turn is its own; of one run, ``sampling``."""
    auto: bool = False
    """Whether each image decides how many members it needs."""
    seed: int = 0
    raters: int = 1
    """Whose majority the mask shall match."""
    batch_asked: bool = False
    """Whether the size of batches was asked for; else a GPU takes what fits."""
    cleaning: Mapping[str, Cleaning] = field(default_factory=dict)
    """By structure; nothing of those that are not cleaned."""
    cleaned: Literal["all", "pictures", "volumes"] = "all"
    """What is: what calibration has learned of pictures is not done to volumes, and the other way round."""

    @classmethod
    def of(cls, config: ResolvedConfig, *others: ResolvedConfig, **options: Unpack[SamplingOptions]) -> Request:
        """Complete what is asked with the defaults of a model, or of several, and refuse what makes no sense."""
        if strange := [name for name in options if name not in SamplingOptions.__annotations__]:
            known = list(SamplingOptions.__annotations__)
            raise TypeError(f"There is no option '{strange[0]}' of segmenting.{nearest(strange[0], known)}")
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        seed, auto = given.pop("seed", 0), given.get("members") == AUTO
        cleaning = by_structure(given.pop("cleaning", None), config.spec.labels.structures)
        if auto:
            given["members"] = MOST
        given |= {name: _checked(name, value) for name, value in given.items() if name in (*NUMBERS, *ALLOWED)}
        if others:
            sampling, by_run = _shared((config, *others), given, auto=auto)
        else:
            by_run = (sampling := _settled(config, given, auto=auto),)
        FUSERS[sampling.fusion]  # what is unknown or impossible shows before the work, not after it
        for run, of in zip(by_run, (config, *others), strict=True):
            table_of(run, schedule_of(of.diffusion))
        for told in dict.fromkeys(map(_doubt, by_run, (of.train.one_step for of in (config, *others)))):
            if told:
                log.warning("%s", told)
        raters, asked = sampling.raters or config.spec.raters, "batch_size" in given
        return cls(sampling, by_run, auto, seed, raters, asked, cleaning)

    def with_cleaning(self, learned: Mapping[str, Cleaning], *, volumes: bool) -> Request:
        """Clean as calibration has learned it, of volumes or of pictures."""
        return replace(self, cleaning=learned, cleaned="volumes" if volumes else "pictures")

    def cleaning_of(self, case: Case) -> Mapping[str, Cleaning]:
        """Tell what is cleaned of the masks of an image."""
        kind = "volumes" if case.image.ndim == 4 else "pictures"
        return self.cleaning if self.cleaned in ("all", kind) else {}

    def with_members(self, number: int) -> Request:
        """Settle the number of members."""
        return replace(self._with(members=number, candidates=None), auto=False)

    def with_fusion(self, fusion: str) -> Request:
        """Fuse otherwise."""
        return self._with(fusion=fusion)

    def with_steps(self, number: int) -> Request:
        """Take another number of steps, however few, without a word: for measuring, not for results."""
        return self._with(steps=number)

    def _with(self, **changed: Any) -> Request:
        by_run = tuple(sampling.model_copy(update=changed) for sampling in self.by_run)
        return replace(self, sampling=self.sampling.model_copy(update=changed), by_run=by_run)

    @property
    def once(self) -> bool:
        """Whether each of several runs is one member: its probability."""
        return len(self.by_run) > 1 and self.by_run[0].mode == "mean"

    def turn(self, number: int) -> Turn:
        """Tell which members the run of this number draws; one that draws none for others looks for itself."""
        return Turn() if self.once else Turn(number, len(self.by_run))

    @property
    def members(self) -> int | Literal["auto"]:
        """What is drawn for each image."""
        return AUTO if self.auto else self.sampling.members


def _checked(name: str, value: Any) -> Any:
    """Take a value that an option may have, and refuse others."""
    try:
        return getattr(SamplingConfig.model_validate({"members": 1, name: value}), name)
    except ValidationError:
        if name in ALLOWED:
            raise ConfigError(f"{name} is {value!r}; allowed are {ALLOWED[name]}.") from None
        also = f", or '{AUTO}'" if name == "members" else ""
        raise ConfigError(f"{name} is {value!r}; it must be at least 1{also}; numbers are whole.") from None


def _settled(config: ResolvedConfig, given: dict[str, Any], *, auto: bool) -> SamplingConfig:
    """Complete what is asked of one run; its ``eta`` is that of its own sampler."""
    other = given.get("sampler", config.sampling.sampler) != config.sampling.sampler
    asked = {**given, "eta": 0.0} if other else given
    sampling = _chosen(config.sampling.model_copy(update=asked), given, auto=auto)
    if sampling.mode != "mean":
        return sampling
    sampling = _in_one_step(sampling, given, target=config.diffusion.target)
    return sampling.model_copy(update={"members": num_looks(sampling, config)})


Shared = tuple[SamplingConfig, tuple[SamplingConfig, ...]]
"""Of an ensemble, and of each run that has a part in it."""


def _shared(configs: Sequence[ResolvedConfig], given: dict[str, Any], *, auto: bool) -> Shared:
    """Complete what is asked of several runs: what concerns all their members is as the first one's, unless asked."""
    constant = [MODELS[config.model.name].facts.kind == "deterministic" for config in configs]
    means = [given.get("mode", config.sampling.mode) == "mean" for config in configs]
    once = [of or other for of, other in zip(constant, means, strict=True)]
    if all(once):
        return _one_each(configs, given, auto=auto, drawn=all(constant))
    if any(once):
        kinds = zip(configs, once, strict=True)
        told = ", ".join(f"{config.model.name} {'one probability' if of else 'members'}" for config, of in kinds)
        raise ConfigError(
            f"These runs make no ensemble together: of an image gives {told}. Take runs of one kind, or mode mean, in "
            "which each is one member: its probability."
        )
    first = {name: getattr(configs[0].sampling, name) for name in OF_ALL}
    alike = (config.model_copy(update={"sampling": config.sampling.model_copy(update=first)}) for config in configs)
    by_run = tuple(_settled(config, given, auto=auto) for config in alike)
    _check_enough(by_run, auto=auto)
    return by_run[0], by_run


def _check_enough(by_run: Sequence[SamplingConfig], *, auto: bool) -> None:
    """Refuse ensembles, or rounds of them, in which a run would have no turn."""
    fewest, members = len(by_run) * pair(by_run[0]), by_run[0].members
    if members < fewest:
        raise ConfigError(
            f"members is {members}; {len(by_run)} runs share out {fewest} at least. Ask for more, or give fewer runs."
        )
    if auto and fewest > ROUND:
        raise ConfigError(
            f"members {AUTO} draws {ROUND} at a time; {len(by_run)} runs share out {fewest} at least. Ask for a number."
        )


def _one_each(configs: Sequence[ResolvedConfig], given: dict[str, Any], *, auto: bool, drawn: bool) -> Shared:
    """Complete what is asked of runs that are one member each; ``drawn``: as good as drawn, and no means of masks."""
    number, fusion = len(configs), given.pop("fusion", "mean")
    members = AUTO if auto else given.pop("members", number)
    if members != number or "candidates" in given:
        what = f"members is {members}" if members != number else f"candidates is {given['candidates']}"
        raise ConfigError(f"{what}; each of these {number} runs is one member, whatever the noise. Leave it out.")
    by_run = tuple(_settled(config, {**given, "mode": "mean"}, auto=False) for config in configs)
    whole = {"members": number, "fusion": fusion, "mode": "ensemble" if drawn else "mean"}
    return by_run[0].model_copy(update=whole), by_run


def _doubt(sampling: SamplingConfig, taught: str) -> str:
    """Say what is wrong with a number of steps; ``taught`` tells of a model that has learned to make one."""
    steps = sampling.steps
    if taught:
        return f"The model was {taught}; {steps} steps were not learned." if steps > 1 else ""
    if sampling.mode == "mean":
        return ""
    if steps == 1:
        return "1 step gives the mean of all masks: members that agree where raters do not. Take more steps."
    if sampling.spacing == "regions" and steps < FEWEST_REGIONS:
        return f"{steps} steps draw what is rare too rarely, so members agree too much. Take {FEWEST_REGIONS} or more."
    return ""


def _chosen(sampling: SamplingConfig, given: dict[str, Any], *, auto: bool) -> SamplingConfig:
    """Settle among how many candidates members are chosen; a model's own number gives way to what leaves no choice."""
    if sampling.candidates is None:
        return sampling
    if auto or sampling.mode == "mean":
        if "candidates" in given:
            what = f"members {AUTO}" if auto else "mode mean"
            raise ConfigError(
                f"candidates with {what}: there is no number of members to choose. Leave one of them out."
            )
        return sampling.model_copy(update={"candidates": None})
    if sampling.candidates < sampling.members:
        raise ConfigError(
            f"candidates is {sampling.candidates}, members {sampling.members}: members are chosen among candidates. "
            "Ask for as many candidates at least."
        )
    return sampling


def _in_one_step(sampling: SamplingConfig, given: dict[str, Any], *, target: str) -> SamplingConfig:
    r"""Settle how the mean of all masks is found without drawing them: one member, one step, from pure noise.

    There x_T says nothing of the mask, so the prediction of x_0 that minimises cross-entropy or squared error is
    :math:`E[x_0 \mid I]`: by pixel, the probability that an endless ensemble would agree on. It costs one look at the
    image and one denoiser forward.

    It can't give joint samples: no member is a mask that a rater might have drawn, so there is no agreement, no GED,
    no deviation or disagreement (both are 0), nothing about volumes or shapes, and no STAPLE. Its entropy is that
    of the mean.
    """
    if clash := [name for name in ("members", "steps", "fusion") if name in given]:
        raise ConfigError(
            f"mode mean with {' and '.join(clash)}: it is one step and draws no members. Leave them out, or take "
            "mode ensemble."
        )
    if target == "eps":
        raise ConfigError(
            "mode mean needs a model of target x0 or v; this one predicts noise (eps), take mode ensemble."
        )
    return sampling.model_copy(update={"members": 1, "steps": 1, "fusion": "mean", "antithetic": False})
