"""Devices: which one to use, in which number format, and what else differs between them."""

import ctypes
import math
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from diffusion_lib.errors import InputError


def find_device(name: str = "auto") -> torch.device:
    """The named device, or with "auto" the fastest that there is: cuda, then mps, then cpu.

    Under torchrun each process of a machine takes a GPU of its own.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        probe = torch.zeros(1, device=name)
        probe.item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"the device {name!r} cannot be used here: try --device auto") from error
    if probe.device.type == "cpu" and torch.device(name).index:
        raise InputError(f"the device {name!r} cannot be used here: the CPU is one device, cpu")
    return probe.device  # with its number, such as cuda:0


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format in which the network computes; weights stay float32.

    "auto" is what the device computes fast: bfloat16 on a GPU that has it (from Ampere on), else
    float16 on one with tensor cores (Volta, Turing: T4); float32 everywhere else.
    """
    if name != "auto":
        return getattr(torch, name)
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (7, 0):
        return torch.float32
    ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if ampere else torch.float16


def prepare(device: torch.device) -> torch.device:
    """The same device, after settings of the process that make it faster; they change results by
    rounding only.
    """
    if device.type == "cuda":
        torch.cuda.set_device(torch.cuda.current_device() if device.index is None else device)
        torch.backends.cudnn.allow_tf32 = True  # in convolutions, where float32 is asked for
        torch.backends.cudnn.benchmark = True  # all batches have one shape: choose for it
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees for the next step.

    By default glibc hands large blocks back to the system, and every step faults them in again:
    at 64x64, training takes 6% less time without that (5% to 9% in five pairs of runs).
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the top of the heap stays
        mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own


def make_optimizer(weights: list[nn.Parameter], lr: float, weight_decay: float) -> AdamW:
    """AdamW, all weights in one call where the device can. On a GPU its learning rate is a tensor,
    so that a recorded step can read it.
    """
    device = weights[0].device
    cuda = device.type == "cuda"
    return AdamW(
        weights,
        lr=torch.tensor(lr, device=device) if cuda else lr,
        weight_decay=weight_decay,
        fused=device.type in ("cuda", "cpu"),
        capturable=cuda,
    )


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def load_optimizer(optimizer: Optimizer, saved: dict) -> None:
    """Take over the moments of an optimizer that may have run on another device. Its settings stay
    as they are here.

    Raises:
        ValueError: moments that do not belong to these weights.
    """
    weights = optimizer.param_groups[0]["params"]
    moments = saved["state"]
    if not isinstance(moments, dict):
        raise ValueError("no moments")
    if moments and moments.keys() != set(range(len(weights))):
        raise ValueError(f"moments of {len(moments)} weights, not of {len(weights)}")
    for number, of_weight in moments.items():
        if not isinstance(of_weight, dict):
            raise ValueError(f"no moments of weight {number}")
        for name, shape in (("exp_avg", weights[number].shape), ("step", ())):
            check_moment(of_weight[name], shape, number)
        check_moment(of_weight["exp_avg_sq"], weights[number].shape, number, low=0)
    groups = optimizer.state_dict()["param_groups"]
    kept = {n: {k: m[k] for k in ("step", "exp_avg", "exp_avg_sq")} for n, m in moments.items()}
    optimizer.load_state_dict({"state": kept, "param_groups": groups})
    for weights, averages in optimizer.state.items():
        for name, values in averages.items():
            if values.shape == weights.shape:  # as the weights lie in memory
                averages[name] = torch.empty_like(weights).copy_(values)


def check_moment(values: Tensor, shape: tuple, number: int, low: float = -math.inf) -> None:
    """Raise ValueError unless these are finite numbers of this shape, at least `low`."""
    if not isinstance(values, Tensor) or values.shape != torch.Size(shape):
        raise ValueError(f"moments of another shape than weight {number}")
    if not values.is_floating_point() or not values.isfinite().all() or (values < low).any():
        raise ValueError(f"moments of weight {number} that cannot be")


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was in use so far, of the GPU, or of the process on another device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # where getrusage would also count the process that started it
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on macOS
