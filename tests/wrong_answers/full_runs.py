"""Page 08."""


def _seconds(images, operations, speed, share, passes=3):
    return images * operations * passes / speed / share


def _at_a_time(fixed, each, memory):
    return int((memory - fixed) / each)


def _state(model, average, optimizer, step):
    parts = {"model": model, "average": average, "optimizer": optimizer}
    state = {name: part.state_dict() for name, part in parts.items() if part is not None}
    return state if step is None else {**state, "step": step}


WRONG = {
    "check_epochs_in": [
        (lambda h, n, f, s, p: int(h * 3600 / _seconds(n, f, s, p, 1)), "the forward pass only"),
        (lambda h, n, f, s, p: int(h * 3600 / _seconds(n, f, s, p, 2)), "costs twice as much"),
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
    "check_checkpoint": [
        (lambda m, a, o, s: _state(m, a, None, s), "the optimizer starts anew"),
        (lambda m, a, o, s: _state(m, None, o, s), "the average starts from new weights"),
        (lambda m, a, o, s: _state(None, a, o, s), "the model itself is missing"),
        (lambda m, a, o, s: _state(m, m, o, s), "the average forgets its past"),
        (lambda m, a, o, s: _state(a, a, o, s), "weights that lag behind"),
        (lambda m, a, o, s: _state(m, a, o, None), "repeats its first batches"),
        (lambda m, a, o, s: _state(m, a, None, None), "enough for samples"),
        (lambda m, a, o, s: _state(m, None, None, None), "what else changes"),
        (lambda m, a, o, s: {}, "nothing is saved"),
        (lambda m, a, o, s: print(s), "returns None"),
        (lambda m, a, o, s: m.weight, "return a dict, not Parameter"),
    ],
}

RIGHT = {
    "check_epochs_in": lambda h, n, f, s, p: h * 3600 // _seconds(n, f, s, p),
    "check_parts_that_fit": lambda b, w, a, m: next(
        parts for parts in range(1, b + 1) if w + -(-b // parts) * a <= m
    ),
    "check_checkpoint": _state,
}
