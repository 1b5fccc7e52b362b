"""The U-Net: it is given a noisy image and a timestep, and predicts, for example, the noise.

        image ─ stem ─ block ────────────── skip ────────────── block ─ head ─ prediction
                         └ downsample ─ block ─ skip ─ block ─ upsample ┘
                                          └ ... middle ... ┘

Sources: Ronneberger et al. 2015 (arXiv 1505.04597) for the U; Ho et al. 2020 (arXiv 2006.11239),
appendix B, for residual blocks that are given the time, and attention at low resolutions. Simpler
than theirs: they have a further block a level on the way up, skips from the stem and the
downsamplers, too, and dropout.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.errors import InputError
from diffusion_lib.networks.layers import (
    Attention,
    Upsample,
    embed_labels,
    group_norm,
    recompute,
    sinusoidal_embedding,
    zeroed,
)


class ResidualBlock(nn.Module):
    """x + f(x, time): two convolutions, with the time embedding added between them.

    (N, in_channels, H, W), (N, time_size) -> (N, out_channels, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int, time_size: int):
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_size, out_channels)
        self.norm2 = group_norm(out_channels)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(time))[:, :, None, None]  # the same for every pixel
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class Block(nn.Module):
    """A residual block, followed by attention where the resolution is low enough for it."""

    def __init__(self, in_channels: int, out_channels: int, time_size: int, attend: bool):
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, time_size)
        self.attention = Attention(out_channels) if attend else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.attention(self.residual(x, time))


def downsample(channels: int) -> nn.Module:
    """(N, C, H, W) -> (N, C, H/2, W/2)"""
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


def upsample(channels: int) -> nn.Module:
    """(N, C, H, W) -> (N, C, 2H, 2W)"""
    return nn.Sequential(Upsample(), nn.Conv2d(channels, channels, 3, padding=1))


