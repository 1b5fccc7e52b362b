"""Exercises of page 08: full runs."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_lib.exercises.judge import Exercise, say


def _epochs(passes: float = 3, a_unit: float = 3600, rounded: Callable = math.floor) -> Callable:
    def epochs(
        hours: float, images: int, operations: float, speed: float, share: float
    ) -> float | int:
        return rounded(hours * a_unit * share * speed / (images * passes * operations))

    return epochs


_epochs_in = Exercise(
    answer=_epochs(),
    mistakes=[
        (
            _epochs(passes=1),
            "that counts the forward pass only: with the backward pass a step costs three times "
            "as much.",
        ),
        (
            _epochs(passes=2),
            "the backward pass costs twice as much as the forward pass: it computes the gradients "
            "of the input and of the weights.",
        ),
        (
            lambda hours, images, operations, speed, share: _epochs()(
                hours, images, operations, speed, 1.0
            ),
            "that is at the card's full speed: it reaches a share of it.",
        ),
        (
            lambda hours, images, operations, speed, share: _epochs()(
                hours, images, operations, speed, 1 / share
            ),
            "the share makes the card slower, so that fewer epochs are done: multiply its speed "
            "by it.",
        ),
        (_epochs(a_unit=60), "an hour has 3600 seconds; you took minutes."),
        (_epochs(rounded=math.ceil), "whole epochs that are done: round down."),
        (_epochs(rounded=round), "whole epochs that are done: round down, whatever is left over."),
        (_epochs(rounded=float), "whole epochs are asked for: round down, to an int."),
    ],
    cases=[(4, 18_681, 11e9, 65e12, 0.2), (1, 11_329, 11e9, 25.5e12, 0.4), (7, 500, 7e12, 9e12, 1)],
)


def _fitting(batch_size: int, fixed: float, each: float, memory: float) -> int:
    return -(-batch_size // math.floor((memory - fixed) / each))


_parts = Exercise(
    answer=_fitting,
    mistakes=[
        (
            lambda batch_size, fixed, each, memory: _fitting(batch_size, 0, each, memory),
            "the weights take memory too, however small the parts are.",
        ),
        (
            lambda batch_size, fixed, each, memory: max(
                1, batch_size // math.floor((memory - fixed) / each)
            ),
            "rounded down, the parts are too few and each is too large: round up.",
        ),
        (
            lambda batch_size, fixed, each, memory: math.floor((memory - fixed) / each),
            "that is how many images fit at a time; asked for is the number of parts.",
        ),
        (
            lambda batch_size, fixed, each, memory: math.ceil((fixed + batch_size * each) / memory),
            "that also cuts the weights into parts: every part needs all of them.",
        ),
        (
            lambda batch_size, fixed, each, memory: math.ceil(batch_size * each / (memory - fixed)),
            "images cannot be cut: count first how many whole ones fit, then the parts.",
        ),
    ],
    cases=[(64, 0.4, 0.1, 4.0), (64, 1.0, 0.076, 2.0), (10, 0.0, 1.0, 3.5), (8, 1.0, 0.1, 9.0)],
)


def _resumed(make: Callable) -> Tensor | None:
    """Weights and average of a run of 10 steps that is cut off after 5, saved by `make`, and
    resumed by a new process.
    """
    model, average, optimizer = _begin(0.1)
    _train(model, average, optimizer, range(5))
    saved = make(model, average, optimizer, 5)
    if saved is None:
        return None
    if not isinstance(saved, dict):
        raise TypeError(f"return a dict, not {type(saved).__name__}")
    saved = copy.deepcopy(saved)  # as a file would be
    model, average, optimizer = _begin(0.2)
    for name, part in (("model", model), ("average", average), ("optimizer", optimizer)):
        if name in saved:
            part.load_state_dict(saved[name])
    _train(model, average, optimizer, range(saved.get("step", 0), 10))
    return torch.cat([weights.detach().flatten() for weights in (model.weight, average.weight)])


def _begin(weight: float) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A new run: a network, its moving average, the optimizer."""
    model, average = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        for part in (model, average):
            part.weight.fill_(weight)
    return model, average, torch.optim.AdamW(model.parameters(), lr=0.1)


def _train(model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, steps: range):
    """Some steps; each has data and a learning rate that depend on its number."""
    for step in steps:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 10)
        optimizer.zero_grad()
        (model(x) - x[:, :2].roll(1, 1)).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            average.weight.lerp_(model.weight, 0.3)


def _saving(*names: str, **others: Callable) -> Callable:
    """What a run is resumed to if only these are saved; others: what is saved under a name."""

    def make(model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int):
        everything = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        return {name: everything[others.get(name, name)] for name in names}

    return lambda: _resumed(make)


_all = ("model", "average", "optimizer", "step")

_checkpoint = Exercise(
    answer=_saving(*_all),
    mistakes=[
        (
            _saving("model", "average", "step"),
            "the optimizer starts anew: AdamW forgets its averages of the gradients and of their "
            "squares.",
        ),
        (
            _saving("model", "optimizer", "step"),
            "the average starts from new weights again: save it beside the model.",
        ),
        (
            _saving("average", "optimizer", "step"),
            "the model itself is missing: training goes on from new weights.",
        ),
        (
            _saving(*_all, average="model"),
            "under `average` you saved the model: then the average forgets its past.",
        ),
        (
            _saving(*_all, model="average"),
            "under `model` you saved the average: training goes on from weights that lag behind.",
        ),
        (
            _saving("model", "average", "optimizer"),
            "without the step, the run repeats its first batches, at the learning rates of a new "
            "run.",
        ),
        (
            _saving("model", "average"),
            "the weights alone are enough for samples, not to go on: the optimizer and the step "
            "are missing.",
        ),
        (
            _saving("model"),
            "the weights of the model alone are not enough to go on: what else changes in a "
            "training step?",
        ),
        (
            _saving(),
            "nothing is saved under the names model, average, optimizer and step.",
        ),
    ],
    cases=[()],
    expects='a dict with the names "model", "average", "optimizer" and "step"',
)


def check_epochs_in(function: Callable[[float, int, float, float, float], int]) -> None:
    """epochs_in(hours, images, operations, speed, share) -> whole epochs, an int."""
    say(_epochs_in.judge(function), function)


def check_parts_that_fit(function: Callable[[int, float, float, float], int]) -> None:
    """parts_that_fit(batch_size, fixed, each, memory) -> the least number of parts, an int."""
    say(_parts.judge(function), function)


def check_checkpoint(function: Callable) -> None:
    """checkpoint(model, average, optimizer, step) -> dict: all that a run needs to go on."""

    def resume() -> Tensor | None:
        return _resumed(function)

    say(_checkpoint.judge(resume), function)
