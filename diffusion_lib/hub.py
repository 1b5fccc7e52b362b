"""Share a model on the Hugging Face Hub, and use one from there: pip install -e '.[hub]'

A shared model is a folder of three files: `model.safetensors` has the weights, `config.json` all
else that a `.pth` has, and `README.md` is the model card. Nothing in these files can run code.
`GaussianDiffusion` has the methods from here.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from diffusion_lib import __version__
from diffusion_lib.config import TrainConfig
from diffusion_lib.errors import InputError
from diffusion_lib.files import check_training, first_line, load_checkpoint, save_file

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")
INSTALL = "sharing models needs two more packages: pip install huggingface_hub safetensors"

try:
    from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
    from safetensors.torch import load_file
    from safetensors.torch import save as safetensors
except ImportError:

    class ModelHubMixin:
        """In place of the Hub's own, where its package is not installed."""

        def __init_subclass__(cls, **_):
            super().__init_subclass__()

        def save_pretrained(self, *_, **__):
            raise InputError(INSTALL)

        def push_to_hub(self, *_, **__):
            raise InputError(INSTALL)

        @classmethod
        def from_pretrained(cls, *_, **__):
            raise InputError(INSTALL)


class SharedModel(ModelHubMixin, library_name="simple-diffusion"):
    """save_pretrained, push_to_hub and from_pretrained, with what `huggingface_hub` gives them.

    model_card_kwargs of the first two: what the card says.
        data: what the model was trained on, and under which terms.
        license: of the model, by its identifier on the Hub, such as "mit" or "cc0-1.0".
        run: the autosave.pth of its training, from which the card has the settings and the time.
        evaluation: what `evaluate --output` wrote, from which it has distances and copies.
        name: under which others will load it; by default OWNER/NAME, or the folder.
    """

    def save_pretrained(self, save_directory, *, model_card_kwargs=None, **options) -> str | None:
        """Write the model into a folder, and a card where there is none.

        Raises:
            InputError: a file that cannot be read or written, or a package is not installed.
        """
        words = {"name": str(save_directory), **(model_card_kwargs or {})}
        with one_line(f"{save_directory} cannot be written"):
            return super().save_pretrained(save_directory, model_card_kwargs=words, **options)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs=None, **options) -> str:
        """Put the model and its card on the Hub, as OWNER/NAME. Log in before: `hf auth login`.

        Raises:
            InputError: not logged in, no connection, or a package is not installed.
        """
        words = {"name": repo_id, **(model_card_kwargs or {})}
        options = {"commit_message": f"Simple Diffusion {__version__}", **options}
        with one_line(f"{repo_id} cannot be put on the Hub"):
            return super().push_to_hub(repo_id, model_card_kwargs=words, **options)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ):
        """Read a model that `save_pretrained` or `push_to_hub` wrote.

        name: of a folder, or OWNER/NAME on the Hub.
        revision: a branch, tag or commit there; by default the newest. It and the others are those
            of `huggingface_hub.hf_hub_download`.

        Raises:
            InputError: no such folder or model, files that are no model of this library, or a
                package is not installed.
        """
        if Path(name).is_dir():
            trouble = f"{name} is not a model of Simple Diffusion"
        else:
            trouble = f"there is no folder {name}, and no such model can be had from the Hub"
        with one_line(trouble):
            return super().from_pretrained(
                name,
                device=device,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        checkpoint = self.checkpoint()
        weights = checkpoint.pop("weights")
        weights = {key: value.contiguous().cpu() for key, value in weights.items()}
        save_file(safetensors(weights), save_directory / WEIGHTS)
        save_file(json.dumps(checkpoint, indent=2).encode(), save_directory / CONFIG)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, device: str, **options) -> "SharedModel":
        options = {key: options[key] for key in DOWNLOAD}  # the others come from config.json
        config, weights = (
            Path(model_id, file)
            if Path(model_id).is_dir()
            else Path(hf_hub_download(model_id, file, **options))
            for file in (CONFIG, WEIGHTS)
        )
        # safetensors gives no more memory to a tensor than its bytes in the file.
        checkpoint = {**json.loads(config.read_bytes()), "weights": load_file(weights)}
        with tempfile.TemporaryDirectory() as folder:  # as a .pth it meets all the checks of `load`
            path = Path(folder, "model.pth")
            save_file(checkpoint, path)
            try:
                return cls.load(path, device)
            except InputError as error:
                raise InputError(str(error).replace(str(path), model_id)) from error

    def generate_model_card(self, **words) -> "ModelCard":
        return ModelCard(card(self, **words))


@contextmanager
def one_line(trouble: str) -> Iterator[None]:
    """Whatever goes wrong with the Hub, the disk or a file, as an InputError that begins so."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # those of the network have no base in common with the others
        raise InputError(f"{trouble}: {first_line(error)}") from error


def card(
    diffusion,
    name: str,
    data: str = "",
    license: str = "",
    run: str | Path | None = None,
    evaluation: str | Path | None = None,
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
from diffusion_lib import GaussianDiffusion, sample
from diffusion_lib.plots import save_grid

diffusion = GaussianDiffusion.from_pretrained("{name}")
save_grid(sample(diffusion, 16), "samples.png")
```
"""
