"""Guidance, on two Gaussians, where a guided sampler's mean and standard deviation are known."""

import math
from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from helpers import record_calls
from torch import Tensor, nn

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    NoiseSchedule,
    UNet,
    sample,
    sinusoidal_embedding,
)
from diffusion_lib.guidance import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Guidance,
    drop_labels,
)
from diffusion_lib.paths import OnPath
from diffusion_lib.sampling import SAMPLERS

ENOUGH = {"ddpm": 1000}  # timesteps until a sampler is exact; 100 for the others
STOCHASTIC = {"ddpm", "dpm_solver_sde"}
EVERY = pytest.mark.parametrize("sampler", SAMPLERS)
SAMPLES = 6_000


class TwoGaussians(nn.Module):
    """Predicts epsilon of N(mean[0], std[0]^2) for label 0, and of the other for "unknown"."""

    def __init__(self, schedule: NoiseSchedule, mean: tuple, std: tuple):
        super().__init__()
        self.schedule, self.mean, self.std = schedule, mean, std
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        unknown = torch.full((len(x), 1), True) if labels is None else labels < 0
        m, s = (
            torch.where(unknown, values[1], values[0]).to(x) for values in (self.mean, self.std)
        )
        a, b = self.schedule.signal(t, x), self.schedule.sigma(t, x)
        return (x - a * m) * b / (a**2 * s**2 + b**2)


def two_gaussians(mean=(0.6, -0.2), std=(0.3, 0.3), timesteps=100):
    schedule = NoiseSchedule("cosine", timesteps)
    network = TwoGaussians(schedule, mean, std)
    return GaussianDiffusion(network, schedule, classes={"kind": ["first"]})


