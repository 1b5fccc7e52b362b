"""Files: written completely or not at all, and read without running code; bundled files."""

import errno
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lib.config import BUNDLED
from diffusion_lib.errors import InputError, did_you_mean_path

FORMAT = 3  # of the checkpoints that this version writes


def save_file(content: dict | bytes, path: str | Path) -> None:
    """Write a file so that a kill at any moment leaves either the old file or the new one.

    Args:
        content: of a checkpoint, or bytes, which are written as they are.
        path: of the file.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())  # on the disk before the old file goes
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {path}: {first_line(error)}") from error
    finally:
        with suppress(OSError):  # after a success there is none
            unfinished.unlink()


def append(content: bytes, path: Path) -> None:
    """Add to the end of a file, all or nothing; it is made if it is not there.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        if file.write(content) < len(content):
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def save_new(save: Callable[[Path], None], paths: Iterable[Path]) -> Path:
    """Write a file under the first free one of some names, completely or not at all.

    Nothing is replaced, not even what another process has written a moment before.

    Args:
        save: writes it to the path that it gets, which is hidden at first.
        paths: names in one folder, as many as it takes.

    Returns:
        Which name it got.
    """
    paths = iter(paths)
    path = next(paths)
    unfinished = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        save(unfinished)
        while True:
            try:
                rename_new(unfinished, path)
                return path
            except FileExistsError:
                path = next(paths)
    finally:
        unfinished.unlink(missing_ok=True)


def rename_new(source: Path, target: Path) -> None:
    """Give a file another name, or raise FileExistsError if that is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with open(target, "xb"):
            os.replace(source, target)


def load_file(path: str | Path) -> dict:
    """Read a checkpoint without running any code that it may contain.

    Raises:
        InputError: no such file, or not a checkpoint.
    """
    if not Path(path).is_file():
        hint = did_you_mean_path(Path(path), "*.pth", BUNDLED)
        raise InputError(f"there is no file {path}{hint}")
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{path} is not a checkpoint, or is damaged, or holds code, which is never run"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a model of Simple Diffusion")
    return content


def check_archive(path: str | Path) -> None:
    """Raise InputError for a checkpoint that is cut off or has a changed bit, or whose parts claim
    to be larger than the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1:
                    raise InputError(f"{path} is not a checkpoint: its parts are compressed")
            damaged = archive.testzip()  # compares every part with its checksum
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(
            f"{path} is not a checkpoint, or is damaged, or holds code, which is never run"
        ) from error
    if damaged:
        raise InputError(f"{path} is damaged: {damaged} does not agree with its checksum")


def load_checkpoint(path: str | Path) -> dict:
    """Read a model or a run, also of an earlier version or of the original Simple Diffusion.

    Raises:
        InputError: no such file, not such a file, or one from a newer version.
    """
    try:
        checkpoint = {"classes": {}} | converted(load_file(path), path)
        check_checkpoint(checkpoint)
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not hold a model of Simple Diffusion ({first_line(error)})"
        ) from error
    return checkpoint


def check_checkpoint(checkpoint: dict) -> None:
    """Raise ValueError for a part of a model that is not of the kind that it should be.

    Whether sizes fit the network is checked where these are known.
    """
    check_kinds(checkpoint, network=dict, schedule=dict, prediction=str, weights=dict, classes=dict)
    for column, names in checkpoint["classes"].items():
        if not isinstance(names, list) or any(not isinstance(n, str) for n in [column, *names]):
            raise ValueError("the names of its classes are not texts")
    check_weights(checkpoint["weights"])


