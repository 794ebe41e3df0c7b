"""Drawing ensembles: nothing is computed twice, nothing copied, and the result is that of the plain way."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.noise import MemberNoise
from medsegdiff.diffusion.samplers import sample
from medsegdiff.diffusion.schedule import Level, schedule_of
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.errors import ConfigError
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler, Turn
from medsegdiff.inference.request import Request
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.inference.walk import in_chunks
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.types import Condition
from tests.makers import denoised, randomised, small_config

CONFIG = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]", "model.detail_channels=4")
KEYS = ("a", "b", "c")


@pytest.fixture
def drawn_from() -> DiffusionModel:
    return randomised(build_model(CONFIG))


def images() -> torch.Tensor:
    return torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def ensemble_sampler(model: DiffusionModel, **settings: object) -> EnsembleSampler:
    return EnsembleSampler(model, CONFIG, CONFIG.sampling.model_copy(update=settings), precision="fp32")


@pytest.mark.parametrize("shape", [(1, 10, 16), (3, 4, 16), (2, 10, 4), (3, 1, 2), (2, 5, 10), (2, 6, 10)])
def test_chunks_hold_every_member_once_and_are_no_larger_than_asked(shape: tuple[int, int, int]) -> None:
    num_images, num_members, size = shape
    chunks = in_chunks(num_images, range(num_members), size=size)
    assert list(chain(*chunks)) == [(m, i) for i in range(num_images) for m in range(num_members)]
    assert max(map(len, chunks)) <= size
    if 2 * num_members > size:
        assert all(len({image for _, image in chunk}) == 1 for chunk in chunks)
    else:
        assert len(chunks) == -(-num_images * num_members // size)


def test_the_ensemble_is_that_of_members_drawn_one_by_one_without_anything_kept(drawn_from: DiffusionModel) -> None:
    schedule = schedule_of(CONFIG.diffusion)
    table = table_of(CONFIG.sampling, schedule)
    expected = torch.empty(3, 3, 1, 32, 32)
    with torch.no_grad():
        for index, key in enumerate(KEYS):
            for member in range(3):
                image, noise = (
                    images()[index, None],
                    MemberNoise(5, [(key, member)], (1, 32, 32), device=torch.device("cpu")),
                )

                def denoise(x_t: torch.Tensor, t: float, image: torch.Tensor = image) -> torch.Tensor:
                    logits = denoised(drawn_from, x_t, torch.tensor([t]), drawn_from.condition(image))
                    return 2 * torch.sigmoid(logits) - 1

                expected[member, index] = (sample(denoise, noise(), table)[0] + 1) / 2
    for size in (1, 2, 3, 4, 16):
        drawn = ensemble_sampler(drawn_from, batch_size=size).draw(images(), KEYS, seed=5)
        assert torch.allclose(drawn.probability, expected, atol=1e-4)


def test_what_depends_on_the_image_alone_is_computed_once_per_image(drawn_from: DiffusionModel) -> None:
    seen: dict[str, int] = {}
    former = drawn_from.diffusion_model.ss_former
    first = former.blocks[0].encode_noise
    parts = {
        "condition": drawn_from.condition_model,
        "tokens": former.embed_c,
        "keys": first.to_k,
        "values": first.to_v,
        "u_sa": drawn_from.diffusion_model.anchors["0"].to_map,
        "detail": drawn_from.diffusion_model.decoder.head.from_condition,
        "filters": former.filters[0],
        "steps": former.embed_e,
    }
    for name, part in parts.items():
        forward = part.forward

        def counted(*args: object, name: str = name, forward: object = forward) -> object:
            seen[name] = seen.get(name, 0) + 1
            return forward(*args)

        part.forward = counted
    sampler = ensemble_sampler(drawn_from, batch_size=2, members=6, steps=4)
    filters = former.filters[0].at
    tables: list[int] = []
    former.filters[0].at = lambda *args: tables.append(1) or filters(*args)
    sampler.draw(images()[:1], KEYS[:1], seed=0)
    assert seen["steps"] == 3 * 4  # chunks × steps
    assert {seen[name] for name in ("condition", "tokens", "keys", "values", "u_sa", "detail")} == {1}
    sampler.draw(images()[1:2], KEYS[:1], seed=0)
    assert len(tables) == 4  # one by step, for both images


def test_members_with_views_of_a_condition_say_what_those_with_copies_say(drawn_from: DiffusionModel) -> None:
    with torch.inference_mode():
        condition = drawn_from.condition(images())
        assert len(condition.tensors) == 1 + 2 + 3 + 2  # anchor; gates; tokens, keys, values; detail, means of levels
        shared, copied = condition.expand(1, 5), condition.select(torch.tensor([1] * 5))
        x_t, t = torch.randn(5, 1, 32, 32), torch.tensor([400.0])
        a, b = (denoised(drawn_from, x_t, t, own) for own in (shared, copied))
        assert torch.allclose(a, b, atol=1e-5)


def test_antithetic_members_come_in_pairs_whatever_the_batch(drawn_from: DiffusionModel) -> None:
    def noise(members: list[int], antithetic: bool) -> MemberNoise:
        named = [("a", member) for member in members]
        return MemberNoise(1, named, (1, 4, 4), device=torch.device("cpu"), antithetic=antithetic)

    pairs, plain, odd = noise([0, 1, 2, 3], True), noise([0, 2], False), noise([3], True)
    for _ in range(2):
        drawn = pairs()
        assert torch.equal(drawn[1], -drawn[0])
        assert torch.equal(drawn[3], -drawn[2])
        assert torch.equal(drawn[::2], plain())
        assert torch.equal(drawn[3:], odd())
    a, b = (
        ensemble_sampler(drawn_from, antithetic=on, num_samples=2).draw(images(), KEYS, seed=0) for on in (True, False)
    )
    assert torch.allclose(a.probability[0], b.probability[0], atol=1e-5)
    assert not torch.allclose(a.probability[1], b.probability[1], atol=1e-3)


def test_the_mean_is_one_prediction_from_pure_noise(drawn_from: DiffusionModel) -> None:
    """Where x_T says nothing of the mask, the best prediction of x_0 is its mean."""
    asked: list[float] = []
    at, denoise, steps = drawn_from.at, drawn_from.denoise, list[int]()
    drawn_from.at = lambda t, size: asked.append(float(t)) or at(t, size)
    drawn_from.denoise = lambda *args: steps.append(1) or denoise(*args)
    segmenter = Segmenter(drawn_from, CONFIG, device="cpu", precision="fp32")
    pixels = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    result = segmenter(pixels, mode="mean")
    assert (asked, steps) == ([999.0], [1])
    assert result.members.shape == (1, 32, 32)
    assert ((result.probability[0] >= 0.5) == (result.mask > 0)).all()
    assert result.sensitivity is None
    assert result.probability.std() > 0.01  # a probability, not a mask
    assert ((result.probability > 0.02) & (result.probability < 0.98)).any()
    alone = segmenter(pixels, members=1, steps=1, fusion="mean")
    assert (alone.probability == result.probability).all()


@pytest.mark.parametrize("unwanted", [{"members": 5}, {"steps": 3}, {"fusion": "staple"}])
def test_the_mean_takes_no_members_steps_or_fusion(unwanted: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"mode mean with {next(iter(unwanted))}: it is one step"):
        Request.of(small_config(), mode="mean", sampler=None, **unwanted)
    assert Request.of(small_config(), mode="mean", members=None).members == 1


@pytest.mark.parametrize(
    ("steps", "spacing", "told"), [(1, "logsnr", "mean"), (3, "regions", "rare"), (4, "regions", "")]
)
def test_too_few_steps_are_said(steps: int, spacing: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    Request.of(small_config(f"sampling.spacing={spacing}"), steps=steps)
    assert (told in caplog.text) if told else not caplog.text
    caplog.clear()
    Request.of(small_config(f"sampling.spacing={spacing}"), mode="mean")  # it needs one
    assert not caplog.text


def test_the_mean_can_not_be_read_from_noise() -> None:
    with pytest.raises(ConfigError, match="target x0 or v"):
        Request.of(small_config("diffusion.target=eps"), mode="mean")


class Pixelwise(DiffusionModel):
    """Says of each pixel what its own value says, whichever way the image lies; remembers what it was shown."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(stride=1)
        self.gain, self.shown = gain, list[torch.Tensor]()

    def condition(self, image: torch.Tensor) -> Condition:
        self.shown.append(image)
        return Condition(self.gain * image)

    def denoise(self, x_t: torch.Tensor, time: torch.Tensor, condition: Condition) -> torch.Tensor:
        return condition.logits