def drawn(diffusion: GaussianDiffusion, sampler: str, steps: int, scale: float, **how) -> Tensor:
    noise = torch.randn(SAMPLES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(SAMPLES, 1, dtype=torch.long)
    guided = ClassifierFreeGuidance(diffusion, labels, scale, **how)
    generator = torch.Generator().manual_seed(1)
    *_, last = SAMPLERS[sampler](guided, noise, steps, generator, "off")
    return last.x


def exact_std(std: tuple, scale: float, stochastic: bool, timesteps: int = 100) -> float:
    """Of two Gaussians with one mean. With u = x / signal and tau = sigma / signal, the guided
    ordinary differential equation is du/dtau = sum over i of w_i tau / (std_i^2 + tau^2) u, with
    the weights w = scale and 1 - scale; the stochastic one has twice that, and noise.
    """
    schedule = NoiseSchedule("cosine", timesteps)
    top = schedule.sigma(timesteps - 1) / schedule.signal(timesteps - 1)
    tau = np.geomspace(1e-6, top, 200_001)
    power = 2 if stochastic else 1

    def shrinks(tau):  # by how much a deviation at tau shrinks until tau = 0
        return math.prod(
            (s**2 / (s**2 + tau**2)) ** (power * w / 2)
            for s, w in zip(std, (scale, 1 - scale), strict=True)
        )

    variance = (top * shrinks(top)) ** 2
    if stochastic:
        added = torch.from_numpy(2 * tau * shrinks(tau) ** 2)
        variance += torch.trapezoid(added, torch.from_numpy(tau)).item()
    return math.sqrt(variance)


@EVERY
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_of_equal_gaussians_guidance_moves_the_mean_and_nothing_else(sampler, scale):
    timesteps = ENOUGH.get(sampler, 100)
    x = drawn(two_gaussians(timesteps=timesteps), sampler, timesteps, scale)
    assert x.mean() == pytest.approx(-0.2 + scale * 0.8, abs=0.03)
    assert x.std() == pytest.approx(0.3, rel=0.04)


@EVERY
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_a_guided_standard_deviation_is_not_that_of_the_powers_of_densities(sampler, scale):
    std, timesteps = (0.5, 1.0), ENOUGH.get(sampler, 100)
    x = drawn(two_gaussians((0.0, 0.0), std, timesteps), sampler, timesteps, scale)
    expected = exact_std(std, scale, sampler in STOCHASTIC, timesteps)
    assert x.mean() == pytest.approx(0, abs=0.03)
    assert x.std() == pytest.approx(expected, rel=0.04)
    product = (scale / std[0] ** 2 + (1 - scale) / std[1] ** 2) ** -0.5
    assert (abs(expected / product - 1) < 0.02) == (scale in (0, 1))


def test_the_guided_ode_multiplies_standard_deviations():
    """std_first^scale std_unknown^(1 - scale), if the noise at the start is large beside both."""
    assert exact_std((0.5, 1.0), 2.0, False) == pytest.approx(0.5**2 / 1.0, rel=1e-3)


@pytest.mark.parametrize("scale, alone", [(0.0, -1), (1.0, 0)])
def test_scales_0_and_1_are_the_model_without_and_with_labels(scale, alone):
    diffusion, x = two_gaussians(std=(0.3, 0.8)), torch.randn(6, 1)
    labels = torch.zeros(6, 1, dtype=torch.long)
    guided = ClassifierFreeGuidance(diffusion, labels, scale).denoise(x, 40, "static")
    plain = diffusion.denoise(x, 40, "static", torch.full((6, 1), alone))
    assert torch.equal(guided.x0, plain.x0) and torch.equal(guided.epsilon, plain.epsilon)


def small_unet(classes=(3,), seed=0) -> GaussianDiffusion:
    torch.manual_seed(seed)
    network = UNet.for_images(8, 1, 8, classes=classes)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    names = {f"column {i}": list("abcdef")[:count] for i, count in enumerate(classes)}
    return GaussianDiffusion(network, NoiseSchedule("cosine", 20), "v", names).eval()


def test_one_call_with_a_batch_twice_as_large_is_two_calls():
    diffusion, x = small_unet((3, 2)), torch.randn(5, 1, 8, 8)
    labels = torch.tensor([[0, 1], [1, -1], [2, 0], [-1, 1], [0, 0]])
    calls = record_calls(diffusion.network)
    with torch.no_grad():
        found = ClassifierFreeGuidance(diffusion, labels, 3.0).denoise(x, 7)
        assert [len(call[0]) for call in calls] == [10]
        known = diffusion.denoise(x, 7, labels=labels)
        unknown = diffusion.denoise(x, 7)
    assert torch.allclose(found.x0, unknown.x0 + 3 * (known.x0 - unknown.x0), atol=1e-5)
    expected = unknown.epsilon + 3 * (known.epsilon - unknown.epsilon)
    assert torch.allclose(found.epsilon, expected, atol=1e-5)


def test_each_image_has_its_own_label_and_unknown_is_no_label():
    diffusion, x = small_unet(), torch.randn(1, 1, 8, 8).repeat(4, 1, 1, 1)
    with torch.no_grad():
        predicted = diffusion(x, 3, torch.tensor([[0], [1], [2], [-1]]))
        none = diffusion(x, 3)
    assert torch.allclose(predicted[3], none[3], atol=1e-6)
    for first, second in [(0, 1), (1, 2), (0, 2), (2, 3)]:
        assert (predicted[first] - predicted[second]).abs().max() > 1e-3


def test_the_columns_of_labels_add_up():
    network = small_unet((3, 2)).network
    time, x, t = [], torch.randn(1, 1, 8, 8), torch.zeros(1)
    network.middle1.residual.time.register_forward_pre_hook(
        lambda _, inputs: time.append(inputs[0])
    )
    silu = nn.functional.silu
    with torch.no_grad():
        for labels in ([0, -1], [-1, 1], [-1, -1], [0, 1]):
            network(x, t, torch.tensor([labels]))
        base = network.time(sinusoidal_embedding(t, network.width))
        first, second = network.labels
        a, b, none_a, none_b = (
            first.weight[1], second.weight[2], first.weight[0], second.weight[0],
        )  # fmt: skip
        for found, added in zip(
            time, (a + none_b, none_a + b, none_a + none_b, a + b), strict=True
        ):
            assert torch.allclose(found, silu(base + added), atol=1e-5)


# The interval, and saturation


def test_outside_the_interval_the_labels_are_taken_as_they_are():
    diffusion, x = two_gaussians(std=(0.3, 0.8)), torch.randn(6, 1)
    labels = torch.zeros(6, 1, dtype=torch.long)
    level = diffusion.schedule.sigma(50) / diffusion.schedule.signal(50)
    inside = [(0.0, inf), (level, level), (level - 0.1, level + 0.1)]
    for interval in [*inside, (level + 0.1, inf), (0.0, level - 0.1)]:
        guided = ClassifierFreeGuidance(diffusion, labels, 4.0, interval)
        same = torch.equal(guided.denoise(x, 50).x0, diffusion.denoise(x, 50, labels=labels).x0)
        assert same != (interval in inside)


def test_an_interval_reaches_the_noise_of_a_schedule_that_ends_in_nothing_else():
    schedule = NoiseSchedule("cosine", 20, zero_terminal_snr=True)
    network = small_unet().network
    guided = ClassifierFreeGuidance(
        GaussianDiffusion(network, schedule, "v"), torch.zeros(2, 1, dtype=torch.long), 4.0
    )
    assert guided.scale_at(19) == 4.0
    guided.interval = (0.0, 100.0)
    assert guided.scale_at(19) == 1.0


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_rescaling_brings_back_the_standard_deviation_of_the_images(rescale):
    diffusion, x = small_unet(), torch.randn(4, 1, 8, 8)
    labels = torch.tensor([[0], [1], [2], [0]])
    with torch.no_grad():
        plain = ClassifierFreeGuidance(diffusion, labels, 8.0).denoise(x, 7).x0
        found = ClassifierFreeGuidance(diffusion, labels, 8.0, rescale=rescale).denoise(x, 7).x0
        known = diffusion.denoise(x, 7, labels=labels).x0

    def std(images):
        return images.flatten(1).std(1)

    assert torch.allclose(std(found), (1 - rescale) * std(plain) + rescale * std(known), rtol=1e-4)
    # Only the contrast changes, not the picture.
    ratio = found / plain
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), rtol=1e-3)


