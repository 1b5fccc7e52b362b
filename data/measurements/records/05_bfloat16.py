"""bfloat16

2026-11-29. The network, and the orthogonal steps of Muon, are computed in bfloat16; weights stay in
float32. Processors with instructions for it (AVX512-BF16, AMX) multiply matrices twice as fast.
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
        precision="bfloat16",
        seed=seed,
        device="cpu",
    )
    return ours(pixels, config)
