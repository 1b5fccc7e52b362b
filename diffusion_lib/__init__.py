"""Diffusion models for images: a small library that reads like the papers.

`from diffusion_lib import NoiseSchedule` and so on. A name is imported from its room on first use,
so that `python -m diffusion_lib.train --help` need not wait for torch.
"""

from importlib import import_module

_ROOMS = {
    "InputError": "errors",
    "TrainConfig": "config",
    "NoiseSchedule": "schedules",
    "UNet": "unet",
    "OriginalUNet": "original",
    "load_images": "data",
    "BatchStream": "data",
    "GaussianDiffusion": "diffusion",
    "ddpm": "samplers",
    "ddim": "samplers",
    "dpm_solver": "samplers",
    "heun": "samplers",
    "sample": "samplers",
    "Trainer": "training",
    "record": "recording",
}
__all__ = list(_ROOMS)


def __getattr__(name: str):
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
