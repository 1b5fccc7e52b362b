"""Page 00."""

import torch

WRONG = {
    "check_difference": [
        (lambda a, b: (a - b).pow(2).mean((1, 2, 3)), "mean squared difference"),
        (lambda a, b: (a - b).abs().mean((1, 2, 3)), "absolute differences"),
        (lambda a, b: (a - b).mean((1, 2, 3)), "before the mean"),
        (lambda a, b: (a - b).mean((1, 2, 3)).pow(2).sqrt(), "after the mean"),
        (lambda a, b: (a - b).flatten(1).norm(dim=1), "grows with the number of pixels"),
        (
            lambda a, b: (a.pow(2).mean((1, 2, 3)) - b.pow(2).mean((1, 2, 3))).abs().sqrt(),
            "subtract the images first",
        ),
        (lambda a, b: (a - b).abs().mean((1, 2, 3)).sqrt(), "instead of taking their absolute"),
        (lambda a, b: (a - b).flatten(1).norm(dim=1) / 75, "before the root, not after"),
        # Two or three mistakes at once:
        (lambda a, b: (a - b).pow(2).sum((1, 2, 3)), "two things: a sum grows"),
        (lambda a, b: (a - b).abs().sum((1, 2, 3)), "three things: square the differences"),
        (lambda a, b: (a - b).abs().sum((1, 2, 3)).sqrt(), "two things: square the differences"),
        (lambda a, b: (a - b).sum((1, 2, 3)), "three things: brighter and darker"),
        (lambda a, b: a.pow(2).mean((1, 2, 3)) - b.pow(2).mean((1, 2, 3)), "two things: (a - b)^2"),
        (lambda a, b: (a - b).mean((1, 2, 3)).sqrt(), "Square before you take"),
        (lambda a, b: (a - b).pow(2).mean().sqrt(), "The shape is ()"),
        (lambda a, b: (a - b).pow(2).mean(1).sqrt(), "The shape is (4, 5, 5)"),
        (lambda a, b: torch.zeros(len(a)), "for the first case"),
    ],
    "check_nearest": [
        (lambda s, x: int((x - s).pow(2).mean((1, 2, 3)).argmax()), "farthest away"),
        (lambda s, x: float((x - s).pow(2).sum((1, 2, 3)).min()), "the distance itself"),
        (lambda s, x: int((x - s).sum((1, 2, 3)).argmin()), "cancel out"),
        (lambda s, x: int((x.mean((1, 2, 3)) - s.mean()).abs().argmin()), "mean brightness"),
        (lambda s, x: int((x * s).sum((1, 2, 3)).argmax()), "dot product"),
        (lambda s, x: int(((x - s) ** 2).argmin()), "nearest single number"),
        (lambda s, x: float((x - s).pow(2).sum((1, 2, 3)).max()), "that is most alike, not"),
        (lambda s, x: float((x - s).sum((1, 2, 3)).min()), "two things: without a square"),
        (lambda s, x: int((x * s).sum((1, 2, 3)).argmin()), "two things: a dot product"),
        (lambda s, x: 0, "for the first case"),
    ],
}

RIGHT = {
    "check_difference": lambda a, b: (a - b).flatten(1).norm(dim=1) / a[0].numel() ** 0.5,
    "check_nearest": lambda s, x: torch.cdist(x.flatten(1), s.flatten()[None]).argmin().item(),
}
