"""A run as it is saved, and how it goes on from there."""

from dataclasses import asdict
from typing import Protocol

import torch
from torch import Tensor

from diffusion_lib.batches import BatchStream
from diffusion_lib.config import TrainConfig
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.files import check_training, first_line
from diffusion_lib.images.pixels import to_images
from diffusion_lib.networks import check_network
from diffusion_lib.optimizers import load_optimizer

COMPARED = 1024  # images of a set that are compared with those of the run, evenly spaced


class Run(Protocol):
    """What is saved of a `Trainer`, which stands above this file (training.py)."""

    config: TrainConfig
    diffusion: GaussianDiffusion
    average: GaussianDiffusion
    batches: BatchStream
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int
    steps: int
    most_steps: int
    seconds: float


def state(run: Run) -> dict:
    """Everything that `restore` needs beside the averaged model, as plain values and tensors."""
    return {
        "config": asdict(run.config),
        "images": len(run.batches.pixels),
        "signature": signature(run.batches.pixels, run.batches.labels),
        "step": run.step,
        "steps": run.steps,
        "seconds": run.seconds,
        "weights": run.diffusion.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
    }


def check_weights_of_run(config: TrainConfig, checkpoint: dict) -> None:
    """Raise InputError unless a checkpoint's weights are of the network that the settings of its
    run describe, whatever sizes these have.
    """
    classes = tuple(map(len, checkpoint["classes"].values()))
    try:
        channels = checkpoint["network"]["channels"]
        for weights in (checkpoint["weights"], checkpoint["training"]["weights"]):
            check_network(config, channels, classes, weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the run to resume is damaged: {first_line(error)}") from error


def restore(run: Run, checkpoint: dict) -> None:
    """Set a run to where it was saved.

    Raises:
        InputError: other images or labels than before, or a damaged checkpoint.
    """
    training = check_training(checkpoint)
    pixels, labels = run.batches.pixels, run.batches.labels
    if training["images"] != len(pixels):
        raise InputError(
            f"the run to resume had {training['images']} images, but now there are {len(pixels)}"
        )
    if checkpoint["classes"] != run.diffusion.classes:
        raise InputError("the run to resume had labels of other classes, or none")
    before, now = training["signature"], signature(pixels, labels)
    if before is not None and not alike(before, now):  # older runs have none
        raise InputError(
            "the run to resume had other images, or other labels: put them back, or start anew "
            "under another name"
        )
    try:
        run.diffusion.network.load_state_dict(training["weights"])
        run.average.network.load_state_dict(checkpoint["weights"])
    except RuntimeError as error:
        raise InputError("the run to resume had other channels, or is damaged") from error
    try:
        load_optimizer(run.optimizer, training["optimizer"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"the run to resume is damaged: its optimizer has {error}") from error
    if training["scaler"] and run.scaler.is_enabled():
        try:
            run.scaler.load_state_dict(training["scaler"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"the run to resume is damaged: its scaler has {error}") from error
    run.step, run.seconds = training["step"], float(training["seconds"])
    if run.config.minutes:  # as many as were thought to fit, until the next ones are timed
        run.steps = min(max(training["steps"], run.step + 1), run.most_steps)


def signature(pixels: Tensor, labels: Tensor) -> Tensor:
    """The mean brightness and the labels of some images, (M, 1 + columns), float32.

    Other images have another one, and the same ones nearly the same, also if another version of a
    library decoded them.
    """
    some = slice(None, None, max(1, len(pixels) // COMPARED))
    means = to_images(pixels[some]).flatten(1).mean(1, keepdim=True).cpu()
    return torch.cat([means, labels[some].float()], 1)


def alike(before: Tensor, now: Tensor) -> bool:
    """Whether two signatures are of the same images."""
    return before.shape == now.shape and torch.allclose(before.to(now), now, atol=0.02)