class UNet(nn.Module):
    """The U-Net of the figure above. (N, channels, S, S), (N,) -> (N, channels, S, S)

    With `classes`, it is also given the labels of the images, (N, columns).

    Args:
        image_size: S, a multiple of `patch * 2 ** (len(multipliers) - 1)`.
        channels: of the image: 1 for grey, 3 for colour, any other number for other data.
        width: channels of the first level. A multiple of 8 (of 32 is best).
        multipliers: one for each level, whose channels are width times this.
        blocks: residual blocks of a level, on either side of the U.
        attention: resolutions (in pixels of the feature map) at which blocks attend.
        patch: the stem folds squares of patch x patch pixels into channels (space to depth), so
            that large images cost less: with 2 the largest feature map has a quarter of the pixels.
        classes: how many there are in each column of the labels; () for a network without labels.

    Raises:
        InputError: an image size or a width that is not such a multiple.
    """

    def __init__(
        self,
        image_size: int,
        channels: int = 3,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention: tuple[int, ...] = (8,),
        patch: int = 1,
        classes: tuple[int, ...] = (),
    ):
        super().__init__()
        check_sizes(image_size, width, len(multipliers), blocks, patch)
        self.arguments = dict(
            image_size=image_size,
            channels=channels,
            width=width,
            multipliers=tuple(multipliers),
            blocks=blocks,
            attention=tuple(attention),
            patch=patch,
            classes=tuple(classes),
        )
        self.image_size, self.channels, self.width = image_size, channels, width
        self.classes = tuple(classes)
        widths = [width * multiplier for multiplier in multipliers]
        resolutions = [image_size // patch // 2**level for level in range(len(widths))]
        time_size = 4 * width

        def make_blocks(in_channels: list[int], level: int) -> nn.ModuleList:
            attend = resolutions[level] in attention
            return nn.ModuleList(
                Block(channels, widths[level], time_size, attend) for channels in in_channels
            )

        # Time embedding: (N,) -> (N, 4 width)
        self.time = nn.Sequential(
            nn.Linear(width, time_size), nn.SiLU(), nn.Linear(time_size, time_size)
        )
        # Pixels -> features: (N, channels, S, S) -> (N, width, S / patch, S / patch)
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(patch), nn.Conv2d(channels * patch**2, width, 3, padding=1)
        )
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

        # Down the left side: blocks at each level, then half the resolution.
        above = width
        for level, here in enumerate(widths):
            self.down.append(make_blocks([above] + [here] * (blocks - 1), level))
            last = level == len(widths) - 1
            self.downsamplers.append(nn.Identity() if last else downsample(here))
            above = here

        # The bottom of the U.
        self.middle1 = Block(above, above, time_size, True)
        self.middle2 = Block(above, above, time_size, False)

        # Up the right side: each block also reads the skip of its counterpart on the left.
        below = above
        for level, here in reversed(list(enumerate(widths))):
            self.up.append(make_blocks([below + here] + [here + here] * (blocks - 1), level))
            self.upsamplers.append(nn.Identity() if level == 0 else upsample(here))
            below = here

        # Features -> pixels. It starts at 0: a new network predicts 0.
        self.head = nn.Sequential(
            group_norm(width * multipliers[0]),
            nn.SiLU(),
            zeroed(nn.Conv2d(width * multipliers[0], channels * patch**2, 3, padding=1)),
            nn.PixelShuffle(patch),
        )

        # Class embeddings, one a column of labels: -1 (unknown)..K-1 -> (4 width,)
        self.labels = nn.ModuleList(nn.Embedding(1 + n, time_size) for n in classes)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: noisy images (N, channels, S, S); t: timesteps 0..T-1, (N,); labels: (N, columns),
        int64, -1 where unknown. None: all are unknown.
        """
        time = self.time(sinusoidal_embedding(t, self.width).to(x.dtype))  # (N, 4 width)
        time = time + embed_labels(self.labels, labels, t)
        x = self.stem(x)
        skips = []
        for blocks, downsampler in zip(self.down, self.downsamplers, strict=True):
            for block in blocks:
                x = block(x, time)
                skips.append(x)
            x = downsampler(x)
        x = self.middle2(self.middle1(x, time), time)
        for blocks, upsampler in zip(self.up, self.upsamplers, strict=True):
            for block in blocks:
                x = block(torch.cat([x, skips.pop()], dim=1), time)  # skips: the last one first
            x = upsampler(x)
        return self.head(x)

    @classmethod
    def for_images(
        cls,
        image_size: int,
        channels: int = 3,
        width: int = 64,
        patch: int = 0,
        blocks: int = 2,
        classes: tuple[int, ...] = (),
    ) -> "UNet":
        """A network with sizes that suit square images of this size.

        By default (`patch=0`) the stem folds pixels until the largest feature map is at most 64
        wide. Levels halve it down to 4 to 8 pixels. Attention works at 16 pixels and below, but
        not at the first level.
        """
        patch = patch or max(1, 2 ** math.ceil(math.log2(max(image_size, 1) / 64)))
        widest = image_size // patch
        if widest < 16:
            multipliers = (1, 2)
        elif widest < 32:
            multipliers = (1, 2, 2)
        else:
            multipliers = (1, 2, 2, 2) if widest < 64 else (1, 2, 2, 4)
        lower = [widest // 2**level for level in range(1, len(multipliers))]
        attention = tuple(resolution for resolution in lower if resolution <= 16)
        return cls(image_size, channels, width, multipliers, blocks, attention, patch, classes)

    # ----------------------------------------------------------------------------------------------
    # Also here: what the trainer asks of a network

    memory_format = torch.channels_last  # how a GPU's tensor cores read images

    def hidden_weights(self) -> list[nn.Parameter]:
        """The matrices and kernels between the first layer and the last."""
        ends = {
            id(weight)
            for part in (self.stem, self.head, self.labels)
            for weight in part.parameters()
        }
        return [w for w in self.parameters() if w.dim() >= 2 and id(w) not in ends]

    def enable_gradient_checkpointing(self) -> None:
        """Take less memory and more time in training: see `recompute`."""
        recompute(module for module in self.modules() if isinstance(module, Block))


# --------------------------------------------------------------------------------------------------
# Also here: sizes that do not work


def check_sizes(image_size: int, width: int, levels: int, blocks: int, patch: int) -> None:
    """Raise InputError for arguments that `UNet` cannot be built with."""
    step = patch * 2 ** (levels - 1)
    if image_size < step or image_size % step:
        below = image_size // step * step
        near = sorted({max(step, below), max(step, below + step)})
        raise InputError(
            f"an image size of {image_size} cannot be divided by {step}, as this network must: "
            f"use {' or '.join(map(str, near))}"
        )
    if blocks < 1:
        raise InputError(f"a level needs at least one block, not {blocks}")
    if width < 8 or width % 8:
        raise InputError(f"the width must be a multiple of 8, not {width}")
