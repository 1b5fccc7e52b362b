"""Share a model on the Hugging Face Hub, and use one from there: pip install -e '.[hub]'

A shared model is a folder of three files: `model.safetensors` has the weights, `config.json` all
else that a `.pth` has, and `README.md` is the model card. Nothing in these files can run code.
"""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from diffusion_lib import __version__
from diffusion_lib.config import TrainConfig
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.files import check_training, first_line, load_checkpoint, save_file

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
INSTALL = "pip install huggingface_hub safetensors"


def save_pretrained(
    diffusion: GaussianDiffusion,
    folder: str | Path,
    *,
    data: str = "",
    license: str = "",
    run: str | Path | None = None,
    evaluation: str | Path | None = None,
    name: str = "",
) -> None:
    """Write a model and its card into a folder.

    data: what it was trained on, and under which terms, for the card.
    license: of the model, by its identifier on the Hub, such as "mit" or "cc0-1.0".
    run: the autosave.pth of its training, from which the card has the settings and the time.
    evaluation: what `evaluate --output` wrote, from which it has distances and copies.
    name: under which others will load it; by default the folder.

    Raises:
        InputError: a file that cannot be read or written, or safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise InputError(f"sharing a model needs safetensors: {INSTALL}") from error
    folder, checkpoint = Path(folder), diffusion.checkpoint()
    weights = {key: value.contiguous().cpu() for key, value in checkpoint.pop("weights").items()}
    text = card(diffusion, name or str(folder), data, license, run, evaluation)
    save_file(save(weights), folder / WEIGHTS)
    save_file(json.dumps(checkpoint, indent=2).encode(), folder / CONFIG)
    save_file(text.encode(), folder / CARD)


def from_pretrained(
    name: str | Path, revision: str | None = None, device: str | torch.device = "cpu"
) -> GaussianDiffusion:
    """Read a model that `save_pretrained` or `push_to_hub` wrote.

    name: of a folder, or OWNER/NAME on the Hub.
    revision: a branch, tag or commit there; by default the newest.

    Raises:
        InputError: no such folder or model, files that are no model of this library, or a package
            that is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"reading a shared model needs safetensors: {INSTALL}") from error
    config, weights = (shared_file(name, file, revision) for file in (CONFIG, WEIGHTS))
    try:
        # safetensors gives no more memory to a tensor than its bytes in the file.
        checkpoint = {**json.loads(config.read_bytes()), "weights": load_file(weights)}
    except (OSError, RecursionError, SafetensorError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} is not a model of Simple Diffusion ({first_line(error)})"
        ) from error
    with tempfile.TemporaryDirectory() as folder:  # as a .pth it meets all the checks of `load`
        path = Path(folder, "model.pth")
        save_file(checkpoint, path)
        try:
            return GaussianDiffusion.load(path, device)
        except InputError as error:
            raise InputError(str(error).replace(str(path), str(name))) from error


def push_to_hub(
    diffusion: GaussianDiffusion, name: str, *, private: bool = False, **card: str | Path | None
) -> None:
    """Put a model and its card on the Hub, as OWNER/NAME. Log in before: `hf auth login`.

    card: `data`, `license`, `run` and `evaluation` of `save_pretrained`.

    Raises:
        InputError: not logged in, no connection, or a package that is not installed.
    """
    hub = huggingface_hub()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(diffusion, folder, name=name, **card)
        try:
            hub.create_repo(name, private=private, exist_ok=True)
            hub.upload_folder(
                repo_id=name, folder_path=folder, commit_message=f"Simple Diffusion {__version__}"
            )
        except (OSError, ValueError) as error:  # also all errors of the Hub
            raise InputError(f"{name} cannot be put on the Hub: {first_line(error)}") from error


def shared_file(name: str | Path, file: str, revision: str | None) -> Path:
    """A file of a shared model: in a folder here, or downloaded into the Hub's own cache."""
    if Path(name).is_dir():
        return Path(name, file)
    hub = huggingface_hub()
    try:
        return Path(hub.hf_hub_download(str(name), file, revision=revision))
    except (OSError, ValueError) as error:  # also all errors of the Hub
        raise InputError(
            f"there is no folder {name}, and no such model can be had from the Hub: "
            f"{first_line(error)}"
        ) from error


def huggingface_hub():
    """The package, or one line that says how to install it."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"the Hub needs a package of its own: {INSTALL}") from error
    return huggingface_hub


def card(
    diffusion: GaussianDiffusion,
    name: str,
    data: str,
    license: str,
    run: str | Path | None,
    evaluation: str | Path | None,
) -> str:
    """The model card: what the model is, what it learned from, and how to sample."""
    channels, size, _ = diffusion.image_shape
    count = sum(weights.numel() for weights in diffusion.parameters())
    header = ["library_name: simple-diffusion", "pipeline_tag: unconditional-image-generation"]
    header += [f"license: {json.dumps(license)}"] if license else []
    rows = [
        ("images", f"{size}x{size} pixels, {'grey' if channels == 1 else 'colour'}"),
        ("network", f"{count / 1e6:.1f} million weights, predicts {diffusion.prediction}"),
        ("schedule", f"{diffusion.schedule.name}, {diffusion.schedule.timesteps} timesteps"),
        ("trained on", data or "not stated"),
        ("licence", license or "not stated"),
        *(training_rows(run) if run else []),
        *(evaluation_rows(evaluation) if evaluation else []),
    ]
    return CARD_TEXT.format(
        header="\n".join(header),
        name=name,
        rows="\n".join(f"| {key} | {value} |" for key, value in rows),
    )


def training_rows(run: str | Path) -> list[tuple[str, str]]:
    """What the card says of a run: its images, steps and seconds, and the options it chose."""
    training, defaults = check_training(load_checkpoint(run), run), asdict(TrainConfig())
    chosen = {k: v for k, v in training["config"].items() if v != defaults.get(k, v)}
    options = " ".join(f"--{k}" if v is True else f"--{k} {v}" for k, v in chosen.items())
    return [
        ("training", f"{training['step']:,} steps over {training['images']:,} images"),
        ("time", f"{training['seconds']:,.0f} seconds"),
        ("options", f"`{options or 'all as by default'}`"),
    ]


def evaluation_rows(evaluation: str | Path) -> list[tuple[str, str]]:
    """What the card says of the numbers that `evaluate --output` wrote."""
    try:
        numbers = json.loads(Path(evaluation).read_bytes())
        distance, copies = numbers["samples"]["kernel_distance"], numbers["nearest"]["copies"]
        return [
            ("kernel distance", f"{distance:.3g} ({numbers['features']}, {numbers['sampler']})"),
            (
                "copies",
                f"{copies:.1%} of samples are as near to a training image as the nearest 1%",
            ),
        ]
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{evaluation} is not what evaluate --output writes: {error}") from error


CARD_TEXT = """---
{header}
---
# {name}

A diffusion model, trained with Simple Diffusion.

| | |
|---|---|
{rows}

```python
from diffusion_lib import from_pretrained, sample
from diffusion_lib.plots import save_grid

diffusion = from_pretrained("{name}")
save_grid(sample(diffusion, 16), "samples.png")
```
"""
