"""Whether images always lie the same way about their structures: which mirrors and turns training may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from medsegdiff.config.data import DataConfig
from medsegdiff.config.spec import Orientation
from medsegdiff.data.split import evenly
from medsegdiff.data.transforms import Prepared

MOST = 100
"""Training cases that are looked at, at most."""
SIDE, REACH = 32, 3.0
"""Pixels of a cutout's side, and that side over the square root of the structure's area."""
FEWEST = 10
"""Pixels of a structure that is looked at, and cutouts below which nothing is concluded."""
ONE_WAY = 0.1
"""Share of what a mirror changes that is the same in all images, from which on they lie one way."""
SLIGHT = 20.0
"""Degrees that images are turned by, at most, where they lie one way."""

Turn = Callable[[np.ndarray], np.ndarray]
MIRRORED: tuple[Turn, Turn] = (lambda cut: cut[..., ::-1], lambda cut: cut[..., ::-1, :])
"""Left and right; top and bottom."""
TURNED: tuple[Turn, Turn] = (lambda cut: np.rot90(cut, 1, (-2, -1)), lambda cut: np.rot90(cut, 2, (-2, -1)))


def orientation_of(cases: Iterable[Prepared], asked: DataConfig, *, structures: slice) -> Orientation:
    r"""Find out which mirrors and turns make images that might be there.

    Cutouts about each structure, of zero mean and unit spread, are taken apart into what a mirror g leaves and what
    it changes, :math:`o_i = (x_i - g x_i) / 2`. Where images lie either way these parts cancel in the mean; where they
    lie one way they don't. With n cutouts the share that stays, corrected for what n random ones leave, is

    .. math:: r = \frac{n \|\bar o\|^2 / \overline{\|o_i\|^2} - 1}{n - 1}.

    In short-axis images of the heart the right ventricle lies on one side of the left: r = .34 for left and right,
    .06 for top and bottom. Skin lesions have .01, the liver .23; optic discs, of left and right eyes, -.01 and .18.
    A mirror is used where r < .1 for every structure; turns by any angle where it is so for turns by 90° and 180° too.

    Args:
        cases: On the model grid.
        asked: ``orientation``: ``free`` and ``fixed`` are taken as they are.
        structures: The mask channels that are structures.

    Returns:
        Mirrors and turns; all of them where there is too little to tell.
    """
    if asked.orientation != "auto":
        return Orientation() if asked.orientation == "free" else Orientation(mirrors=(False, False), turn=SLIGHT)
    cuts = cutouts(cases, structures=structures)
    known = [np.stack(of) for of in cuts if len(of) >= FEWEST]
    free = [all(sameness(of, turn) < ONE_WAY for of in known) for turn in (*MIRRORED, *TURNED)]
    return Orientation(mirrors=(free[0], free[1]), turn=180.0 if all(free[2:]) else SLIGHT)


def looked_at(names: Sequence[str]) -> list[str]:
    """Choose training cases."""
    return evenly(names, MOST)


def sameness(cuts: Float[np.ndarray, "n h w"], turn: Turn) -> float:
    """Compute the share r of what a mirror or turn changes that is the same in all cutouts.

    Args:
        cuts: Two at least.
        turn: The mirror or turn.

    Returns:
        About 0 where they lie either way, up to 1 where they are all the same; 0 where nothing changes.
    """
    odd = (cuts - turn(cuts)) / 2
    whole = float(np.square(odd).sum(axis=(1, 2)).mean())
    share = float(np.square(odd.mean(axis=0)).sum()) / whole if whole else 0.0
    return (len(cuts) * share - 1) / (len(cuts) - 1)


def cutouts(cases: Iterable[Prepared], *, structures: slice) -> list[list[Float[np.ndarray, "side side"]]]:
    """Cut out what lies about each structure, as grey pictures; by structure."""
    found: list[list[np.ndarray]] = []
    for case in cases:
        assert case.mask is not None
        image, masks = case.image.mean(dim=0).numpy(), case.mask[0, structures].numpy() > 0
        found = found or [[] for _ in masks]
        for own, mask in zip(found, masks, strict=True):
            if mask.sum() >= FEWEST:
                own.append(_cutout(image, mask))
    return found


def _cutout(image: Float[np.ndarray, "h w"], mask: np.ndarray) -> Float[np.ndarray, "side side"]:
    centre, reach = np.argwhere(mask).mean(axis=0), REACH * np.sqrt(mask.sum()) / 2
    grid = np.linspace(-reach, reach, SIDE)
    places = np.meshgrid(centre[0] + grid, centre[1] + grid, indexing="ij")
    cut = map_coordinates(image, places, order=1, mode="nearest")
    return (cut - cut.mean()) / max(float(cut.std()), 1e-6)


def in_words(orientation: Orientation) -> str:
    """Say which mirrors and turns are used."""
    words = ("left–right", "top–bottom")
    used = [word for word, free in zip(words, orientation.mirrors, strict=True) if free]
    return f"mirrored {' and '.join(used) or 'not at all'}, turned by up to {orientation.turn:g}°"
