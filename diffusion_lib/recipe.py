"""The settings with which `train` trains where no flag says otherwise. It imports nothing heavy.

On a CPU it is the recipe of the latest record of the speedrun (data/measurements/records); page 06b
tells how it was found.
"""

from diffusion_lib.config import TrainConfig

# For a CPU: a small transformer that predicts the clean image, with Muon.
CPU = {
    "beta_schedule": "cosine",
    "shift": 0.5,
    "prediction": "x0",
    "timestep_sampling": "logit_normal",
    "min_snr": 5.0,
    "network": "dit",
    "width": 96,
    "blocks": 3,
    "batch_size": 32,
    "optimizer": "muon",
    "lr": 8e-3,
    "warmup": 20,
}
# With a U-Net instead: where it is chosen, or a width or patch that a transformer cannot have.
U_NET = {"network": "unet", "width": 24, "blocks": 1}
# In so many minutes of one thread a transformer learns more from 8x8 larger patches than from 16x16
# smaller ones: measured with images of 32x32 (1 and 3 minutes) and 64x64 (3), see MEASURED.md.
SHORT, PATCHES, LARGEST = 4.0, 8, 64
# For a GPU: a U-Net as the full runs have it (page 08).
GPU = {"beta_schedule": "cosine", "prediction": "v"}
HELD_OUT = 0.1  # on either
CHOSEN = {*CPU, *GPU, "patch", "precision", "held_out"}  # by the recipe


def recipe(device: str, bfloat16: bool, chosen: dict | None = None, threads: int = 1) -> dict:
    """Options of `TrainConfig`, for this kind of device.

    bfloat16: whether the CPU computes in it (`devices.fast_bfloat16`).
    chosen: options that a user has chosen. They are left out, and the others suit them.
    threads: of the CPU, that train.
    """
    chosen = chosen or {}
    options = GPU
    if device == "cpu":
        fits = not (chosen.get("width", 0) % 32 or chosen.get("patch", 0) % 2)
        network = chosen.get("network", "dit" if fits else "unet")
        precision = {"precision": "bfloat16" if bfloat16 else "float32"}
        more = U_NET if network == "unet" else larger_patches(chosen, threads)
        options = {**CPU, **more, **precision}
    options = {**options, "held_out": HELD_OUT}
    return {key: value for key, value in options.items() if key not in chosen}


def larger_patches(chosen: dict, threads: int) -> dict:
    """For a short run; {} if it is a long one, or other patches fit the images."""
    size = chosen.get("image_size", TrainConfig.image_size)
    short = 0 < chosen.get("minutes", 0) * threads <= SHORT
    fit = 2 * PATCHES < size <= LARGEST and size % (2 * PATCHES) == 0
    return {"patch": size // PATCHES} if short and fit else {}


def as_flags(options: dict) -> str:
    """The options as one would write them on the command line, without those that are as usual."""
    usual = TrainConfig()
    return " ".join(f"--{k} {v}" for k, v in options.items() if v != getattr(usual, k))
