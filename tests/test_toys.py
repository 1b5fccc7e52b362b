"""Data in the plane: its densities and its best guesses, against plain numerical integration."""

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


def density(points, centres, variance):
    """The mean of bells, written out."""
    squares = (points[:, None] - centres[None]).square().sum(2)
    return ((-squares / (2 * variance)).exp() / (2 * math.pi * variance)).mean(1)


@pytest.mark.parametrize("alpha_bar", [1.0, 0.7, 0.05])
def test_the_density_is_that_of_moved_and_widened_bells(alpha_bar):
    points = grid(step=0.5)
    expected = density(
        points, alpha_bar**0.5 * MIXTURE.centres.double(), alpha_bar * 0.09 + 1 - alpha_bar
    )
    assert torch.allclose(MIXTURE.log_density(points, alpha_bar), expected.log(), atol=1e-6)


def test_the_density_integrates_to_one():
    assert abs(MIXTURE.log_density(grid(), 0.4).exp().sum() * 0.05**2 - 1) < 1e-6


@pytest.mark.parametrize("alpha_bar", [0.9, 0.5, 0.02])
def test_the_best_guess_is_the_mean_of_x0_given_x_t(alpha_bar):
    """Bayes by brute force: all x_0 of a fine grid, weighted by how likely they lead to x_t."""
    x0, x_t = grid(), torch.tensor([[0.3, -0.2], [-2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    prior = density(x0, MIXTURE.centres.double(), 0.09)  # (M,)
    alpha_bars = torch.full((1, 1), alpha_bar, dtype=torch.float64)
    for point in x_t:
        squares = (point - alpha_bar**0.5 * x0).square().sum(1)
        weight = prior * (-squares / (2 * (1 - alpha_bar))).exp()
        expected = (weight[:, None] * x0).sum(0) / weight.sum()
        assert torch.allclose(MIXTURE.best_guess(point[None], alpha_bars)[0], expected, atol=1e-5)


def test_drawn_points_have_the_moments_of_the_mixture_and_know_their_bell():
    points, bell = MIXTURE.draw(20_000, torch.Generator().manual_seed(0))
    assert points.shape == (20_000, 2) and set(bell.tolist()) == {0, 1, 2}
    assert torch.allclose(points.mean(0), MIXTURE.centres.mean(0), atol=0.03)
    away = points - MIXTURE.centres[bell]
    assert torch.allclose(away.std(0), torch.full((2,), 0.3), atol=0.01)


def test_the_same_generator_draws_the_same_points():
    first, again = (MIXTURE.draw(5, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_without_spread_the_best_guess_is_one_of_the_images_when_there_is_little_noise():
    """Images as centres: the ideal denoiser of a training set knows it by heart."""
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    by_heart = GaussianMixture(images, 0.0)
    alpha_bar = torch.full((6, 1), 0.99)
    noisy = 0.99**0.5 * images + 0.1 * torch.randn(images.shape, generator=torch.Generator())
    assert torch.allclose(by_heart.best_guess(noisy, alpha_bar), images, atol=1e-4)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_a_sampler_with_the_ideal_network_lands_on_the_spiral(sampler):
    mixture, schedule = spiral(), NoiseSchedule("linear", 1000)
    perfect = GaussianDiffusion(IdealNetwork(mixture, schedule), schedule)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(500, 2, generator=generator)
    for step in sampler(perfect, noise, 250, generator, clip=False):
        samples = step.x
    drawn, _ = mixture.draw(500, generator)
    likely, wanted = (mixture.log_density(x, 1.0).mean() for x in (samples, drawn))
    assert abs(likely - wanted) < 0.25
    assert mixture.log_density(noise, 1.0).mean() < wanted - 10


def test_the_spiral_is_centred_and_as_large_as_noise():
    points, _ = spiral().draw(5000, torch.Generator().manual_seed(0))
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
