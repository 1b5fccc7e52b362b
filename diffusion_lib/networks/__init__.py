"""The networks that a model can have, by what they are called in a checkpoint."""

from diffusion_lib.networks.original import OriginalUNet
from diffusion_lib.networks.unet import UNet

NETWORKS = {"unet": UNet, "original": OriginalUNet}
