"""What a run will cost, before it runs: floating-point operations, memory, time."""

import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lib.training import Trainer

TIMED_STEPS = 5  # after one that prepares the others
TIMED_SECONDS = 30  # and no longer than that


def flops(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Floating-point operations of a forward pass of one image: two for each multiply-and-add of
    convolutions and matrix products. The rest is little beside them.
    """
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *image_shape, device=device), torch.zeros(1, device=device))
    return counter.get_total_flops()


def activation_bytes(network: nn.Module, x: Tensor, t: Tensor) -> int:
    """Bytes that a forward pass of x keeps for the backward pass, without the weights."""
    kept, weights = {}, {w.untyped_storage().data_ptr() for w in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no one moves in
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = network(x, t)
    del answer
    return sum(size for size, _ in kept.values())


def training_bytes(trainer: Trainer) -> int:
    """Bytes of memory that training takes, about: weights and what goes with each, and activations
    of the images that are computed at a time.

    Measured on one image. What the libraries under it take for themselves is not in it, and a
    compiled network keeps less.
    """
    weights = sum(w.numel() for w in trainer.weights)
    # In float32: the weight, its gradient, its average, and the two averages of AdamW.
    fixed = 5 * 4 * weights + trainer.batches.pixels.nbytes * trainer.batches.pixels.is_cuda
    x = torch.zeros(1, *trainer.batches.pixels.shape[1:], device=trainer.device)
    with trainer.autocast():
        network = trainer.diffusion.network.train()
        one = activation_bytes(network, x, torch.zeros(1, device=trainer.device))
    images = (trainer.share.stop - trainer.share.start) / trainer.config.accumulate
    return round(fixed + one * images)


def seconds_per_step(trainer: Trainer) -> float:
    """Mean duration of some steps, which are really done: do not go on with this trainer."""
    trainer.step_that_fits()[0].item()  # waits until the device has done it
    started, steps = time.perf_counter(), 0
    while steps < TIMED_STEPS and time.perf_counter() - started < TIMED_SECONDS:
        trainer.step_that_fits()[0].item()
        steps += 1
    return (time.perf_counter() - started) / steps
