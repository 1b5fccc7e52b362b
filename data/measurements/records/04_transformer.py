"""transformer

2026-11-29. The U-Net makes way for a transformer over patches of 2x2 pixels. It knows where in the
image a patch is, and sees all others at once. On faces that halves the distance. On digits, whose
strokes cross the patches, two convolutions at its end are needed, and the U-Net stays a little
ahead.
"""

from diffusion_lib.benchmark.contestants import ours
from diffusion_lib.config import TrainConfig


def contestant(pixels, seed):
    config = TrainConfig(
        image_size=16,
        beta_schedule="cosine",
        shift=0.5,
        prediction="x0",
        timestep_sampling="logit_normal",
        network="dit",
        width=96,
        blocks=3,
        batch_size=32,
        optimizer="muon",
        lr=0.008,
        warmup=20,
        seed=seed,
        device="cpu",
    )
    return ours(pixels, config)
