"""The ablation of table 4: its rows as changes of one configuration, and with which data each is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medsegdiff.config.base import DEFAULT_NETWORK
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.errors import ConfigError, nearest
from medsegdiff.paper.given_data import SMALL, folder_of, is_made, label_of, resolved_name
from medsegdiff.paper.trials import RECIPE, Clock, Trial, claim

NO_LIMIT = "train.max_steps=1000000000"
"""Time is the only limit."""
GROWS = ("seeds",)
"""What may be added to later."""


@dataclass(frozen=True)
class Variant:
    """A network with parts left out, or replaced."""

    name: str
    """As the table calls its row."""
    changes: tuple[str, ...] = ()
    """Of the configuration, after those of the user."""
    printed: bool = True
    """Whether the paper has the row."""


SEMANTICS_OUT = "model.semantic_condition=none"
VARIANTS = (
    Variant("Baseline", ("model.anchor_condition=none", SEMANTICS_OUT, "model.see_image=true")),
    Variant("SA", ("model.anchor_condition=spatial", SEMANTICS_OUT)),
    Variant("U-SA", (SEMANTICS_OUT,)),
    Variant("U-SA+SS-Former", ("model.semantic_condition=unfiltered",)),
    Variant("MedSegDiff-V2"),
    Variant("U-SA+cross-attention", ("model.semantic_condition=cross-attention",), printed=False),
    Variant("SS-Former alone", ("model.anchor_condition=none",), printed=False),
    Variant("MedSegDiff-V2+image", ("model.see_image=true",), printed=False),
    Variant("MedSegDiff-V2+sum", ("model.anchor_add=true",), printed=False),
)
"""Table 4 from top to bottom, then rows to compare with."""
NOTES = (
    "Baseline: the Diffusion Model sees the image beside x_t, as without any condition it would know nothing of it; in "
    "the other rows it sees x_t alone, as in the paper. model.see_image=true lets all rows see it.",
    "SA is the attention map of Woo et al. (2018) on the anchor's features, in equation 5.",
)
"""What the paper leaves open, and how it is read here."""


def find_variants(names: Sequence[str] = ()) -> tuple[Variant, ...]:
    """Look rows up."""
    known = {variant.name.casefold(): variant for variant in VARIANTS}
    if strange := [name for name in names if name.casefold() not in known]:
        close = nearest(strange[0], [variant.name for variant in VARIANTS])
        every = ", ".join(variant.name for variant in VARIANTS)
        raise ConfigError(f"No row '{strange[0]}' in the ablation. Known: {every}.{close}")
    wanted = {known[name.casefold()] for name in names}
    return tuple(variant for variant in VARIANTS if (variant in wanted if wanted else variant.printed))


@dataclass(frozen=True)
class AblationPlan:
    """The same for all rows; an output folder belongs to one plan."""

    data: str
    """A folder, or ``phantom``."""
    minutes: float
    """For the training steps of each run."""
    seeds: int = 3
    """Runs of each row: training seeds 0, 1, 2 …, the same split."""
    preset: str = "v2-tiny"
    changes: tuple[str, ...] = ()
    """``section.key=value``, for all rows."""
    members: int | None = None
    """Of each test image; ``None``: the preset's, here and below."""
    steps: int | None = None
    """Of the sampler."""
    clock: Clock = "wall"
    """What the minutes are measured with."""

    def config(self, variant: Variant, seed: int = 0) -> Config:
        """Make the configuration of a trial."""
        own = (NO_LIMIT, *RECIPE, f"train.max_minutes={self.minutes}", f"train.seed={seed}")
        small = SMALL if is_made(self.data) else ()
        config = load_preset(self.preset, [*own, *small, *self.changes])
        if config.model.name != DEFAULT_NETWORK:
            raise ConfigError(
                f"preset '{self.preset}' is of the network {config.model.name}; the ablation is of {DEFAULT_NETWORK}: "
                "take v2-tiny, v2-small, v2 or another of that network."
            )
        return load_preset(self.preset, [*own, *small, *self.changes, *variant.changes])

    def claim(self, out: Path) -> None:
        """Make a folder this plan's own, or find that it is already."""
        values = dataclasses.asdict(self) | {"data": resolved_name(self.data)}
        claim(out, {key: value for key, value in values.items() if key not in GROWS})

    def folder(self, out: Path, *, counts: tuple[int, int, int] = (400, 40, 40)) -> Path:
        """Give the folder of the data; the phantom is written first, with so many cases to train, validate and test."""
        return folder_of(self.data, out, self.config(Variant("")).data, counts=counts)

    @property
    def label(self) -> str:
        """Name the data: the benchmark whose layout they have, else the folder."""
        return label_of(self.data, load_preset(self.preset, self.changes).data)

    def trials(self, out: Path, variants: Sequence[Variant], data: Path) -> list[Trial]:
        """List the trials: a seed of all rows, then the next, so that what is there early can be compared."""
        return [
            Trial(
                row=variant.name,
                data=data,
                seed=seed,
                folder=out / "runs" / variant.name.replace(" ", "-") / f"seed-{seed}",
                config=self.config(variant, seed),
                members=self.members,
                steps=self.steps,
                ensemble=True,
                clock=self.clock,
            )
            for seed in range(self.seeds)
            for variant in variants
        ]
