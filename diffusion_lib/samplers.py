"""From noise to images: generators that take one step of the reverse process at a time.

    for step in ddim(diffusion, noise, steps=50):
        show(step.x, step.x0)

Every sampler starts from x_T, walks down a list of timesteps from T-1 to 0, and yields after each.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError


class Step(NamedTuple):
    """One step of a sampler.

    t: the timestep that the network was asked about, T-1..0.
    x: what the step led to, shape (N, ...). After the last step: the samples.
    x0: the finished images as the network saw them at this step, shape (N, ...).
    """

    t: int
    x: Tensor
    x0: Tensor


def spaced_timesteps(timesteps: int, steps: int | None) -> list[int]:
    """`steps` of the timesteps 0..T-1 (None: all), evenly spaced, from T-1 down to 0.

    Raises:
        InputError: fewer than one step, or more than T.
    """
    steps = timesteps if steps is None else steps
    if not 1 <= steps <= timesteps:
        raise InputError(f"the number of steps must be 1 to {timesteps}, not {steps}")
    return torch.linspace(timesteps - 1, 0, steps, dtype=torch.float64).round().int().tolist()


@torch.no_grad()
def ddpm(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: bool = True,
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2).

    x_{t-1} is drawn from the posterior q(x_{t-1} | x_t, x_0), with the network's x_0 in place of
    the true one. The last step has variance 0: no noise is added to the finished image.

    Args:
        diffusion: a trained model.
        noise: x_T, standard normal, shape (N, ...), on the device of the model.
        steps: how many, 1 to T. By default T: every timestep, as in the paper.
        generator: source of the noise that is added at each step, on the same device.
        clip: whether to hold the network's x_0 in [-1, 1] at every step, as the paper does.
    """
    x = noise
    timesteps = spaced_timesteps(diffusion.schedule.timesteps, steps)
    for now, next_ in zip(timesteps, [*timesteps[1:], -1], strict=True):
        t = torch.full((len(x),), now, device=x.device)
        x0 = diffusion.denoise(x, t, clip).x0
        x, variance = diffusion.schedule.posterior(x0, x, t, torch.full_like(t, next_))
        if next_ >= 0:
            x = x + variance.sqrt() * normal_like(x, generator)
        yield Step(now, x, x0)


@torch.no_grad()
def ddim(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: bool = True,
    eta: float = 0.0,
) -> Iterator[Step]:
    """Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16).

        x_{t-1} = sqrt(alpha_bar_{t-1}) x_0
                + sqrt(1 - alpha_bar_{t-1} - sigma^2) epsilon + sigma z
        sigma^2 = eta^2 beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)

    Args:
        eta: how much noise a step adds. With 0 there is none, and x_T alone decides on the image;
            with 1 sigma^2 is the variance of the posterior, and this is `ddpm`.
        The others are those of `ddpm`.

    Raises:
        InputError: eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must be 0 to 1, not {eta}")
    x, schedule = noise, diffusion.schedule
    timesteps = spaced_timesteps(schedule.timesteps, steps)
    for now, next_ in zip(timesteps, [*timesteps[1:], -1], strict=True):
        t = torch.full((len(x),), now, device=x.device)
        before = torch.full_like(t, next_)
        x0, epsilon = diffusion.denoise(x, t, clip)
        sigma2 = eta**2 * schedule.posterior(x0, x, t, before)[1]
        direction = (schedule.at("sqrt_one_minus_alpha_bar", before, x) ** 2 - sigma2).clamp(min=0)
        x = schedule.at("sqrt_alpha_bar", before, x) * x0 + direction.sqrt() * epsilon
        if eta > 0 and next_ >= 0:
            x = x + sigma2.sqrt() * normal_like(x, generator)
        yield Step(now, x, x0)


SAMPLERS = {"ddpm": ddpm, "ddim": ddim}


def sample(diffusion: GaussianDiffusion, count: int, **settings) -> Tensor:
    """All of `sample_batches`, which has the arguments, together: (count, C, H, W) in [-1, 1]."""
    return torch.cat(list(sample_batches(diffusion, count, **settings)))


def sample_batches(
    diffusion: GaussianDiffusion,
    count: int,
    sampler: str = "ddim",
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> Iterator[Tensor]:
    """Make images, many at a time.

    x_T is drawn on the CPU, one image after the other, so that with ddim the same seed gives the
    same images on any device and in batches of any size (up to rounding).

    Args:
        diffusion: a trained model, on the device that is to do the work.
        count: how many images.
        sampler: ddpm or ddim.
        steps: 1 to T. By default those of `usual_steps`.
        batch_size: how many at a time: the more the faster, until the device is busy or full.
        seed: of all noise.
        progress: whether to show a bar.

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
    steps_each = len(spaced_timesteps(diffusion.schedule.timesteps, steps))
    bar = tqdm(total=len(batches) * steps_each, desc="sampling", unit="step", disable=not progress)
    diffusion.eval()
    with bar:
        for size in batches:
            noise = torch.stack(list(islice(noises, size))).to(device)
            for step in SAMPLERS[sampler](diffusion, noise, steps, generator):
                bar.update()
                x = step.x
            yield x.clamp(-1, 1).cpu()


def usual_steps(sampler: str, timesteps: int) -> int:
    """How many steps a sampler takes if nobody says: 50 for ddim, all T for ddpm."""
    return min(50, timesteps) if sampler == "ddim" else timesteps


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
