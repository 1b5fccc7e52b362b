"""Trains the models that come with the course, on the CPU: python data/make_weights.py [NAME ...]

Writes data/NAME.pth: the averaged weights alone, in half precision. digits_judge, beside faces,
digits and brains, is the classifier of page 07.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from diffusion_lib import TrainConfig, Trainer, build, load_image_set, read_labels, to_images
from diffusion_lib.files import save_file
from diffusion_lib.networks.classifier import Classifier

JUDGE_STEPS = 700

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
        labels="label",
        width=40,
        blocks=1,
        patch=2,
        beta_schedule="cosine",
        prediction="v",
        batch_size=16,
        lr=3e-3,
        epochs=30,
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


def train_judge() -> None:
    """A classifier of clean digits, which has not seen the last 500."""
    torch.manual_seed(0)
    images = load_image_set("digits", 28)
    x, y = to_images(images.pixels), read_labels("digits", images.files, "label").values[:, 0]
    network = Classifier(channels=1, classes=10, width=16)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=JUDGE_STEPS)
    for _ in tqdm(range(JUDGE_STEPS), desc="digits_judge", unit="step"):
        chosen = torch.randint(4500, (64,))
        shift = torch.randint(-2, 3, (2,)).tolist()  # up to two pixels up, down, left or right
        logits = network(x[chosen].roll(shift, (2, 3)), torch.full((64,), -1))
        loss = F.cross_entropy(logits, y[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    save_file(network.state_dict(), Path(__file__).with_name("digits_judge.pth"))


def main() -> None:
    for name in sys.argv[1:] or [*SETTINGS, "digits_judge"]:
        if name == "digits_judge":
            train_judge()
            continue
        config = SETTINGS[name]
        pixels, files, *_ = load_image_set(name, config.image_size)
        labels, classes = read_labels(name, files, config.labels) if config.labels else (None, {})
        trainer = Trainer(build(config, pixels.shape[1], classes), pixels, config, labels)
        with tqdm(total=trainer.steps, desc=name, unit="step") as bar:
            for report in trainer:
                bar.update(report.step - bar.n)
                bar.set_postfix(loss=f"{report.loss:.4f}")
        trainer.average.half().save(Path(__file__).with_name(f"{name}.pth"))


if __name__ == "__main__":
    main()
