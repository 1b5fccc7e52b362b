"""A classifier that knows noisy images: the left side of the U-Net, and an average over pixels.

For classifier guidance it is trained on images at all timesteps (Dhariwal & Nichol 2021, arXiv
2105.05233, section 4.1); as a judge of samples on clean ones, t = -1.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.networks.layers import group_norm, sinusoidal_embedding
from diffusion_lib.networks.unet import ResidualBlock, downsample


class Classifier(nn.Module):
    """(N, channels, S, S), (N,) -> logits (N, classes)

    Args:
        channels: of the image.
        classes: K.
        width: channels of the first level; each of the two others has twice those before it.
    """

    def __init__(self, channels: int, classes: int, width: int = 32):
        super().__init__()
        self.arguments = dict(channels=channels, classes=classes, width=width)
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU())
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        widths = [width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(
            ResidualBlock(before, here, 4 * width)
            for before, here in zip([width, *widths], widths, strict=False)
        )
        self.downsamplers = nn.ModuleList(map(downsample, widths[:-1]))
        self.head = nn.Linear(widths[-1], classes)
        self.norm = group_norm(widths[-1])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(sinusoidal_embedding(t, self.width).to(x.dtype))  # (N, 4 width)
        x = self.stem(x)
        for block, downsampler in zip(
            self.blocks, [*self.downsamplers, nn.Identity()], strict=True
        ):
            x = downsampler(block(x, time))
        return self.head(F.silu(self.norm(x)).mean((2, 3)))  # (N, classes)
