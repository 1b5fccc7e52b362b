"""Images from an image: SDEdit, which draws a sketch anew, and inpainting, which fills in a part.

edit = Edit(sketch, strength=0.6)
sample(diffusion, 8, edit=edit)
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.diffusion import Denoised
from diffusion_lib.errors import InputError
from diffusion_lib.samplers import Denoiser, Step, randn_like, timestep_pairs
from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.wrapper import Wrapper


class StartingAt(Wrapper):
    """`diffusion` without the timesteps above t_0, so that any sampler starts there: SDEdit (Meng
    et al. 2022, arXiv 2108.01073).

        x = diffusion.schedule.add_noise(sketch, t_0, noise)
        for step in ddim(StartingAt(diffusion, t_0), x):
            show(step.x)
    """

    def __init__(self, diffusion: Denoiser, t_0: int):
        super().__init__(diffusion)
        self.rest = up_to(diffusion.schedule, t_0)

    @property
    def schedule(self) -> NoiseSchedule:
        return self.rest

    def denoise(self, x_t: Tensor, t: int, clip: str = "off") -> Denoised:
        return self.diffusion.denoise(x_t, t, clip)


def paste_known(x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """The known part of an image in its place: that of `known` where the mask is 1, and x where it
    is 0. The two have the same noise level (RePaint, eq. 8).
    """
    return mask * known + (1 - mask) * x


@torch.no_grad()
def inpaint(
    diffusion: Denoiser,
    noise: Tensor,
    known: Tensor,
    mask: Tensor,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    clip: str = "static",
    spacing: str = "linspace",
    repeats: int = 5,
) -> Iterator[Step]:
    """RePaint (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1): `ddpm`, where after each step
    the known part, with the noise of that timestep, takes its place.

    What is drawn in a step does not know yet what is pasted after it. So the noise of the step is
    added again, and the step repeated: x_t = a x_s + sqrt(b) z, with the a and b of
    `NoiseSchedule.posterior`.

    Args:
        known: the image, (N, C, H, W) in [-1, 1].
        mask: 1 where it is known, 0 where it is to be drawn, (N or 1, 1, H, W).
        steps: 1 to T; by default 50.
        repeats: how often each step is done; 1 is replacement alone. The paper: 10.

    The other arguments are those of all samplers, see `samplers.py`.
    """
    x, schedule = noise, diffusion.schedule
    steps = inpaint_steps(schedule.timesteps) if steps is None else steps
    for t, s in timestep_pairs(schedule, "ddpm", steps, spacing):
        for repeat in range(repeats):
            x0 = diffusion.denoise(x, t, clip).x0
            mean, variance = schedule.posterior(x0, x, t, s)
            x = mean + variance**0.5 * randn_like(x, generator)
            noised = schedule.add_noise(known, s, randn_like(x, generator))
            x = paste_known(x, noised, mask)
            if repeat < repeats - 1:  # back from s to t
                a = schedule.signal(t) / schedule.signal(s)
                b = schedule.sigma(t) ** 2 - a**2 * schedule.sigma(s) ** 2
                x = a * x + b**0.5 * randn_like(x, generator)
        yield Step(t, x, x0)


# --------------------------------------------------------------------------------------------------
# Also here: what `sample` is told, and the schedule of `StartingAt`


class Edit(NamedTuple):
    """An image that samples start from.

    image: (C, H, W) in [-1, 1].
    strength: share of the timesteps that it is noised by; 1: all, which leaves nothing of it.
    mask: for inpainting: 1 where the image stays, 0 where it is drawn anew, (1, H, W).
    """

    image: Tensor
    strength: float = 0.6
    mask: Tensor | None = None

    def start(self, diffusion: Denoiser, noise: Tensor) -> tuple[StartingAt, Tensor]:
        """The model that starts from the image, and the image with this noise, (N, C, H, W).

        Raises:
            InputError: another shape than the model's images have, or a strength out of its range.
        """
        if not 0 < self.strength <= 1:
            raise InputError(f"strength must be more than 0 and at most 1, not {self.strength}")
        for name, given, shape in (
            ("image", self.image, diffusion.image_shape),
            ("mask", self.mask, (1, *diffusion.image_shape[1:])),
        ):
            if given is not None and given.shape != shape:
                raise InputError(
                    f"the {name} to edit must be of shape {tuple(shape)}, not {tuple(given.shape)}"
                )
        model = StartingAt(diffusion, self.timesteps(diffusion.schedule.timesteps) - 1)
        image = self.image.to(noise).expand_as(noise)
        return model, model.schedule.add_noise(image, model.schedule.timesteps - 1, noise)

    def timesteps(self, timesteps: int) -> int:
        """How many of all T timesteps it takes to draw the image anew."""
        return max(1, round(self.strength * timesteps))


def up_to(schedule: NoiseSchedule, t_0: int) -> NoiseSchedule:
    """The same schedule without the timesteps above t_0."""
    rest = copy.copy(schedule)
    rest.timesteps = t_0 + 1
    for name in ("betas", "alphas", "alpha_bars", "snr", "log_snr"):
        setattr(rest, name, getattr(schedule, name)[: t_0 + 1])
    return rest


def inpaint_steps(timesteps: int) -> int:
    """How many steps `inpaint` takes by default."""
    return min(50, timesteps)
