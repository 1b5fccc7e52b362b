"""A trained model on another path from images to noise: only time and scale change.

On two paths x = signal x_0 + sigma epsilon, the noisy images with the same ratio sigma / signal
differ by a factor only (Karras et al. 2022, arXiv 2206.00364, section 2). So any sampler can follow
any path with any model (page 10):

    straight = replace(diffusion.schedule, path="straight")  # dataclasses.replace
    sample(OnPath(diffusion, straight), 16)
"""

import math

import torch
from torch import Tensor

from diffusion_lib.diffusion import Denoised
from diffusion_lib.samplers import Denoiser
from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.wrapper import Wrapper


class OnPath(Wrapper):
    """`diffusion`, sampled along `schedule` instead of its own.

    The model is called at its own timestep with the nearest log-SNR. That is exact where the two
    schedules differ in their path alone; else it is off by half a timestep at most, and where
    `schedule` goes further than the model's, the model's end is taken.
    """

    def __init__(self, diffusion: Denoiser, schedule: NoiseSchedule):
        super().__init__(diffusion)
        self.path = schedule
        falling = -diffusion.schedule.log_snr  # (T,), rising
        between = (falling[1:] + falling[:-1]) / 2
        self.timesteps = torch.searchsorted(between, -schedule.log_snr).tolist()  # of the model

    @property
    def schedule(self) -> NoiseSchedule:
        return self.path

    def denoise(
        self, x_t: Tensor, t: int, clip: str = "off", labels: Tensor | None = None
    ) -> Denoised:
        """The model's estimates of the clean image and the noise in x_t, which lies on this path
        at timestep t.
        """
        own = self.timesteps[t]
        here, there = self.schedule, self.diffusion.schedule
        factor = math.hypot(there.signal(own), there.sigma(own)) / math.hypot(
            here.signal(t), here.sigma(t)
        )
        known = () if labels is None else (labels,)
        return self.diffusion.denoise(factor * x_t, own, clip, *known)
