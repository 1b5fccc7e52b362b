"""Exercises of page 03: the U-Net."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say

_random = torch.Generator().manual_seed(0)


def _seen(layers: list[tuple[int, int]]) -> int:
    seen, apart = 1, 1
    for kernel, stride in layers:
        seen += (kernel - 1) * apart
        apart *= stride
    return seen


def _seen_with_own_stride(layers: list[tuple[int, int]]) -> int:
    seen, apart = 1, 1
    for kernel, stride in layers:
        apart *= stride
        seen += (kernel - 1) * apart
    return seen


def _seen_with_added_strides(layers: list[tuple[int, int]]) -> int:
    seen, apart = 1, 1
    for kernel, stride in layers:
        seen += (kernel - 1) * apart
        apart += stride - 1
    return seen


def _seen_with_whole_kernels(layers: list[tuple[int, int]]) -> int:
    seen, apart = 0, 1
    for kernel, stride in layers:
        seen += kernel * apart
        apart *= stride
    return seen


_receptive_field = Exercise(
    answer=_seen,
    mistakes=[
        (
            lambda layers: 1 + sum(kernel - 1 for kernel, _ in layers),
            "you leave the strides out: behind a stride of 2, neighbours of the feature map are 2 "
            "pixels of the image apart.",
        ),
        (
            lambda layers: sum(kernel for kernel, _ in layers),
            "you added the kernels up; a kernel of 3 reaches one further on each side, which adds "
            "2, and after a stride more than that.",
        ),
        (
            lambda layers: math.prod(kernel for kernel, _ in layers),
            "you multiplied the kernels; the windows of neighbours overlap, so a layer widens the "
            "receptive field by kernel - 1 of its steps.",
        ),
        (
            _seen_with_whole_kernels,
            "you add whole kernels; begin with 1, the pixel itself, and add kernel - 1 steps.",
        ),
        (
            _seen_with_own_stride,
            "a layer's own stride comes too early: it sets apart the pixels that it answers with, "
            "not those that it reads.",
        ),
        (
            _seen_with_added_strides,
            "the strides add up in your answer; they multiply: half of a half is a quarter.",
        ),
        (
            lambda layers: _seen(layers) - 1,
            "that is one less: the pixel in the middle counts, too.",
        ),
        (
            lambda layers: (_seen(layers) - 1) // 2,
            "that is how far it sees to one side; the whole width is asked for.",
        ),
        (
            lambda layers: _seen(layers) ** 2,
            "that is the area; the pixels of one row are asked for.",
        ),
        (
            lambda layers: _seen(layers[::-1]),
            "you began with the last layer; it is the first layers' strides that widen the "
            "receptive field of later ones.",
        ),
    ],
    cases=[
        ([(3, 1), (3, 1), (3, 1)],),
        ([(3, 1), (3, 2), (3, 1)],),
        ([(5, 1), (3, 2), (3, 1), (3, 2), (3, 1), (3, 1)],),
        ([(7, 1), (3, 2), (1, 1), (3, 3), (3, 1)],),
    ],
)


def _attention(
    weights_over: int = -1,
    scale: Callable[[int, int], float] = lambda d, length: d**0.5,
    softmax: bool = True,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention over the last axis but one; and ways to get it wrong."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        match = q @ k.mT / scale(q.shape[-1], q.shape[-2])
        return (match.softmax(weights_over) if softmax else match) @ v

    return attend


_attend_right = _attention()

_attend = Exercise(
    answer=_attend_right,
    mistakes=[
        (
            _attention(scale=lambda d, length: 1.0),
            "the division by sqrt(d) is missing.",
        ),
        (
            _attention(scale=lambda d, length: float(d)),
            "you divided by d; divide by its square root.",
        ),
        (
            _attention(scale=lambda d, length: length**0.5),
            "you divided by the root of L, the number of pixels; d is the number of channels, the "
            "last axis.",
        ),
        (
            _attention(weights_over=-2),
            "your softmax is over the wrong axis: the weights of one query for all keys must add "
            "up to 1, and keys are the last axis of q k^T.",
        ),
        (
            _attention(softmax=False),
            "the softmax is missing.",
        ),
        (
            lambda q, k, v: _attend_right(k, q, v),
            "queries and keys have changed places.",
        ),
        (
            lambda q, k, v: _attend_right(q, v, k),
            "keys and values have changed places: match with k, and take the mean of v.",
        ),
        (
            lambda q, k, v: _attend_right(q, k, v) + v,
            "you added v; here only the weighted mean is asked for, without a residual connection.",
        ),
    ],
    cases=[
        tuple(torch.randn(3, *shape, generator=_random, dtype=torch.float64))
        for shape in ((2, 5, 4), (1, 3, 6, 8))
    ],
)


def _block(channels: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A stand-in for a block: mixes any number of channels into a few, and adds the time."""
    mix = torch.randn(channels, 64, generator=_random, dtype=torch.float64)

    def block(x: Tensor, time: Tensor) -> Tensor:
        return torch.einsum("oc,nchw->nohw", mix[:, : x.shape[1]], x) + time.mean()

    return block


