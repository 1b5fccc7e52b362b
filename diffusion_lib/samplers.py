"""From noise to images: generators that take one step of the reverse process at a time.

    for step in ddim(diffusion, noise, steps=50):
        show(step.x, step.x0)

Every sampler starts from x_T, walks down a list of timesteps, and yields after each. All take the
same arguments:

    diffusion: a trained model.
    noise: x_T, standard normal, shape (N, ...), on the device of the model.
    steps: how many, 1 to T; None takes every timestep.
    generator: source of the noise that a step adds, on the same device.
    clip: what holds the network's x_0 in the range of images, see `hold`.
    spacing: which timesteps, see `spacing.py`.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.config import USUAL_STEPS
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.spacing import spaced_timesteps


class Step(NamedTuple):
    """One step of a sampler.

    t: the timestep that the network was asked about, T-1..0.
    x: what the step led to, shape (N, ...). After the last step: the samples.
    x0: the finished images as the network saw them at this step, shape (N, ...).
    """

    t: int
    x: Tensor
    x0: Tensor


@torch.no_grad()
def ddpm(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: bool | str = True,
    spacing: str = "linspace",
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2).

    x_{t-1} is drawn from the posterior q(x_{t-1} | x_t, x_0), with the network's x_0 in place of
    the true one. The last step has variance 0: no noise is added to the finished image.
    """
    x, schedule = noise, diffusion.schedule
    for now, after in pairs(schedule, steps, spacing):
        t, before = everywhere(now, x), everywhere(after, x)
        x0 = diffusion.denoise(x, t, clip).x0
        x, variance = schedule.posterior(x0, x, t, before)
        if after >= 0:
            x = x + variance.sqrt() * normal_like(x, generator)
        yield Step(now, x, x0)


@torch.no_grad()
def ddim(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: bool | str = True,
    spacing: str = "linspace",
    eta: float = 0.0,
) -> Iterator[Step]:
    """Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16).

        x_{t-1} = sqrt(alpha_bar_{t-1}) x_0
                + sqrt(1 - alpha_bar_{t-1} - sigma^2) epsilon + sigma z
        sigma^2 = eta^2 beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)

    Args:
        eta: how much noise a step adds. With 0 there is none, and x_T alone decides on the image;
            with 1 sigma^2 is the variance of the posterior, and this is `ddpm`.

    Raises:
        InputError: eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must be 0 to 1, not {eta}")
    x, schedule = noise, diffusion.schedule
    for now, after in pairs(schedule, steps, spacing):
        t, before = everywhere(now, x), everywhere(after, x)
        x0, epsilon = diffusion.denoise(x, t, clip)
        sigma2 = eta**2 * schedule.posterior(x0, x, t, before)[1]
        direction = (schedule.at("sqrt_one_minus_alpha_bar", before, x) ** 2 - sigma2).clamp(min=0)
        x = schedule.at("sqrt_alpha_bar", before, x) * x0 + direction.sqrt() * epsilon
        if eta > 0 and after >= 0:
            x = x + sigma2.sqrt() * normal_like(x, generator)
        yield Step(now, x, x0)


@torch.no_grad()
def dpm_solver(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: bool | str = True,
    spacing: str = "trailing",
    eta: float = 0.0,
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2; with noise, eq. 19).

    With alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar) and lambda = log(alpha / sigma), a
    step from s to t, which is h = lambda_t - lambda_s long, is exact if x_0 moves on a straight
    line in lambda. The line goes through this x_0 and that of the step before, h' long:

        D   = x_0 + h / (2 h') (x_0 - x_0')
        x_t = sigma_t / sigma_s e^{-eta h} x_s + alpha_t (1 - e^{-(1 + eta) h}) D
            + sigma_t sqrt(1 - e^{-2 eta h}) z

    So the error falls with the square of the number of steps, at one call of the network a step.
    The first step has no step before, and the last one, to the clean image, is endless in lambda:
    these two take D = x_0, which makes them steps of `ddim` (if eta = 0) or `ddpm` (if eta = 1).

    Args:
        eta: 0 follows the differential equation, 1 the stochastic one, which adds noise.
    """
    x, schedule = noise, diffusion.schedule
    last_x0, last_h = None, None
    for now, after in pairs(schedule, steps, spacing):
        alpha, sigma = levels(schedule, now)
        alpha_after, sigma_after = levels(schedule, after)
        x0 = diffusion.denoise(x, everywhere(now, x), clip).x0
        decay = sigma_after * alpha / (sigma * alpha_after)  # e^{-h}
        h = -math.log(decay) if decay > 0 else math.inf
        estimate = x0
        if last_x0 is not None and math.isfinite(h):
            estimate = x0 + h / (2 * last_h) * (x0 - last_x0)
        x = sigma_after / sigma * decay**eta * x + alpha_after * (1 - decay ** (1 + eta)) * estimate
        if eta > 0 and after >= 0:
            x = x + sigma_after * math.sqrt(1 - decay ** (2 * eta)) * normal_like(x, generator)
        last_x0, last_h = x0, h
        yield Step(now, x, x0)


