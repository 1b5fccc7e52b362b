"""What a sampler asks of a model and of a schedule, and no more than that.

Of a model: what `Denoiser` lists. Of a schedule: `signal` and `sigma`, whatever the sum of their
squares. The data here are N(MU, S^2) in each pixel, of which the best denoiser is known, and also
where the differential equation leads that samplers without noise follow:

    E[x_0 | x_t] = MU + signal S^2 / (signal^2 S^2 + sigma^2) (x_t - signal MU)
    x_0 = MU + S / sqrt(signal_T^2 S^2 + sigma_T^2) (x_T - signal_T MU)
"""

import math
from itertools import pairwise

import pytest
import torch

from diffusion_lib import GaussianDiffusion, NoiseSchedule, UNet, sample
from diffusion_lib.config import PREDICTIONS
from diffusion_lib.diffusion import Denoised, clip_x0
from diffusion_lib.sampling import SAMPLERS

MU, S = 0.3, 0.2
EVERY = pytest.mark.parametrize("name", SAMPLERS)


class Ideal:
    """The best denoiser of the data. It is no module, and has no network."""

    image_shape = (1, 4, 4)
    device = torch.device("cpu")

    def __init__(self, schedule):
        self.schedule = schedule

    def eval(self):
        return self

    def denoise(self, x_t, t, clip="off"):
        signal, sigma = self.schedule.signal(t), self.schedule.sigma(t)
        slope = signal * S**2 / (signal**2 * S**2 + sigma**2)
        x0 = clip_x0(MU + slope * (x_t - signal * MU), clip)
        return Denoised(x0, (x_t - signal * x0) / sigma)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def end_of(noise: torch.Tensor, schedule) -> torch.Tensor:
    """Where the differential equation leads from x_T."""
    signal, sigma = (f(schedule.timesteps - 1) for f in (schedule.signal, schedule.sigma))
    return MU + S / math.sqrt(signal**2 * S**2 + sigma**2) * (noise - signal * MU)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver", 2), ("heun", 2)])
def test_without_noise_the_error_falls_with_the_order_of_the_sampler(name, order):
    """In log-SNR, whose steps are even: with so many timesteps that rounding to one is nothing."""
    schedule = NoiseSchedule("straight", 1_000_000)
    noise = normal(50, 1, 4, 4)
    expected = end_of(noise, schedule)
    errors = []
    for steps in (25, 50, 100):
        *_, last = SAMPLERS[name](Ideal(schedule), noise, steps, spacing="log_snr")
        errors.append((last.x - expected).abs().max().item())
    for larger, smaller in pairwise(errors):
        assert math.log2(larger / smaller) == pytest.approx(order, abs=0.35)


@EVERY
@pytest.mark.parametrize("schedule", ["straight", "cosine"])
def test_samples_have_the_moments_of_the_data(name, schedule):
    schedule = NoiseSchedule(schedule, 500)
    samples = sample(Ideal(schedule), 1000, name, steps=250, batch_size=1000)
    assert samples.shape == (1000, 1, 4, 4)
    assert samples.mean().item() == pytest.approx(MU, abs=5 * S / math.sqrt(samples.numel()) + 2e-3)
    assert samples.std().item() == pytest.approx(S, rel=0.04)


@EVERY
def test_a_wrapper_around_a_model_samples_as_the_model(name):
    class Wrapper:
        def __init__(self, model):
            self.model, self.calls = model, 0
            self.schedule, self.image_shape = model.schedule, model.image_shape
            self.device = model.device

        def eval(self):
            self.model.eval()
            return self

        def denoise(self, x_t, t, clip="off"):
            self.calls += 1
            return self.model.denoise(x_t, t, clip)

    torch.manual_seed(0)
    model = GaussianDiffusion(UNet(8, 1, 8, (1, 2), 1, (4,), 2), NoiseSchedule("cosine", 20), "v")
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.1)
    wrapper = Wrapper(model)
    assert torch.equal(sample(wrapper, 3, name, steps=4), sample(model, 3, name, steps=4))
    assert wrapper.calls == (7 if name == "heun" else 4)


class Perfect(torch.nn.Module):
    """A network that knows x_0 and epsilon, and predicts what it is asked for."""

    def __init__(self, prediction, x0, noise, schedule):
        super().__init__()
        self.prediction, self.x0, self.noise, self.schedule = prediction, x0, noise, schedule

    def forward(self, x, t):
        signal, sigma = self.schedule.signal(t, x), self.schedule.sigma(t, x)
        v = signal * self.noise - sigma * self.x0
        velocity = self.noise - self.x0
        answers = {"epsilon": self.noise, "x0": self.x0, "v": v, "velocity": velocity}
        return answers[self.prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_denoises_and_has_no_loss_if_variance_is_not_preserved(prediction):
    schedule = NoiseSchedule("cosine", 20, path="straight")
    x0, noise = normal(2, 6, 1, 4, 4)
    t = torch.tensor([0, 1, 5, 10, 18, 19])
    model = GaussianDiffusion(Perfect(prediction, x0, noise, schedule), schedule, prediction)
    assert model.loss(x0, t, noise).item() == 0
    found = model.denoise(schedule.add_noise(x0, t, noise), t)
    torch.testing.assert_close(found.x0, x0, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.epsilon, noise, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_min_snr_weighs_an_error_of_x0_alike_if_variance_is_not_preserved(gamma):
    """An estimate that is off by 1 in x_0 costs min(snr, gamma), whatever was predicted."""
    schedule = NoiseSchedule("cosine", 20, path="straight")
    x0, noise = normal(2, 20, 1, 4, 4)
    t = torch.arange(20)
    signal, sigma = schedule.signal(t, x0), schedule.sigma(t, x0)
    x_t = schedule.add_noise(x0, t, noise)
    wrong_x0 = x0 + 1
    wrong_noise = (x_t - signal * wrong_x0) / sigma
    expected = ((signal / sigma) ** 2).clamp(max=gamma).flatten()
    for prediction in PREDICTIONS:
        network = Perfect(prediction, wrong_x0, wrong_noise, schedule)
        losses = GaussianDiffusion(network, schedule, prediction).losses(
            x0, t, noise, min_snr=gamma
        )
        torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-9)
