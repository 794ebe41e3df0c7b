"""STAPLE against simulated raters, whose quality is known, and against SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medsegdiff.fusion.fusers import majority, mean, staple
from medsegdiff.fusion.staple import binary_staple, multi_label_staple
from medsegdiff.labels import one_hot

sitk = pytest.importorskip("SimpleITK")


def blob(size: int = 64) -> torch.Tensor:
    truth = torch.zeros(size, size)
    truth[size // 4 : size * 3 // 4, size // 3 : size * 4 // 5] = 1
    return truth


def raters(truth: torch.Tensor, p: list[float], q: list[float], seed: int = 0) -> torch.Tensor:
    """Draw votes (m, 1, 1, h, w): sensitivity p and specificity q by rater."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(p), *truth.shape, generator=generator)
    chance = torch.stack([torch.where(truth > 0, a, 1 - b) for a, b in zip(p, q, strict=True)])
    return (draws < chance).float()[:, None, None]


def itk_staple(votes: torch.Tensor) -> tuple[np.ndarray, list[float], list[float]]:
    images = [sitk.GetImageFromArray(vote[0, 0].numpy().astype(np.uint8)) for vote in votes]
    filter_ = sitk.STAPLEImageFilter()
    filter_.SetForegroundValue(1)
    probability = sitk.GetArrayFromImage(filter_.Execute(images))
    return probability, list(filter_.GetSensitivity()), list(filter_.GetSpecificity())


def test_quality_of_five_simulated_raters_comes_back() -> None:
    p, q = [0.95, 0.9, 0.85, 0.8, 0.7], [0.99, 0.95, 0.97, 0.9, 0.93]
    fused = staple(raters(blob(512), p, q))
    assert fused.converged
    assert fused.sensitivity.flatten().tolist() == pytest.approx(p, abs=0.003)
    assert fused.specificity.flatten().tolist() == pytest.approx(q, abs=0.003)


@pytest.mark.parametrize("seed", range(6))
def test_equals_simpleitk_on_random_votes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = int(rng.integers(2, 12))
    votes = raters(blob(), rng.uniform(0.6, 0.99, m).tolist(), rng.uniform(0.7, 0.99, m).tolist(), seed)
    fused = staple(votes, tolerance=1e-9, max_iterations=2000)
    probability, sensitivity, specificity = itk_staple(votes)
    assert np.abs(fused.probability[0, 0].numpy() - probability).max() < 1e-3
    assert fused.sensitivity.flatten().tolist() == pytest.approx(sensitivity, abs=1e-4)
    assert fused.specificity.flatten().tolist() == pytest.approx(specificity, abs=1e-4)


@pytest.mark.parametrize(("value", "name"), [(0.0, "empty"), (1.0, "full")])
def test_votes_that_are_all_empty_or_full_come_back_where_simpleitk_gives_nan(value: float, name: str) -> None:
    votes = torch.full((4, 1, 1, 8, 8), value)
    assert np.isnan(itk_staple(votes)[0]).any() or not np.allclose(itk_staple(votes)[0], value)
    fused = staple(votes)
    assert torch.isfinite(fused.probability).all(), name
    assert ((fused.probability >= 0.5).float() == value).all()
    assert torch.isfinite(fused.sensitivity).all()
    assert torch.isfinite(fused.specificity).all()


