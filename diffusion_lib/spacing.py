"""Which timesteps a sampler visits when it takes fewer than there are.

A spacing is a decreasing list of timesteps; -1, the clean image, comes after them.
Source of the names: Lin et al. 2023 (arXiv 2305.08891), table 2; for `log_snr`, Lu et al. 2022
(arXiv 2211.01095), section 4 and appendix.
"""

import torch
from torch import Tensor

from diffusion_lib.errors import InputError
from diffusion_lib.schedules import NoiseSchedule

# Below this log-SNR an image is indistinguishable from noise.
LOWEST_LOG_SNR = -10.0


def linspace(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly from T-1 to 0, both visited. Float64, (steps,)."""
    return torch.linspace(schedule.timesteps - 1, 0, steps, dtype=torch.float64)


def trailing(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly from T-1, the last step as long as the others: it jumps to the clean image
    from a visible noise level. A last call at an invisible one would leave the network's error in
    the image, as grain. Float64, (steps,).
    """
    return torch.arange(steps, 0, -1, dtype=torch.float64) * schedule.timesteps / steps - 1


def leading(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly down to 0, starting below T-1, so that pure noise is treated as a less noisy image: a
    fault of many published samplers, here for comparison. Float64, (steps,).
    """
    return torch.arange(steps - 1, -1, -1) * float(schedule.timesteps // steps)


def log_snr(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly in log-SNR, from T-1 down to 0; the part below `LOWEST_LOG_SNR` is one step. Float64,
    (steps,).
    """
    values = schedule.log_snr.clamp(min=LOWEST_LOG_SNR)  # (T,), falling
    wanted = torch.linspace(values[-1], values[0], steps, dtype=torch.float64)
    # How many timesteps are less noisy than wanted: the place of the value in the falling list.
    places = torch.searchsorted(values.flip(0), wanted)
    return schedule.timesteps - 1 - places.double()


SPACINGS = {"linspace": linspace, "trailing": trailing, "leading": leading, "log_snr": log_snr}


def spaced_timesteps(schedule: NoiseSchedule, steps: int, spacing: str = "linspace") -> list[int]:
    """`steps` different ones of the timesteps 0..T-1, falling.

    spacing: linspace, trailing, leading or log_snr.

    Raises:
        InputError: an unknown spacing, fewer than one step, or more than T.
    """
    timesteps = schedule.timesteps
    if spacing not in SPACINGS:
        raise InputError(f"no spacing is called {spacing!r}: choose from {', '.join(SPACINGS)}")
    check_steps(steps, timesteps)
    chosen = SPACINGS[spacing](schedule, steps).round().long().tolist()
    # Rounding can bring two to the same timestep: make room upwards, then downwards.
    for i in range(steps - 2, -1, -1):
        chosen[i] = max(chosen[i], chosen[i + 1] + 1)
    chosen[0] = min(chosen[0], timesteps - 1)
    for i in range(1, steps):
        chosen[i] = min(chosen[i], chosen[i - 1] - 1)
    return chosen


def check_steps(steps: int, timesteps: int) -> None:
    """Raise InputError unless steps is 1 to T."""
    if not 1 <= steps <= timesteps:
        raise InputError(f"the number of steps must be 1 to {timesteps}, not {steps}")
