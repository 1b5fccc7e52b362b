"""Diffusion models for images: a small library that reads like the papers.

`from diffusion_lib import NoiseSchedule` and so on. A name is imported from its module on first
use, so that `python -m diffusion_lib.train --help` need not wait for torch.
"""

from importlib import import_module

_MODULES = {
    "InputError": "errors",
    "TrainConfig": "config",
    "NoiseSchedule": "schedules",
    "UNet": "networks.unet",
    "OriginalUNet": "networks.original",
    "load_images": "images.cache",
    "BatchStream": "batches",
    "GaussianDiffusion": "diffusion",
    "ddpm": "samplers",
    "ddim": "samplers",
    "dpm_solver": "samplers",
    "heun": "samplers",
    "sample": "samplers",
    "Trainer": "training",
    "record": "recording",
}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
