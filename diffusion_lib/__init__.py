"""Diffusion models for images: a small library that reads like the papers.

`from diffusion_lib import NoiseSchedule` and so on. A name is imported from its module on first
use, so that `python -m diffusion_lib.train --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
_MODULES = {
    "InputError": "errors",
    "TrainConfig": "config",
    "load_checkpoint": "files",
    "NoiseSchedule": "schedules",
    "spaced_timesteps": "spacing",
    "UNet": "networks.unet",
    "OriginalUNet": "networks.original",
    "sinusoidal_embedding": "networks.layers",
    "load_images": "images.cache",
    "load_image_set": "images.cache",
    "load_image": "images.cache",
    "read_labels": "images.labels",
    "to_images": "images.pixels",
    "to_pixels": "images.pixels",
    "find_device": "devices",
    "GaussianDiffusion": "diffusion",
    "build": "diffusion",
    "ddpm": "samplers",
    "ddim": "samplers",
    "dpm_solver": "solvers",
    "heun": "solvers",
    "Edit": "editing",
    "sample": "sampling",
    "Trainer": "training",
    "record": "recording",
}
__all__ = list(_MODULES)

if TYPE_CHECKING:  # the same names, for editors and type checkers
    from diffusion_lib.config import TrainConfig
    from diffusion_lib.devices import find_device
    from diffusion_lib.diffusion import GaussianDiffusion, build
    from diffusion_lib.editing import Edit
    from diffusion_lib.errors import InputError
    from diffusion_lib.files import load_checkpoint
    from diffusion_lib.images.cache import load_image, load_image_set, load_images
    from diffusion_lib.images.labels import read_labels
    from diffusion_lib.images.pixels import to_images, to_pixels
    from diffusion_lib.networks.layers import sinusoidal_embedding
    from diffusion_lib.networks.original import OriginalUNet
    from diffusion_lib.networks.unet import UNet
    from diffusion_lib.recording import record
    from diffusion_lib.samplers import ddim, ddpm
    from diffusion_lib.sampling import sample
    from diffusion_lib.schedules import NoiseSchedule
    from diffusion_lib.solvers import dpm_solver, heun
    from diffusion_lib.spacing import spaced_timesteps
    from diffusion_lib.training import Trainer


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