@pytest.mark.parametrize("clip", ["static", "dynamic"])
def test_what_guidance_brings_out_of_range_is_clipped_and_epsilon_follows(clip):
    diffusion, x = small_unet(), torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        guided = ClassifierFreeGuidance(diffusion, torch.zeros(4, 1, dtype=torch.long), 20.0)
        assert guided.denoise(x, 7).x0.abs().max() > 1.5
        x0, epsilon = guided.denoise(x, 7, clip)
    assert x0.abs().max() <= 1
    signal, sigma = diffusion.schedule.signal(7), diffusion.schedule.sigma(7)
    assert torch.allclose(signal * x0 + sigma * epsilon, x, atol=1e-5)


# A classifier


class BayesClassifier(nn.Module):
    """log p(x_t, first) and log p(x_t, second) of two equal Gaussians: the exact classifier."""

    def __init__(self, schedule: NoiseSchedule, means: tuple, std: float):
        super().__init__()
        self.schedule, self.means, self.std = schedule, torch.tensor(means).double(), std

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, b = self.schedule.signal(t, x), self.schedule.sigma(t, x)
        return -((x - a * self.means) ** 2) / (2 * (a**2 * self.std**2 + b**2))  # (N, 2)


def test_the_gradient_of_a_classifier_is_exact():
    schedule = NoiseSchedule("cosine", 100)
    classifier = BayesClassifier(schedule, (0.6, -0.2), 0.3)
    labels = torch.tensor([[0], [1], [0]])
    guided = ClassifierGuidance(two_gaussians(), classifier, labels, 1.0)
    x = torch.tensor([[0.1], [0.4], [-2.0]]).double()
    signal, sigma = schedule.signal(60), schedule.sigma(60)
    probability = classifier(x, torch.full((3,), 60)).softmax(1).gather(1, 1 - labels)
    towards = torch.where(labels == 0, 1.0, -1.0) * signal * 0.8
    expected = probability * towards / (signal**2 * 0.3**2 + sigma**2)
    with torch.no_grad():  # as samplers call it
        assert torch.allclose(guided.gradient(x, 60), expected)


