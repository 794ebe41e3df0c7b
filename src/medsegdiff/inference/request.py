"""What a user asks of a model: how many masks, how drawn and how fused. Checked once, then passed on whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

from medsegdiff.config.diffusion import SamplingConfig, SamplingOptions
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.spacing import FEWEST_REGIONS
from medsegdiff.errors import ConfigError, nearest
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.inference.ensemble import num_looks

log = logging.getLogger(__name__)

AUTO: Literal["auto"] = "auto"
"""Stands for a number of members that each image decides."""
VIEWS = (1, 2, 4)
"""Numbers of mirrors that may be asked for."""
MOST = 100
"""Members that an image may decide for."""


@dataclass(frozen=True)
class Request:
    """How images are segmented: what was asked, completed with what the model was made for."""

    sampling: SamplingConfig
    """Where each image decides about its members: with the most that there may be."""
    auto: bool = False
    """Whether each image decides how many members it needs."""
    seed: int = 0
    raters: int = 1
    """Whose majority the mask shall match."""
    batch_asked: bool = False
    """Whether the size of batches was asked for; else a GPU takes what fits."""

    @classmethod
    def of(cls, config: ResolvedConfig, **options: Unpack[SamplingOptions]) -> Request:
        """Complete what is asked with the model's defaults, and refuse what makes no sense."""
        if strange := [name for name in options if name not in SamplingOptions.__annotations__]:
            known = list(SamplingOptions.__annotations__)
            raise TypeError(f"There is no option '{strange[0]}' of segmenting.{nearest(strange[0], known)}")
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        seed, auto = given.pop("seed", 0), given.get("members") == AUTO
        if auto:
            given["members"] = MOST
        for name in ("members", "candidates", "steps", "batch_size"):
            if isinstance(number := given.get(name, 1), str) or number < 1:
                also = f", or '{AUTO}'" if name == "members" else ""
                raise ConfigError(f"{name} is {number!r}; it must be at least 1{also}.")
        if (views := given.get("views", 1)) not in VIEWS:
            raise ConfigError(f"views is {views!r}; allowed are {', '.join(map(str, VIEWS))}.")
        sampling = _chosen(config.sampling.model_copy(update=given), given, auto=auto)
        FUSERS[sampling.fusion]  # an unknown name shows before the work, not after it
        if sampling.mode == "mean":
            sampling = _in_one_step(sampling, given, target=config.diffusion.target)
            sampling = sampling.model_copy(update={"members": num_looks(sampling, config)})
        if told := _doubt(sampling, config.train.one_step):
            log.warning("%s", told)
        return cls(sampling, auto, seed, sampling.raters or config.spec.raters, "batch_size" in given)

    def with_members(self, number: int) -> Request:
        """Settle the number of members."""
        return replace(
            self, sampling=self.sampling.model_copy(update={"members": number, "candidates": None}), auto=False
        )

    def with_fusion(self, fusion: str) -> Request:
        """Fuse otherwise."""
        return replace(self, sampling=self.sampling.model_copy(update={"fusion": fusion}))

    def with_steps(self, number: int) -> Request:
        """Take another number of steps, however few, without a word: for measuring, not for results."""
        return replace(self, sampling=self.sampling.model_copy(update={"steps": number}))

    @property
    def members(self) -> int | Literal["auto"]:
        """What is drawn for each image."""
        return AUTO if self.auto else self.sampling.members


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
