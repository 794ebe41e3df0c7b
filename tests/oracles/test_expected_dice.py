"""The mask of largest expected Dice against every mask, every size, the phantom's law and simulated raters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import gaussian_filter

from medsegdiff.data.phantom import make_lesion
from medsegdiff.errors import ConfigError, ShapeError
from medsegdiff.fusion.dependence import fit_dependence
from medsegdiff.fusion.expected_dice import decide_in_slabs, largest_expected_dice
from medsegdiff.fusion.fusers import FUSERS, decide, dice
from medsegdiff.fusion.protocol import Raters, protocol_probability, simulated_references
from medsegdiff.fusion.structures import Slab, decide_structures, decide_volume
from medsegdiff.io.atomic import make_room
from medsegdiff.labels import Labels, one_hot
from tests.makers import disc

BINARY = Labels("binary", ("lesion",))
EXCLUSIVE = Labels("exclusive", ("background", "liver", "tumour"))
REGIONS = Labels("regions", ("whole", "core"))


def expected(masks: np.ndarray, atoms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected Dice of each mask (a n) under a law of masks (m n); two empty masks agree."""
    both = masks.astype(float) @ atoms.T.astype(float)
    total = masks.sum(axis=1)[:, None] + atoms.sum(axis=1)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0) @ (weights / weights.sum())


def every_mask(num_pixels: int) -> np.ndarray:
    return np.array(list(itertools.product([False, True], repeat=num_pixels)))


