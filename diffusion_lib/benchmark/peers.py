"""Other small trainers, each as its own documentation sets it up.

They are no dependencies: `pip install diffusers denoising-diffusion-pytorch smalldiffusion`.
All are fed from our `BatchStream`, so that nobody waits for a loader. A width asks for the network
of the documentation, in its proportions. Without one, differences from the documentation are what
a CPU and 16 pixels ask for: narrow networks, batches of at most 64, and a learning rate for minutes
instead of hours: the best of those tried on the portraits.

On a GPU the number format is the documentation's too: float16 by `accelerate` where that is turned
on (denoising-diffusion-pytorch, diffusers), or else float32 (smalldiffusion), in which PyTorch
computes convolutions as TF32.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLER_STEPS = 25  # of everybody's sampler
CPU = torch.device("cpu")


class Peer(NamedTuple):
    """A model in training.

    batch_size: images a step.
    step: takes images in [-1, 1], shape (N, C, S, S), and the share 0..1 of the training time that
        has passed; does one optimisation step.
    sample: takes a number, gives so many new images in [-1, 1] by the peer's own sampler.
    network: what is trained.
    precision: the number format in which it is trained.
    """

    batch_size: int
    step: Callable[[Tensor, float], None]
    sample: Callable[[int], Tensor]
    network: nn.Module
    precision: torch.dtype


def denoising_diffusion_pytorch(
    channels: int, size: int, lr: float = 2e-3, width: int = 0, device: torch.device = CPU
) -> Peer:
    """The README's `Unet`, `GaussianDiffusion` and `Trainer`: v, sigmoid schedule, EMA 0.995."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    if width:
        network = Unet(dim=width, dim_mults=(1, 2, 4, 8), channels=channels, flash_attn=True)
    else:
        network = Unet(dim=16, dim_mults=(1, 2, 4), channels=channels, flash_attn=False)
    model = GaussianDiffusion(
        network, image_size=size, timesteps=1000, sampling_timesteps=SAMPLER_STEPS
    ).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.99))
    average = EMA(model, beta=0.995, update_every=10)
    precision, scaler = accelerated(device)

    def step(images: Tensor, progress: float) -> None:
        model.train()
        with torch.autocast(device.type, precision, enabled=scaler.is_enabled()):
            loss = model((images + 1) / 2)
        loss.item()  # for its progress bar
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        average.update()

    def sample(count: int) -> Tensor:
        average.ema_model.eval()
        return average.ema_model.sample(batch_size=count) * 2 - 1

    return Peer(32, step, sample, network, precision)


def diffusers(
    channels: int, size: int, lr: float = 2e-3, width: int = 0, device: torch.device = CPU
) -> Peer:
    """The training tutorial's `UNet2DModel` and `DDPMScheduler`: epsilon, linear, cosine decay.

    The tutorial's six levels go down from 128 pixels to 4, with attention at 8. Smaller images go
    down to 4 as well, in fewer levels. A width that the usual 32 groups of its normalisation do not
    divide is a multiple of 16, and has 16 groups.
    """
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    if width:
        levels = max(1, min(6, int(math.log2(size / 4)) + 1))
        widths = [width * multiplier for multiplier in (1, 1, 2, 2, 4, 4)[:levels]]
        attentive, blocks = max(0, levels - 2), 2
    else:
        widths, attentive, blocks = [32, 64, 64], 1, 1
    kinds = ["Attn" if level == attentive else "" for level in range(len(widths))]
    network = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=blocks,
        block_out_channels=widths,
        norm_num_groups=16 if width % 32 else 32,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
    ).to(device)
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr)
    precision, scaler = accelerated(device)
    warmup = 0.05  # of the time: the tutorial's 500 steps are about that share of its run

    def step(images: Tensor, progress: float) -> None:
        network.train()
        for group in optimiser.param_groups:
            rise = min(1.0, progress / warmup)
            fall = 0.5 * (1 + math.cos(math.pi * max(0.0, progress - warmup) / (1 - warmup)))
            group["lr"] = lr * rise * fall
        noise = torch.randn_like(images)
        t = torch.randint(0, schedule.config.num_train_timesteps, (len(images),), device=device)
        with torch.autocast(device.type, precision, enabled=scaler.is_enabled()):
            answer = network(schedule.add_noise(images, noise, t), t, return_dict=False)[0]
        loss = F.mse_loss(answer.float(), noise)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        loss.item()  # for its progress bar

    @torch.no_grad()
    def sample(count: int) -> Tensor:
        network.eval()
        # The tutorial takes 1,000 steps of DDPM; this is the same library's way to take fewer, and
        # holds x_0 in range as the tutorial does. (Its DPM-Solver++ does not: worse, if so early.)
        solver = DDIMScheduler.from_config(schedule.config)
        solver.set_timesteps(SAMPLER_STEPS)
        x = torch.randn(count, channels, size, size, device=device)
        for t in solver.timesteps:
            x = solver.step(network(x, t).sample, t, x).prev_sample
        return x

    return Peer(16, step, sample, network, precision)


def smalldiffusion(
    channels: int, size: int, lr: float = 4e-3, width: int = 0, device: torch.device = CPU
) -> Peer:
    """The Fashion-MNIST example: epsilon on a log-linear schedule, `Scaled(Unet)`, EMA 0.999.

    With a width, the network of the example with the larger images, CIFAR-10.
    """
    from accelerate import Accelerator
    from smalldiffusion import Scaled, ScheduleLogLinear, Unet, samples
    from smalldiffusion.diffusion import generate_train_sample

    if width:
        shape = dict(ch=width, ch_mult=(1, 2, 2, 2), attn_resolutions=(16,))
    else:
        shape = dict(ch=32, ch_mult=(1, 1, 2), attn_resolutions=(size // 2,))
    network = Scaled(Unet)(size, channels, channels, **shape).to(device)
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
        loss = network.get_loss(*generate_train_sample(images, schedule)[:3])
        loss.item()  # for its progress bar
        loss.backward()
        optimiser.step()
        average.update_parameters(network)

    def sample(count: int) -> Tensor:
        # a single process and the processor's own precision, as on a machine without a GPU
        settings = dict(gam=1.6, batchsize=count, accelerator=Accelerator(cpu=device == CPU))
        *_, x0 = samples(average.module, schedule.sample_sigmas(SAMPLER_STEPS), **settings)
        return x0

    return Peer(64, step, sample, network, torch.float32)


def accelerated(device: torch.device) -> tuple[torch.dtype, torch.amp.GradScaler]:
    """The number format and the scaler of gradients that `accelerate` takes for "fp16": on a GPU.
    Elsewhere, float32 and a scaler that does nothing.
    """
    gpu = device.type == "cuda"
    return torch.float16 if gpu else torch.float32, torch.amp.GradScaler(device.type, enabled=gpu)


PEERS = {
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
    "diffusers": diffusers,
    "smalldiffusion": smalldiffusion,
}
