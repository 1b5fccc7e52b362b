"""Other small trainers as contestants, each as its own documentation sets it up.

They are no dependencies: `pip install diffusers denoising-diffusion-pytorch smalldiffusion`.
All draw from our `BatchStream`, so that none waits for a loader. With a width, a network is that
of the documentation, in its proportions, and batches are as large as ours. Without one, differences
from the documentation are what a CPU and 16 pixels ask for: narrow networks, batches of at most 64,
and a learning rate for minutes instead of hours: the best of those tried on the portraits.

On a GPU the number format is the documentation's too: float16 by `accelerate` where that is turned
on (denoising-diffusion-pytorch, diffusers), or else float32 (smalldiffusion), in which PyTorch
computes convolutions as TF32. All sample in float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lib.benchmark.contestants import SAMPLER_STEPS, Contestant, batches_of
from diffusion_lib.config import TrainConfig


def denoising_diffusion_pytorch(pixels: Tensor, config: TrainConfig, width: int = 0) -> Contestant:
    """The README's `Unet`, `GaussianDiffusion` and `Trainer`: v, sigmoid schedule, EMA 0.995."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    channels, size, device = *pixels.shape[1:3], torch.device(config.device)
    batch_size = config.batch_size if width else 32
    batches = batches_of(pixels, config, batch_size)
    levels = (1, 2, 4, 8) if width else (1, 2, 4)
    network = Unet(width or 16, dim_mults=levels, channels=channels, flash_attn=width > 0)
    model = GaussianDiffusion(network, image_size=size, sampling_timesteps=SAMPLER_STEPS)
    optimizer = torch.optim.Adam(model.to(device).parameters(), lr=2e-3, betas=(0.9, 0.99))
    average = EMA(model, beta=0.995, update_every=10)
    accelerate = Accelerate(optimizer, device)

    def step(progress: float) -> None:
        model.train()
        images = (next(batches) + 1) / 2
        with accelerate.autocast():
            loss = model(images)
        loss.item()  # for its progress bar
        accelerate.step(loss)
        average.update()

    def predict(x: Tensor) -> Tensor:
        return network(x, torch.ones(len(x), device=device))

    def sample(count: int) -> Tensor:
        average.ema_model.eval()
        return average.ema_model.sample(batch_size=count) * 2 - 1

    return Contestant(network, batch_size, step, predict, sample, accelerate.precision)


def diffusers(pixels: Tensor, config: TrainConfig, width: int = 0) -> Contestant:
    """The training tutorial's `UNet2DModel` and `DDPMScheduler`: epsilon, linear, cosine decay.

    The tutorial's six levels go down from 128 pixels to 4, with attention at 8. Smaller images go
    down to 4 as well, in fewer levels. A width that the usual 32 groups of its normalisation do not
    divide is a multiple of 16, and has 16 groups.
    """
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    channels, size, device = *pixels.shape[1:3], torch.device(config.device)
    batch_size = config.batch_size if width else 16
    batches = batches_of(pixels, config, batch_size)
    widths, attention_level = [32, 64, 64], 1
    if width:
        levels = max(1, min(6, int(math.log2(size / 4)) + 1))
        widths = [width * multiplier for multiplier in (1, 1, 2, 2, 4, 4)[:levels]]
        attention_level = max(0, levels - 2)
    kinds = ["Attn" if level == attention_level else "" for level in range(len(widths))]
    network = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2 if width else 1,
        block_out_channels=widths,
        norm_num_groups=16 if width % 32 else 32,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
    ).to(device)
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    accelerate = Accelerate(optimizer, device)
    warmup = 0.05  # of the time: the tutorial's 500 steps are about this fraction of its run

    def step(progress: float) -> None:
        network.train()
        falling = max(0.0, progress - warmup) / (1 - warmup)
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * falling))
            group["lr"] = 2e-3 * min(1.0, progress / warmup) * cosine
        images = next(batches)
        noise = torch.randn_like(images)
        t = torch.randint(0, 1000, (len(images),), device=device)
        with accelerate.autocast():
            prediction = network(schedule.add_noise(images, noise, t), t, return_dict=False)[0]
        loss = F.mse_loss(prediction.float(), noise)
        accelerate.step(loss)
        loss.item()  # for its progress bar

    def predict(x: Tensor) -> Tensor:
        return network(x, torch.ones(len(x), device=device)).sample

    @torch.no_grad()
    def sample(count: int) -> Tensor:
        network.eval()
        # The tutorial takes 1,000 steps of DDPM; this is the same library's way to take fewer, and
        # clips x_0 as the tutorial does. (Its DPM-Solver++ does not: worse, if so early.)
        solver = DDIMScheduler.from_config(schedule.config)
        solver.set_timesteps(SAMPLER_STEPS)
        x = torch.randn(count, channels, size, size, device=device)
        for t in solver.timesteps:
            x = solver.step(network(x, t).sample, t, x).prev_sample
        return x

    return Contestant(network, batch_size, step, predict, sample, accelerate.precision)


