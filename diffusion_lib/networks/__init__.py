"""The networks that a model can have: their names, and how to build one."""

from torch import nn

from diffusion_lib.config import TrainConfig
from diffusion_lib.errors import InputError
from diffusion_lib.networks.original import OriginalUNet
from diffusion_lib.networks.unet import UNet

# What a network of a saved model is called in the file. Each has `arguments` (what it was built
# with), `channels` and `image_size`.
NETWORKS = {"unet": UNet, "original": OriginalUNet}


def build_network(config: TrainConfig, channels: int) -> nn.Module:
    """A new network for images of `channels` channels, as the configuration describes it.

    Raises:
        InputError: an image size or width that it cannot have.
    """
    return UNet.for_images(config.image_size, channels, config.width, config.patch, config.blocks)


def describe_network(network: nn.Module) -> dict:
    """The name and the arguments of a network, from which `rebuild_network` makes it again.

    Raises:
        InputError: a network that is not one of NETWORKS.
    """
    names = {kind: name for name, kind in NETWORKS.items()}
    if type(network) not in names:
        raise InputError(
            f"only {' and '.join(kind.__name__ for kind in names)} can be saved as a model, not "
            f"{type(network).__name__}: save its state_dict() with torch.save instead"
        )
    return {"kind": names[type(network)], **network.arguments}


def rebuild_network(description: dict) -> nn.Module:
    """A network, with new weights, from what `describe_network` returned."""
    arguments = dict(description)
    return NETWORKS[arguments.pop("kind")](**arguments)
