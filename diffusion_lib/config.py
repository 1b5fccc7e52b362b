"""Everything that can be chosen about training and about predicting, in one place.

The fields are the flags of the command lines; those of `TrainConfig` are also the keywords in a
notebook and what a checkpoint remembers. This file imports nothing heavy, so that `--help` answers
at once.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from diffusion_lib.errors import InputError

BUNDLED = ("faces", "digits", "brains")  # image sets and models that come with the course
SCHEDULES = ("linear", "cosine", "quadratic", "sigmoid")
CHANNELS = ("auto", "1", "3")
FITS = ("crop", "squash")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
COMPILE = ("auto", "on", "off")
PREDICTIONS = ("epsilon", "x0", "v")
SAMPLERS = ("dpm_solver", "dpm_solver_sde", "heun", "ddim", "ddpm")
SPACINGS = ("auto", "log_snr", "linspace", "trailing", "leading")
CLIPS = ("cut", "dynamic", "off")
# How many steps a sampler takes if nobody says; ddpm takes all, as in its paper.
USUAL_STEPS = {"dpm_solver": 20, "dpm_solver_sde": 20, "heun": 10, "ddim": 50}
USUAL = ", ".join(f"{steps} for {name}" for name, steps in USUAL_STEPS.items()) + ", all for ddpm"
FORMATS = ("png", "jpg", "webp", "bmp", "tif")


def option(
    default: Any,
    help: str,
    short: str = "",
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field, with its range and what the command line says about it."""
    rule = dict(
        help=help, short=short, choices=choices, at_least=at_least, above=above, below=below
    )
    return field(default=default, metadata=rule)


@dataclass(frozen=True)
class Config:
    """Options that are checked when they are put together.

    Raises:
        InputError: a value out of its range.
    """

    def __post_init__(self):
        for option in fields(self):
            value, rule = getattr(self, option.name), option.metadata
            if rule["choices"] and value not in rule["choices"]:
                wrong = f"must be one of {', '.join(rule['choices'])}"
            elif rule["at_least"] is not None and not value >= rule["at_least"]:
                wrong = f"must be at least {rule['at_least']}"
            elif rule["above"] is not None and not value > rule["above"]:
                wrong = f"must be more than {rule['above']}"
            elif rule["below"] is not None and not value < rule["below"]:
                wrong = f"must be less than {rule['below']}"
            else:
                continue
            raise InputError(f"{option.name} {wrong}, not {value}")


