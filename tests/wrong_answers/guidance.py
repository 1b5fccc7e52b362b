"""Page 07."""

import torch


def _in_place(labels, draws, rate):
    labels[draws < rate] = -1
    return labels


def _to_zero(labels, draws, rate):
    new = labels.clone()
    new[draws < rate] = 0
    return new


WRONG = {
    "check_move_by_gradient": [
        (lambda x0, g, a, b, w: x0 + w * g, "belongs to the score"),
        (lambda x0, g, a, b, w: x0 - w * b**2 / a * g, "leads away"),
        (lambda x0, g, a, b, w: x0 + w * g * b**2, "divide it by signal"),
        (lambda x0, g, a, b, w: x0 + w * b / a * g, "squared"),
        (lambda x0, g, a, b, w: x0 - w * b * g, "how epsilon changes"),
        (lambda x0, g, a, b, w: x0 + b**2 / a * g, "scale is missing"),
        (lambda x0, g, a, b, w: x0 + w * b**2 * a * g, "Not yet"),
    ],
    "check_drop": [
        (lambda y, u, rate: torch.where(u < rate, y, -1), "kept the few"),
        (_to_zero, "0 is a class"),
        (lambda y, u, rate: y[u >= rate], "shape"),
        (lambda y, u, rate: y if u[0] >= rate else torch.full_like(y, -1), "once for the whole"),
        (lambda y, u, rate: y, "no label is dropped"),
        (_in_place, "in place"),
    ],
    "check_combine": [
        (lambda u, k, w: k + w * (k - u), "already beyond"),
        (lambda u, k, w: u + w * (u - k), "leads away"),
        (lambda u, k, w: w * u + (1 - w) * k, "changed places"),
        (lambda u, k, w: u + w * k, "sum of both"),
        (lambda u, k, w: w * k, "is missing"),
    ],
}

RIGHT = {
    "check_move_by_gradient": lambda x0, g, a, b, w: (a * x0 + w * b * b * g) / a,
    "check_drop": lambda y, u, rate: torch.where(u >= rate, y, torch.full_like(y, -1)),
    "check_combine": lambda u, k, w: w * k + (1 - w) * u,
}
