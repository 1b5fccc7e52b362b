"""All options of training, sampling and evaluation, in one place.

The fields are the flags of the command lines. Those of `TrainConfig` are also the keywords in a
notebook, and what a checkpoint remembers. This file imports nothing heavy: `--help` is fast.
"""

from dataclasses import dataclass

from diffusion_lib.errors import InputError
from diffusion_lib.options import Config, option

BUNDLED = ("faces", "digits", "brains")  # image sets and models that come with the course
BUNDLED_NAMES = f"{', '.join(BUNDLED[:-1])} or {BUNDLED[-1]}"
SCHEDULES = ("linear", "cosine", "quadratic", "sigmoid", "straight")
CHANNELS = ("auto", "1", "3")
FITS = ("crop", "squash")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
COMPILE = ("auto", "on", "off")
PREDICTIONS = ("epsilon", "x0", "v", "velocity")
TIMESTEP_SAMPLING = ("uniform", "logit_normal")
NETWORKS = ("unet", "dit")
OPTIMIZERS = ("adamw", "muon")
# What --flow is short for: flow matching as in Esser et al. 2024 (arXiv 2403.03206).
FLOW = {
    "beta_schedule": "straight",
    "shift": 1.0,
    "prediction": "velocity",
    "timestep_sampling": "logit_normal",
    "min_snr": 0.0,
}
# The steps that a sampler takes by default; None is all, as in the paper of ddpm.
DEFAULT_STEPS = {"dpm_solver": 20, "dpm_solver_sde": 20, "heun": 10, "ddim": 50, "ddpm": None}
SAMPLERS = tuple(DEFAULT_STEPS)
SPACINGS = ("auto", "log_snr", "linspace", "trailing", "leading")
CLIPS = ("static", "dynamic", "off")
FORMATS = ("png", "jpg", "webp", "bmp", "tif")
FEATURES = ("efficientnet", "inception")

# Help for options that several commands have.
STEPS = ", ".join(f"{steps or 'all'} for {name}" for name, steps in DEFAULT_STEPS.items())
STEPS = f"number of sampling steps (default: {STEPS})"
DEVICE = "cuda, cuda:1, mps or cpu; auto: the fastest available"
PRECISION = "number format of the network; auto: the fastest that the device supports well"

SAMPLES = 16  # in the picture after an epoch
MANY_EPOCHS = 10**6  # more than any run has


@dataclass(frozen=True)
class TrainConfig(Config):
    """One training run."""

    image_size: int = option(
        64,
        "width and height of the images in pixels",
        "-i",
        at_least=1,
        below=2**14,
        group="images",
    )
    channels: str = option("auto", "1 for grey, 3 for colour; auto: detect", choices=CHANNELS)
    fit: str = option("crop", "how images become square: crop or squash", choices=FITS)
    flip: bool = option(False, "flip half of the images horizontally")
    labels: str = option(
        "",
        "learn labels too: the names of subfolders, or columns of a table (a,b)",
        metavar="COLUMN",
        alone="folder",
    )
    label_dropout: float = option(0.1, "share of labels left out", at_least=0, below=1)
    held_out: float = option(
        0.0,
        "share of the images that it is not trained on, at most 100, to notice memorization",
        at_least=0,
        at_most=0.5,
    )
    workers: int = option(0, "threads that decode images; 0: one per core", at_least=0, below=1025)

    timesteps: int = option(
        1000, "diffusion steps T", "-t", at_least=2, below=10**6, group="diffusion"
    )
    beta_schedule: str = option("linear", "noise schedule", "-s", choices=SCHEDULES)
    start: float = option(1e-4, "first beta (unused by cosine and straight)", above=0)
    end: float = option(0.02, "last beta (unused by cosine and straight)", above=0, below=1)
    shift: float = option(1.0, "multiply sigma/signal by this at every timestep", above=0)
    zero_terminal_snr: bool = option(False, "rescale the schedule to pure noise at timestep T")
    prediction: str = option("epsilon", "what the network predicts", choices=PREDICTIONS)
    timestep_sampling: str = option(
        "uniform", "how training draws the timestep of an image", choices=TIMESTEP_SAMPLING
    )
    min_snr: float = option(0.0, "gamma of min-SNR loss weights; 0: no weights", at_least=0)

    network: str = option(
        "unet", "unet, or dit: a transformer over patches", choices=NETWORKS, group="network"
    )
    width: int = option(
        64,
        "channels of the U-Net's first level, or of the transformer's tokens",
        at_least=8,
        below=2**14,
    )
    blocks: int = option(
        2, "blocks of the transformer, or of a U-Net's level", at_least=1, below=2**10
    )
    patch: int = option(
        0, "side of the pixel patches folded into channels; 0: auto", at_least=0, below=2**14
    )

    epochs: int | None = option(
        None,
        "passes through all images (default: 100; with --minutes as many as fit)",
        "-e",
        at_least=1,
        group="optimisation",
    )
    minutes: float = option(
        0.0, "length of the run, over which the learning rate falls to 0; 0: no limit", at_least=0
    )
    batch_size: int = option(64, "images per step", "-b", at_least=1, below=2**20)
    optimizer: str = option(
        "adamw", "muon: orthogonal steps of the weights inside the network", choices=OPTIMIZERS
    )
    lr: float = option(1e-3, "peak learning rate", above=0, below=1)
    warmup: int = option(100, "steps until the learning rate reaches its peak", at_least=0)
    weight_decay: float = option(0.0, "weight decay of AdamW", at_least=0)
    clip_norm: float = option(1.0, "clip the gradient to this norm", above=0)
    ema: float = option(0.999, "decay of the moving average of the weights", at_least=0, below=1)
    seed: int = option(0, "random seed", at_least=0, below=2**32)

    precision: str = option("auto", PRECISION, choices=PRECISIONS, group="speed and memory")
    compile: str = option(
        "auto", "compile the network; auto: on a GPU, for long runs", choices=COMPILE
    )
    accumulate: int = option(1, "compute a batch in this many parts, to save memory", at_least=1)
    checkpointing: bool = option(False, "gradient checkpointing: less memory, more time")

    device: str = option("auto", DEVICE, group="the run")
    autosave_minutes: float = option(10.0, "minutes between autosaves within an epoch", above=0)
    sampler: str = option("dpm_solver", "sampler for the samples of each epoch", choices=SAMPLERS)
    steps: int | None = option(None, STEPS, at_least=1)
    report_every: int = option(20, "steps between reports", at_least=1)
    disable_images: bool = option(False, "no samples and no denoising plot after each epoch")
    disable_tensorboard: bool = option(False, "no TensorBoard log")

    def __post_init__(self):
        super().__post_init__()
        if self.steps is not None and self.steps > self.timesteps:
            raise InputError(f"steps must be at most timesteps, {self.timesteps}, not {self.steps}")

    @property
    def most_epochs(self) -> int:
        """Passes through all images, after which a run ends also where time is left."""
        return self.epochs or (MANY_EPOCHS if self.minutes else 100)