@dataclass(frozen=True)
class TrainConfig(Config):
    """One training run."""

    # data
    image_size: int = option(64, "images become this many pixels wide and high", "-i", at_least=1)
    channels: str = option("auto", "1 for grey, 3 for colour; auto looks", choices=CHANNELS)
    fit: str = option("crop", "crop to the centre square, or squash", choices=FITS)
    flip: bool = option(False, "mirror every other image; not for what has a left and a right")
    workers: int = option(0, "threads that decode images; 0 is one a core", at_least=0)

    # diffusion
    timesteps: int = option(1000, "diffusion steps T", "-t", at_least=2)
    beta_schedule: str = option("linear", "how the noise grows", "-s", choices=SCHEDULES)
    start: float = option(1e-4, "first beta (of all but cosine)", above=0)
    end: float = option(0.02, "last beta (of all but cosine)", above=0, below=1)
    shift: float = option(1.0, "this much more noise at every timestep", above=0)
    zero_terminal_snr: bool = option(False, "stretch the schedule until nothing is left at T")
    prediction: str = option("epsilon", "what the network predicts", choices=PREDICTIONS)
    continuous: bool = option(False, "train at every t between the timesteps too")
    min_snr: float = option(0.0, "weigh no timestep more than one of this SNR; 0: off", at_least=0)

    # network
    width: int = option(64, "channels of the network's first level", at_least=8)
    blocks: int = option(2, "residual blocks of a level, on either side", at_least=1)
    patch: int = option(0, "fold squares of so many pixels into channels; 0 chooses", at_least=0)

    # optimisation
    epochs: int = option(100, "times to go through all images", "-e", at_least=1)
    batch_size: int = option(64, "images a step", "-b", at_least=1)
    lr: float = option(1e-3, "highest learning rate", above=0, below=1)
    warmup: int = option(100, "steps over which the learning rate rises", at_least=0)
    weight_decay: float = option(0.0, "of AdamW", at_least=0)
    clip_norm: float = option(1.0, "longer gradients are shortened to this norm", above=0)
    ema: float = option(
        0.999, "share of its past that the average of weights keeps", at_least=0, below=1
    )
    seed: int = option(0, "of everything random", at_least=0, below=2**32)

    # speed and memory
    precision: str = option(
        "auto", "number format of the network; auto: what the device does fast", choices=PRECISIONS
    )
    compile: str = option(
        "auto", "compile the network; auto: on a GPU, in a long run", choices=COMPILE
    )
    accumulate: int = option(1, "parts that a batch is computed in, to save memory", at_least=1)
    checkpointing: bool = option(False, "compute blocks twice, to save memory")

    # the run
    device: str = option("auto", "cuda, cuda:1, mps, cpu; auto takes the best there is")
    minutes: float = option(0.0, "end cleanly after so much training; 0 is no limit", at_least=0)
    autosave_minutes: float = option(10.0, "minutes between autosaves inside an epoch", above=0)
    sampler: str = option("dpm_solver", "of the samples each epoch", choices=SAMPLERS)
    steps: int = option(0, f"of that sampler; 0 is {USUAL}", at_least=0)
    report_every: int = option(20, "steps between reports", at_least=1)
    disable_images: bool = option(False, "no sample and no denoising plot each epoch")
    disable_tensorboard: bool = option(False, "no TensorBoard log")

    def __post_init__(self):
        super().__post_init__()
        if self.steps > self.timesteps:
            raise InputError(f"steps must be at most timesteps, {self.timesteps}, not {self.steps}")


# What may differ between a run and its continuation. (Another number of epochs stretches the fall
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

    output: str = option("./", "folder for the images", "-o")
    name: str = option("predict", "what their names begin with", "-n")
    num_images: int = option(1, "how many", "-i", at_least=1)
    sampler: str = option("dpm_solver", "way from noise to image", choices=SAMPLERS)
    steps: int = option(0, f"steps of the sampler; 0 is {USUAL}", at_least=0)
    spacing: str = option("auto", "how its steps are spaced", choices=SPACINGS)
    clip: str = option("cut", "what holds x0 in the range of images", choices=CLIPS)
    seed: int = option(-1, "of the noise; -1 is another each time", at_least=-1, below=2**32)
    batch_size: int = option(64, "images at a time", "-b", at_least=1)
    format: str = option("png", "of the files", choices=FORMATS)
    grid: bool = option(False, "also one picture of all images")
    strip: bool = option(False, "also one picture of how the first came out of the noise")
    device: str = option("auto", "cuda, cuda:1, mps, cpu; auto takes the best there is")


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """How to measure a trained model."""

    num_images: int = option(1000, "samples to draw", "-i", at_least=4)
    sampler: str = option("dpm_solver", "way from noise to image", choices=SAMPLERS)
    steps: int = option(0, f"steps of the sampler; 0 is {USUAL}", at_least=0)
    seed: int = option(0, "of the noise, and of what is chosen", at_least=0, below=2**32)
    batch_size: int = option(64, "images at a time", "-b", at_least=1)
    fit: str = option("crop", "as in training: crop, or squash", choices=FITS)
    features: str = option(
        "efficientnet", "whose eye compares images", choices=("efficientnet", "inception")
    )
    device: str = option("auto", "cuda, cuda:1, mps, cpu; auto takes the best there is")
