"""Timing on a machine that also does other things: long enough, and in turns."""

import math
import statistics
import time
from collections.abc import Callable

import torch


class Stopwatch:
    """Times an action, which is repeated until a measurement lasts so many seconds.

    Args:
        action: what is timed; it has been done before, so that nothing is left to prepare.
        device: where it computes.
        seconds: how long a measurement lasts at least.
    """

    def __init__(self, action: Callable[[], object], device: torch.device, seconds: float):
        self.action, self.device = action, device
        self.repeats = 1
        self.repeats = math.ceil(seconds / self.measure())

    def measure(self) -> float:
        """Seconds that the action takes."""
        synchronise(self.device)
        started = time.perf_counter()
        for _ in range(self.repeats):
            self.action()
        synchronise(self.device)
        return (time.perf_counter() - started) / self.repeats


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def summary(rounds: list[float]) -> dict:
    """The middle and the spread of measurements, and all of them."""
    middle, lowest, highest = statistics.median(rounds), min(rounds), max(rounds)
    return {"median": middle, "lowest": lowest, "highest": highest, "rounds": rounds}