def blobs(num: int, size: int = 64, *, seed: int = 0, rough: float = 4) -> np.ndarray:
    """Masks with one core and borders of their own (m h w)."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(num, size, size)), (0, rough, rough))
    y, x = np.mgrid[:size, :size] - size / 2
    return 0.25 * size - np.hypot(y, x) + 0.12 * size * noise / noise.std() + rng.normal(size=(num, 1, 1)) > 0


def by_every_size(votes: np.ndarray, marginal: np.ndarray, smoothing: float) -> tuple[float, int]:
    """Largest sum of h, and its k, with every k and every pixel."""
    sizes, drawn, best = votes.sum(axis=1), votes.sum(axis=0), (float((votes.sum(axis=1) == 0).mean()), 0)
    for k in range(1, votes.shape[1] + 1):
        w = 2 / (k + np.maximum(sizes, 1))
        h = marginal * (w @ votes + smoothing * w.mean()) / np.maximum(drawn + smoothing, 1e-9)
        best = max(best, (float(np.sort(h)[::-1][:k].sum()), k))
    return best


@pytest.mark.parametrize("with_empty", [False, True])
def test_no_mask_is_better_than_the_decided_one(with_empty: bool) -> None:
    rng = np.random.default_rng(int(with_empty))
    for _ in range(100):
        num = int(rng.integers(1, 10))
        atoms = rng.random((rng.integers(1, 7), num)) < rng.random((1, num))
        atoms = np.concatenate([atoms, np.zeros((1, num), bool)]) if with_empty else atoms
        weights = rng.random(len(atoms)) + 0.01
        masks = every_mask(num)
        of_all = expected(masks, atoms, weights)
        decided = largest_expected_dice(atoms, weights=weights)
        assert decided.expected == pytest.approx(of_all.max(), abs=1e-12)
        assert of_all[(masks == decided.mask).all(axis=1)][0] == pytest.approx(of_all.max(), abs=1e-12)


def test_twelve_pixels_and_many_samples() -> None:
    rng = np.random.default_rng(3)
    atoms = rng.random((200, 12)) < rng.random(12)  # more samples than a number has bits
    of_all = expected(every_mask(12), atoms, np.ones(200))
    assert largest_expected_dice(atoms).expected == pytest.approx(of_all.max(), abs=1e-12)


def test_empty_masks_are_decided_for_when_more_than_half_are_empty() -> None:
    atoms = np.array([[True, True], [False, False]])
    assert not largest_expected_dice(atoms, weights=np.array([0.4, 0.6])).mask.any()
    assert largest_expected_dice(atoms, weights=np.array([0.5, 0.5])).mask.all()  # a tie is foreground
    none = largest_expected_dice(np.zeros((3, 5), bool))
    assert none.expected == 1
    assert not none.mask.any()
    assert largest_expected_dice(np.zeros((3, 0), bool), np.zeros(0)).mask.shape == (0,)


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 5.0])
def test_branch_and_bound_finds_what_every_size_finds(smoothing: float) -> None:
    rng = np.random.default_rng(7)
    for trial in range(25):
        num, samples = int(rng.integers(1, 400)), int(rng.integers(1, 12))
        there = rng.random((samples, 5)) < rng.random(5)  # lesions, there or not: many sizes are locally best
        votes = there[:, rng.integers(0, 5, num)] & (rng.random((samples, num)) < rng.choice([0.5, 0.9, 1]))
        noisy = votes.mean(axis=0) * 0.8 + 0.2 * rng.random(num)
        marginal = np.round(noisy ** rng.choice([1, 4]) * 1024) / 1024  # what is counted exactly
        value, size = by_every_size(votes, marginal, smoothing)
        decided = largest_expected_dice(votes, marginal, smoothing=smoothing)
        assert decided.expected == pytest.approx(value, abs=1e-9), trial
        assert decided.gain.sum() == pytest.approx(value if size else 0, abs=1e-9)


def test_share_of_samples_as_marginal_without_smoothing_changes_nothing() -> None:
    votes = blobs(8).reshape(8, -1)
    plain, told = largest_expected_dice(votes), largest_expected_dice(votes, votes.mean(axis=0), smoothing=0.0)
    assert told.expected == pytest.approx(plain.expected, abs=1e-12)
    assert np.array_equal(plain.mask, told.mask)


def test_pixels_that_err_by_themselves_are_decided_as_by_rank_dice() -> None:
    p = np.random.default_rng(5).uniform(0.02, 0.6, 10)
    best = 0.0
    for k in range(1, 11):  # RankDice, with the exact law of the size
        h = []
        for i in range(10):
            law = np.ones(1)
            for other in np.delete(p, i):
                law = np.convolve(law, [1 - other, other])
            h.append(2 * p[i] * (law / (k + 1 + np.arange(10))).sum())
        best = max(best, sum(sorted(h)[-k:]))
    atoms = every_mask(10)
    weights = np.where(atoms, p, 1 - p).prod(axis=1)
    decided = largest_expected_dice(atoms, weights=weights)
    assert decided.expected == pytest.approx(max(best, weights[0]), abs=1e-12)
    assert np.array_equal(decided.mask, p >= np.sort(p)[-decided.mask.sum()])
    assert (p[decided.mask] < 0.5).any()  # a vote would leave it out


def test_phantom_is_decided_as_its_law_says() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        lesion = make_lesion(48, seed)
        masks, weights = lesion.distribution()
        atoms = masks.reshape(4, -1)
        parts = [part.ravel() for part in (lesion.core, lesion.rim, lesion.satellite)]
        unions = np.array(
            [
                np.any([p & c for p, c in zip(parts, chosen, strict=True)], axis=0)
                for chosen in itertools.product([False, True], repeat=3)
            ]
        )
        decided = largest_expected_dice(atoms, weights=weights)
        assert decided.expected == pytest.approx(expected(decided.mask[None], atoms, weights)[0], abs=1e-12)
        assert decided.expected >= expected(unions, atoms, weights).max() - 1e-12
        noisy = decided.mask ^ (rng.random((200, atoms.shape[1])) < rng.choice([0.001, 0.05], (200, 1)))
        assert decided.expected >= expected(noisy, atoms, weights).max() - 1e-12
        told = largest_expected_dice(masks[rng.choice(4, 10, p=weights)].reshape(10, -1), lesion.probability().ravel())
        assert expected(told.mask[None], atoms, weights)[0] > decided.expected - 0.06


def test_a_smooth_marginal_beats_the_share_of_few_samples() -> None:
    law = blobs(400, seed=1, rough=1.5).reshape(400, -1)
    ours, plain = [], []
    for start in range(0, 100, 10):
        drawn = law[start : start + 10]
        ours.append(largest_expected_dice(drawn, law.mean(axis=0)).mask)
        plain.append(largest_expected_dice(drawn).mask)
    means = [expected(np.array(masks), law, np.ones(400)).mean() for masks in (ours, plain)]
    best = largest_expected_dice(law).expected
    assert means[0] > means[1] + 0.005
    assert best - 0.003 < means[0] <= best


def test_order_of_samples_and_of_pixels_makes_no_difference() -> None:
    rng = np.random.default_rng(2)
    votes, marginal = blobs(7).reshape(7, -1), rng.random(64 * 64) * blobs(7).mean(axis=0).ravel()
    decided = largest_expected_dice(votes, marginal)
    rows, pixels = rng.permutation(7), rng.permutation(votes.shape[1])
    again = largest_expected_dice(votes[rows][:, pixels], marginal[pixels])
    assert again.expected == pytest.approx(decided.expected, abs=1e-12)
    assert np.sort(again.gain) == pytest.approx(np.sort(decided.gain), abs=1e-12)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("num", [9, 70])
def test_slabs_are_decided_as_the_whole(told: bool, num: int) -> None:
    rng = np.random.default_rng(4)
    votes = blobs(num).reshape(num, -1)
    marginal = gaussian_filter(blobs(num).mean(axis=0), 2).ravel().astype(np.float16) if told else None
    ends = [0, *np.sort(rng.integers(0, votes.shape[1], 6)).tolist(), votes.shape[1]]
    parts = [(votes[:, a:b], None if marginal is None else marginal[a:b]) for a, b in itertools.pairwise(ends)]
    slabs, whole = list(decide_in_slabs(lambda: parts)), largest_expected_dice(votes, marginal)
    assert np.array_equal(np.concatenate([slab.gain for slab in slabs]), whole.gain)
    assert {slab.expected for slab in slabs} == {whole.expected}


def test_a_cut_through_pixels_that_are_alike_is_the_same_in_slabs() -> None:
    votes, weights = np.zeros((2, 250), bool), np.array([0.697, 0.303])
    votes[0, :150], votes[1, 150:] = True, True  # some of what the second draws is worth it, all of it is not
    whole = largest_expected_dice(votes, weights=weights)
    assert 150 < whole.mask.sum() < 250
    assert whole.expected == pytest.approx(expected(whole.mask[None], votes, weights)[0])
    slabs = decide_in_slabs(lambda: [(votes[:, a : a + 30], None) for a in range(0, 250, 30)], weights=weights)
    assert np.array_equal(np.concatenate([slab.mask for slab in slabs]), whole.mask)


@pytest.mark.parametrize(("samples", "raters"), [(5, 2), (5, 3), (4, 4), (2, 3), (1, 3)])
def test_simulated_references_are_the_majorities_of_raters(samples: int, raters: int) -> None:
    votes = np.random.default_rng(0).random((samples, 30)) < 0.5
    made = simulated_references(votes, raters=raters)
    panels = list(
        itertools.combinations(votes, raters) if raters <= samples else itertools.product(votes, repeat=raters)
    )
    assert np.array_equal(made, np.stack([np.mean(panel, axis=0) >= 0.5 for panel in panels]))
    if raters == 2:
        assert np.array_equal(made[0], votes[0] | votes[1])


def test_of_many_panels_sixty_are_drawn_and_always_the_same() -> None:
    votes = np.random.default_rng(0).random((16, 500)) < np.linspace(0.1, 0.9, 16)[:, None]
    made = simulated_references(votes, raters=5)
    assert made.shape == (60, 500)
    assert np.array_equal(made, simulated_references(votes, raters=5))
    assert np.array_equal(made[:, 100:], simulated_references(votes[:, 100:], raters=5))
    assert simulated_references(votes, raters=1) is votes


@pytest.mark.parametrize("raters", [1, 2, 3, 4, 5])
def test_protocol_probability_is_that_of_simulated_raters(raters: int) -> None:
    rng = np.random.default_rng(0)
    p = np.linspace(0, 1, 9)
    drawn = (rng.random((40_000, raters, 9)) < p).mean(axis=1) >= 0.5
    assert protocol_probability(p, raters) == pytest.approx(drawn.mean(axis=0), abs=0.012)


@pytest.mark.parametrize("raters", [2, 3, 10, 51, 1000])
def test_protocol_probability_is_a_tail_of_the_binomial_distribution(raters: int) -> None:
    p = np.concatenate([[0, 1e-9, 1], np.random.default_rng(0).random(100)])
    expected = stats.binom.sf(np.ceil(raters / 2) - 1, raters, p)
    assert protocol_probability(p, raters) == pytest.approx(expected, rel=1e-9)
    assert protocol_probability(p.astype(np.float32), raters).dtype == np.float32
    assert protocol_probability(p.astype(np.float32), raters).max() <= 1


@pytest.mark.parametrize(("raters", "told"), [(0, "Give 1 or more"), (1001, "allowed are 1 … 1000")])
def test_numbers_of_raters_that_make_no_panel_are_refused(raters: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        protocol_probability(np.zeros(1), raters)


@pytest.mark.parametrize(("raters", "dependence"), [(2, 0.35), (3, 0.8), (4, 0.0), (5, 1.0)])
def test_how_far_raters_draw_alike_is_found_and_told(raters: int, dependence: float) -> None:
    """Simulated: in some pictures all raters draw one mask, in the others each his own."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.7, 0.7, 60_000)
    apart, alike = rng.random((raters, len(p))) < p, rng.random(len(p)) < dependence
    apart[:, alike] = apart[0, alike]
    reference = 2 * apart.sum(axis=0) >= raters
    assert fit_dependence(p, reference, raters=raters) == pytest.approx(dependence, abs=0.04)
    told = Raters(raters, dependence).probability(p)
    for low in (0.1, 0.3, 0.5, 0.7):
        near = (p > low) & (p < low + 0.1)
        assert told[near].mean() == pytest.approx(reference[near].mean(), abs=0.02)


