"""U-Net, AdamW

2026-11-29. The recipe of the course before there was a speedrun. It predicts the noise, with a
cosine schedule that is shifted to less noise, batches of 16 and a high learning rate.
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
        lr=0.004,
        seed=seed,
        device="cpu",
    )
    return ours(pixels, config)
