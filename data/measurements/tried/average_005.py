"""average of weights over 0.05 of the run

In place of the exponential average a power of the step, from which EDM2 chooses after training
(Karras et al. 2024, arXiv 2312.02696, section 3.1): its width is 0.05 of the steps so far. That of
the recipe is 0.09 in a run as short as this.
"""

import torch

from diffusion_lib import TrainConfig, Trainer
from diffusion_lib.benchmark.contestants import ours

GAMMA = 16.97  # of a relative width of 0.05


class PowerAverage(Trainer):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.ema.update = self.average_weights

    @torch.no_grad()
    def average_weights(self, step):
        decay = (1 - 1 / (step + 1)) ** (GAMMA + 1)
        torch._foreach_lerp_(self.ema.averaged, self.ema.weights, 1 - decay)


def contestant(pixels, seed):
    config = TrainConfig(
        image_size=16,
        beta_schedule="cosine",
        shift=0.5,
        prediction="x0",
        timestep_sampling="logit_normal",
        min_snr=5.0,
        network="dit",
        width=96,
        blocks=3,
        batch_size=32,
        optimizer="muon",
        lr=0.008,
        warmup=20,
        precision="bfloat16",
        seed=seed,
        device="cpu",
    )
    return ours(pixels, config, PowerAverage)