# What may differ between a run and its continuation. (Another number of epochs stretches the decay
# of the learning rate; another kind of device draws other random numbers.)
FREE_ON_RESUME = {
    "epochs",
    "workers",
    "precision",
    "compile",
    "accumulate",
    "checkpointing",
    "device",
    "minutes",
    "autosave_minutes",
    "sampler",
    "steps",
    "report_every",
    "disable_images",
    "disable_tensorboard",
}


@dataclass(frozen=True)
class PredictConfig(Config):
    """What to make with a trained model."""

    num_images: int | None = option(
        None,
        "number of images; of each label, if there are (default: 1; 8 of each of several)",
        "-i",
        at_least=1,
        group="what to draw",
    )
    label: str = option("", "a label of the model, several (a,b), or all", metavar="LABEL")
    guidance: float = option(2.0, "how clearly to show the label; 1: as it was learned", at_least=0)
    from_: str = option("", "draw an image anew, noised to --strength (SDEdit)", metavar="IMAGE")
    strength: float | None = option(
        None,
        "how much of it to change, above 0 to 1 (default: 0.6; 1 with --inpaint)",
        above=0,
        at_most=1,
    )
    inpaint: str = option("", "draw only where the image MASK is white (RePaint)", metavar="MASK")
    fit: str = option("crop", "how IMAGE and MASK become square: crop or squash", choices=FITS)
    seed: int = option(-1, "random seed; -1: another one each time", at_least=-1, below=2**32)

    sampler: str = option(
        "dpm_solver", "how to get from noise to images", choices=SAMPLERS, group="how to draw it"
    )
    steps: int | None = option(None, STEPS, at_least=1)
    spacing: str = option("auto", "which timesteps the sampler visits", choices=SPACINGS)
    clip: str = option("static", "how to clip predicted images to [-1, 1]", choices=CLIPS)

    output: str = option("./", "folder for the images", "-o", group="what to write")
    name: str = option("predict", "prefix of the file names", "-n")
    format: str = option("png", "file format", choices=FORMATS)
    scale: int = option(1, "show each pixel as NxN pixels", at_least=1, below=65)
    grid: bool = option(False, "also save all images in one picture")
    only_grid: bool = option(False, "save all images in one picture, and no file for each")
    strip: bool = option(False, "also save a picture of the steps from noise to the first image")
    gif: bool = option(False, "also save a film of the first images emerging from noise")

    batch_size: int = option(64, "images at a time", "-b", at_least=1, below=2**20, group="speed")
    device: str = option("auto", DEVICE)
    precision: str = option("auto", PRECISION, choices=PRECISIONS)


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """How to measure a trained model."""

    num_images: int = option(1000, "number of samples", "-i", at_least=4, group="samples")
    guidance: float = option(
        1.0, "of a model with labels, which are those of the images in PATH", at_least=0
    )
    sampler: str = option("dpm_solver", "how to get from noise to images", choices=SAMPLERS)
    steps: int | None = option(None, STEPS, at_least=1)
    seed: int = option(0, "random seed", at_least=0, below=2**32)

    batch_size: int = option(64, "images at a time", "-b", at_least=1, below=2**20, group="speed")
    device: str = option("auto", DEVICE)
    precision: str = option("auto", PRECISION, choices=PRECISIONS)

    features: str = option(
        "efficientnet", "network whose features are compared", choices=FEATURES, group="comparison"
    )
    fit: str = option("crop", "as in training: crop or squash", choices=FITS)
