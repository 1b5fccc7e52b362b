"""Trains the models that come with the course, on the CPU: python data/make_weights.py [NAME ...]

Writes data/NAME.pth: the averaged weights alone, in half precision.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from diffusion_lib import TrainConfig, Trainer, load_images
from diffusion_lib.diffusion import build

SETTINGS = {
    "faces": TrainConfig(
        image_size=16,
        width=40,
        patch=2,
        beta_schedule="cosine",
        prediction="v",
        lr=3e-3,
        epochs=100,
        device="cpu",
    ),
    "digits": TrainConfig(
        image_size=28,
        width=40,
        blocks=1,
        patch=2,
        beta_schedule="cosine",
        prediction="v",
        batch_size=16,
        lr=3e-3,
        epochs=60,
        device="cpu",
    ),
    "brains": TrainConfig(
        image_size=64,
        width=32,
        blocks=1,
        patch=2,
        beta_schedule="cosine",
        prediction="v",
        batch_size=16,
        lr=3e-3,
        epochs=60,
        device="cpu",
    ),
}


def main() -> None:
    for name in sys.argv[1:] or SETTINGS:
        config = SETTINGS[name]
        pixels = load_images(name, config.image_size)
        trainer = Trainer(build(config, pixels.shape[1]), pixels, config)
        with tqdm(total=trainer.steps, desc=name, unit="step") as bar:
            for report in trainer:
                bar.update(report.step - bar.n)
                bar.set_postfix(loss=f"{report.loss:.4f}")
        trainer.average.half().save(Path(__file__).with_name(f"{name}.pth"))


if __name__ == "__main__":
    main()
