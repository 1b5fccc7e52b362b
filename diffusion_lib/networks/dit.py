"""The diffusion transformer: patches of the image as tokens, which attend to each other; and two
convolutions that see the pixels beside what the transformer has made of them.

    image -> patches -> tokens + places -> block ... block -> tokens -> patches ----> + -> image
      |                                      |         |        |                     |
      |           time and label ------------+---------+        v                     |
      +-> convolution -------------------------------------> features -> residual block

Sources: Peebles & Xie 2022 (arXiv 2212.09748) for the whole; Perez et al. 2017 (arXiv 1709.07871)
for time and label as a scale and a shift of normalized features; So et al. 2021 (arXiv 2109.08668)
for the square of ReLU. Peebles and Xie also scale what a block adds by a gate that begins at 0;
here the last layer of each branch begins at 0. The convolutions are ours: without them, lines that
cross the borders of patches are learned slowly (page 06b).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.errors import InputError
from diffusion_lib.networks.layers import embed_labels, recompute, sinusoidal_embedding, zeroed
from diffusion_lib.networks.unet import ResidualBlock

HEAD = 32  # channels of an attention head


class TransformerBlock(nn.Module):
    """x + attention, then x + MLP, each of normalized tokens, scaled and shifted by the condition.

    (N, tokens, width), (N, width) -> (N, tokens, width)
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = zeroed(nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 4 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale1, shift1, scale2, shift2 = self.modulation(condition)[:, None].chunk(4, dim=2)
        h = self.norm1(x) * (1 + scale1) + shift1
        x = x + self.out(attend(*self.qkv(h).chunk(3, dim=2)))
        h = self.norm2(x) * (1 + scale2) + shift2
        return x + self.mlp2(F.relu(self.mlp1(h)).square())


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v in heads of d = 32 channels. (N, tokens, width) each, and out."""
    q, k, v = (x.unflatten(2, (-1, HEAD)).transpose(1, 2) for x in (q, k, v))
    if q.device.type == "cpu":  # where its gradient in bfloat16 takes four times as long
        with torch.autocast("cpu", enabled=False):
            h = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    else:
        h = F.scaled_dot_product_attention(q, k, v)
    return h.transpose(1, 2).flatten(2)


class DiT(nn.Module):
    """A transformer over patches. (N, channels, S, S), (N,) -> (N, channels, S, S)

    With `classes`, it is also given the labels of the images, (N, columns).

    Args:
        image_size: S, a multiple of `patch`.
        channels: of the image: 1 for grey, 3 for colour, any other number for other data.
        width: numbers in a token, a multiple of 32.
        blocks: transformer blocks.
        patch: side of a patch, an even number. There are (S / patch)^2 tokens, and four times as
            many places for the convolutions.
        classes: how many there are in each column of the labels; () for a network without labels.

    Raises:
        InputError: an image size or a width that is not such a multiple.
    """

    def __init__(
        self,
        image_size: int,
        channels: int = 3,
        width: int = 96,
        blocks: int = 3,
        patch: int = 2,
        classes: tuple[int, ...] = (),
    ):
        super().__init__()
        if patch % 2 or image_size % patch:
            raise InputError(
                f"an image of {image_size}x{image_size} cannot be cut into patches of "
                f"{patch}x{patch}: take another image size, or an even patch that divides it"
            )
        if width < HEAD or width % HEAD:
            raise InputError(f"the width of a transformer must be a multiple of 32, not {width}")
        if blocks < 1:
            raise InputError(f"a transformer needs at least one block, not {blocks}")
        self.arguments = dict(
            image_size=image_size,
            channels=channels,
            width=width,
            blocks=blocks,
            patch=patch,
            classes=tuple(classes),
        )
        self.image_size, self.channels, self.width = image_size, channels, width
        self.classes, self.side = tuple(classes), image_size // patch

        # Time embedding: (N,) -> (N, width)
        self.time = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        # Patches -> tokens, and an embedding of each token's place: (N, tokens, width)
        self.stem = nn.Linear(channels * patch**2, width)
        self.places = nn.Parameter(0.02 * torch.randn(1, self.side**2, width))
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(blocks))
        # Tokens -> patches. It starts at 0: a new network predicts 0.
        self.norm = nn.LayerNorm(width)
        self.head = zeroed(nn.Linear(width, channels * patch**2))
        # Pixels, and features from the tokens, -> what is added. Pixels are folded by patch / 2.
        self.fold, details = patch // 2, max(8, width // 24 * 8)
        self.pixels = nn.Conv2d(channels * self.fold**2, details, 3, padding=1)
        self.features = nn.Linear(width, 4 * details)
        self.details = ResidualBlock(2 * details, details, width)
        self.finish = zeroed(nn.Conv2d(details, channels * self.fold**2, 3, padding=1))
        # Class embeddings, one a column of labels: -1 (unknown)..K-1 -> (width,)
        self.labels = nn.ModuleList(nn.Embedding(1 + n, width) for n in classes)
        self.patch = patch

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: noisy images (N, channels, S, S); t: timesteps 0..T-1, (N,); labels: (N, columns),
        int64, -1 where unknown. None: all are unknown.
        """
        condition = self.time(sinusoidal_embedding(t, self.width).to(x.dtype))  # (N, width)
        condition = condition + embed_labels(self.labels, labels, t)
        patches = F.pixel_unshuffle(x, self.patch)  # (N, channels patch^2, S / patch, S / patch)
        tokens = self.stem(patches.flatten(2).transpose(1, 2)) + self.places  # (N, tokens, width)
        for block in self.blocks:
            tokens = block(tokens, condition)
        tokens = self.norm(tokens)
        features = F.pixel_shuffle(self.image(self.features(tokens)), 2)  # (N, C, 2S/p, 2S/p)
        pixels = self.pixels(F.pixel_unshuffle(x, self.fold))  # (N, C, 2S/p, 2S/p)
        details = self.details(torch.cat([features, pixels], dim=1), condition)
        details = F.pixel_shuffle(self.finish(F.silu(details)), self.fold)
        return F.pixel_shuffle(self.image(self.head(tokens)), self.patch) + details

    def image(self, tokens: Tensor) -> Tensor:
        """(N, tokens, C) -> (N, C, S / patch, S / patch)"""
        return tokens.transpose(1, 2).unflatten(2, (self.side, self.side))

    @classmethod
    def for_images(
        cls,
        image_size: int,
        channels: int = 3,
        width: int = 96,
        patch: int = 0,
        blocks: int = 3,
        classes: tuple[int, ...] = (),
    ) -> "DiT":
        """A transformer with patches that suit square images of this size: by default (`patch=0`)
        the smallest that make at most 16x16 tokens.
        """
        fitting = [p for p in range(2, image_size + 1, 2) if image_size % p == 0]
        few = [p for p in fitting if 6 <= image_size // p <= 16]
        patch = patch or [*few, *fitting, 2][0]
        return cls(image_size, channels, width, blocks, patch, classes)

    # ----------------------------------------------------------------------------------------------
    # Also here: what the trainer asks of a network

    def hidden_weights(self) -> list[nn.Parameter]:
        """The matrices and kernels between the first layers and the last."""
        inside = (self.time, self.blocks, self.features, self.details)
        return [w for part in inside for w in part.parameters() if w.dim() >= 2]

    def enable_gradient_checkpointing(self) -> None:
        """Take less memory and more time in training: see `recompute`."""
        recompute(self.blocks)
