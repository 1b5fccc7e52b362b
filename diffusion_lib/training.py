"""The training loop: a generator that trains, and reports now and then.

    trainer = Trainer(diffusion, pixels, TrainConfig(epochs=10))
    for report in trainer:
        print(report.step, report.loss)

Whoever runs the loop decides what becomes of a report: a progress bar, a plot, an early `break`.
Everything random in step k follows from the seed and k alone. So a run that was stopped, saved and
restored goes on exactly as if it had not been.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel

from diffusion_lib.config import TrainConfig
from diffusion_lib.data import BatchStream
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.unet import UNet


@dataclass(frozen=True)
class Report:
    """How the run stands. Means are over the steps since the last report.

    step, steps: steps done, and steps of the whole run.
    epoch: epochs done.
    epoch_ended: whether this step was the last one of an epoch.
    loss: mean of the loss.
    gradient_norm: mean norm of the gradient before it was clipped.
    learning_rate: of the last step.
    images_per_second: throughput of the training steps, without what is done between reports.
    seconds: spent in training steps since the very start of the run.
    """

    step: int
    steps: int
    epoch: int
    epoch_ended: bool
    loss: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    seconds: float


def build(config: TrainConfig, channels: int) -> GaussianDiffusion:
    """A new, untrained model as the configuration describes it.

    Raises:
        InputError: an image size or a schedule that cannot be.
    """
    torch.manual_seed(config.seed)
    return GaussianDiffusion(
        UNet.for_images(config.image_size, channels, config.width, config.patch, config.blocks),
        NoiseSchedule(
            config.beta_schedule,
            config.timesteps,
            config.start,
            config.end,
            shift=config.shift,
            zero_terminal_snr=config.zero_terminal_snr,
        ),
        config.prediction,
    )


class Trainer:
    """Trains `diffusion` on images, and keeps a running average of its weights.

    Args:
        diffusion: what to train; it is moved to the device.
        pixels: uint8 images, shape (N, C, H, W), or floats of any shape (N, ...): data that is no
            images, such as points in the plane, about as large as noise.
        config: how.

    Attributes:
        diffusion: with the weights as they are being trained.
        average: the same model with the averaged weights (EMA), which make the better samples.
        step, steps: steps done, and steps of the whole run.
        stopping: set it to end the run after the step under way.
    """

    def __init__(self, diffusion: GaussianDiffusion, pixels: Tensor, config: TrainConfig):
        if config.flip and pixels.dim() != 4:
            raise InputError(f"flip is for images, not for data of shape {tuple(pixels.shape[1:])}")
        self.config = config
        self.device = find_device(config.device)
        self.diffusion = diffusion.to(self.device)
        self.averaged = AveragedModel(diffusion.network, multi_avg_fn=self.blend)
        self.average = GaussianDiffusion(
            self.averaged.module, diffusion.schedule, diffusion.prediction
        ).eval()
        self.optimiser = torch.optim.AdamW(
            diffusion.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.batches = BatchStream(pixels, config.batch_size, config.seed, self.device)
        self.generator = torch.Generator(self.device)
        self.steps_per_epoch = math.ceil(len(pixels) / config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        self.step = 0
        self.seconds = 0.0
        self.stopping = False

    def __iter__(self) -> Iterator[Report]:
        """Train until the last step, the time limit, or `stopping`."""
        self.diffusion.train()
        self.stopping = False
        deadline = time.monotonic() + (60 * self.config.minutes or math.inf)
        losses, norms, started = [], [], time.perf_counter()
        while self.step < self.steps and not self.stopping:
            loss, norm = self.train_step()
            losses.append(loss)
            norms.append(norm)
            self.stopping = self.stopping or time.monotonic() >= deadline
            epoch_ended = self.step % self.steps_per_epoch == 0
            if epoch_ended or self.stopping or self.step % self.config.report_every == 0:
                # Reading the numbers waits for the device, so it happens only here.
                loss, norm = torch.stack(losses).mean().item(), torch.stack(norms).mean().item()
                elapsed = time.perf_counter() - started
                self.seconds += elapsed
                yield Report(
                    step=self.step,
                    steps=self.steps,
                    epoch=self.step // self.steps_per_epoch,
                    epoch_ended=epoch_ended,
                    loss=loss,
                    gradient_norm=norm,
                    learning_rate=self.learning_rate(self.step - 1),
                    images_per_second=len(losses) * self.config.batch_size / elapsed,
                    seconds=self.seconds,
                )
                self.diffusion.train()
                losses, norms, started = [], [], time.perf_counter()

    def train_step(self) -> tuple[Tensor, Tensor]:
        """One step of gradient descent (Ho et al. 2020, algorithm 1).

        Returns:
            The loss, and the norm of its gradient: shape (), still on the device.
        """
        # 1. Images, and for each a random timestep and noise.
        x0 = self.batches.batch(self.step)  # (B, C, H, W), in [-1, 1]
        # (The factor keeps seeds apart: a generator on the CPU reads 32 bits of its seed.)
        self.generator.manual_seed(self.config.seed * 2_654_435_761 + self.step)
        random = dict(device=self.device, generator=self.generator)
        t = self.draw_timesteps(len(x0), random)
        noise = torch.randn(x0.shape, **random)
        if self.config.flip:
            mirrored = torch.rand(len(x0), **random) < 0.5
            x0 = torch.where(mirrored.view(-1, 1, 1, 1), x0.flip(-1), x0)

        # 2. How far off is the network, and which way is better?
        loss = self.diffusion.loss(x0, t, noise, self.config.min_snr)
        self.optimiser.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.diffusion.parameters(), self.config.clip_norm)

        # 3. Go there.
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.optimiser.step()
        self.averaged.update_parameters(self.diffusion.network)
        self.step += 1
        return loss.detach(), norm

    def draw_timesteps(self, count: int, random: dict) -> Tensor:
        """Timesteps for a batch, shape (count,): whole ones 0..T-1, or floats if `continuous`."""
        timesteps = self.diffusion.schedule.timesteps
        if self.config.continuous:
            return torch.rand(count, **random) * (timesteps - 1)
        return torch.randint(timesteps, (count,), **random)

    def learning_rate(self, step: int) -> float:
        """Rises to `lr` over the first `warmup` steps, then falls to 0 on a half cosine."""
        rise = min(1.0, (step + 1) / (self.config.warmup + 1))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.config.lr * rise * fall

    def blend(self, average: list[Tensor], current: list[Tensor], _) -> None:
        """average <- decay average + (1 - decay) current, for all weights at once.

        The decay starts small, so that the first, random weights are soon forgotten.
        """
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(average, current, 1 - decay)

    def save(self, path: str | Path, **more) -> None:
        """Write the averaged model as `GaussianDiffusion.save` does, and the run beside it."""
        training = {
            "config": asdict(self.config),
            "images": len(self.batches.pixels),
            "step": self.step,
            "steps": self.steps,
            "seconds": self.seconds,
            "weights": self.diffusion.network.state_dict(),
            "averaged": self.averaged.n_averaged,
            "optimiser": self.optimiser.state_dict(),
            **more,
        }
        self.average.save(path, training=training)

    def restore(self, checkpoint: dict) -> None:
        """Take up a run where `save` left it.

        Raises:
            InputError: the number of images is not what it was.
        """
        training = checkpoint["training"]
        if training["images"] != len(self.batches.pixels):
            raise InputError(
                f"the run to resume had {training['images']} images, "
                f"but now there are {len(self.batches.pixels)}"
            )
        try:
            self.diffusion.network.load_state_dict(training["weights"])
        except RuntimeError as error:
            raise InputError("the run to resume had images with other channels") from error
        self.averaged.module.load_state_dict(checkpoint["weights"])
        self.averaged.n_averaged.copy_(training["averaged"])
        self.optimiser.load_state_dict(training["optimiser"])
        self.step, self.seconds = training["step"], training["seconds"]


def find_device(name: str = "auto") -> torch.device:
    """The named device, or with "auto" the fastest that there is: cuda, then mps, then cpu.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"the device {name!r} cannot be used here: try --device auto") from error
    return device