@pytest.mark.slow
@EVERY
def test_the_exact_classifier_at_scale_1_turns_all_data_into_one_class(sampler):
    """p(x) p(y|x) is p(x|y): guided by Bayes, a mixture's samples are those of its component."""
    schedule = NoiseSchedule("cosine", 100)
    means, std = (0.9, -0.5), 0.3

    class Mixture(nn.Module):
        weight = nn.Parameter(torch.zeros(1))

        def forward(self, x, t):
            a, b = schedule.signal(t, x), schedule.sigma(t, x)
            variance = a**2 * std**2 + b**2
            m = torch.tensor(means).double()
            shares = (-((x - a * m) ** 2) / (2 * variance)).softmax(1)  # (N, 2)
            return b * (x - a * (shares * m).sum(1, keepdim=True)) / variance

    classifier = BayesClassifier(schedule, means, std)
    noise = torch.randn(SAMPLES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    diffusion = GaussianDiffusion(Mixture(), schedule)
    for number in (0, 1):
        labels = torch.full((SAMPLES, 1), number)
        guided = ClassifierGuidance(diffusion, classifier, labels, 1.0)
        *_, last = SAMPLERS[sampler](guided, noise, 100, torch.Generator().manual_seed(1), "off")
        assert last.x.mean() == pytest.approx(means[number], abs=0.04)
        assert last.x.std() == pytest.approx(std, rel=0.06)


def test_a_classifier_has_nothing_to_say_about_nothing_but_noise():
    schedule = NoiseSchedule("cosine", 20, zero_terminal_snr=True)
    diffusion = GaussianDiffusion(small_unet().network, schedule, "v")
    guided = ClassifierGuidance(diffusion, lambda x, t: x.flatten(1), torch.tensor([[1]]), 5.0)
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(guided.denoise(x, 19).x0, diffusion.denoise(x, 19).x0)
        assert not torch.equal(guided.denoise(x, 18).x0, diffusion.denoise(x, 18).x0)


# Labels that are dropped


@pytest.mark.parametrize("columns, rate", [(1, 0.1), (1, 0.5), (3, 0.2)])
def test_so_many_labels_are_dropped(columns, rate):
    draws = torch.rand(50_000, 1 + columns, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 9, (50_000, columns))
    dropped = drop_labels(labels, draws, rate)
    assert torch.equal(dropped[dropped >= 0], labels[dropped >= 0])
    alone = 0.0 if columns == 1 else rate
    share = (dropped < 0).float().mean(0)
    assert torch.allclose(share, torch.tensor(rate + (1 - rate) * alone), atol=0.01)
    all_of_them = (dropped < 0).all(1).float().mean().item()
    assert all_of_them == pytest.approx(rate + (1 - rate) * alone**columns, abs=0.01)


def test_without_dropout_and_without_columns_nothing_is_dropped():
    labels = torch.arange(6)[:, None]
    assert torch.equal(drop_labels(labels, torch.zeros(6, 2), 0.0), labels)
    assert drop_labels(torch.empty(6, 0, dtype=torch.long), torch.zeros(6, 1), 0.5).shape == (6, 0)


# sample


def test_sampling_with_labels_does_not_depend_on_the_batch_size():
    diffusion, labels = small_unet(), ["a", "b", "c", "a", "b"]
    how = dict(steps=4, labels=labels, guidance=3.0)
    whole = sample(diffusion, 5, **how)
    assert torch.allclose(whole, sample(diffusion, 5, batch_size=2, **how), atol=1e-5)
    for i, label in enumerate(labels):
        alone = sample(diffusion, 5, steps=4, labels=label, guidance=3.0)
        assert torch.allclose(whole[i], alone[i], atol=1e-5)


def test_guidance_may_be_a_number_or_all_settings():
    diffusion = small_unet()
    how = dict(steps=4, labels="b")
    plain = sample(diffusion, 3, guidance=3.0, **how)
    assert torch.equal(plain, sample(diffusion, 3, guidance=Guidance(3.0), **how))
    rescaled = sample(diffusion, 3, guidance=Guidance(3.0, rescale=1.0), **how)
    late = sample(diffusion, 3, guidance=Guidance(3.0, (0.0, 1.0)), **how)
    assert not torch.allclose(plain, rescaled, atol=1e-3)
    assert not torch.allclose(plain, late, atol=1e-3)


def test_guidance_0_is_sampling_without_labels():
    diffusion = small_unet()
    guided = sample(diffusion, 3, steps=4, labels="b", guidance=0.0)
    assert torch.allclose(guided, sample(diffusion, 3, steps=4), atol=1e-6)


@pytest.mark.parametrize(
    "labels, said",
    [
        ("x", "has no label 'x'"),
        (["a", "b"], "2 labels for 3 images"),
        (torch.tensor([0, 1, 3]), "numbers -1 to K-1"),
        (torch.zeros(3, 2), "of shape \\(3, 1\\)"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, said):
    with pytest.raises(InputError, match=said):
        sample(small_unet(), 3, steps=2, labels=labels)


def test_a_model_without_labels_is_not_asked_for_one():
    with pytest.raises(InputError, match="trained without labels"):
        sample(small_unet(()), 3, steps=2, labels="a")


def test_a_guided_model_may_go_along_another_path():
    diffusion = small_unet()
    straight = OnPath(diffusion, replace(diffusion.schedule, path="straight"))
    for guidance in (1.0, 3.0):
        how = dict(labels="b", guidance=guidance, sampler="ddim", steps=8, clip="off")
        there, here = sample(straight, 3, **how), sample(diffusion, 3, **how)
        assert torch.allclose(there, here, atol=0.01)