def plain_staple(votes: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Warfield's E-step and M-step as they are printed, pixel by pixel and rater by rater (m, n)."""
    f, p, q = votes.mean(), np.full(len(votes), 0.99999), np.full(len(votes), 0.99999)

    def expected() -> np.ndarray:
        a = f * np.where(votes == 1, p[:, None], 1 - p[:, None]).prod(axis=0)
        b = (1 - f) * np.where(votes == 0, q[:, None], 1 - q[:, None]).prod(axis=0)
        return a / (a + b)

    for _ in range(steps):
        w = expected()
        p, q = (votes * w).sum(axis=1) / w.sum(), ((1 - votes) * (1 - w)).sum(axis=1) / (1 - w).sum()
    return expected(), p, q


@pytest.mark.parametrize("m", [2, 5, 9, 17, 26, 65])
def test_shared_votes_and_sums_by_groups_are_the_plain_algorithm(m: int) -> None:
    rng = np.random.default_rng(m)
    votes = raters(blob(), rng.uniform(0.6, 0.9, m).tolist(), rng.uniform(0.7, 0.95, m).tolist(), m)
    votes[:, :, :, :20] = blob()[:20]  # there they agree
    votes = votes.to(torch.uint8).flatten(1).numpy()
    estimate = binary_staple(votes, tolerance=0.0, max_iterations=3)
    posterior, p, q = plain_staple(votes, 3)
    assert estimate.steps == 3
    assert np.allclose(estimate.posterior[0], posterior, atol=1e-6)  # kept in 32 bits
    assert estimate.sensitivity[:, 0] == pytest.approx(p, abs=1e-12)
    assert estimate.specificity[:, 0] == pytest.approx(q, abs=1e-12)


def plain_multi_label(votes: np.ndarray, num_labels: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The multi-category E-step and M-step with a confusion matrix per rater; gives W (s, n) and θ (m, said, true)."""
    own = np.eye(num_labels)
    share = np.array([(votes == label).mean() for label in range(num_labels)])
    w = own[:, own[votes].sum(axis=0).argmax(axis=1)]
    for _ in range(steps):
        theta = np.stack([own[row].T @ w.T / w.sum(axis=1) for row in votes])
        w = share[:, None] * np.stack([row[vote].T for row, vote in zip(theta, votes, strict=True)]).prod(axis=0)
        w /= w.sum(axis=0)
    return w, np.stack([own[row].T @ w.T / w.sum(axis=1) for row in votes])


@pytest.mark.parametrize(("m", "num_labels"), [(4, 3), (7, 4), (40, 4), (3, 20)])
def test_labels_are_estimated_as_the_plain_algorithm_does(m: int, num_labels: int) -> None:
    rng = np.random.default_rng(m)
    truth = np.repeat(rng.integers(0, num_labels, 3000), 7)
    votes = np.where(rng.random((m, len(truth))) < 0.4, rng.integers(0, num_labels, (m, len(truth))), truth)
    estimate = multi_label_staple(votes, num_labels, tolerance=0.0, max_iterations=3)
    w, theta = plain_multi_label(votes, num_labels, 3)
    assert np.allclose(estimate.posterior, w, atol=1e-6)
    sensitivity = np.stack([np.diagonal(row) for row in theta])
    assert estimate.sensitivity == pytest.approx(sensitivity, abs=1e-6)
    outside = 1 - w
    left_out = np.stack([[(outside[s] * (row != s)).sum() for s in range(num_labels)] for row in votes])
    assert estimate.specificity == pytest.approx(left_out / outside.sum(axis=1), abs=1e-6)


def test_identical_raters_give_that_rater() -> None:
    votes = blob()[None, None, None].expand(5, 1, 1, 64, 64)
    fused = staple(votes)
    assert torch.equal((fused.probability[0, 0] >= 0.5).float(), blob())
    assert fused.sensitivity.min() > 0.999


def test_equal_raters_give_the_majority_vote() -> None:
    votes = raters(blob(), [0.85] * 5, [0.85] * 5)
    assert torch.equal((staple(votes).probability >= 0.5).float(), majority(votes).probability)


def test_one_member_is_believed() -> None:
    votes = blob()[None, None, None]
    assert torch.equal((staple(votes).probability >= 0.5).float()[0, 0], blob())


def test_images_and_channels_are_estimated_by_themselves() -> None:
    a, b = raters(blob(), [0.9] * 3, [0.9] * 3, 1), raters(blob().T, [0.7, 0.8, 0.9], [0.95] * 3, 2)
    together = staple(torch.cat([torch.cat([a, b], dim=2), torch.cat([b, a], dim=2)], dim=1))
    alone = staple(a).probability[0, 0]
    assert torch.allclose(together.probability[0, 0], alone, atol=1e-6)
    assert torch.allclose(together.probability[1, 1], alone, atol=1e-6)
    assert together.sensitivity.shape == (3, 2, 2)
    assert torch.allclose(together.sensitivity[:, 0, 1], staple(b).sensitivity[:, 0, 0], atol=1e-5)


def test_many_members_share_patterns_without_mixing_them_up() -> None:
    """Seventy raters have more patterns than a 64-bit number can name by their bits."""
    votes = raters(blob(16), [0.8] * 70, [0.8] * 70)
    assert torch.equal((staple(votes).probability >= 0.5).float()[0, 0], blob(16))


def labelled(seed: int = 0, m: int = 5, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(48, 48).long()
    truth[:20, :20], truth[20:, :24], truth[:16, 30:] = 1, 2, 3
    wrong = torch.rand(m, 48, 48, generator=generator) < noise
    return truth, torch.where(wrong, torch.randint(0, 4, (m, 48, 48), generator=generator), truth)


def test_labels_equal_simpleitks_multi_label_staple() -> None:
    _, votes = labelled()
    fused = staple(one_hot(votes[:, None], 4), exclusive=True)
    filter_ = sitk.MultiLabelSTAPLEImageFilter()
    filter_.SetLabelForUndecidedPixels(9)
    images = [sitk.GetImageFromArray(vote.numpy().astype(np.uint8)) for vote in votes]
    theirs = sitk.GetArrayFromImage(filter_.Execute(images))
    assert (fused.probability.argmax(dim=1)[0].numpy() == theirs).mean() > 0.999


def test_multi_label_recovers_truth_and_quality() -> None:
    truth, votes = labelled(noise=0.4)
    fused = staple(one_hot(votes[:, None], 4), exclusive=True)
    assert (fused.probability.argmax(dim=1)[0] == truth).float().mean() > 0.9
    right = torch.stack([(vote == truth).float().mean() for vote in votes])
    assert torch.allclose(fused.sensitivity[:, 0].mean(dim=1), right, atol=0.05)


def test_rates_of_simulated_readers_of_four_labels_come_back() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(256, 256).long()
    truth[:100, :110], truth[100:, :120], truth[:90, 150:] = 1, 2, 3
    right = [0.9, 0.85, 0.8, 0.75, 0.7]
    wrong = torch.stack([torch.rand(256, 256, generator=generator) > chance for chance in right])
    slip = torch.randint(1, 4, (5, 256, 256), generator=generator)  # to each of the other labels alike
    votes = torch.where(wrong, (truth + slip) % 4, truth)
    fused = staple(one_hot(votes[:, None], 4), exclusive=True)
    assert fused.converged
    for rate, sensitivity, specificity in zip(right, fused.sensitivity[:, 0], fused.specificity[:, 0], strict=True):
        assert sensitivity.tolist() == pytest.approx([rate] * 4, abs=0.01)
        assert specificity.tolist() == pytest.approx([1 - (1 - rate) / 3] * 4, abs=0.01)


def test_multi_label_of_one_class_alone_is_finite() -> None:
    votes = one_hot(torch.zeros(3, 1, 8, 8).long(), 4)
    fused = staple(votes, exclusive=True)
    assert torch.isfinite(fused.probability).all()
    assert (fused.probability.argmax(dim=1) == 0).all()


@pytest.mark.parametrize(("members", "spurious"), [(2, 0), (5, 0), (5, 1)])
def test_of_a_label_that_is_not_there_nothing_is_learned_as_in_the_binary_case(members: int, spurious: int) -> None:
    """Nobody draws the third, or one member of five does, whom none believes; the members differ in the second."""
    labels = blob().expand(members, 1, 64, 64).long().clone()
    labels[0, :, 20:24] = 1
    labels[:spurious, :, 2:5, 2:5] = 2
    multi = staple(one_hot(labels, 3), exclusive=True)
    binary = staple((labels == 2).float()[:, :, None])
    assert multi.sensitivity[:, 0, 2] == pytest.approx(binary.sensitivity[:, 0, 0], abs=1e-6)
    assert multi.specificity[:, 0, 2] == pytest.approx(binary.specificity[:, 0, 0], abs=1e-6)
    assert multi.sensitivity[:, 0, 2].min() > 0.999


def test_of_a_large_volume_no_voxel_is_of_a_label_that_nobody_draws() -> None:
    votes, voxels = np.array([[0, 1, 1], [0, 1, 0]]), np.array([1e9, 1e8, 50.0])
    estimate = multi_label_staple(votes, 3, weight=voxels)
    assert estimate.held[2] == 0
    assert estimate.sensitivity[:, 2] == pytest.approx(0.99999)


def test_of_what_is_beside_a_label_that_is_everywhere_nothing_is_learned() -> None:
    fused = staple(one_hot(torch.ones(4, 1, 8, 8).long(), 2), exclusive=True)
    assert fused.specificity[:, 0, 1].tolist() == pytest.approx([0.99999] * 4)
    assert fused.sensitivity[:, 0, 0].tolist() == pytest.approx([0.99999] * 4)


def test_two_labels_agree_with_the_binary_case() -> None:
    votes = raters(blob(), [0.9, 0.8, 0.85], [0.9, 0.95, 0.9])
    binary = (staple(votes).probability[0, 0] >= 0.5).long()
    multi = staple(one_hot(votes[:, :, 0].long(), 2), exclusive=True).probability.argmax(dim=1)[0]
    assert (binary == multi).float().mean() > 0.99


def test_mean_and_majority_by_hand() -> None:
    samples = torch.tensor([0.9, 0.2, 0.6, 0.4]).reshape(4, 1, 1, 1, 1)
    assert mean(samples).probability.item() == pytest.approx(0.525)
    assert majority(samples).probability.item() == 1  # two against two is foreground
    classes = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.5, 0.4], [0.2, 0.5, 0.3]]).reshape(3, 1, 3, 1, 1)
    assert majority(classes, exclusive=True).probability.flatten().tolist() == [0, 1, 0]


def test_prior_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        staple(torch.rand(3, 1, 1, 4, 4), prior=0.0)
