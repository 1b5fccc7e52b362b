"""One prediction, five views: what networks predict, and how each follows from the others.

Given x_t = signal x_0 + sigma epsilon, one number more decides on all (page 09):

    epsilon  = (x_t - signal x_0) / sigma
    v        = signal epsilon - sigma x_0
    velocity = epsilon - x_0
    score    = -epsilon / sigma

They are linear in x_0 and epsilon. So what holds for an image and its noise holds for their means
given x_t, which is what a trained network predicts.
"""

from typing import NamedTuple

from torch import Tensor


class Views(NamedTuple):
    """A prediction in every form, each of the shape of x_t.

    x0: the clean image. epsilon: the noise in x_t.
    v: signal epsilon - sigma x_0 (Salimans & Ho 2022, arXiv 2202.00512, appendix D).
    velocity: epsilon - x_0, dx_t/dt on the straight path (Liu et al. 2022, arXiv 2209.03003).
    score: the gradient of log q(x_t) (Song et al. 2021, arXiv 2011.13456).
    """

    x0: Tensor
    epsilon: Tensor
    v: Tensor
    velocity: Tensor
    score: Tensor


def views(x0: Tensor, epsilon: Tensor, signal: float | Tensor, sigma: float | Tensor) -> Views:
    """All five from two of them. signal, sigma: of `NoiseSchedule`, at the timestep of x_t."""
    return Views(x0, epsilon, signal * epsilon - sigma * x0, epsilon - x0, -epsilon / sigma)
