"""Page 00."""

import torch

WRONG = {
    "check_to_bytes": [
        (
            lambda x: torch.from_numpy(((x + 1) * 127.5).round().numpy().astype("i8") % 256).byte(),
            "wrap around",
        ),
        (lambda x: (x.clamp(-1, 1) * 127.5 + 127.5).to(torch.uint8), "cuts the fraction off"),
        (lambda x: (x.clamp(0, 1) * 255).round().to(torch.uint8), "darker than middle grey"),
        (
            lambda x: (x.clamp(-1, 1) * 127.5 + 127.5).round(),
            "torch.float32, but should be torch.uint8",
        ),
        (lambda x: (x.clamp(0, 1) * 127.5).round().to(torch.uint8), "add 1 before"),
        (
            lambda x: (x.clamp(-1, 1) * 128 + 128).clamp(0, 255).round().to(torch.uint8),
            "scale by 127.5",
        ),
        (lambda x: x[0].to(torch.uint8), "The shape is"),
        (lambda x: torch.zeros_like(x).to(torch.uint8), "for the first case"),
    ],
    "check_nearest": [
        (lambda s, x: int((x - s).pow(2).mean((1, 2, 3)).argmax()), "farthest away"),
        (lambda s, x: float((x - s).pow(2).sum((1, 2, 3)).min()), "the distance itself"),
        (lambda s, x: int((x - s).sum((1, 2, 3)).argmin()), "cancel out"),
        (lambda s, x: int((x.mean((1, 2, 3)) - s.mean()).abs().argmin()), "mean brightness"),
        (lambda s, x: int((x * s).sum((1, 2, 3)).argmax()), "dot product"),
        (lambda s, x: int(((x - s) ** 2).argmin()), "nearest single number"),
        (lambda s, x: 0, "for the first case"),
    ],
}

RIGHT = {
    "check_to_bytes": lambda x: ((x + 1) / 2 * 255).round().clamp(0, 255).byte(),
    "check_nearest": lambda s, x: torch.cdist(x.flatten(1), s.flatten()[None]).argmin().item(),
}
