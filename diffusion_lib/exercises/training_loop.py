"""The exercise of page 04 in which the learner writes the training loop.

The check runs the loop on a network and an optimizer that take notes, and judges the notes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_lib.exercises.judge import CORRECT, NOT_TRIED, say
from diffusion_lib.schedules import NoiseSchedule

_alpha_bars = NoiseSchedule("linear", 100, 1e-3, 0.2).alpha_bars
_random = torch.Generator().manual_seed(0)


class _SpyNetwork(nn.Module):
    """A network of one weight and one bias that notes what it was shown."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.3, 0.1]))
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls.append((x_t.detach().clone(), torch.as_tensor(t).clone()))
        return self.weights[0] * x_t + self.weights[1]


class _SpyOptimizer(torch.optim.SGD):
    """Plain gradient descent that notes the weights and the gradient of each step."""

    def __init__(self, network: nn.Module):
        super().__init__(network.parameters(), lr=0.1)
        self.notes: list[tuple[Tensor, Tensor]] = []

    def step(self, closure=None):
        weights = self.param_groups[0]["params"][0]
        gradient = torch.zeros_like(weights) if weights.grad is None else weights.grad
        self.notes.append((weights.detach().clone(), gradient.clone()))
        return super().step(closure)


_STEPS = 6
_points = torch.randn(500, 2, generator=_random) * 0.5 + torch.tensor([2.0, -1.0])


def _judge_training_loop(function: Callable) -> str:
    """One sentence on a learner's training loop, from what the network and the optimizer saw."""
    network = _SpyNetwork()
    optimizer = _SpyOptimizer(network)
    try:
        losses = function(network, optimizer, _points.clone(), _alpha_bars.float(), _STEPS)
    except NotImplementedError:
        return NOT_TRIED
    except Exception as error:  # whatever a first attempt does
        return f"It stops with {type(error).__name__}: {error}"
    wrong = _of_calls(network) or _of_noise(network) or _of_steps(network, optimizer, losses)
    return f"Not yet: {wrong}" if wrong else CORRECT


def _of_calls(network: _SpyNetwork) -> str:
    """What is wrong with how often the network was called, and with its timesteps; or ""."""
    if len(network.calls) != _STEPS:
        return (
            f"in {_STEPS} steps the network was called {len(network.calls)} times, not once each."
        )
    times, last = [t for _, t in network.calls], len(_alpha_bars) - 1
    if any(t.shape != (500,) for t in times):
        return f"t has the shape {tuple(times[0].shape)}: each point needs a timestep of its own."
    if any((t == t[0]).all() for t in times):
        return "all points of a batch have the same t: draw one for each point."
    if torch.equal(times[0], times[1]):
        return "the timesteps are the same in every step: draw them inside the loop."
    if min(t.min() for t in times) > 0 or max(t.max() for t in times) < last:
        return f"some timesteps are never drawn: t goes from 0 to {last}, both included."
    return ""


def _hidden_noise(x_t: Tensor, t: Tensor) -> Tensor:
    """The noise that is in x_t if it was made by eq. 4 of the paper."""
    alpha_bar = _alpha_bars.float()[t].view(-1, 1)
    return (x_t - alpha_bar.sqrt() * _points) / (1 - alpha_bar).sqrt()


def _of_noise(network: _SpyNetwork) -> str:
    """What is wrong with the noise that is in the inputs of the network; or ""."""
    (x_t, t), (other_x_t, other_t) = network.calls[:2]
    if x_t.shape != _points.shape:
        return f"x_t has the shape {tuple(x_t.shape)}; use all of x0, {tuple(_points.shape)}."
    if torch.equal(x_t, _points):
        return "the network sees the clean points: it has to see x_t."
    noise, alpha_bar = _hidden_noise(x_t, t), _alpha_bars.float()[t].view(-1, 1)
    without_roots = (x_t - alpha_bar * _points) / (1 - alpha_bar)
    if abs(without_roots.std() - 1) < 0.1 and abs(without_roots.mean()) < 0.1:
        return "alpha_bar and 1 - alpha_bar are variances; the coefficients in x_t are their roots."
    added = x_t - _points
    if abs(added.std() - 1) < 0.1 and abs(added.mean()) < 0.1:
        return "the noise has full strength whatever t is; mix x0 and noise as in eq. 4."
    if abs(noise.mean() - 0.5) < 0.1 and abs(noise.std() - 0.29) < 0.1:
        return "the noise is uniform between 0 and 1: use randn, which is Gaussian."
    if abs(noise.std() - 1) > 0.15 or abs(noise.mean()) > 0.15:
        return "x_t is not made as in eq. 4: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise."
    if torch.allclose(noise, _hidden_noise(other_x_t, other_t), atol=1e-2):
        return "the noise is the same in every step: draw it inside the loop."
    return ""


def _of_steps(network: _SpyNetwork, optimizer: _SpyOptimizer, losses: object) -> str:
    """What is wrong with the loss, the gradient or the step; or ""."""
    if losses is None:
        return "it returns None: return the list of the losses."
    if any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses):
        return "the losses still hang on their graphs, which take memory: keep loss.item()."
    if len(losses) != _STEPS:
        return f"it returns {len(losses)} losses for {_STEPS} steps."
    if not optimizer.notes:
        return "optimizer.step() is never called, so the weights stay as they were."
    if len(optimizer.notes) != _STEPS:
        return f"optimizer.step() was called {len(optimizer.notes)} times in {_STEPS} steps."
    totals = torch.zeros(2)
    for (x_t, t), (weights, gradient), given in zip(
        network.calls, optimizer.notes, losses, strict=True
    ):
        noise = _hidden_noise(x_t, t)
        weights = weights.requires_grad_()
        output = weights[0] * x_t + weights[1]
        loss = (output - noise).square().mean()
        if not math.isclose(float(given), loss.item(), rel_tol=1e-3):
            return _of_loss(float(given), output.detach(), noise)
        loss.backward()
        totals += weights.grad
        if torch.equal(gradient, torch.zeros(2)):
            return (
                "the gradient is 0 when the optimizer steps: loss.backward() is missing, or "
                "zero_grad() stands between it and the step."
            )
        if torch.allclose(gradient, weights.grad, rtol=1e-2, atol=1e-4):
            continue
        if torch.allclose(gradient, totals, rtol=1e-2, atol=1e-4):
            return "gradients of all earlier steps add up: optimizer.zero_grad() is missing."
        return "the gradient in a step is not that of the loss in this step."
    return ""


def _of_loss(given: float, output: Tensor, noise: Tensor) -> str:
    """Which loss was computed in place of the mean squared error of the noise."""
    if math.isclose(given, (output - _points).square().mean(), rel_tol=1e-3):
        return "the output is compared with x0; here the network predicts the noise."
    if math.isclose(given, (output - noise).square().sum(), rel_tol=1e-3):
        return "the loss is a sum, which grows with the batch; take the mean."
    if math.isclose(given, (output - noise).abs().mean(), rel_tol=1e-3):
        return "the loss is the mean of absolute values; eq. 14 has squares."
    return (
        "the loss does not belong to the noise in x_t: draw the noise once, and use it both in x_t "
        "and as the target."
    )


def check_training_loop(function: Callable[..., list[float]]) -> None:
    """training_loop(network, optimizer, x0, alpha_bars, steps) -> the losses, `steps` of them."""
    say(_judge_training_loop(function), function)
