"""Exercises of page 03: the U-Net."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise

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
            "pixels of the picture apart.",
        ),
        (
            lambda layers: sum(kernel for kernel, _ in layers),
            "you added the kernels up; a kernel of 3 reaches one further on each side, which adds "
            "2, and after a stride more than that.",
        ),
        (
            lambda layers: math.prod(kernel for kernel, _ in layers),
            "you multiplied the kernels; the windows of neighbours overlap, so a layer widens the "
            "view by kernel - 1 of its steps.",
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
            "you began with the last layer; it is the first layers' strides that widen the view of "
            "later ones.",
        ),
    ],
    cases=[
        ([(3, 1), (3, 1), (3, 1)],),
        ([(3, 1), (3, 2), (3, 1)],),
        ([(5, 1), (3, 2), (3, 1), (3, 2), (3, 1), (3, 1)],),
        ([(7, 1), (3, 2), (1, 1), (3, 3), (3, 1)],),
    ],
)


def _read(first: Callable[[int, int], int], later: Callable[[int, int], int]) -> Callable:
    """The list, if a level's first block reads first(below, here) and its others later(...)."""

    def channels(width: int, multipliers: tuple[int, ...], blocks: int) -> Tensor:
        widths = [width * multiplier for multiplier in multipliers]
        pairs = zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True)
        return torch.tensor(
            [
                (first if block == 0 else later)(below, here)
                for below, here in pairs
                for block in range(blocks)
            ]
        )

    return channels


_channels_of_right_side = _read(lambda below, here: below + here, lambda below, here: here + here)

_channels_read = Exercise(
    answer=_channels_of_right_side,
    expects="a list",
    mistakes=[
        (
            _read(lambda below, here: below, lambda below, here: here),
            "you left the skips out: each block reads what comes from below and the skip, laid "
            "upon each other.",
        ),
        (
            lambda *case: _channels_of_right_side(*case).flip(0),
            "the list is upside down: begin with the deepest block.",
        ),
        (
            _read(lambda below, here: 2 * here, lambda below, here: 2 * here),
            "the first block of a level does not get its input from its own level: what comes from "
            "below has as many channels as the level below.",
        ),
        (
            _read(lambda below, here: below + here, lambda below, here: below + here),
            "only the first block of a level reads what comes from below; the next one reads what "
            "the first has answered, and that has as many channels as the level.",
        ),
        (
            _read(lambda below, here: 2 * below, lambda below, here: 2 * here),
            "the skip that a level's first block reads comes from its own level, on the left, not "
            "from the level below.",
        ),
        (
            _read(lambda below, here: below + here, lambda below, here: here),
            "each block is handed a skip, not only the first one of a level.",
        ),
        (
            _read(lambda below, here: here, lambda below, here: here),
            "these are the channels that the blocks answer with; asked is what they read.",
        ),
    ],
    cases=[(32, (1, 2, 2), 2), (64, (1, 2, 4), 3), (8, (1, 3), 1), (16, (2, 1, 3, 5), 2)],
)


def _folded(
    order: tuple[int, ...], tiles: bool = False, turn: bool = False
) -> Callable[[Tensor, int], Tensor]:
    """Space to depth with the axes in some order.

    tiles: whether to cut the picture into patch x patch large tiles, instead of many small squares.
    """

    def fold(x: Tensor, patch: int) -> Tensor:
        n, c, h, w = x.shape
        high, wide = h // patch, w // patch
        shape = (n, c, patch, high, patch, wide) if tiles else (n, c, high, patch, wide, patch)
        return x.reshape(shape).permute(order).reshape(n, c * patch**2, high, wide)

    return fold


_space_to_depth = Exercise(
    answer=F.pixel_unshuffle,
    mistakes=[
        (
            _folded((0, 1, 2, 3, 4, 5)),
            "the shape is right, but you only renamed the axes: without a permute, pixels stay in "
            "the order in which they lie in memory, row after row.",
        ),
        (
            _folded((0, 3, 5, 1, 2, 4)),
            "the pixels are right, but the channels are in another order: all that comes from one "
            "old channel stands together.",
        ),
        (
            _folded((0, 1, 5, 3, 2, 4)),
            "the pixels of a square go down first in your answer; they go right first: upper left, "
            "upper right, lower left, lower right.",
        ),
        (
            _folded((0, 1, 2, 4, 3, 5), tiles=True),
            "you cut the picture into patch x patch large tiles; small squares of patch x patch "
            "pixels are wanted. Which of the two factors of H changes faster, when you split it?",
        ),
        (
            _folded((0, 1, 3, 5, 4, 2)),
            "rows and columns have changed places: the small pictures are mirrored along their "
            "diagonal.",
        ),
        (
            _folded((0, 1, 2, 4, 3, 5)),
            "you moved the squares to the channels, and left the places within a square as the "
            "small picture; it is the other way round.",
        ),
    ],
    cases=[
        (torch.randn(2, 3, 8, 8, generator=_random), 2),
        (torch.randn(1, 2, 9, 9, generator=_random), 3),
        (torch.randn(1, 1, 16, 16, generator=_random), 4),
    ],
)


