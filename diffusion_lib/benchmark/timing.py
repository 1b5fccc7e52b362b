"""Timing on a machine that also does other things: long enough, and interleaved."""

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

from diffusion_lib.errors import InputError


class Stopwatch:
    """Times an action, repeated until a measurement lasts at least `seconds`.

    action: has been done once before, so that nothing is left to prepare. It handles `count` images
        (or other units) on `device`.
    """

    def __init__(
        self, action: Callable[[], object], count: int, device: torch.device, seconds: float
    ):
        self.action, self.count, self.device = action, count, device
        self.repeats = 1
        self.repeats = max(1, math.ceil(seconds * self.rate() / count))

    def rate(self) -> float:
        """Images per second."""
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(self.repeats):
            self.action()
        synchronize(self.device)
        return self.count * self.repeats / (time.perf_counter() - started)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def take_turns(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict]:
    """The `summary` of each measure, taken `rounds` times, interleaved: other load on the machine
    affects all alike. The order is reversed in every other round.
    """
    measured = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            measured[name].append(measures[name]())
    return {name: summary(values) for name, values in measured.items()}


def summary(rounds: list[float]) -> dict:
    """Median and range of measurements, and all of them."""
    median, lowest, highest = statistics.median(rounds), min(rounds), max(rounds)
    return {"median": median, "lowest": lowest, "highest": highest, "rounds": rounds}


class Worker(ProcessPoolExecutor):
    """A process of its own, in which functions run one after the other.

    So nobody's memory, warm-up or settings of the process (allocator, TF32) affect another.
    """

    def __init__(self):
        super().__init__(1, get_context("spawn"))

    def run(self, function: Callable, *arguments) -> Any:
        """What the function returns there.

        Raises:
            InputError: it needs more memory than there is.
        """
        try:
            return self.submit(function, *arguments).result()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise InputError(
                "the memory is too small for all that take part: take a smaller --batch_size, or "
                "fewer --who"
            ) from error
