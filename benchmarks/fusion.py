"""What fusing an ensemble costs, beside SimpleITK, and how near the fused mask comes to a truth that is known.

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/fusion.py
"""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import SimpleITK
import torch
from common import parser, table, write_page
from scipy.ndimage import zoom

from medsegdiff.cli import guard
from medsegdiff.data.phantom import make_lesion
from medsegdiff.fusion.fusers import majority, mean
from medsegdiff.fusion.staple import binary_staple, multi_label_staple

RATERS = 9
HEAD = ("votes", "members", "STAPLE, ms", "SimpleITK, ms", "ratio", "majority, ms", "mean, ms", "steps", "same labels")


def main() -> None:
    """Measure costs and scores, and write the page."""
    asked = parser(__doc__)
    asked.add_argument("--repeats", type=int, default=7, help="Of each measurement on pictures.")
    asked.add_argument("--draws", type=int, default=20, help="Of the raters of each kind.")
    given = asked.parse_args()
    lines = [
        "# Fusion: costs and scores",
        "",
        "`OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/fusion.py`. "
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}, "
        f"SimpleITK {SimpleITK.Version.VersionString()}. Seeds are fixed.",
        "",
        "## Costs",
        "",
        f"Processor time on one core, so that other work on the machine counts little; medians of {given.repeats} "
        "rounds (3 from 100 members on, 1 of volumes) in which all methods take turns, without making images for "
        "SimpleITK. Ours stops when no rate moves by 1e-6, SimpleITK at its defaults; steps are those of either. "
        "Independent: each pixel of each member errs by itself (sensitivity 0.9, specificity 0.95), so that "
        "hardly two pixels share their votes. Borders: smooth borders that differ between members, as those of an "
        "ensemble do.",
        "",
        *table(HEAD, itertools.chain(costs_of_pictures(given.repeats), costs_of_volumes())),
        "",
        "## Scores",
        "",
        f"Dice of the fused mask to the truth; mean of {given.draws} draws of {RATERS} raters at 128 × 128, "
        "and of the phantom's raters, where the truth is what at least half of all possible raters draw. "
        "*Union*: STAPLE over those pixels alone that some member marks. The mean at 0.5 is the majority.",
        "",
        *table(("raters", "one rater", "STAPLE", "STAPLE, union", "majority"), scores(given.draws)),
        "",
        "STAPLE is worth its steps where members differ in quality, and where part of them draw a narrower "
        "outline; among equal members it is about the majority, a little below it where borders wander by "
        "themselves. Leaving out the pixels that no member marks helps where part of the members draw a wider "
        "outline, and on five raters of the phantom, but costs far more where part draw a narrower one, and "
        "something where borders wander; so `medsegdiff` takes the whole image, as SimpleITK does.",
    ]
    write_page("fusion", lines)


def costs_of_pictures(repeats: int) -> Iterator[tuple[str, ...]]:
    """Time pictures of 256 × 256."""
    for name, drawn in (("independent", independent), ("borders", borders)):
        for m in (5, 10, 25, 100, 200):
            votes = drawn(m, (256, 256), np.random.default_rng(m))
            yield costs(f"{name}, 256²", votes, 2, repeats if m < 100 else 3)
    yield costs("4 labels, 256²", regions(5, (256, 256), 4, np.random.default_rng(0)), 4, repeats)


def costs_of_volumes() -> Iterator[tuple[str, ...]]:
    """Time volumes; SimpleITK, which would take minutes, has a small one."""
    yield costs("borders, 8 × 256²", borders(10, (8, 256, 256), np.random.default_rng(0)), 2, 1)
    yield costs("borders, 100 × 512²", borders(10, (100, 512, 512), np.random.default_rng(0)), 2, 1, alone=True)
    yield costs("16 labels, 64 × 256²", regions(5, (64, 256, 256), 16, np.random.default_rng(0)), 16, 1, alone=True)


