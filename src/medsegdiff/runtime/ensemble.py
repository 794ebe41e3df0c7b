"""Drawing the members of an image: the steps of a table of numbers, with noise by address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medsegdiff.diffusion.philox import randn
from medsegdiff.io.graphs import Graph
from medsegdiff.runtime.facts import Facts, Row
from medsegdiff.seeding import derive_seed


@dataclass(frozen=True)
class Drawn:
    """What graphs say of an image, on the model grid."""

    members: Float[np.ndarray, "m k gh gw"]
    """Probabilities, nearly 0 or 1."""
    expected: Float[np.ndarray, "k gh gw"]
    """Mean over members of what the network expects of the mask, at the time that the probability takes."""
    anchor: Float[np.ndarray, "k gh gw"] | None
    """The network's own probabilities, the mean over looks."""
    pooled: Float[np.ndarray, " f"] | None
    """What the network saw of the image, as some numbers, the mean over looks; ``None`` where it does not show it."""


@dataclass(frozen=True)
class Plan:
    """What is drawn of an image."""

    table: Sequence[Row]
    members: int
    """All that are drawn."""
    at: float
    """Time whose expectation counts."""
    seed: int
    batch_size: int
    antithetic: bool = False
    """Whether every other member has the opposite noise of the one before."""


class Sampler:
    """Draws members as `medsegdiff.inference.ensemble.EnsembleSampler` does, one image after the other."""

    def __init__(self, facts: Facts, look: Graph, step: Graph) -> None:
        self.facts, self.look, self.step = facts, look, step
        self._kept: dict[tuple[int, int], np.ndarray] = {}  # first noise: slices of a volume may share theirs

    def draw(self, image: Float[np.ndarray, "c gh gw"], key: str, plan: Plan) -> Drawn:
        """Draw the members of an image; ``key`` is what its noise follows from, beside the seed."""
        facts, mirrors = self.facts, self.facts.sampling.mirrors
        looks, pair = min(len(mirrors), plan.members), 1 + plan.antithetic
        members = np.empty((plan.members, len(facts.labels.classes), *facts.image.grid), np.float32)
        expected, anchors, pooled = np.zeros(members.shape[1:]), list[np.ndarray](), list[np.ndarray]()
        for number in range(looks):
            mirror = mirrors[number % len(mirrors)]
            seen = _turned(image[None], mirror)
            known = {"image": seen, **self.look({"image": seen})}
            anchors += [_turned(known["anchor"][0], mirror)] if "anchor" in known else []
            pooled += [known["pooled"][0]] if "pooled" in known else []
            own = [member for member in range(plan.members) if member // pair % looks == number]
            walk = _Walk(self, plan, key, known)
            for start in range(0, len(own), plan.batch_size):
                chosen = own[start : start + plan.batch_size]
                drawn, told = walk(chosen)
                members[chosen] = _turned(drawn, mirror)
                expected += _turned(told, mirror).sum(axis=0, dtype=np.float64)
        mean = (expected / plan.members).astype(np.float32)
        return Drawn(members, mean, *(np.mean(of, axis=0) if of else None for of in (anchors, pooled)))

    def probability(self, x_0: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Read samples as probabilities."""
        return ((x_0 + 1) / 2 if self.facts.coding == "signed" else x_0).clip(0, 1)

    def noise(self, plan: Plan, key: str, numbers: Sequence[int], *, draw: int) -> Float[np.ndarray, "m k gh gw"]:
        """Draw the noise of members: that of `medsegdiff.diffusion.noise.MemberNoise`."""
        address = derive_seed(plan.seed, "member", key)
        turned = [plan.antithetic and number % 2 == 1 for number in numbers]
        addresses = [(address, number - of) for number, of in zip(numbers, turned, strict=True)]
        shape = (len(self.facts.labels.classes), *self.facts.image.grid)
        drawn = self._first(addresses, shape) if draw == 0 else randn(addresses, shape, draw=draw)
        return drawn * np.where(turned, -1, 1).astype(np.float32)[:, None, None, None]

    def _first(self, addresses: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> Float[np.ndarray, "m k gh gw"]:
        """Draw the first noise, and keep that of the last image."""
        (image, _), *_ = addresses
        kept = {address: noise for address, noise in self._kept.items() if address[0] == image}
        if missing := [address for address in addresses if address not in kept]:
            kept |= dict(zip(missing, randn(missing, shape), strict=True))
        self._kept = kept
        return np.stack([kept[address] for address in addresses])


class _Walk:
    """Walks members of one look from noise to masks."""

    def __init__(self, sampler: Sampler, plan: Plan, key: str, known: dict[str, np.ndarray]) -> None:
        self.sampler, self.plan, self.key, self.known = sampler, plan, key, known
        self._shared: np.ndarray | None = None

    def __call__(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Give the members of these numbers, and what was expected at the time that counts."""
        sampler, draws = self.sampler, 0
        x = sampler.noise(self.plan, self.key, numbers, draw=draws)
        previous: np.ndarray | float = 0.0
        told = x
        for row in self.plan.table:
            x_0 = self._answer(x, row)
            if row.t == self.plan.at:
                told = np.broadcast_to(sampler.probability(x_0), x.shape)
            x = row.x * x + row.x_0 * x_0 + row.previous * previous
            if row.noise:
                draws += 1
                x = x + row.noise * sampler.noise(self.plan, self.key, numbers, draw=draws)
            previous = x_0
        return sampler.probability(x), told

    def _answer(self, x_t: np.ndarray, row: Row) -> Float[np.ndarray, "m k gh gw"]:
        if not row.shared:
            return self._asked(x_t, row)
        if self._shared is None:  # by all members: noise of the first one
            self._shared = self._asked(self.sampler.noise(self.plan, self.key, [0], draw=0), row)
        return self._shared

    def _asked(self, x_t: np.ndarray, row: Row) -> Float[np.ndarray, "m k gh gw"]:
        at = {name: np.array([getattr(row, name)], np.float32) for name in ("t", "alpha", "sigma")}
        return self.sampler.step({"x_t": x_t, **at, **self.known}, wanted=("x_0",))["x_0"]


def _turned(values: Float[np.ndarray, "*n h w"], mirror: tuple[int, ...]) -> Float[np.ndarray, "*n h w"]:
    return np.flip(values, mirror) if mirror else values