class Watched(Pixelwise):
    """Sees the noise as well, and remembers how many members it was asked about at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def denoise(self, x_t: torch.Tensor, time: torch.Tensor, condition: Condition) -> torch.Tensor:
        self.asked.append(len(x_t))
        return condition.logits + x_t


def asked_of(watched: Watched, *overrides: str, batch_size: int = 16) -> tuple[list[int], torch.Tensor]:
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]", *overrides)
    sampling = config.sampling.model_copy(update={"members": 6, "batch_size": batch_size})
    drawn = EnsembleSampler(watched, config, sampling, precision="fp32").draw(images()[:2], KEYS[:2], seed=3)
    return watched.asked, drawn.probability


def test_noise_that_tells_nothing_is_looked_at_once_for_all_members_of_an_image() -> None:
    few = ("sampling.steps=4", "sampling.sampler=dpmpp-2m", "sampling.spacing=regions")
    asked, drawn = asked_of(Watched(), *few)
    assert asked == [2, 12, 12, 12]
    in_chunks_of_four, by_fours = asked_of(Watched(), *few, batch_size=4)
    assert in_chunks_of_four == [1, 4, 4, 4, 1, 2, 2, 2] * 2
    assert torch.allclose(drawn, by_fours, atol=1e-6)  # whatever the chunk, it is the same noise
    assert drawn.std(dim=0).mean() > 0.01


@pytest.mark.parametrize(
    "told",
    [
        ("sampling.spacing=regions", "sampling.steps=1"),  # all that members differ in
        ("sampling.spacing=regions", "diffusion.schedule=linear", "diffusion.signal_scale=1", "sampling.steps=4"),
        ("sampling.spacing=logsnr", "sampling.steps=4"),  # as its paper says
    ],
)
def test_noise_that_tells_something_is_looked_at_by_every_member(told: tuple[str, ...]) -> None:
    asked, _ = asked_of(Watched(), *told)
    assert set(asked) == {12}


@pytest.mark.parametrize("views", [1, 2, 4])
def test_mirrors_are_undone_exactly(views: int) -> None:
    model = Pixelwise()
    drawn = ensemble_sampler(model, views=views, members=5).draw(images(), KEYS, seed=0)
    truth = images().sigmoid()
    assert all(torch.allclose(member, truth, atol=1e-6) for member in drawn.probability)
    assert torch.allclose(drawn.anchor, truth, atol=1e-6)
    assert torch.allclose(drawn.expected, truth.double().expand_as(drawn.expected), atol=1e-5)
    ways = [images(), images().flip(-1), images().flip(-2), images().flip(-2, -1)]
    assert len(model.shown) == views
    assert all(torch.equal(shown, way) for shown, way in zip(model.shown, ways, strict=False))


def test_members_share_out_weights_and_mirrors_and_the_anchor_is_the_mean_of_all() -> None:
    networks = [Pixelwise(gain) for gain in (1.0, -2.0, 3.0)]
    sampling = CONFIG.sampling.model_copy(update={"members": 7, "views": 2})
    sampler = EnsembleSampler(networks[0], CONFIG, sampling, snapshots=networks[1:], precision="fp32")
    drawn = sampler.draw(images(), KEYS, seed=0)
    said = [(network.gain * images()).sigmoid() for network in networks]
    for member, probability in enumerate(drawn.probability):
        assert torch.allclose(probability, said[member % 3], atol=1e-6)
    assert torch.allclose(drawn.anchor, torch.stack(said).mean(dim=0), atol=1e-6)
    assert torch.allclose(drawn.expected[0].float(), drawn.probability.mean(dim=0), atol=1e-6)
    assert [len(network.shown) for network in networks] == [2, 2, 2]
    assert all(torch.equal(network.shown[0].flip(-1), network.shown[1]) for network in networks[::2])


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("views", [1, 2])
def test_all_weights_and_mirrors_of_a_run_draw_whatever_its_turn(views: int, antithetic: bool) -> None:
    """Two runs with a snapshot each share twelve members out: member by member, or pair by pair."""
    update = {"members": 12, "views": views, "antithetic": antithetic}
    for number in range(2):
        networks = [Pixelwise(1.0), Pixelwise(-2.0)]
        sampler = EnsembleSampler(
            networks[0],
            CONFIG,
            CONFIG.sampling.model_copy(update=update),
            snapshots=networks[1:],
            precision="fp32",
            turn=Turn(number, 2),
        )
        drawn = sampler.draw(images(), KEYS, seed=0)
        own = [of for of in range(12) if of // (1 + antithetic) % 2 == number]
        assert drawn.numbers == tuple(own)
        for place, member in enumerate(drawn.probability):
            network = networks[place // (1 + antithetic) % 2]
            assert torch.allclose(member, (network.gain * images()).sigmoid(), atol=1e-6)


def test_other_numbers_of_views_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="views is 3; allowed are 1, 2, 4"):
        Request.of(CONFIG, views=3)


def test_a_run_with_ancestral_noise_may_be_sampled_otherwise() -> None:
    config = CONFIG.model_copy(update={"sampling": SamplingConfig(sampler="ddim", eta=0.5)})
    assert [Request.of(config, sampler=of).sampling.eta for of in (None, "ddim", "dpmpp-2m")] == [0.5, 0.5, 0.0]


def test_steps_that_the_schedule_does_not_have_are_refused_before_an_image_is_read() -> None:
    with pytest.raises(ConfigError, match="num_steps is 2000; allowed is 1 … 1000"):
        Request.of(CONFIG, steps=2000)


def test_the_mean_without_members_takes_each_view_once() -> None:
    model = Pixelwise()
    result = Segmenter(model, CONFIG, device="cpu", precision="fp32")(images()[0, 0].numpy(), mode="mean", views=4)
    assert (len(model.shown), len(result.members)) == (4, 4)


def test_no_more_is_looked_at_than_members_need() -> None:
    model = Pixelwise()
    ensemble_sampler(model, views=4, members=2).draw(images(), KEYS, seed=0)
    assert len(model.shown) == 2


def test_what_is_expected_of_a_mask_is_the_same_in_rounds_as_at_once(drawn_from: DiffusionModel) -> None:
    sampler = ensemble_sampler(drawn_from, members=7, views=2)
    whole = sampler.draw(images(), KEYS, seed=3)
    rounds = Ensemble.joined(list(sampler.rounds(images(), KEYS, seed=3, size=3)))
    assert torch.allclose(rounds.expected, whole.expected, atol=1e-5)
    assert torch.allclose(rounds.probability, whole.probability, atol=1e-5)
    assert rounds.times == whole.times
    assert whole.times[0] == 999.0


class _NearlyRight(DiffusionModel):
    """Knows the mask, which is its image, and predicts noise with an error that it does not know of."""

    def __init__(self, config: ResolvedConfig) -> None:
        super().__init__(stride=16)
        self.schedule = schedule_of(config.diffusion)
        self.register_buffer("error", 0.1 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)))

    def condition(self, image: torch.Tensor) -> Condition:
        return Condition(image[:, :1])

    def denoise(self, x_t: torch.Tensor, time: torch.Tensor, condition: Condition) -> torch.Tensor:
        assert condition.logits is not None
        at = Level.of(self.schedule.lam_at(float(time)))
        return (x_t - at.alpha * (2 * condition.logits - 1)) / at.sigma + self.error


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_what_a_network_that_predicts_noise_expects_is_not_read_from_noise(schedule: str) -> None:
    about = ("target=eps", f"schedule={schedule}", "signal_scale=1.0")
    config = small_config(*(f"diffusion.{of}" for of in about), "sampling.spacing=trailing", "sampling.steps=8")
    sampler = EnsembleSampler(_NearlyRight(config), config, config.sampling)
    mask = torch.zeros(1, 3, 32, 32)
    mask[..., 8:20, 4:24] = 1
    expected = sampler.draw(mask, ["a"], seed=0).expected
    assert (expected[0] - mask[:, :1]).abs().max() < 0.25  # 0.5 is what an error of ±1 in x_0 makes
