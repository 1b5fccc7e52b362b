"""stable targets

The target is not the image alone from which x_t was made, but the mean over it and 512 others,
each weighted by how likely x_t comes from it (Xu, Tong & Jaakkola 2023, arXiv 2302.00670): the
same mean, with less variance.
"""

from functools import cached_property

import torch
import torch.nn.functional as F

from diffusion_lib import GaussianDiffusion, TrainConfig, Trainer, to_images
from diffusion_lib.benchmark.contestants import ours

OTHERS = 512


class StableTargets(GaussianDiffusion):
    def losses(self, x0, t, noise, labels=None, min_snr=0.0):
        others = torch.randint(len(self.pixels), (OTHERS,))
        images = torch.cat([x0, to_images(self.pixels[others])]).flatten(1)  # (B + OTHERS, C H W)
        x_t = self.schedule.add_noise(x0, t, noise)
        signal = self.schedule.signal(t, x0).flatten(1)  # (B, 1)
        sigma = self.schedule.sigma(t, x0).flatten(1)
        # log p(x_t | image) = -|x_t - signal image|^2 / (2 sigma^2), but for what no image changes
        products = x_t.flatten(1) @ images.T  # (B, B + OTHERS)
        squares = images.square().sum(1)
        weights = ((signal * products - 0.5 * signal**2 * squares) / sigma**2).softmax(1)
        target = (weights @ images).view_as(x0)
        error = F.mse_loss(self(x_t, t, labels), target, reduction="none")
        return (self.min_snr_weight(t, x0, min_snr) * error).flatten(1).mean(1)


class StableTrainer(Trainer):
    @cached_property
    def wrapped(self):
        d = self.diffusion
        model = StableTargets(d.network, d.schedule, d.prediction)
        model.precision, model.pixels = d.precision, self.batches.pixels
        return model.train()


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
    return ours(pixels, config, StableTrainer)
