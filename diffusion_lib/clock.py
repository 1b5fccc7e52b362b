"""The time of a run that ends after so many minutes, and how many steps fit into it."""

import math
import time


class Clock:
    """Started when a run starts or goes on.

    minutes: of the whole run; 0: no limit.
    seconds: of it that are over.
    """

    def __init__(self, minutes: float, seconds: float):
        self.limited = minutes > 0
        self.end = time.monotonic() + 60 * minutes - seconds if self.limited else math.inf
        self.first: tuple[float, int] | None = None  # when the first step was done, and its number

    def steps(self, step: int, planned: int, most: int) -> int:
        """The steps of the whole run, after `step` of them, if all take as long as those up to now.
        The first one, which takes longer, is not counted.

        planned: what was thought before, which holds until two steps are done.
        most: that the run may have.
        """
        now = time.monotonic()
        if now >= self.end:
            return step
        if self.first is None:
            self.first = now, step
            return planned
        started, first = self.first
        each = max(now - started, 1e-9) / (step - first)
        return min(most, step + math.ceil((self.end - now) / each))
