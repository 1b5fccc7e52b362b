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


def attention(q, k, v, scale=None, dim=-1):
    return torch.softmax(q @ k.mT / (scale or q.shape[-1] ** 0.5), dim) @ v


def climb(join, take=-1, before=False, after=True, every=False, stay=False):
    """A way up, from how x and a skip are joined, which is taken, and where to upsample."""

    def way_up(up, upsamplers, x, skips, time):
        for level, blocks in enumerate(up):
            x = upsamplers[level](x) if before else x
            for block in blocks:
                x = block(join(x, skips[take] if stay else skips.pop(take)), time)
                x = upsamplers[level](x) if every else x
            if stay:
                skips.pop()
            x = upsamplers[level](x) if after else x
        return x

    return way_up


def both(x, skip):
    return torch.cat((x, skip), 1)


def upside_down(up, upsamplers, x, skips, time):
    return climb(both)(up[::-1], upsamplers[::-1], x, skips, time)


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
    "check_attend": [
        (lambda q, k, v: attention(q, k, v, scale=1), "sqrt(d) is missing"),
        (lambda q, k, v: attention(q, k, v, scale=q.shape[-1]), "divide by its square root"),
        (lambda q, k, v: attention(q, k, v, scale=q.shape[-2] ** 0.5), "root of L"),
        (lambda q, k, v: attention(q, k, v, dim=-2), "wrong axis"),
        (lambda q, k, v: q @ k.mT / q.shape[-1] ** 0.5 @ v, "softmax is missing"),
        (lambda q, k, v: attention(k, q, v), "queries and keys"),
        (lambda q, k, v: attention(q, v, k), "keys and values"),
        (lambda q, k, v: v + attention(q, k, v), "you added v"),
        (lambda q, k, v: torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1), "shape is (2, 5, 5)"),
        (lambda q, k, v: torch.softmax(q @ k, -1) @ v, "RuntimeError"),
        (lambda q, k, v: v, "for the first case"),
    ],
    "check_way_up": [
        (climb(both, take=0), "kept first"),
        (climb(lambda x, skip: x), "leave the skip connections out"),
        (climb(torch.add), "you add the skip connection"),
        (climb(lambda x, skip: both(skip, x)), "x comes first"),
        (climb(both, before=True, after=False), "too early"),
        (climb(both, every=True, after=False), "after each block"),
        (climb(both, after=False), "upsamplers are missing"),
        (climb(both, stay=True), "one skip connection per level"),
        (upside_down, "begin with the last level"),
        (climb(lambda x, skip: torch.cat([x, skip], 2)), "shape is"),
        (lambda up, upsamplers, x, skips, time: x, "for the first case"),
        (lambda up, upsamplers, x, skips, time: None, "return"),
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
    "check_attend": F.scaled_dot_product_attention,
    "check_way_up": climb(both),
}
