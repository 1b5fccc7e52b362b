"""Page 03."""

import torch
import torch.nn.functional as F


def seen(layers, own_stride_first=False, start=1, add=False, whole=False):
    total, apart = start, 1
    for kernel, stride in layers:
        if own_stride_first:
            apart *= stride
        total += (kernel if whole else kernel - 1) * apart
        if add:
            apart += stride - 1
        elif not own_stride_first:
            apart *= stride
    return total


def read(width, multipliers, blocks, first, others):
    channels, below = [], width * multipliers[-1]
    for multiplier in reversed(multipliers):
        here = width * multiplier
        channels += [first(below, here)] + [others(below, here)] * (blocks - 1)
        below = here
    return channels


def reading(first, others):
    return lambda *case: read(*case, first, others)


def fold(x, p, *order):
    n, c, h, w = x.shape
    return x.view(n, c, h // p, p, w // p, p).permute(order).reshape(n, -1, h // p, w // p)


def attention(q, k, v, scale=None, dim=-1):
    return torch.softmax(q @ k.mT / (scale or q.shape[-1] ** 0.5), dim) @ v


def turn(embedding, steps, omega=None, backwards=False, plus=False):
    sin, cos = embedding.chunk(2, 1)
    omega = 10000 ** -torch.linspace(0, 1, sin.shape[1]) if omega is None else omega(sin.shape[1])
    s, c = (steps * omega).sin(), (steps * omega).cos()
    s = -s if backwards else s
    return torch.cat([sin * c + cos * s, cos * c + sin * s if plus else cos * c - sin * s], 1)


def turn_as_complex(embedding, steps):
    sin, cos = embedding.chunk(2, 1)
    angle = steps * 10000 ** -torch.linspace(0, 1, sin.shape[1], dtype=sin.dtype)
    turned = torch.complex(cos, sin) * torch.exp(1j * angle)
    return torch.cat([turned.imag, turned.real], 1)


WRONG = {
    "check_receptive_field": [
        (lambda layers: 1 + sum(k - 1 for k, s in layers), "leave the strides out"),
        (lambda layers: sum(k for k, s in layers), "added the kernels up"),
        (lambda layers: torch.tensor([k for k, s in layers]).prod().item(), "multiplied the kern"),
        (lambda layers: seen(layers, start=0, whole=True), "add whole kernels"),
        (lambda layers: seen(layers, own_stride_first=True), "comes too early"),
        (lambda layers: seen(layers, add=True), "they multiply"),
        (lambda layers: seen(layers, start=0), "one less"),
        (lambda layers: seen(layers) // 2, "to one side"),
        (lambda layers: seen(layers) ** 2, "that is the area"),
        (lambda layers: seen(list(reversed(layers))), "began with the last layer"),
        (lambda layers: 3, "gives 3, not 7"),
        (lambda layers: None, "return"),
    ],
    "check_channels_read": [
        (reading(lambda below, here: below, lambda below, here: here), "left the skips out"),
        (
            lambda *case: read(*case, lambda b, h: b + h, lambda b, h: 2 * h)[::-1],
            "upside down",
        ),
        (reading(lambda b, h: 2 * h, lambda b, h: 2 * h), "does not get its input from its own"),
        (reading(lambda b, h: b + h, lambda b, h: b + h), "only the first block of a level reads"),
        (reading(lambda b, h: 2 * b, lambda b, h: 2 * h), "not from the level below"),
        (reading(lambda b, h: b + h, lambda b, h: h), "each block is handed a skip"),
        (reading(lambda b, h: h, lambda b, h: h), "answer with"),
        (lambda width, multipliers, blocks: [2 * width * m for m in multipliers], "shape is (3,)"),
        (lambda width, multipliers, blocks: 2 * width, "returns int: return a list"),
        (lambda width, multipliers, blocks: [0] * (len(multipliers) * blocks), "not 128"),
    ],
    "check_space_to_depth": [
        (
            lambda x, p: x.reshape(len(x), -1, x.shape[2] // p, x.shape[3] // p),
            "only renamed the axes",
        ),
        (lambda x, p: fold(x, p, 0, 3, 5, 1, 2, 4), "another order"),
        (lambda x, p: fold(x, p, 0, 1, 5, 3, 2, 4), "go down first"),
        (lambda x, p: fold(x, p, 0, 1, 3, 5, 4, 2), "mirrored along their diagonal"),
        (lambda x, p: fold(x, p, 0, 1, 2, 4, 3, 5), "the other way round"),
        (
            lambda x, p: torch.stack([t for r in x.chunk(p, 2) for t in r.chunk(p, 3)], 2).flatten(
                1, 2
            ),
            "large tiles",
        ),
        (lambda x, p: x[:, :, ::p, ::p], "shape is (2, 3, 4, 4)"),
        (lambda x, p: x.view(x.shape[0], -1, 3), "RuntimeError"),
    ],
    "check_attend_rows": [
        (
            lambda q, k, v: attention(*(x.flatten(1, 2) for x in (q, k, v))).view(q.shape),
            "the whole picture",
        ),
        (
            lambda q, k, v: attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2),
            "along its column",
        ),
        (lambda q, k, v: attention(q, k, v, scale=1), "sqrt(d) is missing"),
        (lambda q, k, v: attention(q, k, v, scale=q.shape[-1]), "divide by its root"),
        (lambda q, k, v: attention(q, k, v, scale=q.shape[2] ** 0.5), "root of W"),
        (lambda q, k, v: attention(q, k, v, dim=-2), "wrong axis"),
        (lambda q, k, v: q @ k.mT / q.shape[-1] ** 0.5 @ v, "softmax is missing"),
        (lambda q, k, v: attention(k, q, v), "queries and keys"),
        (lambda q, k, v: attention(q, v, k), "keys and values"),
        (lambda q, k, v: torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1), "shape is (2, 3, 5, 5)"),
        (lambda q, k, v: torch.softmax(q @ k, -1) @ v, "RuntimeError"),
        (lambda q, k, v: v, "for the first case"),
    ],
    "check_later": [
        (lambda e, steps: turn(e, steps, backwards=True), "go backwards"),
        (lambda e, steps: turn(e, steps, plus=True), "there is a minus"),
        (
            lambda e, steps: turn(e, steps, lambda half: 10000 ** -(torch.arange(half) / half)),
            "slightly off",
        ),
        (
            lambda e, steps: turn(
                e, steps, lambda half: 10000 ** -(torch.arange(half) / (2 * half - 1))
            ),
            "count all components",
        ),
        (lambda e, steps: turn(e, steps, torch.ones), "by the same angle"),
        (
            lambda e, steps: (
                turn(torch.cat([e[:, ::2], e[:, 1::2]], 1), steps)
                .view(len(e), 2, -1)
                .mT.reshape(e.shape)
            ),
            "for neighbours",
        ),
        (lambda e, steps: e + steps, "angle behind them"),
        (
            lambda e, steps: (
                e + turn(torch.cat([0 * e.chunk(2, 1)[0], 0 * e.chunk(2, 1)[0] + 1], 1), steps)
            ),
            "not the sum of the embeddings",
        ),
        (lambda e, steps: e.roll(steps, 1), "for the first case"),
    ],
}

RIGHT = {
    "check_receptive_field": lambda layers: (
        1
        + sum(
            (kernel - 1) * torch.tensor([1] + [s for _, s in layers[:i]]).prod().item()
            for i, (kernel, _) in enumerate(layers)
        )
    ),
    "check_channels_read": lambda width, multipliers, blocks: [
        width * (m + (below if block == 0 else m))
        for below, m in zip(
            (multipliers[-1], *multipliers[:0:-1]), reversed(multipliers), strict=True
        )
        for block in range(blocks)
    ],
    "check_space_to_depth": lambda x, p: torch.stack(
        [x[:, :, i::p, j::p] for i in range(p) for j in range(p)], 2
    ).flatten(1, 2),
    "check_attend_rows": F.scaled_dot_product_attention,
    "check_later": turn_as_complex,
}
