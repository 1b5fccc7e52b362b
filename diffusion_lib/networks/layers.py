"""The layers that networks are built from (page 03 builds each of them).

Sources: Vaswani et al. 2017 (arXiv 1706.03762) for the embedding and the attention; Wu & He 2018
(arXiv 1803.08494) for group normalisation.
"""

import math
from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def sinusoidal_embedding(t: Tensor, size: int) -> Tensor:
    """Timesteps as sines and cosines of many wavelengths (Vaswani et al. 2017, section 3.5).

        omega_k = 10000^(-k / (size/2 - 1)),  embedding = [sin(t omega_k) ..., cos(t omega_k) ...]

    (N,) -> (N, size), float32 in [-1, 1]; `size` is even and at least 4.
    """
    half = size // 2
    k = torch.arange(half, device=t.device)
    omega = torch.exp(-math.log(10000) * k / (half - 1))  # (size / 2,), from 1 down to 1/10000
    angles = t[:, None] * omega[None, :]  # (N, size / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all weights set to 0, so that a residual branch starts as "no change"."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation over groups of 8 channels."""
    return nn.GroupNorm(channels // 8, channels)


class Attention(nn.Module):
    """x + attention(x): every pixel attends to every other. (N, C, H, W) -> (N, C, H, W)

    softmax(q k^T / sqrt(d)) v, in heads of d = 32 channels (Vaswani et al. 2017, eq. 1).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.heads = channels // 32 if channels % 32 == 0 else 1
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x))  # (N, 3C, H, W)
        qkv = qkv.view(n, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(3, 4).unbind(1)  # (N, heads, H*W, d) each
        attended = F.scaled_dot_product_attention(q, k, v)  # (N, heads, H*W, d)
        return x + self.out(attended.transpose(2, 3).reshape(n, c, h, w))


# --------------------------------------------------------------------------------------------------
# Also here: less memory for large networks


def recompute(modules: Iterable[nn.Module]) -> None:
    """Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): keep only the modules' inputs
    for the backward pass, and compute what is inside a second time there.
    """
    for module in modules:
        forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
        vars(module).setdefault("forward", forward)  # once, however often this is called
