"""Sharing a model: what is written is read again, and files of strangers are checked."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    TrainConfig,
    Trainer,
    __version__,
    build,
    hub,
    record,
    sample,
)

pytest.importorskip("safetensors")
huggingface_hub = pytest.importorskip("huggingface_hub")
from safetensors.torch import load_file, save_file  # noqa: E402

TINY = TrainConfig(
    image_size=8, width=8, blocks=1, timesteps=20, batch_size=2, epochs=1, seed=3, prediction="v",
    disable_images=True, disable_tensorboard=True,
)  # fmt: skip


@pytest.fixture
def model() -> GaussianDiffusion:
    return build(TINY, channels=1).eval()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


@pytest.mark.parametrize("name", ["faces", "digits", "brains"])
def test_a_shared_model_is_the_same_model(name, tmp_path):
    model = GaussianDiffusion.load(name)
    model.save_pretrained(tmp_path)
    same = GaussianDiffusion.from_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {hub.WEIGHTS, hub.CONFIG, hub.CARD}
    assert asdict(same.schedule) == asdict(model.schedule) and same.prediction == model.prediction
    assert_close(sample(same, 2, steps=2), sample(model, 2, steps=2), rtol=0, atol=0)
    assert not same.training


def test_a_shared_model_can_be_saved_as_a_pth_again(model, folder, tmp_path):
    GaussianDiffusion.from_pretrained(folder).save(tmp_path / "back.pth")
    back = GaussianDiffusion.load(tmp_path / "back.pth")
    for key, weights in model.network.state_dict().items():
        assert back.network.state_dict()[key].equal(weights)


def test_the_card_says_what_the_model_is_and_how_it_was_trained(tmp_path):
    run = Trainer(build(TINY, channels=1), torch.zeros(4, 1, 8, 8, dtype=torch.uint8), TINY)
    for _ in record(run, "mine", tmp_path):
        pass
    numbers = {"samples": {"kernel_distance": 0.00123}, "nearest": {"copies": 0.02}}
    numbers |= {"features": "efficientnet", "sampler": "ddim"}
    (tmp_path / "numbers.json").write_text(json.dumps(numbers))
    about = {"data": "four black squares", "license": "cc0-1.0"}
    about |= {"run": tmp_path / "autosave.pth", "evaluation": tmp_path / "numbers.json"}
    run.average.save_pretrained(tmp_path / "shared", model_card_kwargs=about)
    card = (tmp_path / "shared" / "README.md").read_text()
    for words in (
        "license: cc0-1.0",
        "| trained on | four black squares |",
        "| training | 2 steps over 4 images |",
        "--width 8",
        "--prediction v",
        "0.00123",
        "2.0% of samples",
        f'GaussianDiffusion.from_pretrained("{tmp_path / "shared"}")',
    ):
        assert words in card
    assert "--lr" not in card  # as by default


def test_the_card_tells_what_it_does_not_know(folder):
    card = (folder / "README.md").read_text()
    assert "| trained on | not stated |" in card and "| licence | not stated |" in card


def test_the_header_of_the_card_is_what_the_hub_reads(model, tmp_path):
    model.save_pretrained(tmp_path, model_card_kwargs={"license": "mit: really?"})
    header = huggingface_hub.ModelCard.load(tmp_path / "README.md").data
    assert header.license == "mit: really?"
    assert header.library_name == "simple-diffusion"


@pytest.mark.slow
def test_the_lines_of_the_card_draw_samples(folder, tmp_path):
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 5
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "samples.png").is_file()


@pytest.fixture
def hub_cache(monkeypatch, tmp_path) -> Path:
    """The Hub's own cache, without a connection."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_a_model_is_found_in_the_cache_of_the_hub(model, hub_cache):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--someone--digits"
    model.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert GaussianDiffusion.from_pretrained("someone/digits").prediction == "v"
    assert GaussianDiffusion.from_pretrained("someone/digits", revision=commit).prediction == "v"


class StandIn(SimpleHTTPRequestHandler):
    """The Hub's addresses of files, OWNER/NAME/resolve/REVISION/FILE, out of one folder."""

    def translate_path(self, path: str) -> str:
        return str(Path(self.directory, Path(path).name))

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("ETag", f'"{Path(self.path).name}"')
        super().end_headers()

    def log_message(self, *_) -> None:
        pass


