"""The network of the original Simple Diffusion, so that its `.pth` files still load and sample.

Its names are those in the files, which is why they differ from the rest of the library. For a new
model `UNet` is the better choice: here the width is the image size, so that a 128x128 image costs
137 GFLOP a call.
"""

import torch
from torch import Tensor, nn

from diffusion_lib.errors import InputError
from diffusion_lib.networks.layers import sinusoidal_embedding


class TimeEmbedding(nn.Module):
    """`sinusoidal_embedding` as a layer. (N,) -> (N, size)"""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, t: Tensor) -> Tensor:
        return sinusoidal_embedding(t, self.size)


class OriginalBlock(nn.Module):
    """Two convolutions with the time added between them, then a change of resolution.

    Args:
        in_channels, out_channels: on the way up, the input has twice in_channels: x and its skip.
        time_size: of the time embedding.
        up: whether to double the resolution, or else to halve it.
    """

    def __init__(self, in_channels: int, out_channels: int, time_size: int, up: bool = False):
        super().__init__()
        self.time_mlp = nn.Linear(time_size, out_channels)
        self.conv1 = nn.Conv2d(in_channels * (2 if up else 1), out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        resample = nn.ConvTranspose2d if up else nn.Conv2d
        self.transform = resample(out_channels, out_channels, 4, stride=2, padding=1)
        self.bnorm1 = nn.GroupNorm(1, out_channels)
        self.bnorm2 = nn.GroupNorm(1, out_channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.bnorm1(self.conv1(x).relu())
        h = h + self.time_mlp(time).relu()[:, :, None, None]
        h = self.bnorm2(self.conv2(h).relu())
        return self.transform(h)


class OriginalUNet(nn.Module):
    """The simplified U-Net. (N, 3, S, S), (N,) -> (N, 3, S, S)

    Args:
        image_size: S, a multiple of 8; the network's width too.

    Raises:
        InputError: an image size that is not a multiple of 8.
    """

    channels = 3
    memory_format = torch.channels_last  # how a GPU's tensor cores read images

    def __init__(self, image_size: int):
        super().__init__()
        if image_size < 8 or image_size % 8:
            raise InputError(
                f"the original's network needs an image size in multiples of 8, not {image_size}"
            )
        self.image_size, self.arguments = image_size, dict(image_size=image_size)
        width, time_size = image_size, 4 * image_size
        self.time_mlp = nn.Sequential(
            TimeEmbedding(time_size), nn.Linear(time_size, time_size), nn.ReLU()
        )
        self.conv0 = nn.Conv2d(3, width, 3, padding=1)
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.downs = nn.ModuleList(
            OriginalBlock(widths[i], widths[i + 1], time_size) for i in range(3)
        )
        self.ups = nn.ModuleList(
            OriginalBlock(widths[i + 1], widths[i], time_size, up=True) for i in reversed(range(3))
        )
        self.output = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: noisy images (N, 3, S, S); t: timesteps 0..T-1 (N,). Returns the predicted noise."""
        time = self.time_mlp(t)  # (N, 4 S)
        x = self.conv0(x)
        skips = []
        for down in self.downs:
            x = down(x, time)
            skips.append(x)
        for up in self.ups:
            x = up(torch.cat([x, skips.pop()], dim=1), time)
        return self.output(x)
