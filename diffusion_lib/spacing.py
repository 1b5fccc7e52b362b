"""Which of a model's timesteps a sampler visits, when it takes fewer steps than there are.

Every spacing gives whole timesteps that fall from high to low; -1, the clean image, comes behind
them. Source of the names: Lin et al. 2023 (arXiv 2305.08891), table 2; for `log_snr`, Lu et al.
2022 (arXiv 2211.01095), section 4 and appendix.
"""

import torch
from torch import Tensor

from diffusion_lib.errors import InputError
from diffusion_lib.schedules import NoiseSchedule

# Noisier than this, an image is noise to any eye and any network: nothing is decided there.
NOISIEST = -10.0


def linspace(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly from T-1 to 0, both visited. Float64, (steps,)."""
    return torch.linspace(schedule.timesteps - 1, 0, steps, dtype=torch.float64)


def trailing(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly from T-1, the last leap as long as the others: it ends at the clean image without
    asking the network about noise too faint to see, where its errors would stay as grain. Float64,
    (steps,).
    """
    return torch.arange(steps, 0, -1, dtype=torch.float64) * schedule.timesteps / steps - 1


def leading(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly down to 0, beginning below T-1, so that x_T is taken for something less noisy than it
    is: a fault of many published samplers, here to be seen. Float64, (steps,).
    """
    return torch.arange(steps - 1, -1, -1) * float(schedule.timesteps // steps)


def log_snr(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly in the logarithm of the signal-to-noise ratio, from T-1 down to 0. Float64, (steps,).

    The part below `NOISIEST` is leapt over in one step.
    """
    levels = schedule.log_snr.clamp(min=NOISIEST)  # (T,), falling
    wanted = torch.linspace(levels[-1], levels[0], steps, dtype=torch.float64)
    # how many timesteps are less noisy than wanted: the place of the level in the falling list
    places = torch.searchsorted(levels.flip(0), wanted)
    return schedule.timesteps - 1 - places.double()


SPACINGS = {"linspace": linspace, "trailing": trailing, "leading": leading, "log_snr": log_snr}


def spaced_timesteps(
    schedule: NoiseSchedule, steps: int | None = None, spacing: str = "linspace"
) -> list[int]:
    """`steps` different ones of the timesteps 0..T-1, falling. None: all of them.

    Args:
        schedule: of the model.
        steps: how many, 1 to T.
        spacing: linspace, trailing, leading or log_snr.

    Raises:
        InputError: an unknown spacing, fewer than one step, or more than T.
    """
    timesteps = schedule.timesteps
    steps = timesteps if steps is None else steps
    if spacing not in SPACINGS:
        raise InputError(f"no spacing is called {spacing!r}: choose from {', '.join(SPACINGS)}")
    if not 1 <= steps <= timesteps:
        raise InputError(f"the number of steps must be 1 to {timesteps}, not {steps}")
    chosen = SPACINGS[spacing](schedule, steps).round().long().tolist()
    # Rounding can bring two to the same timestep: make room upwards, then downwards.
    for i in range(steps - 2, -1, -1):
        chosen[i] = max(chosen[i], chosen[i + 1] + 1)
    chosen[0] = min(chosen[0], timesteps - 1)
    for i in range(1, steps):
        chosen[i] = min(chosen[i], chosen[i - 1] - 1)
    return chosen
