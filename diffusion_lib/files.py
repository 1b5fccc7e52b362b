"""Files: written whole or not at all, and read without running code; bundled files."""

import os
import warnings
from contextlib import suppress
from pathlib import Path

import torch

from diffusion_lib.errors import InputError


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


def load_file(path: str | Path) -> dict:
    """Read a checkpoint without running any code that it may contain.

    Raises:
        InputError: no such file, or not a checkpoint.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes of a damaged file lead it to
        raise InputError(
            f"{path} is not a checkpoint, or is damaged, or holds code, which is never run"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a model of Simple Diffusion")
    return content


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
