"""Guidance: a model with labels, such that samples show what the labels say more clearly.

A sampler asks a model for one thing, `denoise`. So guidance is a model around a model, and every
sampler takes it unchanged:

    for step in ddim(ClassifierFreeGuidance(diffusion, labels, scale=3.0), noise):
        show(step.x)

Everywhere below, labels are int64, (N, columns), -1 where unknown: for the N images of a batch.
"""

from math import inf
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.diffusion import Denoised, GaussianDiffusion, clip_x0
from diffusion_lib.schedules import expand
from diffusion_lib.wrapper import Wrapper


class ClassifierGuidance(Wrapper):
    """Classifier guidance (Dhariwal & Nichol 2021, arXiv 2105.05233, algorithm 2).

        score = score of the model + scale * gradient of log p(label | x_t) in x_t

    Args:
        diffusion: any model; it is not given the labels.
        classifier: (x_t, t of shape (N,)) -> logits (N, K): a network that knows noisy images.
        labels: (N, 1), classes of the classifier.
        scale: 0: no guidance.
    """

    def __init__(
        self, diffusion: GaussianDiffusion, classifier: nn.Module, labels: Tensor, scale: float
    ):
        super().__init__(diffusion)
        self.classifier, self.scale = classifier, scale
        self.labels = labels.to(diffusion.device)

    def gradient(self, x_t: Tensor, t: int) -> Tensor:
        """The gradient of log p(label | x_t) in x_t. Shape of x_t."""
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            logits = self.classifier(x, torch.full((len(x),), t, device=x.device))
            log_likelihood = -F.cross_entropy(logits, self.labels[:, 0], reduction="sum")
            return torch.autograd.grad(log_likelihood, x)[0]

    def denoise(self, x_t: Tensor, t: int, clip: str = "off") -> Denoised:
        signal, sigma = self.schedule.signal(t, x_t), self.schedule.sigma(t, x_t)
        if signal == 0:  # nothing but noise, which says nothing about the label
            return self.diffusion.denoise(x_t, t, clip)
        # score = (signal x_0 - x_t) / sigma^2, so x_0 moves sigma^2 / signal times as far.
        x0 = self.diffusion.denoise(x_t, t).x0
        x0 = clip_x0(x0 + sigma**2 / signal * self.scale * self.gradient(x_t, t), clip)
        return Denoised(x0, (x_t - signal * x0) / sigma)


def drop_labels(labels: Tensor, draws: Tensor, rate: float) -> Tensor:
    """Labels for training, some of which become unknown, so that the network also learns what all
    images have in common (Ho & Salimans 2022, arXiv 2207.12598, algorithm 1).

    All labels of an image are dropped with the probability `rate`; of several columns also each
    alone, so that some can be asked for without the others.

    draws: uniform in [0, 1), (N, 1 + columns).
    """
    dropped = draws[:, :1] < rate  # (N, 1)
    if labels.shape[1] > 1:
        dropped = dropped | (draws[:, 1:] < rate)  # (N, columns)
    return torch.where(dropped, -1, labels)


class ClassifierFreeGuidance(Wrapper):
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, eq. 6).

        x_0 = x_0(unknown) + scale (x_0(label) - x_0(unknown))

    and the same for epsilon, v and the score, which are linear in x_0. The paper's w is scale - 1.

    Args:
        diffusion: a model that was trained with labels, of which some were dropped.
        labels: of the images that are to be drawn.
        scale: 0: no labels; 1: the labels as they are; more: beyond them.
        interval: only at noise levels sigma / signal between these two; elsewhere the scale is 1
            (Kynkaanniemi et al. 2024, arXiv 2404.07724).
        rescale: 0 to 1, how far the standard deviation of each x_0 is brought back to that at scale
            1, against saturated images (Lin et al. 2024, arXiv 2305.08891, eq. 15 and 16).
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        labels: Tensor,
        scale: float,
        interval: tuple[float, float] = (0.0, inf),
        rescale: float = 0.0,
    ):
        super().__init__(diffusion)
        self.labels = labels.to(diffusion.device)
        self.scale, self.interval, self.rescale = scale, interval, rescale

    def scale_at(self, t: int) -> float:
        """The scale at a timestep."""
        signal, sigma = self.schedule.signal(t), self.schedule.sigma(t)
        level = sigma / signal if signal else inf
        return self.scale if self.interval[0] <= level <= self.interval[1] else 1.0

    def denoise(self, x_t: Tensor, t: int, clip: str = "off") -> Denoised:
        scale, unknown = self.scale_at(t), torch.full_like(self.labels, -1)
        if scale in (0, 1):
            labels = self.labels if scale else unknown
            return self.diffusion.denoise(x_t, t, clip, labels)
        # Both estimates by one call of the network, with a batch twice as large.
        labels = torch.cat([unknown, self.labels])
        without, with_label = self.diffusion.denoise(
            torch.cat([x_t, x_t]), t, "off", labels
        ).x0.chunk(2)
        x0 = without + scale * (with_label - without)
        if self.rescale:
            ratio = with_label.flatten(1).std(1) / x0.flatten(1).std(1)  # (N,)
            x0 = x0 * expand(1 + self.rescale * (ratio - 1), x0)
        x0 = clip_x0(x0, clip)
        signal, sigma = self.schedule.signal(t, x_t), self.schedule.sigma(t, x_t)
        return Denoised(x0, (x_t - signal * x0) / sigma)


# --------------------------------------------------------------------------------------------------
# Also here: what `sample` is told


class Guidance(NamedTuple):
    """The settings of `ClassifierFreeGuidance`, which explains them."""

    scale: float
    interval: tuple[float, float] = (0.0, inf)
    rescale: float = 0.0
