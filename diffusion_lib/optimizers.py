"""How weights follow their gradient: AdamW, or Muon for the matrices inside a network.

AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) scales the step of each weight by itself. Muon
(Jordan et al. 2024, kellerjordan.github.io/posts/muon) takes a whole weight matrix at a time: it
makes the step orthogonal, so that no direction is learned much faster than another.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from diffusion_lib.errors import InputError

MOMENTUM = 0.95
ROUNDS = 5  # of the iteration, after which singular values lie between 0.7 and 1.2
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al. 2024


def orthogonalize(matrices: Tensor) -> Tensor:
    """About U V^T for each matrix U S V^T, by the Newton-Schulz iteration

        X <- a X + b (X X^T) X + c (X X^T)^2 X

    which moves all singular values towards 1. (N, rows, columns) -> the same shape.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT  # X X^T is then the smaller square
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)  # no singular value above 1
    for _ in range(ROUNDS):
        square = x @ x.mT
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)  # b XX^T + c (XX^T)^2
        x = torch.baddbmm(x, factor, x, beta=a)
    return x if wide else x.mT


class Muon(Optimizer):
    """Muon for `hidden` weights, and AdamW for all others.

    With the gradient G of a weight matrix W, whose momentum is M:

        M <- 0.95 M + 0.05 G
        W <- W - lr 0.2 sqrt(max(rows, columns)) orthogonalize(0.05 G + 0.95 M)

    The factor gives the step the size that AdamW's has, so that one learning rate serves both (Liu
    et al. 2025, arXiv 2502.16982, section 2.2). The weight of a convolution, (out, in, 3, 3), is
    taken as a matrix of `out` rows.

    hidden: weights of two or more dimensions.
    precision: in which steps are made orthogonal; bfloat16 is enough.
    """

    def __init__(
        self,
        hidden: list[nn.Parameter],
        others: AdamW,
        lr: float | Tensor,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__([{"params": hidden}], {"lr": lr})
        self.precision = precision
        self.others = others
        self.param_groups += others.param_groups
        self.momenta = [torch.zeros_like(weight) for weight in hidden]
        self.shapes = defaultdict(list)  # weights of one shape are computed together
        for number, weight in enumerate(hidden):
            self.shapes[weight.shape].append(number)

    @torch.no_grad()
    def step(self) -> None:
        weights, lr = self.param_groups[0]["params"], self.param_groups[0]["lr"]
        gradients = [weight.grad for weight in weights]
        torch._foreach_lerp_(self.momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, self.momenta, MOMENTUM)  # Nesterov's momentum
        for shape, numbers in self.shapes.items():
            matrices = torch.stack([ahead[n] for n in numbers]).flatten(2)
            steps = orthogonalize(matrices.to(self.precision)).float()
            steps = steps * (-0.2 * math.sqrt(max(steps.shape[1:])) * lr)
            for number, step in zip(numbers, steps, strict=True):
                weights[number].add_(step.view(shape))
        self.others.step()

    def state_dict(self) -> dict:
        return {"momenta": self.momenta, "others": self.others.state_dict()}


# --------------------------------------------------------------------------------------------------
# Also here: which one a run has, and taking up its moments


def make_optimizer(
    network: nn.Module,
    name: str,
    lr: float,
    weight_decay: float,
    precision: torch.dtype = torch.float32,
) -> AdamW | Muon:
    """The optimizer of this name, "adamw" or "muon". On a GPU its learning rate is a tensor, so
    that a recorded step can read it.

    precision: of the network. Muon computes in bfloat16 where the network does.

    Raises:
        InputError: Muon, for a network that does not say which weights are hidden.
    """
    weights = list(network.parameters())
    device = weights[0].device
    rate = torch.tensor(lr, device=device) if device.type == "cuda" else lr

    def adamw(some: Iterable[nn.Parameter]) -> AdamW:  # all weights in one call where it can
        return AdamW(
            some,
            lr=rate,
            weight_decay=weight_decay,
            fused=device.type in ("cuda", "cpu"),
            capturable=device.type == "cuda",
        )

    if name == "adamw":
        return adamw(weights)
    if not hasattr(network, "hidden_weights"):
        raise InputError(
            f"{type(network).__name__} does not say which of its weights are hidden: take the "
            "optimizer adamw"
        )
    hidden = network.hidden_weights()
    inside = {id(weight) for weight in hidden}
    others = adamw(weight for weight in weights if id(weight) not in inside)
    low = precision == torch.bfloat16
    return Muon(hidden, others, rate, torch.bfloat16 if low else torch.float32)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def load_optimizer(optimizer: AdamW | Muon, saved: dict) -> None:
    """Take over the moments of an optimizer that may have run on another device. Its settings stay
    as they are here.

    Raises:
        ValueError: moments that do not belong to these weights.
    """
    if not isinstance(optimizer, Muon):
        return load_adamw(optimizer, saved)
    momenta = saved["momenta"]
    if not isinstance(momenta, list) or len(momenta) != len(optimizer.momenta):
        raise ValueError("no momentum for each hidden weight")
    for number, (own, values) in enumerate(zip(optimizer.momenta, momenta, strict=True)):
        check_moment(values, own.shape, number)
    load_adamw(optimizer.others, saved["others"])
    optimizer.param_groups[1:] = optimizer.others.param_groups  # which are other objects now
    for own, values in zip(optimizer.momenta, momenta, strict=True):
        own.copy_(values)


def load_adamw(optimizer: AdamW, saved: dict) -> None:
    weights = optimizer.param_groups[0]["params"]
    moments = saved["state"]
    if not isinstance(moments, dict):
        raise ValueError("no moments")
    if moments and moments.keys() != set(range(len(weights))):
        raise ValueError(f"moments of {len(moments)} weights, not of {len(weights)}")
    for number, of_weight in moments.items():
        if not isinstance(of_weight, dict):
            raise ValueError(f"no moments of weight {number}")
        for name, shape in (("exp_avg", weights[number].shape), ("step", ())):
            check_moment(of_weight[name], shape, number)
        check_moment(of_weight["exp_avg_sq"], weights[number].shape, number, low=0)
    groups = optimizer.state_dict()["param_groups"]
    kept = {n: {k: m[k] for k in ("step", "exp_avg", "exp_avg_sq")} for n, m in moments.items()}
    optimizer.load_state_dict({"state": kept, "param_groups": groups})
    for weights, averages in optimizer.state.items():
        for name, values in averages.items():
            if values.shape == weights.shape:  # as the weights lie in memory
                averages[name] = torch.empty_like(weights).copy_(values)


def check_moment(values: Tensor, shape: tuple, number: int, low: float = -math.inf) -> None:
    """Raise ValueError unless these are finite numbers of this shape, at least `low`."""
    if not isinstance(values, Tensor) or values.shape != torch.Size(shape):
        raise ValueError(f"moments of another shape than weight {number}")
    if not values.is_floating_point() or not values.isfinite().all() or (values < low).any():
        raise ValueError(f"moments of weight {number} that cannot be")
