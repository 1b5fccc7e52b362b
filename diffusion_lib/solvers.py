"""Second-order samplers: fewer steps for the same quality (page 06b measures them).

Their arguments are those of all samplers, see `samplers.py`. With lambda = log(signal / sigma),
half the log-SNR, the deterministic trajectories follow

    d(x / sigma) = x_0(x, lambda) d(e^lambda)

`ddim` takes x_0 as constant during a step: first order, the error of the whole trajectory falls
like 1 / steps. The solvers here estimate how x_0 changes during the step: second order,
1 / steps^2, where the steps are short enough.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_lib.samplers import Denoiser, Step, randn_like, timestep_pairs


@torch.no_grad()
def dpm_solver(
    diffusion: Denoiser,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: str = "static",
    spacing: str = "trailing",
    eta: float = 0.0,
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2; with noise, eq. 19).

    The change of x_0 during a step is extrapolated from the step before, linearly in lambda, and
    taken at half the step, h = lambda_s - lambda_t. That is second-order accurate for small h. It
    is exact only for a constant x_0: for one that is linear in lambda, the exact weight of the
    slope is h - (1 - e^-h), and this method uses h (1 - e^-h) / 2. One call of the network a step.

    Args:
        eta: 0 follows the ordinary differential equation, 1 the stochastic one, which adds noise.
    """
    x, schedule = noise, diffusion.schedule
    last_x0, last_h = None, None
    for t, s in timestep_pairs(schedule, "dpm_solver", steps, spacing):
        signal, sigma = schedule.signal(t), schedule.sigma(t)
        signal_s, sigma_s = schedule.signal(s), schedule.sigma(s)
        x0 = diffusion.denoise(x, t, clip).x0
        decay = sigma_s * signal / (sigma * signal_s)  # e^{-h}, 0 for the step to the clean image
        h = -math.log(decay) if decay > 0 else math.inf

        # Second order: D, the line through this x_0 and that of the step before, half a step ahead.
        # The first step has none before it, the last one no end in lambda: they are first order,
        # and so steps of `ddim` (eta = 0) or `ddpm` (eta = 1).
        line = x0
        if last_x0 is not None and math.isfinite(h):
            line = x0 + h / (2 * last_h) * (x0 - last_x0)

        # x_s = sigma_s / sigma e^{-eta h} x_t + signal_s (1 - e^{-(1 + eta) h}) D
        #       + sigma_s sqrt(1 - e^{-2 eta h}) z
        x = sigma_s / sigma * decay**eta * x + signal_s * (1 - decay ** (1 + eta)) * line
        if eta > 0 and s >= 0:
            x = x + sigma_s * math.sqrt(1 - decay ** (2 * eta)) * randn_like(x, generator)
        last_x0, last_h = x0, h
        yield Step(t, x, x0)


def dpm_solver_sde(
    diffusion: Denoiser,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: str = "static",
    spacing: str = "trailing",
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): `dpm_solver` with eta = 1, which adds noise at each step, like ddpm."""
    return dpm_solver(diffusion, noise, steps, generator, clip, spacing, eta=1.0)


@torch.no_grad()
def heun(
    diffusion: Denoiser,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: str = "static",
    spacing: str = "trailing",
) -> Iterator[Step]:
    """Heun's method for the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, algorithm
    1, without the added noise): the mean of the slopes at both ends of a step.

    Time and scale are those of the straight path, whatever the path of the model is: there the
    slope is the velocity, epsilon - x_0, which is finite at both ends. EDM takes sigma / signal as
    the time, which is infinite at pure noise. (For Euler's method time and scale make no
    difference: on both paths it is `ddim`.)

    A step of `ddim` leads to s, where the network is called again. Each step but the last calls it
    twice.
    """
    x, schedule = noise, diffusion.schedule
    for t, s in timestep_pairs(schedule, "heun", steps, spacing):
        signal, sigma = schedule.signal(t), schedule.sigma(t)
        signal_s, sigma_s = schedule.signal(s), schedule.sigma(s)
        x0, epsilon = diffusion.denoise(x, t, clip)
        ahead = signal_s * x0 + sigma_s * epsilon
        if s >= 0:
            x0_s, epsilon_s = diffusion.denoise(ahead, s, clip)
            velocity = (epsilon - x0 + epsilon_s - x0_s) / 2
            # x / scale lies on the straight path, at the time sigma / scale.
            scale, scale_s = signal + sigma, signal_s + sigma_s
            ahead = scale_s * (x / scale + (sigma_s / scale_s - sigma / scale) * velocity)
        x = ahead
        yield Step(t, x, x0)
