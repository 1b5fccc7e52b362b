"""Data in the plane, where a whole distribution can be drawn and the ideal denoiser is known.

The data is a mixture of K equal Gaussians, N(m_k, s^2 I). The forward process only moves and
widens them (Ho et al. 2020, eq. 4):

    q(x_t) = mean over k of N(signal m_k, (signal^2 s^2 + sigma^2) I)

so the density at any timestep, and the posterior mean of x_0 given x_t, are short formulas.

In this file signal and sigma are those of `NoiseSchedule`: floats, or tensors (N, 1), one for each
point. With 1 and 0 they speak of the data itself.
"""

import math

import torch
from torch import Tensor, nn

from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.views import views


class GaussianMixture:
    """Equal Gaussians around `means`, shape (K, ...), each with the standard deviation `std`.

    Nothing here needs the plane: with images as means and a standard deviation of 0, this is a
    training set, and the ideal denoiser is the one that has memorised it.
    """

    def __init__(self, means: Tensor, std: float):
        self.means, self.std = means, std

    def sample(self, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points, (count, ...), and the number of the component that each is from, (count,)."""
        component = torch.randint(len(self.means), (count,), generator=generator)
        noise = torch.randn(count, *self.means.shape[1:], generator=generator)
        return self.means[component] + self.std * noise, component

    def log_components(
        self, x_t: Tensor, signal: float | Tensor = 1.0, sigma: float | Tensor = 0.0
    ) -> Tensor:
        """log of N(x_t; signal m_k, variance I) / K for each component k. (N, ...) -> (N, K)"""
        variance = torch.as_tensor(
            signal**2 * self.std**2 + sigma**2, dtype=x_t.dtype
        )  # () or (N, 1)
        means = self.means.to(x_t).flatten(1)  # (K, D)
        count, size = means.shape
        # | x - a m |^2 = |x|^2 - 2 a x.m + a^2 |m|^2, without a tensor of shape (N, K, D)
        x = x_t.flatten(1)  # (N, D)
        squares = (
            x.square().sum(1, keepdim=True)
            - 2 * signal * (x @ means.T)
            + signal**2 * means.square().sum(1)
        )
        return (
            -squares / (2 * variance) - size / 2 * (2 * math.pi * variance).log() - math.log(count)
        )

    def log_density(
        self, x_t: Tensor, signal: float | Tensor = 1.0, sigma: float | Tensor = 0.0
    ) -> Tensor:
        """log q(x_t). (N, ...) -> (N,)"""
        return self.log_components(x_t, signal, sigma).logsumexp(1)

    def posterior_mean(self, x_t: Tensor, signal: float | Tensor, sigma: float | Tensor) -> Tensor:
        """E[x_0 | x_t], the estimate with the least mean squared error. Shape of x_t.

        E[x_0 | x_t] = sum over k of w_k (m_k + g (x_t - signal m_k))
        g = signal s^2 / (signal^2 s^2 + sigma^2),    w = softmax over k of log_components
        """
        g = signal * self.std**2 / (signal**2 * self.std**2 + sigma**2)
        weights = self.log_components(x_t, signal, sigma).softmax(1)  # (N, K)
        mean = weights @ self.means.to(x_t).flatten(1)  # (N, D)
        return (mean + g * (x_t.flatten(1) - signal * mean)).view_as(x_t)


class IdealNetwork(nn.Module):
    """The best possible network for a mixture: it predicts the mean of epsilon given x_t, or of
    another prediction of `GaussianDiffusion`.

    GaussianDiffusion(IdealNetwork(mixture, schedule), schedule) is a model without any training.
    """

    def __init__(
        self, mixture: GaussianMixture, schedule: NoiseSchedule, prediction: str = "epsilon"
    ):
        super().__init__()
        self.mixture, self.schedule, self.prediction = mixture, schedule, prediction

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """epsilon = (x_t - signal E[x_0 | x_t]) / sigma, and what follows. Shape of x_t."""
        x = x_t.double().flatten(1)  # (N, D), in float64: the squares need the digits
        signal, sigma = self.schedule.signal(t, x), self.schedule.sigma(t, x)  # (N, 1) each
        x0 = self.mixture.posterior_mean(x, signal, sigma)
        means = views(x0, (x - signal * x0) / sigma, signal, sigma)
        return getattr(means, self.prediction).to(x_t.dtype).view_as(x_t)


def spiral(turns: float = 1.75, components: int = 400, std: float = 0.04) -> GaussianMixture:
    """A spiral in the plane, with mean 0 and about as large as noise: two numbers as the data.

    Component 0 is at its inner end, the last one at its outer end.
    """
    # The root gives each turn as many components as it is long.
    angle = 2 * math.pi * turns * torch.linspace(0.03, 1, components).sqrt()  # (K,)
    points = angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1)  # (K, 2)
    points = points - points.mean(0)
    return GaussianMixture(points / points.std(), std)