def dpm_solver_sde(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: bool | str = True,
    spacing: str = "trailing",
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): `dpm_solver` with eta = 1, a ddpm of second order."""
    return dpm_solver(diffusion, noise, steps, generator, clip, spacing, eta=1.0)


@torch.no_grad()
def heun(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: bool | str = True,
    spacing: str = "trailing",
) -> Iterator[Step]:
    """Heun's method, as in EDM (Karras et al. 2022, arXiv 2206.00364, algorithm 1).

    Go ahead, look again from there, and take the step once more with the mean of both views:

        x_t = sigma_t / sigma_s x_s + (alpha_t - sigma_t alpha_s / sigma_s) (x_0 + x_0') / 2

    The paper takes the mean of dx/dsigma; the mean of x_0 makes the same method for the equation in
    lambda (Lu et al. 2022, eq. 9), where a schedule whose x_T is nearly pure noise, such as cosine,
    has no step that is too long. Each step but the last calls the network twice.
    """
    x, schedule = noise, diffusion.schedule
    for now, after in pairs(schedule, steps, spacing):
        alpha, sigma = levels(schedule, now)
        alpha_after, sigma_after = levels(schedule, after)
        x0 = estimate = diffusion.denoise(x, everywhere(now, x), clip).x0
        shrink, grow = sigma_after / sigma, alpha_after - sigma_after * alpha / sigma
        if after >= 0:
            ahead = shrink * x + grow * x0
            estimate = (x0 + diffusion.denoise(ahead, everywhere(after, x), clip).x0) / 2
        x = shrink * x + grow * estimate
        yield Step(now, x, x0)


def pairs(schedule: NoiseSchedule, steps: int | None, spacing: str) -> list[tuple[int, int]]:
    """The timesteps that a sampler visits, each with the next one; behind the last comes -1."""
    timesteps = spaced_timesteps(schedule, steps, spacing)
    return list(zip(timesteps, [*timesteps[1:], -1], strict=True))


def everywhere(t: int, x: Tensor) -> Tensor:
    """The timestep t for each image of x, shape (N,)."""
    return torch.full((len(x),), t, device=x.device)


def levels(schedule: NoiseSchedule, t: int) -> tuple[float, float]:
    """alpha = sqrt(alpha_bar) and sigma = sqrt(1 - alpha_bar) of a timestep -1..T-1."""
    alpha_bar = 1.0 if t < 0 else schedule.alpha_bars[t].item()
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


SAMPLERS = {
    "dpm_solver": dpm_solver,
    "dpm_solver_sde": dpm_solver_sde,
    "heun": heun,
    "ddim": ddim,
    "ddpm": ddpm,
}


def sample(diffusion: GaussianDiffusion, count: int, **settings) -> Tensor:
    """All of `sample_batches`, which has the arguments, together: (count, C, H, W) in [-1, 1]."""
    return torch.cat(list(sample_batches(diffusion, count, **settings)))


def sample_batches(
    diffusion: GaussianDiffusion,
    count: int,
    sampler: str = "dpm_solver",
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    **settings,
) -> Iterator[Tensor]:
    """Make images, many at a time.

    x_T is drawn on the CPU, one image after the other, so that with a sampler that adds no noise
    (dpm_solver, heun, ddim) the same seed gives the same images on any device and in batches of any
    size (up to rounding).

    Args:
        diffusion: a trained model, on the device that is to do the work.
        count: how many images.
        sampler: dpm_solver, dpm_solver_sde, heun, ddim or ddpm.
        steps: 1 to T. By default those of `usual_steps`.
        batch_size: how many at a time: the more the faster, until the device is busy or full.
        seed: of all noise.
        progress: whether to show a bar.
        settings: what else the sampler takes, such as spacing and clip.

    Yields:
        Float32 images in [-1, 1], shape (batch, channels, height, width), on the CPU.

    Raises:
        InputError: an unknown sampler, or a count, steps or batch size out of range.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"no sampler is called {sampler!r}: choose from {', '.join(SAMPLERS)}")
    if count < 1 or batch_size < 1:
        raise InputError(f"count and batch size must be at least 1, not {count} and {batch_size}")
    if steps is None:
        steps = usual_steps(sampler, diffusion.schedule.timesteps)
    device = next(diffusion.parameters()).device
    generator = step_generator(seed, device)
    noises = initial_noise(diffusion, seed)
    batches = [min(batch_size, count - first) for first in range(0, count, batch_size)]
    bar = tqdm(total=len(batches) * steps, desc="sampling", unit="step", disable=not progress)
    diffusion.eval()
    with bar:
        for size in batches:
            noise = torch.stack(list(islice(noises, size))).to(device)
            for step in SAMPLERS[sampler](diffusion, noise, steps, generator, **settings):
                bar.update()
                x = step.x
            yield x.clamp(-1, 1).cpu()


def usual_steps(sampler: str, timesteps: int) -> int:
    """How many steps a sampler takes if nobody says: few for a solver, all T for ddpm."""
    return min(USUAL_STEPS.get(sampler, timesteps), timesteps)


def initial_noise(diffusion: GaussianDiffusion, seed: int) -> Iterator[Tensor]:
    """x_T of image 0, 1, 2, ... of a seed: standard normal, each (C, H, W), on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(diffusion.image_shape, generator=generator)


def step_generator(seed: int, device: torch.device) -> torch.Generator:
    """Source of the noise of the steps: another one than that of x_T, for every seed below 2^32."""
    return torch.Generator(device).manual_seed(seed ^ 0x9E3779B9)


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of x's shape, dtype and device."""
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
