"""Devices: which one to use, in which number format, compiled or not."""

import ctypes
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffusion_lib.errors import InputError
from diffusion_lib.files import first_line

COMPILING_PAYS = 1000  # steps: the first of a compiled network takes about a minute

Model = TypeVar("Model", bound=nn.Module)  # a GaussianDiffusion


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
        torch.cuda.set_device(device)
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


def compile_pays(choice: str, device: torch.device, steps: int) -> bool:
    """Whether to compile the network: "on", "off", or "auto", on a GPU that can, if it pays."""
    if choice != "auto":
        return choice == "on"
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return able and steps >= COMPILING_PAYS


def try_to_compile(model: Model, x_t: Tensor, t: Tensor, wrap: Callable[[], Model]) -> Model:
    """Compile a model's network in place (torch.compile), or leave it as it is, with a warning,
    where that fails.

    x_t, t: an example of what it is called with; other shapes would be compiled again.
    wrap: returns the model as it is trained, which is called before the first pass: compiled
        inside DDP, the passes exchange some gradients while they compute others.

    Returns:
        The wrapped model.
    """
    network = model.network
    network.compile(dynamic=False)
    try:
        wrapped = wrap()
        wrapped(x_t, t).sum().backward()  # compiles the forward and the backward pass
        return wrapped
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a missing compiler leads to
        warnings.warn(
            f"torch.compile does not work here, so training continues without it, more slowly "
            f"({first_line(error)}); --compile off skips the attempt",
            stacklevel=2,
        )
        wrapped = None  # the wrapper of the failed attempt goes before another is made
        network._compiled_call_impl = None  # as if `compile` had never been called
    finally:
        network.zero_grad()
    return wrap()


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load the state of an optimizer that may have run on another device: what belongs to the
    device (one fused step, how tensors lie in memory) stays as it is here.
    """
    fused = [group["fused"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, choice in zip(optimizer.param_groups, fused, strict=True):
        group["fused"] = choice
    for weights, averages in optimizer.state.items():
        for name, values in averages.items():
            if values.shape == weights.shape:  # the others are counts of steps
                averages[name] = torch.empty_like(weights).copy_(values)


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
