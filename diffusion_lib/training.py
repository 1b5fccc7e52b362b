"""The training loop: a generator that trains, and reports now and then.

    trainer = Trainer(diffusion, pixels, TrainConfig(epochs=10))
    for report in trainer:
        print(report.step, report.loss)

Whoever runs the loop decides what becomes of a report: a progress bar, a plot, an early `break`.
Everything random in step k follows from the seed and k alone. So a run that was stopped, saved and
restored goes on exactly as if it had not been; and several processes, each with its share of every
batch (distributed.py), do what one would do.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from diffusion_lib import distributed
from diffusion_lib.batches import BatchStream
from diffusion_lib.config import TrainConfig
from diffusion_lib.devices import (
    compiles,
    find_device,
    find_precision,
    peak_memory,
    prepare,
    try_to_compile,
)
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.networks.unet import UNet
from diffusion_lib.schedules import NoiseSchedule

LEVELS = 4  # of noise, for which the loss is reported one by one


@dataclass(frozen=True)
class Report:
    """How the run stands. Means are over the steps since the last report.

    step, steps: steps done, and steps of the whole run.
    epoch: epochs done.
    epoch_ended: whether this step was the last one of an epoch.
    loss: mean of the loss.
    loss_by_level: the same for each quarter of the timesteps, from faint noise to strong; nan
        where no timestep was drawn.
    gradient_norm: mean norm of the gradient before it was clipped.
    learning_rate: of the last step.
    images_per_second: throughput of the training steps, without what is done between reports.
    memory: most bytes in use so far, of the GPU, or of the process on another device.
    seconds: spent in training steps since the very start of the run.
    """

    step: int
    steps: int
    epoch: int
    epoch_ended: bool
    loss: float
    loss_by_level: tuple[float, ...]
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    memory: int
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

    Raises:
        InputError: a device that is not there, or a batch that cannot be shared out.
    """

    def __init__(self, diffusion: GaussianDiffusion, pixels: Tensor, config: TrainConfig):
        if config.flip and pixels.dim() != 4:
            raise InputError(f"flip is for images, not for data of shape {tuple(pixels.shape[1:])}")
        if config.batch_size % distributed.world_size():
            raise InputError(
                f"a batch of {config.batch_size} cannot be shared out evenly among "
                f"{distributed.world_size()} processes: choose another --batch_size"
            )
        self.config = config
        self.device = find_device(config.device)
        self.precision = find_precision(config.precision, self.device)
        prepare(self.device)
        self.diffusion = diffusion.to(self.device)
        if self.device.type == "cuda":
            self.diffusion.to(memory_format=torch.channels_last)  # as tensor cores read images
        if isinstance(diffusion.network, UNet):
            diffusion.network.checkpointing = config.checkpointing
        self.average = copy.deepcopy(diffusion).requires_grad_(False).eval()
        self.weights = list(diffusion.parameters())
        self.averaged_weights = list(self.average.parameters())
        fused = self.device.type in ("cuda", "cpu")  # all weights in one call
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=config.lr, weight_decay=config.weight_decay, fused=fused
        )
        # Small gradients would vanish in float16: they are scaled up, and back before the step.
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision == torch.float16
        )
        mine = config.batch_size // distributed.world_size()
        self.share = slice(distributed.rank() * mine, (distributed.rank() + 1) * mine)
        self.batches = BatchStream(
            pixels, config.batch_size, config.seed, self.device, share=self.share
        )
        self.generator = torch.Generator(self.device)
        self.tally = torch.zeros(2, LEVELS, device=self.device)  # sum of losses, and how many
        self.steps_per_epoch = math.ceil(len(pixels) / config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        self.step = 0
        self.seconds = 0.0
        self.stopping = False

    def __iter__(self) -> Iterator[Report]:
        """Train until the last step, the time limit, or `stopping`.

        Raises:
            InputError: the loss or its gradient is not finite, or the memory is too small.
        """
        self.diffusion.train()
        self.stopping = False
        deadline = time.monotonic() + (60 * self.config.minutes or math.inf)
        window, started = [], time.perf_counter()
        while self.step < self.steps:
            window.append(self.step_that_fits())
            self.stopping = self.stopping or time.monotonic() >= deadline
            epoch_ended = self.step % self.steps_per_epoch == 0
            due = epoch_ended or self.step % self.config.report_every == 0
            # Several processes have to stop at the same step: they ask each other at reports only.
            if due or (self.stopping and distributed.world_size() == 1):
                yield self.report(window, started, epoch_ended)
                if distributed.any_process(self.stopping, self.device):
                    return
                self.diffusion.train()
                window, started = [], time.perf_counter()

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
        t = self.draw_timesteps(self.config.batch_size, random)[self.share]
        noise = torch.randn((self.config.batch_size, *x0.shape[1:]), **random)[self.share]
        if self.config.flip:
            mirrored = torch.rand(self.config.batch_size, **random)[self.share] < 0.5
            x0 = torch.where(mirrored.view(-1, 1, 1, 1), x0.flip(-1), x0)

        # 2. How far off is the network, and which way is better?
        self.optimiser.zero_grad()
        loss = self.differentiate(x0, t, noise)
        self.scaler.unscale_(self.optimiser)
        norm = clip_grad_norm_(self.weights, self.config.clip_norm)

        # 3. Go there.
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.update_average()
        self.step += 1
        return loss, norm

    def differentiate(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Add the gradient of the mean loss to the weights', and return that loss, shape ().

        The batch is computed in `accumulate` parts, one after the other: the gradient of a sum is
        the sum of gradients, and only one part at a time takes memory.
        """
        chunks = [some.chunk(self.config.accumulate) for some in (x0, t, noise)]
        parts = list(zip(*chunks, strict=True))
        total = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            with self.without_exchange() if number < len(parts) else nullcontext():
                with self.autocast():
                    losses = self.trained.losses(*part, self.config.min_snr)  # (B / parts,)
                loss = losses.sum() / len(x0)
                self.scaler.scale(loss).backward()
            level = (part[1] * LEVELS / self.diffusion.schedule.timesteps).long()
            losses = losses.detach()
            self.tally.index_add_(1, level, torch.stack([losses, torch.ones_like(losses)]))
            total += loss.detach()
        return total

    @cached_property
    def trained(self) -> GaussianDiffusion:
        """`diffusion` with its network compiled, and tied to those of other processes."""
        network = self.diffusion.network
        if compiles(self.config.compile, self.device, self.steps - self.step):
            part = -(-(self.share.stop - self.share.start) // self.config.accumulate)
            x = torch.zeros((part, *self.batches.pixels.shape[1:]), device=self.device)
            t = self.draw_timesteps(part, dict(device=self.device))
            with self.autocast():
                network = try_to_compile(network, x, t, tie=distributed.tie)
        else:
            network = distributed.tie(network)
        if network is self.diffusion.network:
            return self.diffusion
        return GaussianDiffusion(network, self.diffusion.schedule, self.diffusion.prediction)

    def autocast(self) -> torch.autocast:
        """A context in which convolutions and the like compute in `precision`."""
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=enabled)

    def without_exchange(self):
        """A context in which gradients stay in this process: more of them are to come."""
        network = self.trained.network
        return network.no_sync() if distributed.world_size() > 1 else nullcontext()

    @torch.no_grad()
    def update_average(self) -> None:
        """average <- decay average + (1 - decay) current, for all weights at once.

        The decay starts at 0 and small, so that the random weights of the beginning are forgotten.
        """
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step)) if self.step else 0.0
        torch._foreach_lerp_(self.averaged_weights, self.weights, 1 - decay)

    def report(self, window: list[tuple[Tensor, Tensor]], started: float, ended: bool) -> Report:
        """What to say of the steps in the window: the loss and the gradient's norm of each.

        Raises:
            InputError: some loss or gradient is not finite.
        """
        # Reading the numbers waits for the device, so it happens only here.
        numbers = torch.stack([torch.stack(pair) for pair in window])  # (steps, 2)
        losses, norms = distributed.mean(numbers).cpu().T
        sums, counts = distributed.mean(self.tally.clone()).cpu()
        self.tally.zero_()
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        self.check(losses, norms)
        return Report(
            step=self.step,
            steps=self.steps,
            epoch=self.step // self.steps_per_epoch,
            epoch_ended=ended,
            loss=losses.mean().item(),
            loss_by_level=tuple((sums / counts).tolist()),
            gradient_norm=norms[norms.isfinite()].mean().item(),
            learning_rate=self.learning_rate(self.step - 1),
            images_per_second=len(window) * self.config.batch_size / elapsed,
            memory=peak_memory(self.device),
            seconds=self.seconds,
        )

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

    def check(self, losses: Tensor, norms: Tensor) -> None:
        """Stop a run whose loss, or its gradient, is no number any more: it will not recover.

        Args:
            losses, norms: of the last steps, shape (steps,) each.

        Raises:
            InputError: that is so; it names the step and the likely cause.
        """
        healthy = losses.isfinite()
        # In float16, gradients may overflow: the scaler leaves such a step out and halves its
        # factor. Below 1 it is no longer the factor's fault.
        if self.precision != torch.float16 or self.scaler.get_scale() < 1:
            healthy &= norms.isfinite()
        if healthy.all():
            return
        index = healthy.logical_not().nonzero()[0].item()
        loss, norm = losses[index].item(), norms[index].item()
        pixels = self.batches.pixels
        if pixels.is_floating_point() and not pixels.isfinite().all():
            cause = "there are numbers in the data that are not finite"
        elif self.precision == torch.float16:
            cause = "too large for float16, so try --precision float32, or a lower --lr"
        else:
            cause = f"the learning rate is likely too high, so try --lr {self.config.lr / 3:.1g}"
        step = self.step - len(losses) + index + 1
        raise InputError(
            f"at step {step} the loss is {loss:.3g}, its gradient {norm:.3g}: {cause}. "
            "The last checkpoint is from before that"
        )

    def step_that_fits(self) -> tuple[Tensor, Tensor]:
        """`train_step`, or one clear line where the device's memory is too small for it."""
        with suppress(torch.OutOfMemoryError):
            return self.train_step()
        # Here, and not inside an `except`, the tensors of the failed step are gone.
        self.optimiser.zero_grad()
        size = math.ceil((self.share.stop - self.share.start) / self.config.accumulate)
        fitting = size // 2
        while fitting and not self.fits(fitting):
            fitting //= 2
        if not fitting:
            raise InputError(
                f"the memory of {self.device} is too small for a single image: take a smaller "
                "--image_size or --width, a larger --patch, or --checkpointing"
            )
        batch = fitting * distributed.world_size()
        parts = math.ceil(size * self.config.accumulate / fitting)
        raise InputError(
            f"the memory of {self.device} is too small for {size} images at a time, but {fitting} "
            f"fit: say --batch_size {batch}, or keep the batch and say --accumulate {parts}, or "
            "--checkpointing"
        )

    def fits(self, count: int) -> bool:
        """Whether the memory is large enough for the gradient from so many images at a time."""
        x = torch.zeros((count, *self.batches.pixels.shape[1:]), device=self.device)
        try:
            with self.autocast():  # the network alone: not compiled, not shared, not in parts
                loss = self.diffusion.losses(x, x.flatten(1)[:, 0].long(), x).mean()
            loss.backward()
        except torch.OutOfMemoryError:
            return False
        finally:
            self.optimiser.zero_grad()
        return True

    def save(self, path: str | Path, **more) -> None:
        """Write the averaged model as `GaussianDiffusion.save` does, and the run beside it."""
        training = {
            "config": asdict(self.config),
            "images": len(self.batches.pixels),
            "step": self.step,
            "steps": self.steps,
            "seconds": self.seconds,
            "weights": self.diffusion.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
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
        self.average.network.load_state_dict(checkpoint["weights"])
        fused = [group["fused"] for group in self.optimiser.param_groups]  # as this device can
        self.optimiser.load_state_dict(training["optimiser"])
        for group, choice in zip(self.optimiser.param_groups, fused, strict=True):
            group["fused"] = choice
        for weights, state in self.optimiser.state.items():
            for name, values in state.items():
                if values.shape == weights.shape:  # in memory as the weights are, on this device
                    state[name] = torch.empty_like(weights).copy_(values)
        if training.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(training["scaler"])
        self.step, self.seconds = training["step"], training["seconds"]
