"""A diffusion model: a network, a noise schedule, and what the network predicts.

Everywhere below: x0 are clean images in [-1, 1], x_t noisy ones, both (N, ...); t is a timestep
0..T-1, one int for all images or a tensor (N,); noise is epsilon, standard normal, shape of x0.
"""

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.config import BUNDLED, CLIPS, PREDICTIONS, TrainConfig
from diffusion_lib.errors import InputError
from diffusion_lib.files import FORMAT, bundled_file, first_line, load_checkpoint, save_file
from diffusion_lib.hub import SharedModel
from diffusion_lib.networks import build_network, describe_network, rebuild_network
from diffusion_lib.schedules import NoiseSchedule, expand
from diffusion_lib.views import Views, views


class Denoised(NamedTuple):
    """A model's estimate of the clean image in x_t, and of the noise. Both of the shape of x_t."""

    x0: Tensor
    epsilon: Tensor


class GaussianDiffusion(SharedModel, nn.Module):
    """The forward process of `schedule`, and a `network` that learns to reverse it.

    network: (x_t, t of shape (N,)) -> shape of x_t; with a third input if there are labels.
    prediction: what the network predicts:
        "epsilon"   the noise in x_t (Ho et al. 2020, arXiv 2006.11239, eq. 14)
        "x0"        the clean image
        "v"         signal epsilon - sigma x_0 (Salimans & Ho 2022, arXiv 2202.00512, appendix D);
                    on a variance-preserving path, up to its sign, what the network of EDM predicts
                    for data of variance 1 (Karras et al. 2022, arXiv 2206.00364, eq. 7)
        "velocity"  epsilon - x_0, the direction of the straight path (Liu et al. 2022, arXiv
                    2209.03003, eq. 1, with time from image to noise)
    classes: of labelled images: column of the labels -> names of its classes, in order of their
        numbers, such as {"digit": ["0", "1", ...]}. The network has embeddings for them.

    Attributes:
        precision: number format in which the network computes; its weights stay float32.

    Raises:
        InputError: an unknown prediction, or one that the schedule does not allow.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        prediction: str = "epsilon",
        classes: dict[str, list[str]] | None = None,
    ):
        super().__init__()
        if prediction not in PREDICTIONS:
            raise InputError(f"prediction must be one of {', '.join(PREDICTIONS)}: {prediction!r}")
        if prediction == "epsilon" and schedule.signal(schedule.timesteps - 1) == 0:
            raise InputError(
                "with zero_terminal_snr or the schedule straight the last timestep is nothing but "
                "noise, and epsilon says nothing about the image: take the prediction v or x0, or "
                "velocity"
            )
        self.network, self.schedule, self.prediction = network, schedule, prediction
        self.classes = classes or {}
        self.precision = torch.float32

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that the network was built for."""
        return (self.network.channels, self.network.image_size, self.network.image_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU if there are none."""
        return next((weights.device for weights in self.parameters()), torch.device("cpu"))

    def forward(self, x_t: Tensor, t: int | Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's prediction, in the dtype of x_t.

        labels: int64, (N, columns), -1 where unknown; None or (N, 0): there are none.

        Everything that calls the network calls it here: training, sampling and evaluation. So this
        is where its precision is chosen. (A compiled network is compiled in place.)
        """
        if isinstance(t, int):
            t = torch.full((len(x_t),), t, device=x_t.device)
        mixed = self.precision != torch.float32
        with torch.autocast(x_t.device.type, self.precision, enabled=mixed):
            if labels is not None and labels.shape[1]:
                return self.network(x_t, t, labels).to(x_t.dtype)
            return self.network(x_t, t).to(x_t.dtype)

    def target(self, x0: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        """What a perfect network would predict for x_t. Shape of x0."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "x0":
            return x0
        if self.prediction == "velocity":
            return noise - x0
        return self.schedule.signal(t, x0) * noise - self.schedule.sigma(t, x0) * x0

    def loss(
        self,
        x0: Tensor,
        t: int | Tensor,
        noise: Tensor,
        labels: Tensor | None = None,
        min_snr: float = 0.0,
    ) -> Tensor:
        """The simplified objective, || target - prediction ||^2 (Ho et al. 2020, eq. 14).

        min_snr is gamma of `min_snr_weight`; 0 weighs all timesteps alike.

        Returns:
            The mean over all pixels of all images, shape ().
        """
        return self.losses(x0, t, noise, labels, min_snr).mean()

    def losses(
        self,
        x0: Tensor,
        t: int | Tensor,
        noise: Tensor,
        labels: Tensor | None = None,
        min_snr: float = 0.0,
    ) -> Tensor:
        """The same for each image, (N,): the mean over its pixels."""
        x_t = self.schedule.add_noise(x0, t, noise)
        target = self.target(x0, t, noise)
        error = F.mse_loss(self(x_t, t, labels), target, reduction="none")  # (N, ...)
        if min_snr:
            error = self.min_snr_weight(t, x0, min_snr) * error
        return error.flatten(1).mean(1)

    def min_snr_weight(self, t: int | Tensor, x: Tensor, gamma: float) -> Tensor:
        """min(snr, gamma) in units of x_0's error, whatever is predicted (Hang et al. 2023, arXiv
        2303.09556, section 3.4): nearly clean images, where snr is huge, count no more than those
        at snr = gamma. Shape () or (N, 1, ..., 1), as t.
        """
        signal, sigma = self.schedule.signal(t, x), self.schedule.sigma(t, x)
        snr = torch.as_tensor((signal / sigma) ** 2)
        if self.prediction == "epsilon":  # an error of 1 in x_0 is one of signal / sigma
            return (gamma / snr).clamp(max=1)  # min(snr, gamma) / snr, also where snr rounds to 0
        if self.prediction == "v":  # and here one of (signal^2 + sigma^2) / sigma
            return snr.clamp(max=gamma) * (sigma / (signal**2 + sigma**2)) ** 2
        if self.prediction == "velocity":  # and here one of (signal + sigma) / sigma
            return snr.clamp(max=gamma) * (sigma / (signal + sigma)) ** 2
        return snr.clamp(max=gamma)

    def denoise(
        self, x_t: Tensor, t: int | Tensor, clip: str = "off", labels: Tensor | None = None
    ) -> Denoised:
        """The clean image and the noise in x_t, from the prediction, whatever that is.

        The two belong together: x_t = signal x_0 + sigma epsilon. clip: see `clip_x0`; epsilon
        follows the clipped x_0.
        """
        signal, sigma = self.schedule.signal(t, x_t), self.schedule.sigma(t, x_t)
        prediction = self(x_t, t, labels)
        if self.prediction == "epsilon":
            x0, epsilon = (x_t - sigma * prediction) / signal, prediction
        elif self.prediction == "x0":
            x0, epsilon = prediction, (x_t - signal * prediction) / sigma
        elif self.prediction == "velocity":
            total = signal + sigma  # 1 on the straight path
            x0, epsilon = (x_t - sigma * prediction) / total, (x_t + signal * prediction) / total
        else:
            square = signal**2 + sigma**2  # 1, unless the schedule does not preserve variance
            x0 = (signal * x_t - sigma * prediction) / square
            epsilon = (sigma * x_t + signal * prediction) / square
        if clip != "off":
            x0 = clip_x0(x0, clip)
            epsilon = (x_t - signal * x0) / sigma
        return Denoised(x0, epsilon)

    def views(self, x_t: Tensor, t: int | Tensor) -> Views:
        """The prediction in every form: x0, epsilon, v, velocity and the score, shape of x_t each.

        t: also a tensor (N,). The five are one: each follows from any other and x_t.
        """
        x0, epsilon = self.denoise(x_t, t)
        return views(x0, epsilon, self.schedule.signal(t, x_t), self.schedule.sigma(t, x_t))

    def checkpoint(self) -> dict:
        """Everything that `load` needs, as plain values and tensors.

        Raises:
            InputError: a network that is not one of the library's, which could not be rebuilt.
        """
        return {
            "format": FORMAT,
            "network": describe_network(self.network),
            "schedule": asdict(self.schedule),
            "prediction": self.prediction,
            "classes": self.classes,
            "weights": self.network.state_dict(),
        }

    def save(self, path: str | Path, **more) -> None:
        """Write the model, and whatever else is given, to one `.pth` file, whole or not at all."""
        save_file({**self.checkpoint(), **more}, path)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "GaussianDiffusion":
        """Read a model that `save` wrote, or a `.pth` of the original Simple Diffusion.

        path: of the file, or the name of a bundled model: faces, digits or brains.

        Raises:
            InputError: no such file, not such a file, or one from a newer version.
        """
        if str(path) in BUNDLED and not Path(path).is_file():
            path = bundled_file(f"{path}.pth")
        checkpoint = load_checkpoint(path)
        try:
            network = rebuild_network(checkpoint["network"], checkpoint["weights"])
            if list(map(len, checkpoint["classes"].values())) != list(
                getattr(network, "classes", ())
            ):
                raise ValueError("its classes are not those of its network")
            schedule = NoiseSchedule(**checkpoint["schedule"])
            model = cls(network, schedule, checkpoint["prediction"], checkpoint["classes"])
        except InputError:
            raise
        except Exception as error:  # a file can be wrong in more ways than can be listed
            raise InputError(
                f"{path} does not hold a model of Simple Diffusion ({first_line(error)})"
            ) from error
        return model.to(device).eval()


def clip_x0(x0: Tensor, clip: str) -> Tensor:
    """Estimates of x_0, (N, ...), brought into the range of images, [-1, 1].

    clip: "static" clamps each pixel. "dynamic" first divides an image by the 99.5% quantile of its
        absolute pixels, if that is more than 1 (Saharia et al. 2022, arXiv 2205.11487, section
        2.3). "off" changes nothing.

    Raises:
        InputError: any other clip.
    """
    if clip not in CLIPS:
        raise InputError(f"clip must be one of {', '.join(CLIPS)}, not {clip!r}")
    if clip == "off":
        return x0
    if clip == "dynamic":
        reach = torch.quantile(x0.flatten(1).abs().float(), 0.995, dim=1).clamp(min=1)  # (N,)
        x0 = x0 / expand(reach, x0)
    return x0.clamp(-1, 1)


def build(
    config: TrainConfig, channels: int, classes: dict[str, list[str]] | None = None
) -> GaussianDiffusion:
    """A new, untrained model as the configuration describes it, for images of `channels` channels.

    classes: of labelled images, see `GaussianDiffusion`.

    Raises:
        InputError: an image size, a width or a schedule that cannot be.
    """
    torch.manual_seed(config.seed)
    schedule = NoiseSchedule(
        config.beta_schedule,
        config.timesteps,
        config.start,
        config.end,
        shift=config.shift,
        zero_terminal_snr=config.zero_terminal_snr,
    )
    counts = tuple(map(len, (classes or {}).values()))
    network = build_network(config, channels, counts)
    return GaussianDiffusion(network, schedule, config.prediction, classes)
