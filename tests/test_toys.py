"""Data in the plane: its densities and posterior means, against plain numerical integration."""

import math

import pytest
import torch

from diffusion_lib import GaussianDiffusion, NoiseSchedule, TrainConfig, Trainer, ddim, ddpm
from diffusion_lib.toys import GaussianMixture, IdealNetwork, spiral

MIXTURE = GaussianMixture(torch.tensor([[-1.0, 0.5], [0.5, 1.0], [0.0, -1.5]]), 0.3)


def grid(limit: float = 6.0, step: float = 0.05) -> torch.Tensor:
    """Points of the plane, (M, 2), float64."""
    line = torch.arange(-limit, limit, step, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def density(points, means, variance):
    """The mean of Gaussian densities, written out."""
    squares = (points[:, None] - means[None]).square().sum(2)
    return ((-squares / (2 * variance)).exp() / (2 * math.pi * variance)).mean(1)


@pytest.mark.parametrize(("signal", "sigma"), [(1.0, 0.0), (0.8, 0.6), (0.1, 0.9), (0.5, 0.5)])
def test_the_density_is_that_of_moved_and_widened_gaussians(signal, sigma):
    points = grid(step=0.5)
    variance = signal**2 * 0.09 + sigma**2
    expected = density(points, signal * MIXTURE.means.double(), variance)
    found = MIXTURE.log_density(points, signal, sigma)
    assert torch.allclose(found, expected.log(), atol=1e-6)


def test_the_density_of_the_data_is_the_default():
    points = grid(step=0.5)
    assert torch.equal(MIXTURE.log_density(points), MIXTURE.log_density(points, 1.0, 0.0))


def test_each_point_can_have_its_own_timestep():
    schedule, t = NoiseSchedule("cosine", 100), torch.tensor([0, 30, 99])
    points = torch.randn(3, 2, dtype=torch.float64)
    signal, sigma = schedule.signal(t, points), schedule.sigma(t, points)
    together = MIXTURE.log_density(points, signal, sigma)
    means = MIXTURE.posterior_mean(points, signal, sigma)
    for i, point in enumerate(points.split(1)):
        factors = signal[i].item(), sigma[i].item()
        assert torch.allclose(MIXTURE.log_density(point, *factors), together[i])
        assert torch.allclose(MIXTURE.posterior_mean(point, *factors), means[i])


def test_the_density_integrates_to_one():
    assert abs(MIXTURE.log_density(grid(), 0.6, 0.8).exp().sum() * 0.05**2 - 1) < 1e-6


@pytest.mark.parametrize(("signal", "sigma"), [(0.95, 0.3), (0.7, 0.7), (0.14, 0.99), (0.4, 0.3)])
def test_the_posterior_mean_is_the_mean_of_x0_given_x_t(signal, sigma):
    """Bayes by brute force: all x_0 of a fine grid, weighted by how likely they lead to x_t."""
    x0, x_t = grid(), torch.tensor([[0.3, -0.2], [-2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    prior = density(x0, MIXTURE.means.double(), 0.09)  # (M,)
    for point in x_t:
        squares = (point - signal * x0).square().sum(1)
        weight = prior * (-squares / (2 * sigma**2)).exp()
        expected = (weight[:, None] * x0).sum(0) / weight.sum()
        found = MIXTURE.posterior_mean(point[None], signal, sigma)[0]
        assert torch.allclose(found, expected, atol=1e-5)


def test_samples_have_the_moments_of_the_mixture_and_know_their_component():
    points, component = MIXTURE.sample(20_000, torch.Generator().manual_seed(0))
    assert points.shape == (20_000, 2) and set(component.tolist()) == {0, 1, 2}
    assert torch.allclose(points.mean(0), MIXTURE.means.mean(0), atol=0.03)
    away = points - MIXTURE.means[component]
    assert torch.allclose(away.std(0), torch.full((2,), 0.3), atol=0.01)


def test_the_same_generator_draws_the_same_points():
    first, again = (MIXTURE.sample(5, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_with_a_std_of_0_and_little_noise_the_posterior_mean_is_one_of_the_images():
    """Images as means: the ideal denoiser of a training set has memorised it."""
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    memorised = GaussianMixture(images, 0.0)
    noisy = 0.99**0.5 * images + 0.1 * torch.randn(images.shape, generator=torch.Generator())
    assert torch.allclose(memorised.posterior_mean(noisy, 0.99**0.5, 0.1), images, atol=1e-4)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_a_sampler_with_the_ideal_network_lands_on_the_spiral(sampler):
    mixture, schedule = spiral(), NoiseSchedule("linear", 1000)
    perfect = GaussianDiffusion(IdealNetwork(mixture, schedule), schedule)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(500, 2, generator=generator)
    for step in sampler(perfect, noise, 250, generator, clip="off"):
        samples = step.x
    data, _ = mixture.sample(500, generator)
    found, expected = (mixture.log_density(x).mean() for x in (samples, data))
    assert abs(found - expected) < 0.25
    assert mixture.log_density(noise).mean() < expected - 10


def test_the_spiral_is_centred_and_as_large_as_noise():
    points, _ = spiral().sample(5000, torch.Generator().manual_seed(0))
    assert points.mean(0).abs().max() < 0.1
    assert abs(points.std() - 1) < 0.05
    assert points.abs().max() < 2.5


def test_the_trainer_takes_points():
    """Nothing in the method is about images: floats of any shape are used as they are."""
    schedule = NoiseSchedule("cosine", 100)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)
            )

        def forward(self, x, t):
            return self.layers(torch.cat([x, t[:, None] / 100], 1))

    points = torch.tensor([[1.0, -1.0]]) + torch.zeros(256, 2)
    torch.manual_seed(0)
    config = TrainConfig(epochs=150, batch_size=128, lr=1e-2, report_every=50, device="cpu")
    trainer = Trainer(GaussianDiffusion(Network(), schedule), points, config)
    losses = [report.loss for report in trainer]
    assert trainer.batches.batch(0).shape == (128, 2)
    assert losses[-1] < 0.2 * losses[0]
