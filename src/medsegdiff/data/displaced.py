"""Masks that lie beside what they outline: by patient, or in a whole data set, moved or drawn on other pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.fft import irfft2, rfft2
from scipy.ndimage import binary_dilation
from torch.nn import functional as F

SIDE = 128
"""Pixels of the longer side of what is looked at."""
REACH = 12
"""Of those pixels: how far masks may be off, along each axis."""
RING = 2
"""Width of the ring about a mask whose brightness is compared with that inside."""
FEWEST_PIXELS, FEWEST_CASES, MOST_CASES = 24, 5, 100
"""Of a mask, and cases of a group, from which anything is concluded; and of how many at most."""
FAR, LOST, CLEAR = 3.0, 0.5, 0.3
"""Pixels from which a mask lies elsewhere; the share of the contrast there that it has where it is, and as far the
other way, at most; and that contrast, at least, in standard deviations of the image about the mask."""
Shift = tuple[float, float]
"""Down and to the right, as shares of the longer side."""


class Contrasts:
    r"""Adds up, by group, how well masks would fit their images if they were moved.

    Where a mask m lies over what it outlines, brightness a inside differs from that in a ring r about it:

    .. math:: c(d) = \frac1n \sum_i \frac{1}{\sigma_i} \sum_x
        \Big(\frac{m_i(x - d)}{|m_i|} - \frac{r_i(x - d)}{|r_i|}\Big) a_i(x)

    is then a maximum near d = 0, or a minimum, as in most groups. A group whose masks were moved has little contrast
    where they lie, and much more a few pixels off, in one direction: masks that are drawn well inside of what they
    outline have a ring inside of it too, and gain by any move.
    """

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        self.cases: Counter[str] = Counter()

    def add(self, group: str, image: Float[np.ndarray, "c h w"], mask: Bool[np.ndarray, "h w"]) -> None:
        """Take in a case; a group is a patient, or all cases where patients are not known."""
        if self.cases[group] >= MOST_CASES:
            return
        grey, inside = _small(image.mean(axis=0)), _small(mask) >= 0.5
        around = binary_dilation(inside, iterations=RING) & ~inside
        spread = grey[binary_dilation(inside, iterations=REACH)].std() if inside.any() else 0.0
        if inside.sum() < FEWEST_PIXELS or not around.any() or not spread > 0:
            return
        template = inside / inside.sum() - around / around.sum()
        size = (grey.shape[0] + REACH, grey.shape[1] + REACH)  # what leaves at a side does not come back at the other
        grey = (grey - grey.mean()) / spread
        moved = irfft2(rfft2(grey, size) * rfft2(template, size).conj(), size)
        moved = np.roll(moved, (REACH, REACH), (0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
        self.sums[group] = self.sums.get(group, 0.0) + moved
        self.cases[group] += 1

    def displaced(self) -> Iterator[tuple[str, int, Shift]]:
        """List groups whose masks lie elsewhere: with their cases, and by how much they would have to be moved."""
        bright = sum((total[REACH, REACH] for total in self.sums.values()), 0.0) >= 0  # inside, in most groups
        for group, total in sorted(self.sums.items()):
            contrast = (total if bright else -total) / self.cases[group]
            down, right = _top(contrast)
            top = contrast[REACH + down, REACH + right]
            inner = max(abs(down), abs(right)) < REACH  # at the edge of what is looked at it may be none
            sure = self.cases[group] >= FEWEST_CASES and top >= CLEAR and inner
            other = max(contrast[REACH, REACH], contrast[REACH - down, REACH - right])
            if sure and math.hypot(down, right) >= FAR and other <= LOST * top:
                yield group, self.cases[group], (down / SIDE, right / SIDE)


def _top(contrast: Float[np.ndarray, "a a"]) -> tuple[int, int]:
    """Climb from where masks are to the next maximum: elsewhere other organs may stand out more."""
    at = (REACH, REACH)
    while True:
        y, x = (slice(max(of - 1, 0), of + 2) for of in at)
        near = contrast[y, x]
        best = np.unravel_index(near.argmax(), near.shape)
        then = (y.start + int(best[0]), x.start + int(best[1]))
        if contrast[then] <= contrast[at]:
            return at[0] - REACH, at[1] - REACH
        at = then


def _small(picture: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Reduce a picture by averaging, so that its longer side has as many pixels as are looked at."""
    scale = SIDE / max(picture.shape)
    size = tuple(max(1, round(of * scale)) for of in picture.shape)
    values = torch.from_numpy(np.ascontiguousarray(picture, np.float32))[None, None]
    return F.interpolate(values, size, mode="bilinear", antialias=True)[0, 0].double().numpy()


def displaced_in_words(group: str, cases: int, shift: Shift) -> str:
    """Say whose masks lie elsewhere, and what to do."""
    down, right = (100 * of for of in shift)
    ways = [f"{abs(down):.0f} % {'down' if down > 0 else 'up'}"] if round(down) else []
    ways += [f"{abs(right):.0f} % to the {'right' if right > 0 else 'left'}"] if round(right) else []
    whose = f"{group}: in {cases} images" if group else f"In {cases} images"
    return (
        f"{whose} the masks seem to lie beside what they outline; moved by {' and '.join(ways)} of the longer side "
        "they would fit. Look at them; a patient whose masks are displaced should be left out, or the masks moved."
    )
