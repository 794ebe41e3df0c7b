"""What an ensemble says of a picture on its native grid: made a strip at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medsegdiff.data.placement import Placement
from medsegdiff.data.restoring import Restoring
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.hardware import exact_dtype
from medsegdiff.inference.blocks import BLOCK, in_blocks
from medsegdiff.inference.canvas import ON_DEVICE, STRIP, cut
from medsegdiff.inference.ensemble import Ensemble
from medsegdiff.inference.uncertainty import summed
from medsegdiff.labels import Labels


@dataclass(frozen=True)
class Strip:
    """Some rows of a picture."""

    rows: slice
    members: Float[Tensor, "m k s w"] | None
    """Where somebody looks at more than what each of them draws, and at their mean."""
    drawn: UInt8[np.ndarray, "m ..."]
    """Label map of each member."""
    mean: Float[Tensor, "k s w"]
    anchor: Float[Tensor, "k s w"] | None
    probability: Float[Tensor, "k s w"]
    """Of each channel, by the mixture."""


@dataclass(frozen=True)
class Share:
    """What a run says of one picture of its batch, on its own grid."""

    ensemble: Ensemble
    index: int
    placement: Placement
    mixture: Mixture
    once: bool = False
    """Whether its probability is its only member: of a run that draws none, beside others."""

    @property
    def numbers(self) -> Sequence[int]:
        """Of its members in the ensemble of all runs."""
        return (0,) if self.once else self.ensemble.numbers or range(len(self.ensemble.probability))

    def strips(self, cuts: Sequence[slice], labels: Labels, *, members: bool) -> Iterator[Strip]:
        """Give the picture on its native grid, strip by strip; ``members``: with all that these say."""
        given = {name: Restoring(values, self.placement) for name, values in self._given().items()}
        of_members = given.pop("members", None)
        for rows in cuts:
            maps = {name: values.rows(rows)[0] for name, values in given.items()}
            anchor = maps.get("anchor")
            probability = self._mixed(anchor, maps["expected"], exclusive=labels.exclusive)
            if of_members is None:
                told = probability[None]
                yield Strip(rows, told, labels.decide_each(told), probability, anchor, probability)
                continue
            quick = labels.exclusive and not members and probability.device.type == "cpu"
            said = None if quick else of_members.rows(rows)
            drawn = of_members.largest(rows) if said is None else labels.decide_each(said)
            yield Strip(rows, said if members else None, drawn, maps["mean"], anchor, probability)

    def _given(self) -> dict[str, Float[Tensor, "n k gh gw"]]:
        ensemble, index = self.ensemble, self.index
        given = {"expected": ensemble.expected[self.mixture.nearest(ensemble.times), index, None].float()}
        if ensemble.anchor is not None:
            given["anchor"] = ensemble.anchor[index, None]
        if not self.once:
            members = ensemble.probability[:, index]
            given |= {"members": members, "mean": summed(members)[None] / len(members)}
        return given

    def _mixed(
        self, anchor: Float[Tensor, "k s w"] | None, expected: Float[Tensor, "k s w"], *, exclusive: bool
    ) -> Float[Tensor, "k s w"]:
        """Mix exactly: in float32 the last pixels of a strip, which fill no vector, have other logarithms."""
        exact = exact_dtype(expected.device)

        def mixed(expected: Tensor, *anchor: Tensor) -> Tensor:
            known = anchor[0].to(exact) if anchor else None
            return self.mixture(known, expected.to(exact), exclusive=exclusive).to(expected.dtype)

        together = BLOCK if expected.device.type == "cpu" else expected[0].numel()
        return in_blocks(mixed, expected, *([] if anchor is None else [anchor]), size=together)


@dataclass(frozen=True)
class Restored:
    """What the ensemble of one run or several says of one picture, brought to the native grid.

    Deviation: the members are restored first and fused then, so that STAPLE or the majority of the saved
    members is the saved mask, and contours keep the precision of the members' continuous values.
    """

    shares: Sequence[Share]
    """By run."""
    labels: Labels

    @property
    def native(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.shares[0].placement.native

    @property
    def pooled(self) -> Float[np.ndarray, " f"] | None:
        """What the networks saw of the picture, run after run; ``None`` if one of them does not show it."""
        of_runs = [(share.ensemble.pooled, share.index) for share in self.shares]
        return joined_looks([None if pooled is None else pooled[index] for pooled, index in of_runs])

    def strips(self, *, members: bool = True) -> Iterator[Strip]:
        """Give the picture strip by strip; each value is the same however many they are."""
        numbers = [number for share in self.shares for number in share.numbers]
        most = STRIP if self.shares[0].ensemble.probability.device.type == "cpu" else ON_DEVICE
        cuts = cut(self.native, per_pixel=len(numbers) * len(self.labels.classes), most=most)
        of_runs = [share.strips(cuts, self.labels, members=members) for share in self.shares]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        for strips in zip(*of_runs, strict=True):
            yield strips[0] if len(strips) == 1 else _together(strips, order)

    def whole(self) -> Strip:
        """Give all of it at once, for fusions that know no other way."""
        strips = list(self.strips())

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(strip, name) for strip in strips], dim=-2)

        return Strip(
            slice(0, self.native[0]),
            joined("members"),
            np.concatenate([strip.drawn for strip in strips], axis=-2),
            joined("mean"),
            None if strips[0].anchor is None else joined("anchor"),
            joined("probability"),
        )


def joined_looks(shown: Sequence[Float[Tensor, " _"] | None]) -> Float[np.ndarray, " f"] | None:
    """Put what networks saw of a picture one after the other; ``None`` if one of them does not show it."""
    given = [of.cpu().numpy() for of in shown if of is not None]
    return np.concatenate(given) if len(given) == len(shown) else None


def _together(strips: Sequence[Strip], order: Sequence[int]) -> Strip:
    """Put the members of several runs in their order, and average what else these say; an anchor if all have one."""
    anchors = [strip.anchor for strip in strips if strip.anchor is not None]
    members = [strip.members for strip in strips if strip.members is not None]
    return Strip(
        strips[0].rows,
        torch.cat(members)[list(order)] if len(members) == len(strips) else None,
        np.concatenate([strip.drawn for strip in strips])[list(order)],
        summed(len(strip.drawn) * strip.mean for strip in strips) / len(order),
        torch.stack(anchors).mean(dim=0) if len(anchors) == len(strips) else None,
        torch.stack([strip.probability for strip in strips]).mean(dim=0),
    )
