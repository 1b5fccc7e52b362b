"""Other small trainers, each as its own documentation sets it up, at its smallest sensible size.

They are no dependencies: `pip install diffusers denoising-diffusion-pytorch smalldiffusion`.
All are fed from our `BatchStream`, so that nobody waits for a loader. Differences from their
documentation are what a CPU and 16 pixels ask for: narrow networks, batches of at most 64, and
a learning rate for minutes instead of hours: the best of those tried on the portraits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLER_STEPS = 25  # of everybody's sampler


class Peer(NamedTuple):
    """A model in training.

    batch_size: images a step.
    step: takes images in [-1, 1], shape (N, C, S, S), and the share 0..1 of the training time that
        has passed; does one optimisation step.
    sample: takes a number, gives so many new images in [-1, 1] by the peer's own sampler.
    """

    batch_size: int
    step: Callable[[Tensor, float], None]
    sample: Callable[[int], Tensor]


def denoising_diffusion_pytorch(channels: int, size: int, lr: float = 2e-3) -> Peer:
    """The README's `Unet`, `GaussianDiffusion` and `Trainer`: v, sigmoid schedule, EMA 0.995."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    network = Unet(dim=16, dim_mults=(1, 2, 4), channels=channels, flash_attn=False)
    model = GaussianDiffusion(
        network, image_size=size, timesteps=1000, sampling_timesteps=SAMPLER_STEPS
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.99))
    average = EMA(model, beta=0.995, update_every=10)

    def step(images: Tensor, progress: float) -> None:
        model.train()
        model((images + 1) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update()

    def sample(count: int) -> Tensor:
        average.ema_model.eval()
        return average.ema_model.sample(batch_size=count) * 2 - 1

    return Peer(32, step, sample)


def diffusers(channels: int, size: int, lr: float = 2e-3) -> Peer:
    """The training tutorial's `UNet2DModel` and `DDPMScheduler`: epsilon, linear, cosine decay."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    network = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr)
    warmup = 0.05  # of the time: the tutorial's 500 steps are about that share of its run

    def step(images: Tensor, progress: float) -> None:
        network.train()
        for group in optimiser.param_groups:
            rise = min(1.0, progress / warmup)
            fall = 0.5 * (1 + math.cos(math.pi * max(0.0, progress - warmup) / (1 - warmup)))
            group["lr"] = lr * rise * fall
        noise = torch.randn_like(images)
        t = torch.randint(0, schedule.config.num_train_timesteps, (len(images),))
        answer = network(schedule.add_noise(images, noise, t), t, return_dict=False)[0]
        F.mse_loss(answer, noise).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    @torch.no_grad()
    def sample(count: int) -> Tensor:
        network.eval()
        # The tutorial takes 1,000 steps of DDPM; this is the same library's way to take fewer, and
        # holds x_0 in range as the tutorial does. (Its DPM-Solver++ does not: worse, if so early.)
        solver = DDIMScheduler.from_config(schedule.config)
        solver.set_timesteps(SAMPLER_STEPS)
        x = torch.randn(count, channels, size, size)
        for t in solver.timesteps:
            x = solver.step(network(x, t).sample, t, x).prev_sample
        return x

    return Peer(16, step, sample)


def smalldiffusion(channels: int, size: int, lr: float = 4e-3) -> Peer:
    """The Fashion-MNIST example: epsilon on a log-linear schedule, `Scaled(Unet)`, EMA 0.999."""
    from accelerate import Accelerator
    from smalldiffusion import Scaled, ScheduleLogLinear, Unet, samples
    from smalldiffusion.diffusion import generate_train_sample

    network = Scaled(Unet)(
        size, channels, channels, ch=32, ch_mult=(1, 1, 2), attn_resolutions=(size // 2,)
    )
    schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr)
    # as torch_ema does it: the decay warms up as (1 + n) / (10 + n)
    average = torch.optim.swa_utils.AveragedModel(
        network,
        avg_fn=lambda mean, new, n: mean.lerp(new, 1 - min(0.999, (1 + int(n)) / (10 + int(n)))),
    )

    def step(images: Tensor, progress: float) -> None:
        network.train()
        optimiser.zero_grad()
        network.get_loss(*generate_train_sample(images, schedule)[:3]).backward()
        optimiser.step()
        average.update_parameters(network)

    def sample(count: int) -> Tensor:
        # a single process and the processor's own precision, as on a machine without a GPU
        settings = dict(gam=1.6, batchsize=count, accelerator=Accelerator(cpu=True))
        *_, x0 = samples(average.module, schedule.sample_sigmas(SAMPLER_STEPS), **settings)
        return x0

    return Peer(64, step, sample)


PEERS = {
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
    "diffusers": diffusers,
    "smalldiffusion": smalldiffusion,
}