def costs(name: str, votes: np.ndarray, num_labels: int, repeats: int, *, alone: bool = False) -> tuple[str, ...]:
    """Time all ways to fuse votes (m, *s), taking turns."""
    flat = votes.reshape(len(votes), -1)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: binary_staple(flat) if num_labels == 2 else multi_label_staple(flat, num_labels)
    }
    if not alone:
        images = [SimpleITK.GetImageFromArray(vote) for vote in votes]
        ways["theirs"] = lambda: theirs(images) if num_labels == 2 else their_labels(images)
    if not alone and num_labels == 2:
        samples = torch.from_numpy(flat).float().reshape(len(votes), 1, 1, -1, votes.shape[-1])
        ways |= {"majority": lambda: majority(samples), "mean": lambda: mean(samples)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    results = {}
    for _, (way, call) in itertools.product(range(repeats), ways.items()):
        start = time.process_time()
        results[way] = call()
        seconds[way].append(time.process_time() - start)
    ms = {way: 1000 * median(values) for way, values in seconds.items()}
    estimate, members = results["ours"], str(len(votes))
    if alone:
        return name, members, f"{ms['ours']:.1f}", *["–"] * 4, f"{estimate.steps}", "–"
    image, steps = results["theirs"]
    labels = estimate.posterior.argmax(axis=0) if num_labels > 2 else estimate.posterior[0] >= 0.5
    reference = SimpleITK.GetArrayFromImage(image).ravel()
    same = (labels == (reference if num_labels > 2 else reference >= 0.5)).mean()
    simple = [f"{ms[way]:.1f}" if way in ms else "–" for way in ("majority", "mean")]
    ours = [f"{ms['ours']:.1f}", f"{ms['theirs']:.1f}", f"{ms['theirs'] / ms['ours']:.1f}"]
    return name, members, *ours, *simple, f"{estimate.steps} / {steps}", f"{same:.2%}"


def theirs(images: list[SimpleITK.Image]) -> tuple[SimpleITK.Image, str]:
    """Fuse by SimpleITK's STAPLE."""
    fuser = SimpleITK.STAPLEImageFilter()
    fuser.SetForegroundValue(1)
    return fuser.Execute(images), str(fuser.GetElapsedIterations())


def their_labels(images: list[SimpleITK.Image]) -> tuple[SimpleITK.Image, str]:
    """Fuse by SimpleITK's multi-label STAPLE, which does not tell how many steps it took."""
    fuser = SimpleITK.MultiLabelSTAPLEImageFilter()
    fuser.SetLabelForUndecidedPixels(255)
    return fuser.Execute(images), "?"


def independent(m: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Let each pixel of each member err by itself."""
    return noisy(box(shape), [0.9] * m, [0.95] * m, rng)


def box(shape: tuple[int, ...]) -> np.ndarray:
    """A box in the middle."""
    inside = np.zeros(shape, bool)
    inside[tuple(slice(length // 4, length * 2 // 3) for length in shape)] = True
    return inside


def noisy(
    truth: np.ndarray, sensitivity: list[float], specificity: list[float], rng: np.random.Generator
) -> np.ndarray:
    """Draw raters of given quality."""
    chance = (np.where(truth, p, 1 - q) for p, q in zip(sensitivity, specificity, strict=True))
    return np.stack([rng.random(truth.shape) < c for c in chance]).astype(np.uint8)


def smooth(shape: tuple[int, ...], cells: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field of about unit variance; its hills are ``cells`` to the length of an axis."""
    grid = [max(2, min(cells, length)) for length in shape]
    field = zoom(rng.normal(size=grid).astype(np.float32), [n / g for n, g in zip(shape, grid, strict=True)], order=1)
    return field / field.std()


def distance(shape: tuple[int, ...]) -> np.ndarray:
    """Distance from the border of a ball in the middle, in units of its radius."""
    axes = np.meshgrid(*(np.linspace(-1, 1, length, dtype=np.float32) for length in shape), sparse=True, indexing="ij")
    return np.sqrt(sum(axis**2 for axis in axes)) / 0.5 - 1


def borders(m: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Let members draw a ball, each with a smooth border of its own."""
    from_border = distance(shape)
    return np.stack([from_border < 0.1 * smooth(shape, 12, rng) + 0.05 * rng.normal() for _ in range(m)]).astype(
        np.uint8
    )


def regions(m: int, shape: tuple[int, ...], num_labels: int, rng: np.random.Generator) -> np.ndarray:
    """Let members draw a map of labels, each with smooth borders of its own."""
    shared = smooth(shape, 6, rng)
    fields = (shared + 0.1 * smooth(shape, 24, rng) for _ in range(m))
    return np.stack([np.clip((f + 2) / 4 * num_labels, 0, num_labels - 1) for f in fields]).astype(np.uint8)


def scores(draws: int) -> Iterator[tuple[str, ...]]:
    """Score each fusion on raters of each kind."""
    shape = (128, 128)
    kinds = {
        "independent, equal (0.85, 0.95)": lambda rng: (box(shape), noisy(box(shape), [0.85] * 9, [0.95] * 9, rng)),
        "independent, 3 good (0.95, 0.98), 6 poor (0.6, 0.8)": lambda rng: (
            box(shape),
            noisy(box(shape), [0.95] * 3 + [0.6] * 6, [0.98] * 3 + [0.8] * 6, rng),
        ),
        "two camps: 5 right, 4 draw a radius 20 % longer": lambda rng: camps(shape, 5, 0.2, rng),
        "two camps: 5 right, 4 draw a radius 20 % shorter": lambda rng: camps(shape, 5, -0.2, rng),
        "two camps: 7 right, 2 draw a radius 20 % longer": lambda rng: camps(shape, 7, 0.2, rng),
        "borders, independent": lambda rng: correlated(shape, 0.0, rng),
        "borders, half of the error shared": lambda rng: correlated(shape, 0.5, rng),
        "phantom, 5 raters": lambda rng: phantom(5, rng),
        "phantom, 25 raters": lambda rng: phantom(25, rng),
    }
    for name, draw in kinds.items():
        found = np.mean([fused_scores(*draw(np.random.default_rng(seed))) for seed in range(draws)], axis=0)
        yield name, *(f"{value:.3f}" for value in found)


def camps(shape: tuple[int, ...], right: int, longer: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Some raters draw the truth, the others another radius; the borders of all are slightly rough."""
    radius = [0.0] * right + [longer] * (RATERS - right)
    votes = [distance(shape) < r + 0.03 * smooth(shape, 12, rng) for r in radius]
    return distance(shape) < 0, np.stack(votes).astype(np.uint8)


def correlated(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Raters whose borders wander, of which a share (of the variance) is common to all."""
    common = smooth(shape, 12, rng)
    error = [share**0.5 * common + (1 - share) ** 0.5 * smooth(shape, 12, rng) for _ in range(RATERS)]
    return distance(shape) < 0, np.stack([distance(shape) < 0.15 * e for e in error]).astype(np.uint8)


def phantom(m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Raters of a lesion of the phantom."""
    lesion = make_lesion(128, int(rng.integers(2**31)))
    masks, weights = lesion.distribution()
    return lesion.probability() >= 0.5, masks[rng.choice(len(masks), size=m, p=weights)].astype(np.uint8)


def fused_scores(truth: np.ndarray, votes: np.ndarray) -> list[float]:
    """Dice of single raters, of STAPLE, of STAPLE over the union of all masks, and of the majority."""
    flat, union = votes.reshape(len(votes), -1), votes.any(axis=0)
    whole = binary_staple(flat).posterior[0].reshape(truth.shape) >= 0.5
    within = np.zeros_like(truth)
    within[union] = binary_staple(flat[:, union.ravel()]).posterior[0] >= 0.5
    single = np.mean([dice(vote > 0, truth) for vote in votes])
    return [float(single), *(dice(mask, truth) for mask in (whole, within, votes.mean(axis=0) >= 0.5))]


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks."""
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


if __name__ == "__main__":
    guard(main)
