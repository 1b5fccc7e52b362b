"""The options of `loading` and `speed`, and who takes part. It imports nothing heavy."""

from dataclasses import dataclass

from diffusion_lib.config import CHANNELS, DEVICE
from diffusion_lib.errors import InputError
from diffusion_lib.options import Config, option

PEERS = ("smalldiffusion", "diffusers", "denoising-diffusion-pytorch")
QUALITY = ("ours", "page 04", *PEERS)
SPEED = ("ours", "original", *PEERS)


@dataclass(frozen=True)
class LoadingConfig(Config):
    """What to load."""

    image_size: int = option(64, "width and height of the images in pixels", "-i", at_least=1)
    batch_size: int = option(64, "images per batch", "-b", at_least=1)
    images: int = option(512, "files to open in each round", at_least=1)
    width: int = option(64, "channels of the first level of the U-Net", at_least=8)


@dataclass(frozen=True)
class SpeedConfig(Config):
    """What to train, and how long to measure."""

    image_size: int = option(64, "width and height of the images in pixels", "-i", at_least=8)
    batch_size: int = option(16, "images per step", "-b", at_least=1)
    channels: str = option("3", "1 for grey, 3 for colour", choices=CHANNELS[1:])
    width: int = option(64, "channels of the first level of our U-Net", at_least=8)
    blocks: int = option(2, "residual blocks per level, on each side", at_least=1)
    patch: int = option(0, "side of the pixel patches folded into channels; 0: auto", at_least=0)
    device: str = option("auto", DEVICE)
    rounds: int = option(5, "measurements of each contestant", at_least=1)
    seconds: float = option(1.0, "least duration of a measurement", above=0)

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % 8:
            raise InputError(f"image_size must be a multiple of 8, not {self.image_size}")
