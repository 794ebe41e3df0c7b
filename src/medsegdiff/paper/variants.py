"""The rows of the ablation, as changes of one configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medsegdiff.errors import ConfigError, nearest


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
