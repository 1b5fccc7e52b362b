"""What a run will cost: floating-point operations, memory and time."""

import time

import torch
from torch import Tensor, nn

from diffusion_lib.advice import train_step_or_explain
from diffusion_lib.graphs import WARM_UP
from diffusion_lib.training import Trainer

TIMED_STEPS = 5  # after the first, on a GPU after the step is recorded
TIMED_SECONDS = 30  # at most


def activation_bytes(model: nn.Module, x: Tensor, t: Tensor) -> int:
    """Bytes that a forward pass of x keeps for the backward pass, without the weights."""
    kept, weights = {}, {w.untyped_storage().data_ptr() for w in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:  # a tensor that is kept alive keeps its address
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = model(x, t)
    del prediction
    return sum(size for size, _ in kept.values())


def training_bytes(trainer: Trainer) -> int:
    """About how many bytes of memory training takes: weights with all that belongs to them, and
    activations of the images that are computed at a time.

    Measured on one image. What the libraries themselves need is not included, and a compiled
    network keeps less.
    """
    weights = sum(w.numel() for w in trainer.weights)
    # In float32: the weight, its gradient, its moving average, and the two averages of AdamW.
    fixed = 5 * 4 * weights + trainer.batches.pixels.nbytes * trainer.batches.pixels.is_cuda
    x = torch.zeros(1, *trainer.batches.pixels.shape[1:], device=trainer.device)
    t = torch.zeros(1, device=trainer.device)
    one = activation_bytes(trainer.diffusion.train(), x, t)
    return round(fixed + one * trainer.local_batch_size / trainer.config.accumulate)


def seconds_per_step(trainer: Trainer) -> float:
    """Mean seconds of some steps. They do train: do not use the trainer afterwards."""
    for _ in range(WARM_UP + 1 if trainer.device.type == "cuda" else 1):
        train_step_or_explain(trainer)[0].item()  # waits until the device has done it
    started, steps = time.perf_counter(), 0
    while steps < TIMED_STEPS and time.perf_counter() - started < TIMED_SECONDS:
        train_step_or_explain(trainer)[0].item()
        steps += 1
    return (time.perf_counter() - started) / steps