@pytest.mark.parametrize("dependence", [0.0, 0.3, 0.7, 1.0])
def test_the_mask_for_raters_that_draw_alike_is_the_best_of_all(dependence: float) -> None:
    """Brute force over all masks of eight pixels, against majorities of three and single masks, weighed."""
    rng = np.random.default_rng(5)
    votes = rng.random((4, 8)) < np.linspace(0.1, 0.9, 8)
    panels = [np.sum(panel, axis=0) >= 2 for panel in itertools.combinations(votes, 3)]
    law = np.concatenate([panels, votes])
    weights = np.repeat([(1 - dependence) / len(panels), dependence / len(votes)], [len(panels), len(votes)])
    masks = every_mask(8)
    best = expected(masks, law, weights).max()
    slab = Slab(votes[:, None], None, 1)
    (found,) = next(decide_structures(lambda: [slab], exclusive=False, raters=Raters(3, dependence)))
    assert expected(found[None], law, weights)[0] == pytest.approx(best)


def test_one_rater_depends_on_nobody() -> None:
    votes = np.random.default_rng(0).random((4, 30)) < 0.5
    references, weights = Raters(1, 0.9).references(votes)
    assert references is votes
    assert weights is None
    assert fit_dependence(np.array([0.3]), np.array([True]), raters=1) == 0


