"""A model around a model: whatever a sampler asks of it, it asks the other one.

Subclasses change one thing, `denoise`: guidance.py what is drawn, paths.py on which path.
"""

import torch

from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.schedules import NoiseSchedule


class Wrapper:
    """`diffusion`, as samplers see it (`samplers.Denoiser`), but for `denoise`."""

    def __init__(self, diffusion: GaussianDiffusion):
        self.diffusion = diffusion

    @property
    def schedule(self) -> NoiseSchedule:
        return self.diffusion.schedule

    @property
    def classes(self) -> dict[str, list[str]]:
        return self.diffusion.classes

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.diffusion.image_shape

    @property
    def device(self) -> torch.device:
        return self.diffusion.device

    def eval(self) -> "Wrapper":
        self.diffusion.eval()
        return self