def smalldiffusion(pixels: Tensor, config: TrainConfig, width: int = 0) -> Contestant:
    """The Fashion-MNIST example: epsilon on a log-linear schedule, `Scaled(Unet)`, EMA 0.999.

    With a width, the network of the example with the larger images, CIFAR-10.
    """
    from accelerate import Accelerator
    from smalldiffusion import Scaled, ScheduleLogLinear, Unet, samples
    from smalldiffusion.diffusion import generate_train_sample

    channels, size, device = *pixels.shape[1:3], torch.device(config.device)
    batch_size = config.batch_size if width else 64
    batches = batches_of(pixels, config, batch_size)
    shape = dict(ch=32, ch_mult=(1, 1, 2), attn_resolutions=(size // 2,))
    if width:
        shape = dict(ch=width, ch_mult=(1, 2, 2, 2), attn_resolutions=(16,))
    network = Scaled(Unet)(size, channels, channels, **shape).to(device)
    schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    # as torch_ema does it: the decay warms up as (1 + n) / (10 + n)
    average = torch.optim.swa_utils.AveragedModel(
        network,
        avg_fn=lambda mean, new, n: mean.lerp(new, 1 - min(0.999, (1 + int(n)) / (10 + int(n)))),
    )

    def step(progress: float) -> None:
        network.train()
        optimizer.zero_grad()
        loss = network.get_loss(*generate_train_sample(next(batches), schedule)[:3])
        loss.item()  # for its progress bar
        loss.backward()
        optimizer.step()
        average.update_parameters(network)

    def predict(x: Tensor) -> Tensor:
        return network(x, torch.ones((), device=device))  # one noise level for all images

    def sample(count: int) -> Tensor:
        # a single process and the processor's own precision, as on a machine without a GPU
        how = dict(gam=1.6, batchsize=count, accelerator=Accelerator(cpu=device.type == "cpu"))
        *_, x0 = samples(average.module, schedule.sample_sigmas(SAMPLER_STEPS), **how)
        return x0

    return Contestant(network, batch_size, step, predict, sample)


class Accelerate:
    """What `accelerate` makes of "fp16": on a GPU mixed precision, elsewhere nothing."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device):
        self.optimizer, gpu = optimizer, device.type == "cuda"
        self.precision = torch.float16 if gpu else torch.float32
        self.autocast = lambda: torch.autocast(device.type, torch.float16, enabled=gpu)
        self.scaler = torch.amp.GradScaler(device.type, enabled=gpu)

    def step(self, loss: Tensor) -> None:
        """The gradient, clipped to a norm of 1, and a step of the optimizer."""
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        for group in self.optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


PEERS = {
    "smalldiffusion": smalldiffusion,
    "diffusers": diffusers,
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
}
