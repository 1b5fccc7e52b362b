"""min-SNR

2026-11-29. The loss of an image counts as much as its signal-to-noise ratio, but at most 5 (Hang et
al. 2023). The network predicts the clean image, which it can only guess where there is much noise:
those guesses no longer decide the gradient. An ablation found it.
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
        min_snr=5.0,
        network="dit",
        width=96,
        blocks=3,
        batch_size=32,
        optimizer="muon",
        lr=0.008,
        warmup=20,
        precision="bfloat16",
        seed=seed,
        device="cpu",
    )
    return ours(pixels, config)
