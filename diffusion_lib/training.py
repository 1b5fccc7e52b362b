"""The training loop: a generator that trains, and yields a report now and then.

    trainer = Trainer(diffusion, pixels, TrainConfig(epochs=10))
    for report in trainer:
        print(report.step, report.loss)

The caller decides what to do with a report: a progress bar, a plot, an early `break`. Everything
random in step k follows from the seed and k alone. So a run that was stopped, saved and restored
continues exactly as if it had not been; and several processes, each with its slice of every batch
(distributed.py), do what one process would do.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from diffusion_lib import advice, compiling, devices, distributed, graphs, optimizers, resuming
from diffusion_lib.batches import TIMESTEP_SAMPLING, BatchStream, how_many_held_out
from diffusion_lib.clock import Clock
from diffusion_lib.config import TrainConfig
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.guidance import drop_labels
from diffusion_lib.reports import QUARTERS, Report


class EMA:
    """An exponential moving average of a model's weights, which makes the better samples.

    average <- decay average + (1 - decay) weights
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.weights, self.averaged = list(model.parameters()), list(self.model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """To be called after step number `step` = 0, 1, 2, ..."""
        # The decay rises from 0, so that the random weights of the start are soon forgotten.
        decay = min(self.decay, (1 + step) / (10 + step)) if step else 0.0
        torch._foreach_lerp_(self.averaged, self.weights, 1 - decay)  # all weights in one call


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """The learning rate of a step as a fraction of the highest one: it rises over the first
    `warmup` steps, then falls to 0 on a half cosine.
    """
    rise = min(1.0, (step + 1) / (warmup + 1))
    fall = 0.5 * (1 + math.cos(math.pi * step / steps))
    return rise * fall


class Trainer:
    """Trains `diffusion` on images, and keeps a moving average of its weights.

    pixels: uint8 images, (N, C, H, W); or floats of any shape (N, ...), about as large as noise:
        data other than images, such as points in the plane.
    labels: of the images, int64, (N, columns), for a model with `classes`; else None.

    Attributes:
        diffusion: the model with the weights that are being trained.
        average: the same model with the averaged weights.
        step, steps: steps done, and steps of the whole run; of one with a time limit about as many
            as fit into it.
        stopping: set it to end the run after the current step.
        after_step: is called after every step.

    Raises:
        InputError: a device that is not there, or a batch that cannot be divided among processes.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        pixels: Tensor,
        config: TrainConfig,
        labels: Tensor | None = None,
    ):
        advice.check_run(config, diffusion, pixels, labels)
        self.config = config
        self.device = devices.prepare(devices.find_device(config.device))
        self.diffusion = diffusion.to(self.device)
        self.diffusion.precision = devices.find_precision(config.precision, self.device)
        if self.device.type == "cuda":
            layout = getattr(diffusion.network, "memory_format", torch.preserve_format)
            self.diffusion.to(memory_format=layout)
        self.ema = EMA(self.diffusion, config.ema)
        self.average = self.ema.model
        if config.checkpointing:
            self.diffusion.network.enable_gradient_checkpointing()
        self.weights = list(self.diffusion.parameters())
        self.optimizer = optimizers.make_optimizer(
            diffusion.network, config.optimizer, config.lr, config.weight_decay, diffusion.precision
        )
        # Small gradients would vanish in float16: they are scaled up, and back before the step.
        needs_scale = self.diffusion.precision == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=needs_scale)

        self.local_batch_size = config.batch_size // distributed.world_size()
        self.rank_slice = distributed.rank_slice(config.batch_size)
        held_out = how_many_held_out(config.held_out, len(pixels))
        self.batches = BatchStream(
            pixels, config.batch_size, config.seed, self.device, self.rank_slice, labels, held_out
        )
        self.generator = torch.Generator(self.device)
        self.steps_per_epoch = math.ceil(len(self.batches.kept) / config.batch_size)
        self.most_steps = self.steps = config.most_epochs * self.steps_per_epoch
        self.step = 0
        self.seconds = 0.0
        self.stopping = False
        self.after_step = lambda: None
        self.loss_sums = torch.zeros(2, QUARTERS, device=self.device)  # of losses, and how many

    def __iter__(self) -> Iterator[Report]:
        """Train until the last step, the end of the time, or `stopping`.

        Raises:
            InputError: the loss or its gradient is not finite, or the memory is too small.
        """
        self.diffusion.train()
        self.stopping = False
        clock = Clock(self.config.minutes, self.seconds)
        results, started = [], time.perf_counter()
        while self.step < self.steps:
            with suppress(compiling.Interrupted):  # then `stopping` is set
                results.append(advice.train_step_or_explain(self))
            if not results:
                return
            epoch_ended = self.step % self.steps_per_epoch == 0
            report_now = epoch_ended or self.step % self.config.report_every == 0
            # Several processes have to stop at the same step: they agree at reports only.
            alone = distributed.world_size() == 1
            if clock.limited and (alone or report_now):
                steps = clock.steps(self.step, self.steps, self.most_steps)
                self.steps = distributed.same(steps, self.device)
            self.after_step()
            if report_now or self.step >= self.steps or (self.stopping and alone):
                yield self.report(results, started, epoch_ended)
                if distributed.any_rank(self.stopping, self.device):
                    return
                self.diffusion.train()
                results, started = [], time.perf_counter()

    def train_step(self) -> Tensor:
        """One step of gradient descent (Ho et al. 2020, algorithm 1).

        Returns:
            The loss, and the norm of its gradient before clipping: shape (2,), still on the device.
        """
        # Images, and a random timestep and noise for each. Every process draws for the whole batch
        # and keeps its slice. (The factor keeps seeds apart: on the CPU only 32 bits count.)
        x0 = self.batches.batch(self.step)  # (B, C, H, W), in [-1, 1]
        self.generator.manual_seed(self.config.seed * 2_654_435_761 + self.step)
        drawn_from = TIMESTEP_SAMPLING[self.config.timestep_sampling]
        t = self.draw(partial(drawn_from, self.diffusion.schedule.timesteps))  # (B,)
        noise = self.draw(torch.randn, *x0.shape[1:])  # (B, C, H, W)
        if self.config.flip:
            flipped = self.draw(torch.rand, 1, 1, 1) < 0.5  # (B, 1, 1, 1)
            x0 = torch.where(flipped, x0.flip(-1), x0)
        labels = self.draw_labels()  # (B, columns); without labels (B, 0)

        # A step against the gradient, with the learning rate of now; then the average.
        lr = self.config.lr * warmup_cosine(self.step, self.steps, self.config.warmup)
        optimizers.set_learning_rate(self.optimizer, lr)
        result = self.fast_descend(x0, t, noise, labels)
        self.ema.update(self.step)
        self.step += 1
        return result

    def descend(self, x0: Tensor, t: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        """What a step does with its images and draws. Returns what `train_step` does."""
        # The gradient of the mean loss. The batch is computed in `accumulate` parts: gradients add
        # up, and only one part at a time takes memory.
        self.optimizer.zero_grad()
        losses = []
        batch = (x0, t, noise, labels)
        parts = list(zip(*(v.chunk(self.config.accumulate) for v in batch), strict=True))
        for number, part in enumerate(parts, start=1):
            with distributed.no_sync(self.wrapped.network, number < len(parts)):
                loss = self.wrapped.losses(*part, self.config.min_snr)  # (B / parts,)
                self.scaler.scale(loss.sum() / len(x0)).backward()
            losses.append(loss.detach())
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.weights, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack([self.add_losses(t, torch.cat(losses)), norm])

    # ----------------------------------------------------------------------------------------------
    # Also here: the network on this machine, reports, and runs that are stopped and go on

    def draw(self, source: Callable[..., Tensor], *shape: int) -> Tensor:
        """Random numbers of this shape for each image of the batch: this process's slice."""
        whole = (self.config.batch_size, *shape)
        return source(whole, device=self.device, generator=self.generator)[self.rank_slice]

    def draw_labels(self) -> Tensor:
        """The labels of this step's images, some of them dropped, (B, columns)."""
        labels = self.batches.batch_labels(self.step)
        return drop_labels(
            labels, self.draw(torch.rand, 1 + labels.shape[1]), self.config.label_dropout
        )

    @cached_property
    def wrapped(self) -> GaussianDiffusion:
        """`diffusion` as it is trained: its network compiled, and under torchrun in DDP."""
        network, image_shape = self.diffusion.network, self.batches.pixels.shape[1:]
        images_to_come = (self.steps - self.step) * self.local_batch_size

        def forward_passes() -> float:
            if self.config.minutes:
                return self.config.minutes * compiling.OPERATIONS_A_MINUTE
            return images_to_come * compiling.flops(network, image_shape)

        def attempt() -> GaussianDiffusion:
            wrapped = self.wrap()  # first: compiled inside DDP, it computes while it exchanges
            shape = (math.ceil(self.local_batch_size / self.config.accumulate), *image_shape)
            labels = self.batches.batch_labels(self.step)[: shape[0]]
            wrapped(torch.zeros(shape, device=self.device), 0, labels).sum().backward()
            self.optimizer.zero_grad()
            return wrapped

        if compiling.compile_pays(self.config.compile, self.device, forward_passes):
            return compiling.try_to_compile(network, attempt) or self.wrap()
        return self.wrap()

    @cached_property
    def fast_descend(self) -> Callable[..., Tensor]:
        """`descend`, on a GPU as one CUDA graph."""
        alone = self.device.type == "cuda" and distributed.world_size() == 1
        if not alone or self.config.compile == "off":
            return self.descend

        def reset() -> None:  # what the scaler has noted of a step that was recorded in part
            self.scaler.update(self.scaler.get_scale())

        return graphs.Graphed(self.descend, reset=reset)

    def wrap(self) -> GaussianDiffusion:
        """A model of the same network, wrapped in DDP if there are several processes."""
        network = distributed.wrap_ddp(self.diffusion.network)
        wrapped = GaussianDiffusion(network, self.diffusion.schedule, self.diffusion.prediction)
        wrapped.precision = self.diffusion.precision
        return wrapped.train()

    def add_losses(self, t: Tensor, losses: Tensor) -> Tensor:
        """Add losses, (B,), to the sums of their quarters of the timesteps. Returns their mean."""
        quarter = (t * QUARTERS / self.diffusion.schedule.timesteps).long()
        self.loss_sums.index_add_(1, quarter, torch.stack([losses, torch.ones_like(losses)]))
        return losses.mean()

    def report(self, results: list[Tensor], started: float, epoch_ended: bool) -> Report:
        """The state of the run, from what the steps since the last report returned.

        Raises:
            InputError: some loss or gradient is not finite.
        """
        # Reading the numbers waits for the device, so it happens only here.
        losses, norms = distributed.mean(torch.stack(results)).cpu().T  # (steps,) each
        sums, counts = distributed.mean(self.loss_sums.clone()).cpu()
        self.loss_sums.zero_()
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        advice.check_divergence(self, losses, norms)
        return Report(
            step=self.step,
            steps=self.steps,
            epoch=self.step // self.steps_per_epoch,
            epoch_ended=epoch_ended,
            loss=losses.mean().item(),
            loss_quarters=tuple((sums / counts).tolist()),
            gradient_norm=norms[norms.isfinite()].mean().item(),
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            images_per_second=len(results) * self.config.batch_size / elapsed,
            memory=devices.peak_memory(self.device),
            seconds=self.seconds,
        )

    def save(self, path: str | Path, **more) -> None:
        """Write the averaged model as `GaussianDiffusion.save` does, and the run with it."""
        self.average.save(path, training={**resuming.state(self), **more})

    def restore(self, checkpoint: dict) -> None:
        """Continue a run where `save` left it; `load_checkpoint` reads the file.

        Raises:
            InputError: other images or labels than before, or a damaged checkpoint.
        """
        resuming.restore(self, checkpoint)
        vars(self).pop("fast_descend", None)  # what was recorded belongs to the old state
