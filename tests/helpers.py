"""What several test files need: images, calls of a network, and a schedule of another kind."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_lib.schedules import NoiseSchedule, expand


def noise_image(seed: int, size: int = 8, grey: bool = False) -> Image.Image:
    """A picture of random pixels, always the same for a seed."""
    shape = (size, size) if grey else (size, size, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def make_images(folder: Path, count: int = 6, size: int = 8, grey: bool = False) -> Path:
    """A folder of `count` PNGs of random pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise_image(i, size, grey).save(folder / f"{i:04d}.png")
    return folder


def record_calls(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """A list that grows by (x, t) with each call of the network."""
    calls = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    return calls


@dataclass(eq=False)
class FlowSchedule:
    """x_t = (1 - u) x_0 + u epsilon, as in flow matching: it does not preserve variance.

    u = (t + 1) / (T + 1), so that signal is never 0.
    """

    timesteps: int = 100

    def sigma(self, t: int | Tensor, x: Tensor | None = None) -> float | Tensor:
        if isinstance(t, int):
            return (t + 1) / (self.timesteps + 1)
        u = (t.double() + 1) / (self.timesteps + 1)
        return u if x is None else expand(u, x)

    def signal(self, t: int | Tensor, x: Tensor | None = None) -> float | Tensor:
        return 1 - self.sigma(t, x)

    @property
    def log_snr(self) -> Tensor:
        t = torch.arange(self.timesteps)
        return 2 * (self.signal(t) / self.sigma(t)).log()

    add_noise = NoiseSchedule.add_noise
    posterior = NoiseSchedule.posterior
