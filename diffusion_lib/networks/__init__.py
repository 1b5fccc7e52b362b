"""The networks that a model can have: their names, and how to build one."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from diffusion_lib.config import TrainConfig
from diffusion_lib.errors import InputError
from diffusion_lib.networks.dit import DiT
from diffusion_lib.networks.original import OriginalUNet
from diffusion_lib.networks.unet import UNet

# What a network of a saved model is called in the file. Each has `arguments` (what it was built
# with), `channels` and `image_size`.
NETWORKS = {"unet": UNet, "dit": DiT, "original": OriginalUNet}
LARGEST = 2**16  # any number that describes a network is smaller


def build_network(config: TrainConfig, channels: int, classes: tuple[int, ...] = ()) -> nn.Module:
    """A new network for images of `channels` channels, as the configuration describes it.

    classes: how many there are in each column of the labels.

    Raises:
        InputError: an image size or width that it cannot have.
    """
    return NETWORKS[config.network].for_images(
        config.image_size, channels, config.width, config.patch, config.blocks, classes
    )


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


def rebuild_network(description: dict, weights: dict) -> nn.Module:
    """A network from what `describe_network` returned, and its weights.

    Raises:
        ValueError, RuntimeError: weights of another network. It is found out before any memory is
            taken, whatever sizes the description has.
    """
    arguments = dict(description)
    kind = NETWORKS[arguments.pop("kind")]
    lists = [value for value in arguments.values() if isinstance(value, tuple | list)]
    numbers = [*arguments.values(), *(number for values in lists for number in values)]
    if any(isinstance(n, int | float) and not 0 <= n <= LARGEST for n in numbers) or any(
        len(values) > len(weights) for values in lists
    ):
        raise ValueError("a network of such a size cannot be")
    if arguments.get("blocks", 0) > len(weights):
        raise ValueError("its weights are not those of the network that it describes")
    check_shapes(partial(kind, **arguments), weights)
    network = kind(**arguments)
    network.load_state_dict(weights)
    return network


def check_network(config: TrainConfig, channels: int, classes: tuple[int, ...], weights: dict):
    """Raise ValueError unless the weights are of the network that `build_network` would make of
    these. It is found out before any memory is taken.
    """
    if config.blocks > len(weights):
        raise ValueError("its weights are not those of the network that it describes")
    check_shapes(partial(build_network, config, channels, classes), weights)


def check_shapes(make: Callable[[], nn.Module], weights: dict) -> None:
    """Raise ValueError unless a network that is made so has weights of these shapes."""
    with torch.device("meta"):  # shapes without memory
        shapes = {name: weight.shape for name, weight in make().state_dict().items()}
    if shapes != {name: weight.shape for name, weight in weights.items()}:
        raise ValueError("its weights are not those of the network that it describes")