def _attend_along(
    dim: int | None = None,
    weights_over: int = -1,
    scale: Callable[[int, int], float] = lambda d, length: d**0.5,
    softmax: bool = True,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention along one axis of (N, H, W, d), or along all pixels; and ways to get it wrong."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if dim == 1:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        elif dim is None:
            shape, (q, k, v) = q.shape, (x.flatten(1, 2) for x in (q, k, v))
        match = q @ k.mT / scale(q.shape[-1], q.shape[-2])
        answer = (match.softmax(weights_over) if softmax else match) @ v
        if dim == 1:
            return answer.transpose(1, 2)
        return answer.view(shape) if dim is None else answer

    return attend


_rows = _attend_along(2)

_attend_rows = Exercise(
    answer=_rows,
    mistakes=[
        (
            _attend_along(None),
            "each pixel looks at the whole picture; only its own row is wanted.",
        ),
        (
            _attend_along(1),
            "each pixel looks along its column; its row is wanted: axis 2, W, is the place in a "
            "row.",
        ),
        (
            _attend_along(2, scale=lambda d, length: 1.0),
            "the division by sqrt(d) is missing.",
        ),
        (
            _attend_along(2, scale=lambda d, length: float(d)),
            "you divided by d; divide by its root.",
        ),
        (
            _attend_along(2, scale=lambda d, length: length**0.5),
            "you divided by the root of W; d is the number of channels, the last axis.",
        ),
        (
            _attend_along(2, weights_over=-2),
            "your softmax is over the wrong axis: the weights that one query gives to all keys "
            "must add up to 1, and keys are the last axis of q k^T.",
        ),
        (
            _attend_along(2, softmax=False),
            "the softmax is missing.",
        ),
        (
            lambda q, k, v: _rows(k, q, v),
            "queries and keys have changed places.",
        ),
        (
            lambda q, k, v: _rows(q, v, k),
            "keys and values have changed places: match with k, and listen to v.",
        ),
    ],
    cases=[
        tuple(torch.randn(3, *shape, generator=_random, dtype=torch.float64))
        for shape in ((2, 3, 5, 4), (1, 6, 2, 8))
    ],
)


def _turned(
    sign: float = 1.0,
    own: float = 1.0,
    frequencies: Callable[[int], Tensor] | None = None,
    paired: bool = False,
) -> Callable[[Tensor, float], Tensor]:
    """Hands of clocks turned forward; and ways to get it wrong."""

    def turn(embedding: Tensor, steps: float) -> Tensor:
        half = embedding.shape[1] // 2
        k = torch.arange(half, dtype=embedding.dtype)
        omega = frequencies(half) if frequencies else 10000 ** (-k / (half - 1))
        angle = sign * steps * omega
        if paired:
            sines, cosines = embedding[:, 0::2], embedding[:, 1::2]
        else:
            sines, cosines = embedding.chunk(2, 1)
        new_sines = sines * angle.cos() + cosines * angle.sin()
        new_cosines = cosines * angle.cos() - own * sines * angle.sin()
        if paired:
            return torch.stack([new_sines, new_cosines], 2).flatten(1)
        return torch.cat([new_sines, new_cosines], 1)

    return turn


def _embedded(t: list[float], size: int) -> Tensor:
    """As `sinusoidal_embedding`, in float64. (N, size)"""
    k = torch.arange(size // 2, dtype=torch.float64)
    angles = torch.tensor(t, dtype=torch.float64)[:, None] * 10000 ** (-k / (size // 2 - 1))
    return torch.cat([angles.sin(), angles.cos()], 1)


_later = Exercise(
    answer=_turned(),
    mistakes=[
        (
            _turned(sign=-1.0),
            "your clocks go backwards: the sign of the angle is wrong in both rows.",
        ),
        (
            _turned(own=-1.0),
            "the sines are right; in cos(a + b) = cos a cos b - sin a sin b there is a minus.",
        ),
        (
            _turned(frequencies=lambda half: 10000 ** (-torch.arange(half) / half)),
            "the angles are slightly off: the last frequency is exactly 1/10000, so divide k by "
            "K - 1, with K pairs.",
        ),
        (
            _turned(frequencies=lambda half: 10000 ** (-torch.arange(half) / (2 * half - 1))),
            "you count all components; there are K = size / 2 hands, and each has a frequency.",
        ),
        (
            _turned(frequencies=torch.ones),
            "all hands turn by the same angle in your answer; hand k turns by omega_k a step.",
        ),
        (
            _turned(paired=True),
            "you take sine and cosine of a hand for neighbours; here all sines come first, and "
            "then all cosines.",
        ),
        (
            lambda embedding, steps: embedding + _embedded([steps], embedding.shape[1]),
            "you added the embedding of `steps`; the embedding of a sum is not the sum of the "
            "embeddings: angles add up.",
        ),
        (
            lambda embedding, steps: embedding + steps,
            "you added `steps` to sines and cosines; it is the angle behind them that grows.",
        ),
    ],
    cases=[
        (_embedded([0, 3, 250, 700], 16), 7),
        (_embedded([1, 40], 8), 100),
        (_embedded([5, 999], 32), -4),
    ],
)


def check_receptive_field(function: Callable[[list[tuple[int, int]]], int]) -> None:
    """receptive_field([(kernel, stride), ...]) -> how many pixels of a row have a say in one."""
    print(_receptive_field.judge(function))


def check_channels_read(function: Callable[[int, tuple[int, ...], int], list[int]]) -> None:
    """channels_read(width, multipliers, blocks) -> channels that each block on the right reads."""

    def as_tensor(*case: Any) -> Any:
        value = function(*case)
        return torch.tensor(value) if isinstance(value, list | tuple) else value

    print(_channels_read.judge(as_tensor))


def check_space_to_depth(function: Callable[[Tensor, int], Tensor]) -> None:
    """space_to_depth(x, patch) -> (N, C patch^2, H/patch, W/patch), as nn.PixelUnshuffle."""
    print(_space_to_depth.judge(function))


def check_attend_rows(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """attend_rows(q, k, v) -> attention along each row, all (N, H, W, d)."""
    print(_attend_rows.judge(function))


def check_later(function: Callable[[Tensor, float], Tensor]) -> None:
    """later(embedding, steps) -> the embedding of timesteps that are `steps` later, (N, size)."""
    print(_later.judge(function))
