"""Devices: which one to use, in which number format, and what else differs between them."""

import ctypes
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

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


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 faster than of float32: some have
    instructions for it, all others imitate it slowly.
    """

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(4):
            started = time.thread_time()  # of one thread: others may be at work here
            a @ a
            times.append(time.thread_time() - started)
        return min(times)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return seconds(torch.bfloat16) < 0.75 * seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


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