def check_training(checkpoint: dict, path: object = "the checkpoint") -> dict:
    """The run in a checkpoint; the path is for the message.

    Raises:
        InputError: there is none, or a part of it is not of the kind that it should be.
    """
    try:
        training = {"scaler": {}, "name": "", "signature": None} | checkpoint["training"]
        check_kinds(training, config=dict, images=int, step=int, steps=int, seconds=(int, float))
        check_kinds(training, weights=dict, optimizer=dict, scaler=dict, name=str)
        if not isinstance(training["signature"], Tensor | None):
            raise ValueError("what it knows of its images is damaged")
        check_weights(training["weights"])
        for option, value in training["config"].items():
            if not isinstance(value, str | int | float | None):
                raise ValueError(f"{option} is {type(value).__name__}")
        if not 0 <= training["step"] <= training["steps"] < 2**53:
            raise ValueError(f"step {training['step']} of {training['steps']}")
        if not (math.isfinite(training["seconds"]) and training["seconds"] >= 0):
            raise ValueError(f"{training['seconds']} seconds")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no run to resume ({first_line(error)})") from error
    return training


def check_kinds(where: dict, **kinds: type | tuple[type, ...]) -> None:
    """Raise ValueError for an entry that is missing, or of another kind."""
    for key, kind in kinds.items():
        value = where.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{key} is {type(value).__name__}")


def check_weights(weights: dict) -> None:
    """Raise ValueError for weights that are not finite numbers."""
    for name, values in weights.items():
        if not isinstance(values, Tensor) or not values.isfinite().all():
            raise ValueError(f"the weights {name} are not finite numbers")


def converted(checkpoint: dict, path: str | Path) -> dict:
    """A checkpoint of any format, as one of today."""
    if "model_state_dict" in checkpoint:
        return from_original(checkpoint, path)
    number = checkpoint.get("format", FORMAT)
    if not isinstance(number, int) or number < 1:
        raise ValueError("its format is no number")
    if number > FORMAT:
        newer = f"newer than this version reads ({FORMAT}): update Simple Diffusion"
        raise InputError(f"{path} has format {number}, {newer}")
    if number == 1:
        return from_format_1(checkpoint, path)
    return {**checkpoint, "format": FORMAT}  # 2 is the same without classes


def from_original(checkpoint: dict, path: str | Path) -> dict:
    """A `.pth` of the original Simple Diffusion, as one of ours."""
    try:
        name, timesteps, start, end, image_size = (
            checkpoint[key] for key in ("schedule", "timesteps", "start", "end", "image_size")
        )
    except KeyError as error:
        raise InputError(f"{path} does not hold a model of Simple Diffusion: no {error}") from error
    return {
        "format": FORMAT,
        "network": {"kind": "original", "image_size": image_size},
        "schedule": {
            "name": name,
            "timesteps": timesteps,
            "beta_start": start,
            "beta_end": end,
        },
        "prediction": "epsilon",
        "weights": checkpoint["model_state_dict"],
    }


def from_format_1(checkpoint: dict, path: str | Path) -> dict:
    """A checkpoint from before some names changed, as one of today."""

    def renamed(values: dict, **names: str) -> dict:
        return {names.get(key, key): value for key, value in values.items()}

    def weights(state: dict) -> dict:
        parts = {"halvings": "downsamplers", "doublings": "upsamplers"}
        split = {key: key.split(".", 1) for key in state}
        return {".".join([parts.get(p[0], p[0]), *p[1:]]): state[key] for key, p in split.items()}

    if missing := {"schedule", "weights"} - checkpoint.keys():
        raise InputError(f"{path} does not hold a model of Simple Diffusion: no {min(missing)}")
    checkpoint = {
        **checkpoint,
        "format": FORMAT,
        "schedule": renamed(checkpoint["schedule"], start="beta_start", end="beta_end"),
        "weights": weights(checkpoint["weights"]),
    }
    if "training" in checkpoint:
        training = renamed(checkpoint["training"], optimiser="optimizer")
        training["weights"] = weights(training["weights"])
        config = dict(training["config"])
        config["steps"] = config.get("steps") or None
        if not config.get("continuous"):  # an option that is gone
            config.pop("continuous", None)
        training["config"] = config
        checkpoint["training"] = training
    return checkpoint


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def bundled_file(name: str) -> Path:
    """A file of `data/`: in a checkout there, in an installed package beside the code.

    Raises:
        InputError: this installation came without it.
    """
    package = Path(__file__).parent
    for folder in (package.parent / "data", package / "bundled"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"the bundled {name} did not come with this installation: clone the repository instead"
    )
