"""What is cleaned of masks once they are drawn and fused; by default nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal

from pydantic import ValidationError, field_validator

from medsegdiff.config.base import Component
from medsegdiff.errors import ConfigError, nearest

UNITS = {"px": "px", "mm2": "mm2", "mm3": "mm3", "ml": "mL"}
"""As they may be written, in small letters → as they are called."""
AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+[23]?)")


class Cleaning(Component):
    """What is cleaned of the masks of a structure, in this order: what is removed becomes background."""

    remove_below: str = ""
    """Connected components that are smaller are removed: a number with its unit, ``mm3`` or ``mL`` in volumes, ``mm2``
    in pictures of known spacing, ``px`` (pixels, voxels) in all; empty: none are."""
    keep: Literal["all", "largest"] = "all"
    """``largest`` removes all components but that one."""
    fill_holes: bool = False
    """Whether background that the structure encloses, of volumes from all sides, is filled with it."""

    @field_validator("remove_below")
    @classmethod
    def _readable(cls, text: str) -> str:
        return "{:.15g} {}".format(*amount_of(text)) if text else ""

    def __str__(self) -> str:
        """Say what is done."""
        parts = [f"components below {self.remove_below} removed"] if self.remove_below else []
        parts += ["largest component kept"] if self.keep == "largest" else []
        return ", ".join([*parts, *(["holes filled"] if self.fill_holes else [])])


def amount_of(text: str) -> tuple[float, str]:
    """Read a size, such as ``50mm3``: number and unit."""
    found = AMOUNT.fullmatch(text.strip().lower().replace("²", "2").replace("³", "3"))
    if found is None or found[2] not in UNITS:
        raise ConfigError(
            f"remove_below is {text!r}; expected is a number with its unit, {', '.join(UNITS.values())}: 50mm3, say."
        )
    return float(found[1]), UNITS[found[2]]


def by_structure(asked: Any, structures: Sequence[str]) -> dict[str, Cleaning]:
    """Give each structure what is asked of it, or of all, as `Cleaning` or by its fields; nothing where nothing is."""
    if not isinstance(asked, (Cleaning, Mapping, NoneType)):
        raise ConfigError(f"cleaning is {asked!r}; expected is Cleaning(keep='largest'), say, or one by structure.")
    given = dict.fromkeys(structures, asked) if isinstance(asked, Cleaning) else asked or {}
    read = {_check_structure(name, structures): _read(name, how) for name, how in given.items()}
    return {name: read[name] for name in structures if read.get(name, Cleaning()) != Cleaning()}


def _read(name: str, how: Any) -> Cleaning:
    """Take what is asked of a structure, and refuse what makes no sense."""
    try:
        return Cleaning.model_validate(how)
    except ValidationError as error:
        told = error.errors()[0]
        what = ".".join(map(str, told["loc"])) or "it"
        raise ConfigError(
            f"cleaning of '{name}' is {how!r}; {what}: {told['msg']}. Allowed are {', '.join(Cleaning.model_fields)}."
        ) from None


def read_cleaning(
    structures: Sequence[str], *, keep: Iterable[str], remove_below: Iterable[str], fill_holes: Iterable[str]
) -> dict[str, Cleaning]:
    """Read what a user types, for all structures (``largest``) or for one (``disc=largest``), which goes before."""
    asked: dict[str, dict[str, Any]] = {name: {} for name in structures}
    for field, texts in (("keep", keep), ("remove_below", remove_below), ("fill_holes", fill_holes)):
        for name, _, value in sorted((text.rpartition("=") for text in texts), key=lambda parts: bool(parts[1])):
            if field == "keep" and value not in ("all", "largest"):
                raise ConfigError(f"keep is {value!r}; allowed are largest and all.{nearest(value, ['largest'])}")
            if field == "remove_below":
                amount_of(value)
            for structure in [_check_structure(name, structures)] if name else structures:
                asked[structure][field] = value
    return by_structure({name: Cleaning.model_validate(of) for name, of in asked.items()}, structures)


def _check_structure(name: str, structures: Sequence[str]) -> str:
    if name not in structures:
        known = ", ".join(structures)
        raise ConfigError(
            f"There is no structure '{name}' to clean; the model draws {known}.{nearest(name, structures)}"
        )
    return name
