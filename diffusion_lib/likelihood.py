"""The likelihood of points under a model, by the probability-flow ODE (page 09).

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv
2011.13456), section 4.3. The deterministic trajectories carry the density along. Where they diverge
it falls:

    d log q(z_u) / du = -div velocity(z_u, u)

z = x / (signal + sigma) lies on the straight path, at the time u = sigma / (signal + sigma).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.spacing import spaced_timesteps


def log_likelihood(
    diffusion: GaussianDiffusion, x: Tensor, steps: int = 100, spacing: str = "log_snr"
) -> Tensor:
    """log q(x) at timestep 0, where x has almost no noise. (N, D) -> (N,)

    Heun's method follows the points from timestep 0 to T-1, where they must be standard normal.
    The divergence takes D gradients a call: this is for points in the plane, not for images.

    Args:
        steps, spacing: how many of the timesteps are visited, and which, as of a sampler.
    """
    schedule, size = diffusion.schedule, x.shape[1]
    timesteps = spaced_timesteps(schedule, steps, spacing)[::-1]  # from 0 up
    scales = [schedule.signal(t) + schedule.sigma(t) for t in timesteps]
    times = [schedule.sigma(t) / scale for t, scale in zip(timesteps, scales, strict=True)]

    def slope(z: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """The velocity, (N, D), and its divergence, (N,), at the i-th timestep."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            velocity = diffusion.views(scales[i] * z, timesteps[i]).velocity
            columns = [
                torch.autograd.grad(velocity[:, d].sum(), z, retain_graph=True)[0][:, d]
                for d in range(size)
            ]
        return velocity.detach(), torch.stack(columns).sum(0)

    z = x / scales[0]
    log_q = torch.full_like(x[:, 0], -size * math.log(scales[0]))  # a density in x, not in z
    for i, j in pairwise(range(steps)):
        du = times[j] - times[i]
        velocity, divergence = slope(z, i)
        velocity_j, divergence_j = slope(z + du * velocity, j)
        z = z + du * (velocity + velocity_j) / 2
        log_q = log_q + du * (divergence + divergence_j) / 2
    x_T = scales[-1] * z
    normal = -x_T.square().sum(1) / 2 - size / 2 * math.log(2 * math.pi)
    return log_q + size * math.log(scales[-1]) + normal
