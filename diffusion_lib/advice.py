"""Why a run cannot start or has to stop, in one line that says what to do."""

import math
from typing import Protocol

import torch
from torch import Tensor

from diffusion_lib import distributed
from diffusion_lib.batches import BatchStream
from diffusion_lib.config import TrainConfig
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError, out_of_memory


class Run(Protocol):
    """What advice asks of a `Trainer`, which stands above it (training.py)."""

    config: TrainConfig
    device: torch.device
    diffusion: GaussianDiffusion
    batches: BatchStream
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    local_batch_size: int
    step: int

    def train_step(self) -> Tensor: ...


def check_run(
    config: TrainConfig, diffusion: GaussianDiffusion, pixels: Tensor, labels: Tensor | None
) -> None:
    """Raise InputError for options that do not go with this network, these data or processes."""
    network, classes = diffusion.network, diffusion.classes
    if (labels is None) != (not classes):
        raise InputError("a model with classes is trained with labels, and one without is not")
    if classes and labels.shape != (len(pixels), len(classes)):
        raise InputError(
            f"the labels must have shape {(len(pixels), len(classes))}, one row an image and one "
            f"column each for {', '.join(classes)}, not {tuple(labels.shape)}"
        )
    if config.flip and pixels.dim() != 4:
        raise InputError(f"flip is for images, not for data of shape {tuple(pixels.shape[1:])}")
    if config.checkpointing and not hasattr(network, "enable_gradient_checkpointing"):
        raise InputError(
            f"{type(network).__name__} cannot do gradient checkpointing: leave out checkpointing"
        )
    if config.batch_size % distributed.world_size():
        raise InputError(
            f"a batch of {config.batch_size} cannot be divided evenly among "
            f"{distributed.world_size()} processes: choose another --batch_size"
        )


def train_step_or_explain(trainer: Run) -> Tensor:
    """What `train_step` returns.

    Raises:
        InputError: the device's memory is too small. It says which batch size would fit.
    """
    try:
        return trainer.train_step()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    # Here, and not inside an `except`, the tensors of the failed step have been freed.
    trainer.optimizer.zero_grad()
    accumulate = trainer.config.accumulate
    size = math.ceil(trainer.local_batch_size / accumulate)
    fitting = size // 2
    while fitting and not fits(trainer, fitting):
        fitting //= 2
    if not fitting:
        raise InputError(
            f"the memory of {trainer.device} is too small for a single image: take a smaller "
            "--image_size or --width, a larger --patch, or --checkpointing"
        )
    raise InputError(
        f"the memory of {trainer.device} is too small for {size} images at a time, but {fitting} "
        f"fit: take --batch_size {fitting * distributed.world_size()}, or keep the batch and take "
        f"--accumulate {math.ceil(size * accumulate / fitting)}, or --checkpointing"
    )


def fits(trainer: Run, count: int) -> bool:
    """Whether the memory holds the gradient of so many images at a time."""
    x = torch.zeros((count, *trainer.batches.pixels.shape[1:]), device=trainer.device)
    try:
        with torch.compiler.set_stance("force_eager"):  # to compile for each size would take long
            trainer.diffusion.losses(x, 0, x).mean().backward()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        trainer.optimizer.zero_grad()
    return True


def check_divergence(trainer: Run, losses: Tensor, norms: Tensor) -> None:
    """Stop a run whose loss, or its gradient, is not finite: it will not recover.

    losses, norms: of the last steps, (steps,) each.

    Raises:
        InputError: that is so. It names the step and the likely cause.
    """
    healthy = losses.isfinite()
    # In float16, gradients may overflow: the scaler skips such a step and halves its factor. Once
    # that is below 1, it is no longer the factor's fault.
    in_float16 = trainer.diffusion.precision == torch.float16
    if not in_float16 or trainer.scaler.get_scale() < 1:
        healthy &= norms.isfinite()
    if healthy.all():
        return
    index = healthy.logical_not().nonzero()[0].item()
    loss, norm = losses[index].item(), norms[index].item()
    pixels = trainer.batches.pixels
    if pixels.is_floating_point() and not pixels.isfinite().all():
        cause = "some numbers in the data are not finite"
    elif in_float16:
        cause = "too large for float16: try --precision float32, or a lower --lr"
    else:
        cause = f"the learning rate is probably too high: try --lr {trainer.config.lr / 3:.1g}"
    step = trainer.step - len(losses) + index + 1
    raise InputError(
        f"the run diverged at step {step} (loss {loss:.3g}, gradient norm {norm:.3g}): {cause}. "
        "The last checkpoint is from before that"
    )
