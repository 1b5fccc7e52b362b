"""Trainers that take turns, each in a process of its own.

So nobody's memory, warm-up or settings of the process (allocator, TF32) count for another.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

from diffusion_lib.benchmark import trainees
from diffusion_lib.benchmark.clock import Stopwatch, summary, synchronise
from diffusion_lib.config import TrainConfig
from diffusion_lib.devices import find_device, peak_memory, prepare
from diffusion_lib.errors import InputError

resident: Any = None  # what lives in this process, if it is one of `Process`


class Process:
    """A process for one object, made there from a class and its arguments."""

    def __init__(self, kind: type, *arguments):
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        self.ask(move_in, kind, arguments)

    def call(self, method: str) -> Any:
        """What the object's method returns.

        Raises:
            InputError: it needs more memory than there is.
        """
        return self.ask(call_resident, method)

    def ask(self, function: Callable, *arguments) -> Any:
        try:
            return self.pool.submit(function, *arguments).result()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise InputError(
                "the memory is too small for all that take part: take a smaller --batch_size, or "
                "fewer --who"
            ) from error

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown(cancel_futures=True)


def move_in(kind: type, arguments: tuple) -> None:
    global resident
    resident = kind(*arguments)


def call_resident(method: str) -> Any:
    return getattr(resident, method)()


def in_turns(askings: dict[str, tuple[Process, str]], rounds: int) -> dict[str, dict]:
    """What the method of each process measures, one after the other, so many times."""
    measured = {name: [] for name in askings}
    for _ in range(rounds):
        for name, (process, method) in askings.items():
            measured[name].append(process.call(method))
    return {name: summary(values) for name, values in measured.items()}


class TimedTrainee:
    """One trainer, from its first step on.

    Args:
        who: ours, the original's, or one of PEERS.
        config: ours; others take from it what they share.
        channels: of the images; the original has always 3.
        seconds: that a measurement lasts at least.
    """

    def __init__(self, who: str, config: TrainConfig, channels: int, seconds: float):
        self.device, self.batch_size = find_device(config.device), config.batch_size
        is_peer = who in trainees.PEERS
        width = trainees.width_for_like_flops(who, config, channels) if is_peer else 0
        flops = trainees.count(who, config, channels, width)
        load_what_torch_loads_late()

        before, started = peak_memory(self.device), time.perf_counter()
        trainee = trainees.make(who, config, channels, width)
        trainee.step()
        synchronise(self.device)
        first_step = time.perf_counter() - started

        noise = torch.randn(
            self.batch_size,
            3 if who in (trainees.FROM_FILES, trainees.STEP_ALONE) else channels,
            config.image_size,
            config.image_size,
            device=self.device,
        )
        self.trainee, self.noise = trainee, noise
        self.memory_before, self.seconds = before, seconds
        self.training = Stopwatch(trainee.step, self.device, seconds)
        self.answering = None
        self.facts = {
            "width": width or (config.width if who == "ours" else config.image_size),
            "format": format_name(trainee.precision, self.device),
            "parameters": sum(weights.numel() for weights in trainee.network.parameters()),
            "flops": flops,
            "first_step_seconds": first_step,
        }

    def train(self) -> float:
        """Images a second, in training."""
        self.trainee.network.train()
        return self.batch_size / self.training.measure()

    def describe(self) -> dict:
        """What is not a matter of turns."""
        return self.facts

    def memory(self) -> int:
        """Bytes: the most that it took so far."""
        return peak_memory(self.device) - self.memory_before

    def sample(self) -> float:
        """Network calls times images a second, without gradient: what a sampler needs for each
        step and image. A sampler does little else.
        """
        self.trainee.network.eval()
        if self.answering is None:
            self.answer()
            self.answering = Stopwatch(self.answer, self.device, self.seconds)
        return self.batch_size / self.answering.measure()

    @torch.no_grad()
    def answer(self) -> None:
        self.trainee.answer(self.noise)


class MatrixProduct:
    """The product of two large square matrices: what the device can do in a number format."""

    def __init__(self, format: str, device: str, seconds: float):
        self.device = find_device(device)
        prepare(self.device)
        torch.set_float32_matmul_precision("high" if format == "TF32" else "highest")
        self.size = 2048 if self.device.type == "cpu" else 8192
        precision = torch.float32 if format == "TF32" else getattr(torch, format)
        factor = torch.randn(self.size, self.size, device=self.device, dtype=precision)
        product = torch.empty_like(factor)
        torch.mm(factor, factor, out=product)
        self.stopwatch = Stopwatch(
            lambda: torch.mm(factor, factor, out=product), self.device, seconds
        )

    def rate(self) -> float:
        """Floating-point operations a second."""
        return 2 * self.size**3 / self.stopwatch.measure()


def format_name(precision: torch.dtype, device: torch.device) -> str:
    """In which the device computes convolutions: on a GPU from Ampere on, TF32 for float32."""
    name = str(precision).removeprefix("torch.")
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "TF32" if name == "float32" and has_tf32 else name


def load_what_torch_loads_late() -> None:
    """Optimisers import half of torch at their first step: nobody shall be charged for that."""
    weight = torch.zeros(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.Adam([weight]).step()
