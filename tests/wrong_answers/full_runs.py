"""Page 08."""

import torch


def _seconds(images, operations, speed, share, passes=3):
    return images * operations * passes / speed / share


def _at_a_time(fixed, each, memory):
    return int((memory - fixed) / each)


WRONG = {
    "check_epochs_in": [
        (lambda h, n, f, s, p: int(h * 3600 / _seconds(n, f, s, p, 1)), "the forward pass only"),
        (lambda h, n, f, s, p: int(h * 3600 / _seconds(n, f, s, p, 2)), "is twice as dear"),
        (lambda h, n, f, s, p: int(h * 3600 / _seconds(n, f, s, 1)), "full speed"),
        (lambda h, n, f, s, p: int(h * 3600 / _seconds(n, f, s, 1 / p)), "fewer epochs"),
        (lambda h, n, f, s, p: int(h * 60 / _seconds(n, f, s, p)), "you took minutes"),
        (lambda h, n, f, s, p: 1 + int(h * 3600 / _seconds(n, f, s, p)), "are done: round down."),
        (lambda h, n, f, s, p: int(h * 3600 / _seconds(n, f, s, p) + 0.5), "is left over"),
        (lambda h, n, f, s, p: h * 3600 / _seconds(n, f, s, p), "to an int"),
        (lambda h, n, f, s, p: _seconds(n, f, s, p), "for the first case"),
        (lambda h, n, f, s, p: print(h), "returns None"),
    ],
    "check_parts_that_fit": [
        (lambda b, w, a, m: -(-b // _at_a_time(0, a, m)), "the weights take memory too"),
        (lambda b, w, a, m: max(b // _at_a_time(w, a, m), 1), "rounded down"),
        (lambda b, w, a, m: _at_a_time(w, a, m), "how many images fit"),
        (lambda b, w, a, m: int(-(-(w + b * a) // m)), "cuts the weights into parts"),
        (lambda b, w, a, m: int(-(-(b * a) // (m - w))), "images cannot be cut"),
        (lambda b, w, a, m: b, "for the first case"),
    ],
    "check_gradient_of_the_batch": [
        (lambda g, n: sum(g) / len(g), "would count as much as three"),
        (lambda g, n: sum(g), "the sum of the means"),
        (lambda g, n: n.float() @ g, "the sum over all images"),
        (lambda g, n: n.float() @ g / len(n), "divided by the number of processes"),
        (lambda g, n: torch.softmax(-n.float().log(), 0) @ g, "smallest share"),
        (lambda g, n: g.mean(), "shape is ()"),
        (lambda g, n: n @ g, "RuntimeError"),
    ],
}

RIGHT = {
    "check_epochs_in": lambda h, n, f, s, p: h * 3600 // _seconds(n, f, s, p),
    "check_parts_that_fit": lambda b, w, a, m: next(
        parts for parts in range(1, b + 1) if w + -(-b // parts) * a <= m
    ),
    "check_gradient_of_the_batch": lambda g, n: (n / n.sum()) @ g,
}
