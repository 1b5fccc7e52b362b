"""The layers that networks are built from (page 03 builds each of them).

Sources: Vaswani et al. 2017 (arXiv 1706.03762) for the attention and the idea of the embedding, in
the form of the code of Ho et al. 2020; Wu & He 2018 (arXiv 1803.08494) for group normalization.
"""

import math
from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def sinusoidal_embedding(t: Tensor, size: int) -> Tensor:
    """Timesteps as sines and cosines of many frequencies, as in the code of Ho et al. 2020.

        omega_k = 10000^(-k / (size/2 - 1)),  embedding = [sin(t omega_k) ..., cos(t omega_k) ...]

    Vaswani et al. 2017 (section 3.5) use 10000^(-2i/size), and let sines and cosines alternate.

    (N,) -> (N, size), float32 in [-1, 1]; `size` is even and at least 4.
    """
    half = size // 2
    k = torch.arange(half, device=t.device)
    omega = torch.exp(-math.log(10000) * k / (half - 1))  # (size / 2,), from 1 down to 1/10000
    angles = t[:, None] * omega[None, :]  # (N, size / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all weights set to 0, so that a residual block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> "GroupNorm":
    """Normalization over groups of 8 channels."""
    return GroupNorm(channels // 8, channels)


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
# Also here: the same for a compiler, and less memory for large networks


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm; compiled, it leaves the channels of a pixel beside each other in memory, which
    is how convolutions want them. PyTorch's own does not, and every gradient would be copied.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        # In float32: moments of each channel, (N, C); from these of each group, (N, G, 1).
        n, c = x.shape[:2]
        variance, mean = torch.var_mean(x.float(), dim=(2, 3), correction=0)
        variance, mean = (m.view(n, self.num_groups, -1) for m in (variance, mean))
        group_mean = mean.mean(2, keepdim=True)
        group_variance = (variance + (mean - group_mean) ** 2).mean(2, keepdim=True)
        scale = self.weight * (group_variance + self.eps).rsqrt().expand_as(mean).reshape(n, c)
        shift = self.bias - group_mean.expand_as(mean).reshape(n, c) * scale
        return x.float() * scale[:, :, None, None] + shift[:, :, None, None]


class Upsample(nn.Upsample):
    """nn.Upsample by 2, to the nearest pixel; compiled, its gradient is a sum, not a scatter."""

    def __init__(self):
        super().__init__(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1)[:, :, None, :, None]  # (N, H, 1, W, 1, C)
        return rows.expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def recompute(modules: Iterable[nn.Module]) -> None:
    """Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): keep only the modules' inputs
    for the backward pass, and compute what is inside a second time there.
    """
    for module in modules:
        forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
        vars(module).setdefault("forward", forward)  # once, however often this is called


def embed_labels(embeddings: nn.ModuleList, labels: Tensor | None, t: Tensor) -> Tensor | int:
    """The sum of the class embeddings of the images, (N, size); 0 for a network without labels.

    labels: int64, (N, columns), -1 where unknown; None: all are unknown. t: (N,).
    """
    if labels is None:
        labels = torch.full((len(t), len(embeddings)), -1, device=t.device)
    return sum(embedding(labels[:, n] + 1) for n, embedding in enumerate(embeddings))