def test_deciding_for_the_union_of_two_raters_beats_deciding_for_one() -> None:
    law = blobs(100, seed=3, rough=2).reshape(100, -1)
    rng = np.random.default_rng(0)
    unions = np.stack([np.any(law[rng.choice(100, 2, replace=False)], axis=0) for _ in range(300)])
    samples = torch.from_numpy(law[:10].reshape(10, 1, 1, 64, 64)).float()
    told = torch.from_numpy(law.mean(axis=0).reshape(1, 64, 64)).float()
    one, two = (dice(samples, marginal=told, raters=Raters(r)).mask.numpy().reshape(1, -1) for r in (1, 2))
    values = [expected(mask, unions, np.ones(300))[0] for mask in (one, two)]
    assert values[1] > values[0] + 0.02


@pytest.mark.parametrize("marginal", [False, True])
def test_classes_never_overlap_and_each_has_its_best_mask_where_it_is_alone(marginal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(6, 1, 3, 20, 24, generator=generator)
    told = torch.rand(3, 20, 24, generator=generator).softmax(dim=0) if marginal else None
    mask = dice(samples, exclusive=True, marginal=told).mask
    assert torch.equal(mask.sum(dim=1), torch.ones(1, 20, 24, dtype=torch.int64))
    votes = one_hot(samples.argmax(dim=2), 3)[:, 0].flatten(2).bool().numpy()
    alone = [largest_expected_dice(votes[:, k], None if told is None else told[k].flatten().numpy()) for k in (1, 2)]
    gains = np.stack([found.gain for found in alone])
    flat = mask[0, 1:].flatten(1).numpy()
    assert np.array_equal(flat.any(axis=0), (gains > 0).any(axis=0))
    both = (gains > 0).all(axis=0)
    assert both.any()
    assert np.array_equal(flat[0, both], gains[0, both] >= gains[1, both])


def shown(labels: Labels, num: int = 5, *, seed: int = 0) -> np.ndarray:
    """Label maps of members on a small volume."""
    rng = np.random.default_rng(seed)
    big, small = (
        np.stack([np.stack([disc((14, 16), (7, 8), r + rng.normal()) for _ in range(9)]) for _ in range(num)])
        for r in (5, 2)
    )
    if labels.task == "regions":
        return np.stack([big, big & small], axis=1).astype(np.uint8)
    return (big + (big & small) * (labels.task == "exclusive")).astype(np.uint8)


@pytest.mark.parametrize("labels", [BINARY, EXCLUSIVE, REGIONS], ids=lambda labels: labels.task)
@pytest.mark.parametrize("raters", [1, 2])
def test_a_volume_in_files_is_decided_as_one_large_picture(labels: Labels, raters: int) -> None:
    members = shown(labels)
    lead = members.ndim - 3
    rng = np.random.default_rng(1)
    marginal = rng.random((len(labels.classes), 9, 14, 16)).astype(np.float16)
    stored = make_room(members.shape, members.dtype, outer=lead + 1)
    stored[...] = members
    mask = make_room(members.shape[1:], members.dtype, outer=lead)
    decide_volume(stored, labels, mask=mask, marginal=marginal, raters=Raters(raters), slab=300)
    if labels.task == "regions":
        channels = members
    elif labels.task == "binary":
        channels = members[:, None]
    else:
        channels = np.stack([members == k for k in range(3)], axis=1)
    picture = torch.from_numpy(channels.reshape(5, -1, 9 * 14, 16)).float()
    told = torch.from_numpy(marginal.astype(np.float32)).flatten(1, 2)
    whole = decide(picture, labels, fusion="dice", marginal=told, raters=Raters(raters)).mask
    assert np.mean(whole.reshape(mask.shape) != mask) < 0.005  # pixels that are alike may be cut elsewhere
    again = mask.copy()
    decide_volume(members, labels, mask=again, marginal=marginal, raters=Raters(raters))
    assert np.mean(again != mask) < 0.005


def test_fusers_that_do_not_take_a_marginal_ignore_it() -> None:
    samples = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    for name in ("majority", "staple"):
        plain, told = (decide(samples, BINARY, fusion=name, marginal=m) for m in (None, torch.ones(1, 6, 6)))
        assert np.array_equal(plain.mask, told.mask)
        assert FUSERS[name].factory(samples[:, None], exclusive=False).mask is None
    for name in ("dice", "mean"):
        assert decide(samples, BINARY, fusion=name, marginal=torch.ones(1, 6, 6)).mask.all()


def test_errors_say_what_to_give() -> None:
    votes = np.ones((2, 3), bool)
    for bad in (np.full(3, 1.5), np.full(3, np.nan), np.full(3, -0.1)):
        with pytest.raises(ConfigError, match="not logits"):
            largest_expected_dice(votes, bad)
    with pytest.raises(ConfigError, match="smoothing is -1"):
        largest_expected_dice(votes, smoothing=-1.0)
    with pytest.raises(ConfigError, match="one of them more than 0"):
        largest_expected_dice(votes, weights=np.zeros(2))
    with pytest.raises(ShapeError, match="3 weights for 2 samples"):
        list(decide_in_slabs(lambda: [(votes, None)], weights=np.ones(3)))
    with pytest.raises(ShapeError, match="others without"):
        list(decide_in_slabs(lambda: [(votes, None), (votes, np.ones(3))]))
    with pytest.raises(ShapeError, match="give one at least"):
        list(decide_in_slabs(list))
    with pytest.raises(ShapeError, match="one image at a time"):
        dice(torch.ones(2, 2, 1, 4, 4), marginal=torch.ones(1, 4, 4))
    with pytest.raises(ShapeError, match="Give all on one grid"):
        decide_volume(shown(BINARY), BINARY, mask=np.zeros((9, 14, 15), np.uint8))
    with pytest.raises(ShapeError, match=r"the marginal \(2, 9, 14, 16\)"):
        decide_volume(shown(BINARY), BINARY, mask=np.zeros((9, 14, 16), np.uint8), marginal=np.ones((2, 9, 14, 16)))
