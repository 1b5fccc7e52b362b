"""A diffusion model: a network, a noise schedule, and what the network is asked to predict."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.config import BUNDLED, PREDICTIONS
from diffusion_lib.errors import InputError
from diffusion_lib.files import bundled_file, first_line, load_file, save_file
from diffusion_lib.networks import NETWORKS
from diffusion_lib.schedules import NoiseSchedule

FORMAT = 1


class Denoised(NamedTuple):
    """What a model makes of x_t. Both of the shape of x_t."""

    x0: Tensor
    epsilon: Tensor


def hold(x0: Tensor, clip: bool | str) -> Tensor:
    """Images held in [-1, 1].

    Args:
        x0: shape (N, ...).
        clip: True cuts off what is outside. "dynamic" shrinks an image until 99.5% of its pixels
            are inside, then cuts off (Saharia et al. 2022, arXiv 2205.11487, section 2.3). False
            holds nothing.

    Raises:
        InputError: any other clip.
    """
    if clip not in (True, False, "dynamic"):
        raise InputError(f'clip must be True, "dynamic" or False, not {clip!r}')
    if clip == "dynamic":
        reach = torch.quantile(x0.flatten(1).abs().float(), 0.995, dim=1).clamp(min=1)
        x0 = x0 / reach.to(x0.dtype).view(-1, *[1] * (x0.dim() - 1))
    return x0.clamp(-1, 1) if clip else x0


class GaussianDiffusion(nn.Module):
    """The forward process of `schedule`, and a `network` that learns to undo it.

    Args:
        network: (x_t of shape (N, ...), t of shape (N,)) -> shape of x_t.
        schedule: betas and what follows from them.
        prediction: what the network answers with:
            "epsilon"   the noise in x_t (Ho et al. 2020, arXiv 2006.11239, eq. 14)
            "x0"        the clean image
            "v"         sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) x_0
                        (Salimans & Ho 2022, arXiv 2202.00512, appendix D)

    Raises:
        InputError: an unknown prediction, or one that the schedule does not allow.
    """

    def __init__(self, network: nn.Module, schedule: NoiseSchedule, prediction: str = "epsilon"):
        super().__init__()
        if prediction not in PREDICTIONS:
            raise InputError(f"prediction must be one of {', '.join(PREDICTIONS)}: {prediction!r}")
        if schedule.zero_terminal_snr and prediction == "epsilon":
            raise InputError(
                "with zero_terminal_snr the last timestep is nothing but noise, and epsilon says "
                "nothing about the image: take the prediction v or x0"
            )
        self.network, self.schedule, self.prediction = network, schedule, prediction

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that the network was made for."""
        return (self.network.channels, self.network.image_size, self.network.image_size)

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, min_snr: float = 0.0) -> Tensor:
        """The simplified objective, || target - network(x_t, t) ||^2 (Ho et al. 2020, eq. 14).

        Args:
            x0: clean images in [-1, 1], shape (N, ...).
            t: timesteps 0..T-1, shape (N,); floats between them are timesteps too.
            noise: epsilon, standard normal, shape of x0.
            min_snr: gamma of `min_snr_weight`; 0 weighs all timesteps alike.

        Returns:
            The mean over all pixels of all images, shape ().
        """
        return self.losses(x0, t, noise, min_snr).mean()

    def losses(self, x0: Tensor, t: Tensor, noise: Tensor, min_snr: float = 0.0) -> Tensor:
        """The same for each image, shape (N,): the mean over its pixels. Arguments as in `loss`."""
        x_t = self.schedule.add_noise(x0, t, noise)
        answer, target = self.network(x_t, t).to(x0.dtype), self.target(x0, t, noise)
        error = F.mse_loss(answer, target, reduction="none")  # (N, ...)
        if min_snr:
            error = self.min_snr_weight(t, x0, min_snr) * error
        return error.flatten(1).mean(1)

    def min_snr_weight(self, t: Tensor, x: Tensor, gamma: float) -> Tensor:
        """min(snr, gamma) in units of x_0's error, whatever is predicted (Hang et al. 2023,
        arXiv 2303.09556, section 3.4): nearly clean images, where snr is huge, count no more than
        those at snr = gamma. Shape (N, 1, ..., 1), as many axes as x.
        """
        alpha_bar = self.schedule.at("alpha_bar", t, x)
        snr = alpha_bar / (1 - alpha_bar)
        # An error of 1 in x_0 is one of sqrt(snr) in epsilon, and of sqrt(snr + 1) in v.
        if self.prediction == "epsilon":
            return (gamma / snr).clamp(max=1)
        return snr.clamp(max=gamma) / (snr + 1 if self.prediction == "v" else 1)

    def target(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What a perfect network would answer. Arguments and shape as in `loss`."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "x0":
            return x0
        signal = self.schedule.at("sqrt_alpha_bar", t, x0)
        sigma = self.schedule.at("sqrt_one_minus_alpha_bar", t, x0)
        return signal * noise - sigma * x0

    def denoise(self, x_t: Tensor, t: Tensor, clip: bool | str = False) -> Denoised:
        """The network's view of x_t, as an image and as noise, whatever it predicts.

        The two are tied by x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) epsilon.

        Args:
            x_t: noisy images, shape (N, ...).
            t: timesteps 0..T-1, shape (N,).
            clip: what holds x_0 in [-1, 1] (and epsilon to what then follows), as samplers do: see
                `hold`.
        """
        signal = self.schedule.at("sqrt_alpha_bar", t, x_t)
        sigma = self.schedule.at("sqrt_one_minus_alpha_bar", t, x_t)
        answer = self.network(x_t, t).to(x_t.dtype)
        if self.prediction == "epsilon":
            x0, epsilon = (x_t - sigma * answer) / signal, answer
        elif self.prediction == "x0":
            x0, epsilon = answer, (x_t - signal * answer) / sigma
        else:
            x0, epsilon = signal * x_t - sigma * answer, sigma * x_t + signal * answer
        if clip:
            x0 = hold(x0, clip)
            epsilon = (x_t - signal * x0) / sigma
        return Denoised(x0, epsilon)

    def checkpoint(self) -> dict:
        """Everything that `load` needs, as plain values and tensors.

        Raises:
            InputError: a network that is not one of the library's, which could not be rebuilt.
        """
        kinds = {type_: kind for kind, type_ in NETWORKS.items()}
        if type(self.network) not in kinds:
            raise InputError(
                f"only {' and '.join(t.__name__ for t in kinds)} can be saved as a model, not "
                f"{type(self.network).__name__}: save its state_dict() with torch.save instead"
            )
        return {
            "format": FORMAT,
            "network": {"kind": kinds[type(self.network)], **self.network.arguments},
            "schedule": self.schedule.arguments,
            "prediction": self.prediction,
            "weights": self.network.state_dict(),
        }

    def save(self, path: str | Path, **more) -> None:
        """Write the model, and whatever else is given beside it, to one `.pth` file.

        The file is complete or not there at all: see `save_file`.
        """
        save_file({**self.checkpoint(), **more}, path)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "GaussianDiffusion":
        """Read a model written by `save`, or a `.pth` of the original Simple Diffusion.

        Args:
            path: of the file, or the name of a model that comes with the course: faces,
                digits or brains.
            device: where to put it.

        Raises:
            InputError: no such file, not such a file, or one from a newer version.
        """
        if str(path) in BUNDLED and not Path(path).is_file():
            path = bundled_file(f"{path}.pth")
        checkpoint = load_file(path)
        if checkpoint.get("format", FORMAT) != FORMAT:
            raise InputError(
                f"{path} has format {checkpoint['format']}, newer than this version reads "
                f"({FORMAT}): update Simple Diffusion"
            )
        try:
            if "model_state_dict" in checkpoint:  # a file of the original
                network = NETWORKS["original"](checkpoint["image_size"])
                network.load_state_dict(checkpoint["model_state_dict"])
                schedule = NoiseSchedule(
                    *(checkpoint[key] for key in ("schedule", "timesteps", "start", "end"))
                )
                prediction = "epsilon"
            else:
                arguments = dict(checkpoint["network"])
                network = NETWORKS[arguments.pop("kind")](**arguments)
                network.load_state_dict(checkpoint["weights"])
                schedule = NoiseSchedule(**checkpoint["schedule"])
                prediction = checkpoint["prediction"]
        except InputError:
            raise
        except Exception as error:  # a file can be wrong in more ways than can be listed
            raise InputError(
                f"{path} does not hold a model of Simple Diffusion ({first_line(error)})"
            ) from error
        return cls(network, schedule, prediction).to(device).eval()
