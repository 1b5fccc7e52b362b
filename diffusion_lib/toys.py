"""Data in the plane, where a whole distribution can be drawn and the ideal denoiser is known.

The data is a mixture of equal bells, N(c_k, s^2 I) around centres c_1 ... c_K. The forward process
only moves and widens the bells (Ho et al. 2020, eq. 4):

    q(x_t) = mean over k of N(sqrt(alpha_bar) c_k, (alpha_bar s^2 + 1 - alpha_bar) I)

so the density at any timestep, and the best possible guess of x_0 from x_t, are short formulas.
"""

import math

import torch
from torch import Tensor, nn

from diffusion_lib.schedules import NoiseSchedule


class GaussianMixture:
    """Equal bells around `centres`, shape (K, ...), each with standard deviation `spread`.

    Nothing here needs the plane: with images as centres and no spread, this is a training set, and
    the ideal denoiser is the one that knows it by heart.
    """

    def __init__(self, centres: Tensor, spread: float):
        self.centres, self.spread = centres, spread

    def draw(self, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points, shape (count, ...), and the number of the bell that each is from, (count,)."""
        bell = torch.randint(len(self.centres), (count,), generator=generator)
        noise = torch.randn(count, *self.centres.shape[1:], generator=generator)
        return self.centres[bell] + self.spread * noise, bell

    def log_bells(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """log N(x_t; sqrt(alpha_bar) c_k, variance) / K for each bell k, shape (N, K).

        Args:
            x_t: shape (N, ...).
            alpha_bar: shape (N, 1), 0 to 1; with 1 it is about the data itself.
        """
        variance = alpha_bar * self.spread**2 + 1 - alpha_bar  # (N, 1)
        centres = self.centres.to(x_t).flatten(1)  # (K, D)
        count, size = centres.shape
        # | x - a c |^2 = |x|^2 - 2 a x.c + a^2 |c|^2, without a tensor of shape (N, K, D)
        x = x_t.flatten(1)  # (N, D)
        squares = (
            x.square().sum(1, keepdim=True)
            - 2 * alpha_bar.sqrt() * (x @ centres.T)
            + alpha_bar * centres.square().sum(1)
        )
        return (
            -squares / (2 * variance) - size / 2 * (2 * math.pi * variance).log() - math.log(count)
        )

    def log_density(self, x_t: Tensor, alpha_bar: float) -> Tensor:
        """log q(x_t), shape (N,)."""
        every = torch.full((len(x_t), 1), alpha_bar, dtype=x_t.dtype, device=x_t.device)
        return self.log_bells(x_t, every).logsumexp(1)

    def best_guess(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """E[x_0 | x_t], of all guesses the one with the least squared error. Shape of x_t.

            E[x_0 | x_t] = sum over k of w_k (c_k + g (x_t - sqrt(alpha_bar) c_k))
            g = sqrt(alpha_bar) s^2 / variance,    w = softmax over k of log_bells

        Args:
            x_t: shape (N, ...).
            alpha_bar: shape (N, 1).
        """
        signal = alpha_bar.sqrt()  # (N, 1)
        g = signal * self.spread**2 / (alpha_bar * self.spread**2 + 1 - alpha_bar)
        weights = self.log_bells(x_t, alpha_bar).softmax(1)  # (N, K)
        centre = weights @ self.centres.to(x_t).flatten(1)  # (N, D)
        return (centre + g * (x_t.flatten(1) - signal * centre)).view_as(x_t)


class IdealNetwork(nn.Module):
    """The network that nobody can beat on a mixture: it answers with the expected epsilon.

    GaussianDiffusion(IdealNetwork(mixture, schedule), schedule) is a model without any training.
    """

    def __init__(self, mixture: GaussianMixture, schedule: NoiseSchedule):
        super().__init__()
        self.mixture, self.schedule = mixture, schedule

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """epsilon = (x_t - sqrt(alpha_bar) E[x_0 | x_t]) / sqrt(1 - alpha_bar). Shape of x_t."""
        x = x_t.double()  # 1 - alpha_bar and the squares want the digits
        x0 = self.mixture.best_guess(x, self.schedule.at("alpha_bar", t, x.flatten(1)))
        signal = self.schedule.at("sqrt_alpha_bar", t, x)
        sigma = self.schedule.at("sqrt_one_minus_alpha_bar", t, x)
        return ((x - signal * x0) / sigma).to(x_t.dtype)


def spiral(turns: float = 1.75, centres: int = 400, spread: float = 0.04) -> GaussianMixture:
    """A spiral in the plane, with mean 0 and about as large as noise: two numbers as the data.

    Bell 0 is at its inner end, the last one at its outer end.
    """
    # The root gives each turn as many bells as it is long.
    angle = 2 * math.pi * turns * torch.linspace(0.03, 1, centres).sqrt()  # (K,)
    points = angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1)  # (K, 2)
    points = points - points.mean(0)
    return GaussianMixture(points / points.std(), spread)
