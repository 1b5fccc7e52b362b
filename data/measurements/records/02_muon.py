"""Muon

2026-11-29. Muon makes the step of a whole weight matrix orthogonal, so that no direction is learned
much faster than another (Jordan et al. 2024). A step takes longer, but in a minute there are only a
thousand of them, and each has to count. The learning rate is twice as high as before.
"""

from diffusion_lib.benchmark.contestants import ours
from diffusion_lib.config import TrainConfig


def contestant(pixels, seed):
    config = TrainConfig(
        image_size=16,
        beta_schedule="cosine",
        shift=0.5,
        prediction="epsilon",
        width=24,
        blocks=1,
        patch=1,
        batch_size=16,
        lr=0.008,
        optimizer="muon",
        seed=seed,
        device="cpu",
    )
    return ours(pixels, config)
