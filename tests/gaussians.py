"""Data that is normally distributed: there the ideal denoiser, and what a sampler makes of it, are
known exactly.

Every pixel is N(mu, s^2), independent of the others. Given x_t = a x_0 + b epsilon, with
a^2 = alpha_bar and b^2 = 1 - alpha_bar, the best guess is linear in x_t:

    E[x_0 | x_t] = mu + a s^2 / (a^2 s^2 + b^2) (x_t - a mu)
"""

import math

import numpy as np
import torch
from torch import Tensor, nn


def best_guess(alpha_bar: float, mu: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, c) of E[x_0 | x_t] = k x_t + c."""
    k = math.sqrt(alpha_bar) * s**2 / (alpha_bar * s**2 + 1 - alpha_bar)
    return k, mu - k * math.sqrt(alpha_bar) * mu


class IdealNetwork(nn.Module):
    """The network that predicts best, for data N(mu, s^2); mu and s broadcast over an image."""

    def __init__(self, betas, mu, s, prediction="epsilon", channels=1, image_size=8):
        super().__init__()
        self.alpha_bars = np.cumprod(1 - np.asarray(betas))
        self.mu, self.s = np.asarray(mu, dtype=float), np.asarray(s, dtype=float)
        self.prediction, self.channels, self.image_size = prediction, channels, image_size
        self.weight = nn.Parameter(torch.zeros(1))  # because samplers ask where a model's are

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert (t == t[0]).all()
        alpha_bar = float(self.alpha_bars[t[0].item()])
        k, c = (torch.as_tensor(value, dtype=x.dtype) for value in self.guess(t[0].item()))
        a, b = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        x0 = k * x + c + 0 * self.weight
        epsilon = (x - a * x0) / b
        return {"epsilon": epsilon, "x0": x0, "v": a * epsilon - b * x0}[self.prediction]

    def guess(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        return best_guess(float(self.alpha_bars[t]), self.mu, self.s)

    def reverse_steps(self, timesteps: list[int], eta: float):
        """For each step down a list of timesteps, (A, B, variance) of x' = A x + B + noise.

        The noise of a step has eta^2 of the variance of x' given x and x_0. The rest is such that
        x' would have its true distribution given x_0 (Song et al. 2021, eq. 7).
        """
        for now, after in zip(timesteps, [*timesteps[1:], None], strict=True):
            alpha_bar = float(self.alpha_bars[now])
            alpha_bar_after = 1.0 if after is None else float(self.alpha_bars[after])
            k, c = self.guess(now)
            if after is None:
                yield k, c, 0.0
                continue
            alpha = alpha_bar / alpha_bar_after
            # Bayes: the precisions of x'|x_0 and of x|x' add up.
            variance = eta**2 / (1 / (1 - alpha_bar_after) + alpha / (1 - alpha))
            rest = math.sqrt((1 - alpha_bar_after - variance) / (1 - alpha_bar))
            shift = math.sqrt(alpha_bar_after) - rest * math.sqrt(alpha_bar)
            yield shift * k + rest, shift * c, variance

    def sampled_moments(self, timesteps: list[int], eta: float) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean and standard deviation of what sampling makes of standard normal noise."""
        mean, variance = np.zeros_like(self.mu), np.ones_like(self.s)
        for factor, offset, noise in self.reverse_steps(timesteps, eta):
            mean, variance = factor * mean + offset, factor**2 * variance + noise
        return mean, np.sqrt(variance)
