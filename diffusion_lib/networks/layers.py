"""The layers that networks are built from.

Sources: Vaswani et al. 2017 (arXiv 1706.03762) for the embedding and the attention; Wu & He 2018
(arXiv 1803.08494) for normalising in groups.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, size: int) -> Tensor:
    """Timesteps as waves of many wavelengths (Vaswani et al. 2017, section 3.5).

        omega_k = 10000^(-k / (size/2 - 1)),  embedding = [sin(t omega_k) ..., cos(t omega_k) ...]

    Args:
        t: timesteps, shape (N,).
        size: even, at least 4.

    Returns:
        Float32, shape (N, size), values in [-1, 1].
    """
    half = size // 2
    k = torch.arange(half, device=t.device)
    omega = torch.exp(-math.log(10000) * k / (half - 1))
    angles = t[:, None] * omega[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with its weights set to zero: what it leads to starts as "change nothing"."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalise in groups of 8 channels (Wu & He 2018, arXiv 1803.08494)."""
    return nn.GroupNorm(channels // 8, channels)


class Attention(nn.Module):
    """x + attention(x): every pixel looks at every other. (N, C, H, W) -> (N, C, H, W)

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
        # (N, 3C, H, W) -> three of (N, heads, H*W, d)
        qkv = self.qkv(self.norm(x)).view(n, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(3, 4).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(2, 3).reshape(n, c, h, w))