def _levels(levels: int, blocks: int) -> tuple:
    """Arguments of way_up. All maps have one size, so that a wrong order shows in the numbers."""
    up = [[_block(3) for _ in range(blocks)] for _ in range(levels)]
    upsamplers = [(lambda x, k=k: (k + 2) * x.roll(1, -1)) for k in range(levels - 1)]
    x, *skips = torch.randn(1 + levels * blocks, 2, 3, 4, 4, generator=_random).double()
    return up, [*upsamplers, torch.nn.Identity()], x, skips, torch.ones(2, 5).double()


def _up(
    read: Callable[[Tensor, Tensor], Tensor] = lambda x, skip: torch.cat([x, skip], 1),
    take: int = -1,
    upsample: str = "after",
    order: int = 1,
) -> Callable:
    """The way up; and ways to get it wrong."""

    def way_up(up: Sequence, upsamplers: Sequence, x: Tensor, skips: list, time: Tensor) -> Tensor:
        skips = list(skips)
        for blocks, upsampler in list(zip(up, upsamplers, strict=True))[::order]:
            if upsample == "before":
                x = upsampler(x)
            for block in blocks:
                x = block(read(x, skips.pop(take)), time)
                if upsample == "every":
                    x = upsampler(x)
            if upsample == "after":
                x = upsampler(x)
        return x

    return way_up


def _up_with_one_skip_a_level(up, upsamplers, x, skips, time):
    skips = list(skips)
    for blocks, upsampler in zip(up, upsamplers, strict=True):
        skip = skips.pop()
        for block in blocks:
            x = block(torch.cat([x, skip], 1), time)
        x = upsampler(x)
    return x


_way_up = Exercise(
    answer=_up(),
    mistakes=[
        (
            _up(take=0),
            "you take the skip connection that was kept first; the one that was kept last is "
            "needed first: skips.pop().",
        ),
        (
            _up(read=lambda x, skip: x),
            "you leave the skip connections out: each block reads x and one of them.",
        ),
        (
            _up(read=lambda x, skip: x + skip),
            "you add the skip connection to x; put the two together along the channels: "
            "torch.cat([...], dim=1).",
        ),
        (
            _up(read=lambda x, skip: torch.cat([skip, x], 1)),
            "x comes first, and the skip connection second; the weights of a block know the order.",
        ),
        (
            _up(upsample="before"),
            "the upsampler comes too early: it stands behind the blocks of its level.",
        ),
        (
            _up(upsample="every"),
            "you upsample after each block; it is done once a level, after its last block.",
        ),
        (
            _up(upsample="never"),
            "the upsamplers are missing: one behind the blocks of each level.",
        ),
        (
            _up_with_one_skip_a_level,
            "you take one skip connection per level; each block has its own.",
        ),
        (
            _up(order=-1),
            "you begin with the last level; the list `up` starts with the lowest already.",
        ),
    ],
    cases=[_levels(3, 2), _levels(2, 3)],
)


def check_receptive_field(function: Callable[[list[tuple[int, int]]], int]) -> None:
    """receptive_field([(kernel, stride), ...]) -> pixels of a row that an output depends on."""
    say(_receptive_field.judge(function), function)


def check_attend(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """attend(q, k, v) -> attention of one head, all (..., L, d)."""
    say(_attend.judge(function), function)


def check_way_up(function: Callable[..., Tensor]) -> None:
    """way_up(up, upsamplers, x, skips, time) -> the output of the decoder."""
    verdict = _way_up.judge(
        lambda up, upsamplers, x, skips, time: function(up, upsamplers, x, list(skips), time)
    )
    say(verdict, function)
