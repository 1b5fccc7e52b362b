"""What a run will cost: memory and time."""

import copy
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from diffusion_lib import devices
from diffusion_lib.advice import train_step_or_explain
from diffusion_lib.config import SAMPLES
from diffusion_lib.distributed import world_size
from diffusion_lib.graphs import WARM_UP
from diffusion_lib.samplers import default_steps
from diffusion_lib.training import Trainer

TIMED_STEPS = 5  # after the first, on a GPU after the step is recorded
SLOW = 1.0  # seconds: if a batch takes longer, steps with parts of it tell how long


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


def memory_bytes(trainer: Trainer) -> int:
    """About how many bytes a run takes at most: on a GPU `training_bytes`, on a CPU what the
    process has now, and what training and pictures add to that.

    Beside what `training_bytes` counts there are gradients of activations, for a short time, and
    blocks of memory that fit nothing else. Measured on networks of both kinds it is about half as
    much again, and 0.1 GB for pictures.
    """
    if trainer.device.type != "cpu":
        return training_bytes(trainer)
    there = 2 * 4 * sum(w.numel() for w in trainer.weights)  # the weights and their average
    added = 1.5 * training_bytes(trainer) - there
    return round(devices.peak_memory(trainer.device) + added + 1e8)


def seconds_per_step(trainer: Trainer) -> float:
    """Seconds that a step takes, from some steps of a copy of the run."""
    size = trainer.config.batch_size
    if trainer.device.type == "cuda" or world_size() > 1:
        return timed(trainer, size)
    some = min(size, 2)
    few = timed(trainer, some)
    if few * size / some < SLOW or size < 8:
        return timed(trainer, size)
    more = timed(trainer, 2 * some)  # what a step takes without images is few - slope * some
    slope = (more - few) / some
    return few + slope * (size - some)


def seconds_left(trainer: Trainer, step: float) -> float:
    """Seconds of the steps to come and of the samples after each epoch, if a step takes `step`, of
    which a forward pass is a third.
    """
    config = trainer.config
    calls = config.steps or default_steps(config.sampler, config.timesteps)
    picture = 0 if config.disable_images else step / 3 * SAMPLES * calls / config.batch_size
    return (trainer.steps - trainer.step) * (step + picture / trainer.steps_per_epoch)


def timed(trainer: Trainer, size: int) -> float:
    """Mean seconds of some steps with so many images, of a copy of the run."""
    config = replace(trainer.config, batch_size=size, accumulate=1)
    if trainer.device.type == "cpu":  # where it changes little, and to compile takes long
        config = replace(config, compile="off")
    labels = trainer.batches.labels if trainer.diffusion.classes else None
    twin = Trainer(copy.deepcopy(trainer.diffusion), trainer.batches.pixels, config, labels)
    for _ in range(WARM_UP + 1 if twin.device.type == "cuda" else 1):
        train_step_or_explain(twin)[0].item()  # waits until the device has done it
    started, steps = time.perf_counter(), 0
    while steps < TIMED_STEPS and time.perf_counter() - started < SLOW:
        train_step_or_explain(twin)[0].item()
        steps += 1
    return (time.perf_counter() - started) / steps
