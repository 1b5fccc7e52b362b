"""Several processes that train one model: torchrun --nproc-per-node 4 -m diffusion_lib.train ...

Each process has the whole model, and its slice of every batch. What they compute is what one
process would have computed from the whole batch: gradients are averaged before each step. Without
torchrun there is one process, and everything here returns what it was given.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Result = TypeVar("Result")


def rank() -> int:
    """Number of this process, 0 to world_size() - 1. Rank 0 writes all files."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank_slice(batch_size: int) -> slice:
    """Which images of a batch are this process's; the batch size is a multiple of world_size()."""
    each = batch_size // world_size()
    return slice(rank() * each, (rank() + 1) * each)


def init(device: torch.device) -> None:
    """Connect to the other processes that torchrun started."""
    if world_size() > 1 and not dist.is_initialized():
        cuda = device.type == "cuda"
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            device_id=device if cuda else None,
            timeout=timedelta(hours=2),  # others may wait this long for images to be decoded
        )


def cleanup() -> None:
    """Disconnect from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap_ddp(network: nn.Module) -> nn.Module:
    """The network, such that each backward pass gives the mean gradient of all processes."""
    if world_size() == 1:
        return network
    return DistributedDataParallel(network, gradient_as_bucket_view=True)


def no_sync(network: nn.Module, more_to_come: bool) -> AbstractContextManager:
    """A context in which gradients stay in this process if more of them are to come."""
    wrapped = isinstance(network, DistributedDataParallel)
    return network.no_sync() if wrapped and more_to_come else nullcontext()


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes; each has to call this."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; each has to call this."""
    return mean(torch.tensor(float(flag), device=device)).item() > 0 if world_size() > 1 else flag


def same(number: int, device: torch.device) -> int:
    """The number that the first process has; each has to call this."""
    if world_size() == 1:
        return number
    agreed = torch.tensor(number, device=device)
    dist.broadcast(agreed, 0)
    return int(agreed)


def rank_zero_first(function: Callable[[], Result]) -> Result:
    """Call a function in the first process of each machine, and then in the others."""
    if not dist.is_initialized():
        return function()
    if os.environ["LOCAL_RANK"] == "0":
        result = function()
        dist.barrier()
    else:
        dist.barrier()
        result = function()
    return result
