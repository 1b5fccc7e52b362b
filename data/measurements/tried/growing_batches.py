"""growing batches

16 images a step in the first third of the time, then 32, at last 64: many small steps while the
gradient is large beside its noise, few precise ones at the end.
"""

from diffusion_lib import TrainConfig, Trainer
from diffusion_lib.benchmark.contestants import ours

SIZES = (16, 32, 64)


class GrowingBatches(Trainer):
    def descend(self, *batch):
        size = SIZES[min(len(SIZES) * self.step // self.steps, len(SIZES) - 1)]
        return super().descend(*(part[:size] for part in batch))


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
        batch_size=64,
        optimizer="muon",
        lr=0.008,
        warmup=20,
        precision="bfloat16",
        seed=seed,
        device="cpu",
    )
    return ours(pixels, config, GrowingBatches)
