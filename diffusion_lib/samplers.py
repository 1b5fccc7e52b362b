"""From noise to images: generators that take one step of the reverse process at a time.

    for step in ddim(diffusion, noise, steps=50):
        show(step.x, step.x0)

A sampler starts from x_T, visits decreasing timesteps, and yields after each. All take these
arguments, of which most have defaults:

    diffusion: a model, see `Denoiser`.
    noise: x_T, standard normal, (N, ...), on the model's device.
    steps: how many, 1 to T; None takes the sampler's default, see `default_steps`.
    generator: source of the noise that a step adds, on the same device.
    clip: how the predicted x_0 is clipped to [-1, 1]: static, dynamic or off, see `clip_x0`.
    spacing: which timesteps are visited, see `spacing.py`.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diffusion_lib.config import DEFAULT_STEPS
from diffusion_lib.diffusion import Denoised
from diffusion_lib.errors import InputError
from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.spacing import spaced_timesteps


@torch.no_grad()
def ddpm(
    diffusion: "Denoiser",
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: str = "static",
    spacing: str = "linspace",
) -> Iterator["Step"]:
    """Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2).

    x_s is drawn from the posterior q(x_s | x_t, x_0), with the predicted x_0 in place of the true
    one. By default it visits all T timesteps.
    """
    x = noise
    for t, s in timestep_pairs(diffusion.schedule, "ddpm", steps, spacing):
        x0 = diffusion.denoise(x, t, clip).x0
        x, variance = diffusion.schedule.posterior(x0, x, t, s)
        if s >= 0:  # the last step, to the clean image, has variance 0
            x = x + variance**0.5 * randn_like(x, generator)
        yield Step(t, x, x0)


@torch.no_grad()
def ddim(
    diffusion: "Denoiser",
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: str = "static",
    spacing: str = "linspace",
    eta: float = 0.0,
) -> Iterator["Step"]:
    """Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16).

        x_s = signal_s x_0 + sqrt(sigma_s^2 - variance) epsilon + sqrt(variance) z

    with eta^2 times the variance of the posterior. With the exact E[x_0 | x_t] and small steps, x_s
    has the same marginal distribution for every eta.

    Args:
        eta: how much noise a step adds. 0: none (deterministic: x_T determines the image); 1: as
            much as `ddpm`, and then this is ddpm.

    Raises:
        InputError: eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must be 0 to 1, not {eta}")
    x, schedule = noise, diffusion.schedule
    for t, s in timestep_pairs(schedule, "ddim", steps, spacing):
        x0, epsilon = diffusion.denoise(x, t, clip)
        variance = eta**2 * schedule.posterior(x0, x, t, s)[1] if eta else 0.0
        kept = math.sqrt(max(0.0, schedule.sigma(s) ** 2 - variance))
        x = schedule.signal(s) * x0 + kept * epsilon
        if eta and s >= 0:
            x = x + math.sqrt(variance) * randn_like(x, generator)
        yield Step(t, x, x0)


def timestep_pairs(
    schedule: NoiseSchedule, sampler: str, steps: int | None, spacing: str
) -> list[tuple[int, int]]:
    """The timesteps that a sampler visits, each with the next one; after the last comes -1."""
    steps = default_steps(sampler, schedule.timesteps) if steps is None else steps
    return list(pairwise([*spaced_timesteps(schedule, steps, spacing), -1]))


# --------------------------------------------------------------------------------------------------
# Also here: what a sampler yields, what it needs of a model, and its default number of steps


class Step(NamedTuple):
    """One step of a sampler.

    t: the timestep that the network was called with, T-1..0.
    x: where the step led, (N, ...). After the last step: the samples.
    x0: the clean images as the network predicted them at this step, (N, ...).
    """

    t: int
    x: Tensor
    x0: Tensor


class Denoiser(Protocol):
    """What samplers need of a model. `GaussianDiffusion` has it; so may a wrapper around one."""

    schedule: NoiseSchedule
    image_shape: tuple[int, ...]
    device: torch.device

    def denoise(self, x_t: Tensor, t: int, clip: str = "off") -> Denoised: ...

    def eval(self) -> "Denoiser": ...


def default_steps(sampler: str, timesteps: int) -> int:
    """How many steps a sampler takes by default: few for a solver, all T for ddpm."""
    return min(DEFAULT_STEPS[sampler] or timesteps, timesteps)


def randn_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of x's shape, dtype and device."""
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
