"""The phantom: pictures of ambiguous lesions, with raters whose distribution is known exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, SPLITS, DataInfo
from medsegdiff.data.split import write_split
from medsegdiff.io.raster import write_mask
from medsegdiff.labels import Labels
from medsegdiff.seeding import derive_seed
from medsegdiff.types import Case, Geometry

NUM_RATERS = 5


@dataclass(frozen=True)
class Lesion:
    """One picture, and how raters see it: all draw the core; the rim and the satellite each with a probability.

    The fainter a part, the fewer raters draw it, so its probability can be read from the picture.
    """

    image: Float[np.ndarray, "1 h w"]
    core: Bool[np.ndarray, "h w"]
    rim: Bool[np.ndarray, "h w"]
    satellite: Bool[np.ndarray, "h w"]
    p_rim: float
    p_satellite: float

    def distribution(self) -> tuple[Bool[np.ndarray, "4 h w"], Float[np.ndarray, " 4"]]:
        """List every mask that a rater may draw, and how probable it is."""
        masks, weights = [], []
        for rim, satellite in itertools.product((False, True), repeat=2):
            masks.append(self.core | (self.rim & rim) | (self.satellite & satellite))
            weights.append(
                (self.p_rim if rim else 1 - self.p_rim) * (self.p_satellite if satellite else 1 - self.p_satellite)
            )
        return np.stack(masks), np.array(weights)

    def probability(self) -> Float[np.ndarray, "h w"]:
        """Compute how probable it is that a rater draws each pixel."""
        masks, weights = self.distribution()
        return np.tensordot(weights, masks.astype(float), axes=1)

    def raters(self, rng: np.random.Generator) -> Bool[np.ndarray, "r h w"]:
        """Let raters draw, independently of each other."""
        masks, weights = self.distribution()
        return masks[rng.choice(len(masks), size=NUM_RATERS, p=weights)]


def make_lesion(size: int, seed: int) -> Lesion:
    """Draw a lesion: a wavy core, a fading rim around it, a satellite beside it, on mottled ground."""
    rng = np.random.default_rng(seed)
    centre, radius = rng.uniform(0.38, 0.62, size=2), rng.uniform(0.13, 0.22)
    waves = rng.normal(0, 0.08, size=4), rng.uniform(0, 2 * np.pi, size=4)
    direction = rng.uniform(0, 2 * np.pi)
    away = centre + 1.9 * radius * np.array([np.sin(direction), np.cos(direction)])
    core = _distance(size, centre, radius, waves) < 1
    outer = _distance(size, centre, 1.45 * radius, waves) < 1
    satellite = (_distance(size, away, 0.45 * radius, waves) < 1) & ~outer
    p_rim, p_satellite = rng.uniform(0.1, 0.9, size=2)
    contrast = 0.35 * core + 0.22 * p_rim * (outer & ~core) + 0.28 * p_satellite * satellite
    image = 0.35 + gaussian_filter(contrast, size / 128) + _ground(size, rng)
    return Lesion(
        np.clip(image, 0, 1)[None].astype(np.float32), core, outer & ~core, satellite, float(p_rim), float(p_satellite)
    )


def _distance(
    size: int, centre: np.ndarray, radius: float, waves: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, "h w"]:
    """Measure the distance from a centre in units of a radius that waves with the angle."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size - centre[:, None, None]
    angle = np.arctan2(y, x)
    order = np.arange(2, 2 + len(waves[0]))[:, None, None]
    wavy = 1 + (waves[0][:, None, None] * np.cos(order * angle + waves[1][:, None, None])).sum(axis=0)
    return np.hypot(y, x) / (radius * wavy)


def _ground(size: int, rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    mottled = gaussian_filter(rng.normal(size=(size, size)), size / 12)
    return 0.05 * mottled / mottled.std() + rng.normal(0, 0.03, size=(size, size))


@DATASETS.register("phantom", kind="generated", raters=NUM_RATERS, layout="made on the fly")
class PhantomSource:
    """Lesions made on demand; which lesion a name stands for follows from the split seed."""

    def __init__(self, config: DataConfig, *, counts: tuple[int, int, int] = (400, 40, 40)) -> None:
        """Name the cases."""
        self.size, self.seed = config.image_size, config.split_seed
        names = [f"lesion_{i:04d}" for i in range(sum(counts))]
        parts = [part for part, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
        self.info = DataInfo(
            channels=1,
            labels=Labels("binary", ("lesion",)),
            raters=tuple(f"rater{i + 1}" for i in range(NUM_RATERS)),
            split=dict(zip(names, parts, strict=True)),
        )

    def lesion(self, name: str) -> Lesion:
        """Make the lesion of a name."""
        return make_lesion(self.size, derive_seed(self.seed, "lesion", name))

    def load(self, name: str) -> Case:
        """Make a case."""
        lesion = self.lesion(name)
        masks = lesion.raters(np.random.default_rng(derive_seed(self.seed, "raters", name)))
        image = np.round(lesion.image * 255) / np.float32(255)  # as it is once stored with 8 bits
        geometry = Geometry(shape=image.shape[1:], spacing=(1.0, 1.0))
        return Case(name, image.astype(np.float32), masks[:, None].astype(np.uint8), geometry)


def write_phantom(source: PhantomSource, folder: Path, *, names: Sequence[str] | None = None) -> None:
    """Write the phantom, or some of its cases, as a folder of images and masks, as a user's own data would be."""
    split = {name: source.info.split[name] for name in names or source.info.split}
    for name in split:
        case = source.load(name)
        assert case.mask is not None
        write_mask(folder / "images" / f"{name}.png", np.round(case.image[0] * 255).astype(np.uint8))
        for rater, mask in zip(source.info.raters, case.mask, strict=True):
            write_mask(folder / "masks" / rater / f"{name}.png", mask[0] * np.uint8(255))
    write_split(folder / "split.csv", split)