def test_a_model_is_downloaded(model, folder, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(StandIn, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        code = "from diffusion_lib import GaussianDiffusion\n"
        code += "GaussianDiffusion.from_pretrained('someone/squares').save('got.pth')"
        address = f"http://127.0.0.1:{server.server_port}"
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
        server.shutdown()
    got = GaussianDiffusion.load(tmp_path / "got.pth")
    assert_close(got.network.state_dict(), model.network.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["someone/else", "no such", "../x", "a/b/c", ""])
def test_a_model_that_cannot_be_had_is_one_line(hub_cache, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        GaussianDiffusion.from_pretrained(name or "nothing")
    assert "\n" not in str(error.value) and "there is no folder" in str(error.value)


def test_a_model_is_put_on_the_hub_with_its_card(model, monkeypatch):
    done = []

    def create(api, repo_id: str, **more):
        done.append((repo_id, more["private"]))
        return SimpleNamespace(repo_id=repo_id)

    def upload(api, repo_id: str, folder_path: Path, commit_message: str, **more) -> None:
        done.append((repo_id, sorted(path.name for path in folder_path.iterdir()), commit_message))
        done.append((folder_path / "README.md").read_text())

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    about = {"data": "squares", "license": "mit"}
    model.push_to_hub("someone/squares", private=True, model_card_kwargs=about)
    files = ["README.md", "config.json", "model.safetensors"]
    assert done[0] == ("someone/squares", True)
    assert done[1] == ("someone/squares", files, f"Simple Diffusion {__version__}")
    assert 'from_pretrained("someone/squares")' in done[2] and "| squares |" in done[2]


def test_a_card_that_stands_there_is_kept(model, folder):
    (folder / "README.md").write_text("written by hand")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "written by hand"


def test_a_folder_that_cannot_be_written_is_one_line(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/shared cannot be written"):
        model.save_pretrained(tmp_path / "file" / "shared")


def test_a_refusal_of_the_hub_is_one_line(model, hub_cache):
    with pytest.raises(InputError, match="someone/squares cannot be put on the Hub: ") as error:
        model.push_to_hub("someone/squares")
    assert "\n" not in str(error.value)


def test_no_connection_to_the_hub_is_one_line(model):
    """Nobody listens at that port of this machine."""
    code = "from diffusion_lib import GaussianDiffusion\n"
    code += "GaussianDiffusion.load('digits').push_to_hub('someone/squares', token='hf_x')"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    last = result.stderr.strip().splitlines()[-1]
    assert "InputError: someone/squares cannot be put on the Hub: " in last


def damaged_config(text: str):
    return lambda folder: (folder / "config.json").write_text(text)


def changed_config(**changes):
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["network"] |= changes
        (folder / "config.json").write_text(json.dumps(config))

    return change


def changed_weights(change):
    def write(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file(change(weights), folder / "model.safetensors")

    return write


def huge_header(folder: Path) -> None:
    """A tensor that claims more bytes than the file has."""
    header = json.dumps(
        {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    "damage",
    [
        damaged_config("{"),
        damaged_config("[]"),
        damaged_config("3"),
        damaged_config("[" * 10**5),
        damaged_config("{}"),
        damaged_config('{"format": 99}'),
        damaged_config('{"model_state_dict": 1, "schedule": 2, "timesteps": 3}'),
        changed_config(kind="os.system"),
        changed_config(width=2**15),
        changed_config(width=float("nan")),
        changed_config(blocks=10**9),
        changed_config(image_size=-8),
        changed_config(more=1),
        changed_weights(lambda weights: {}),
        changed_weights(lambda weights: weights | {"more": torch.zeros(1)}),
        changed_weights(lambda weights: {k: v * torch.nan for k, v in weights.items()}),
        changed_weights(lambda weights: {k: v[..., :1].contiguous() for k, v in weights.items()}),
        lambda folder: (folder / "model.safetensors").write_bytes(b"PK not this"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").unlink(),
        huge_header,
    ],
)
def test_files_of_a_stranger_that_are_no_model_are_one_line(folder, damage):
    damage(folder)
    with pytest.raises(InputError) as error:
        GaussianDiffusion.from_pretrained(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("missing", ["safetensors", "huggingface_hub"])
def test_a_package_that_is_missing_is_named_with_the_command(tmp_path, missing):
    """In a process of its own: whether there is a package is asked once, at the beginning."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
from diffusion_lib import GaussianDiffusion, InputError
model = GaussianDiffusion.load("digits")
for way in (model.save_pretrained, model.push_to_hub, GaussianDiffusion.from_pretrained):
    try:
        way("someone/squares")
    except InputError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stdout.splitlines() == [hub.INSTALL] * 3, result.stderr


def test_what_is_no_evaluation_is_refused(model, tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match=r"x\.json is not what evaluate"):
        model.save_pretrained(tmp_path, model_card_kwargs={"evaluation": tmp_path / "x.json"})


def test_the_config_is_what_a_pth_has_but_the_weights(model, folder):
    config = json.loads((folder / "config.json").read_text())
    assert config.keys() == model.checkpoint().keys() - {"weights"}
    assert config["schedule"] == asdict(model.schedule)
