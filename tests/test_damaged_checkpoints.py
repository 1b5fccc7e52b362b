"""Checkpoints that are damaged, or that a stranger made: one line, and nothing else happens.

Any value may be another, any tensor may have another shape, any bit may be flipped.
"""

import copy
import io
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion_lib import GaussianDiffusion, InputError, TrainConfig, Trainer, build
from diffusion_lib.files import check_training, load_checkpoint
from diffusion_lib.resuming import check_weights_of_run
from diffusion_lib.train import resumed_config

CONFIG = TrainConfig(image_size=8, width=8, patch=1, blocks=1, batch_size=4, epochs=2, device="cpu")
PIXELS = torch.arange(8 * 192).remainder(256).to(torch.uint8).view(8, 3, 8, 8)
ODD = [
    None, -1, 0, 10**12, 10**30, -0.5, 1.5, float("nan"), float("inf"), True, "x", "", b"a",
    "linear", [], [1, 2, 3], (), {}, {"a": 1}, torch.zeros(3), torch.full((2, 2), float("nan")),
]  # fmt: skip
RESHAPES = {
    "shorter": lambda v: v.reshape(-1)[:1],
    "another axis": lambda v: v[None],
    "integers": lambda v: v.long(),
    "not finite": lambda v: v * float("nan"),
    "twice": lambda v: v.expand(2, *v.shape),
}


def trainer() -> Trainer:
    return Trainer(build(CONFIG, channels=3), PIXELS, CONFIG)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A run of two steps."""
    run = trainer()
    next(iter(run))
    path = tmp_path_factory.mktemp("run") / "autosave.pth"
    run.save(path, name="mine")
    return path


def places(content: dict | list, above: tuple = ()) -> list[tuple]:
    """The way to every value in nested dictionaries and lists."""
    found = [above] if above else []
    if isinstance(content, dict | list):
        keys = content if isinstance(content, dict) else range(len(content))
        found += [place for key in keys for place in places(content[key], (*above, key))]
    return found


def use(path: Path) -> str | None:
    """Load the model and go on with the run; the message where it is refused."""
    try:
        GaussianDiffusion.load(path)
        checkpoint = load_checkpoint(path)
        if "training" in checkpoint:
            chosen = dict(check_training(checkpoint)["config"])
            config = resumed_config(chosen, {"device": "cpu"})
            check_weights_of_run(config, checkpoint)
            run = Trainer(build(config, channels=3), PIXELS, config)
            run.restore(checkpoint)
            if run.step < run.steps:
                run.train_step()
    except InputError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_may_be_another(saved, tmp_path, data):
    content = copy.deepcopy(load_checkpoint(saved))
    *above, last = data.draw(st.sampled_from(places(content)))
    parent = content
    for key in above:
        parent = parent[key]
    how = data.draw(st.sampled_from(["remove", "replace", "reshape"]))
    if how == "remove" and isinstance(parent, dict):
        del parent[last]
    elif how == "reshape" and isinstance(parent[last], torch.Tensor):
        parent[last] = data.draw(st.sampled_from(sorted(RESHAPES)).map(RESHAPES.get))(parent[last])
    else:
        parent[last] = data.draw(st.sampled_from(ODD))
    torch.save(content, tmp_path / "changed.pth")
    use(tmp_path / "changed.pth")


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_weight_unnoticed(saved, tmp_path, position, bit):
    content = bytearray(saved.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    changed = tmp_path / "changed.pth"
    changed.write_bytes(content)
    if use(changed) is None:
        now, before = load_checkpoint(changed)["weights"], load_checkpoint(saved)["weights"]
        assert all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(saved, tmp_path, part):
    content = saved.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: int(part * len(content))])
    assert "cut.pth" in use(tmp_path / "cut.pth")


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "step"])
@pytest.mark.parametrize("how", sorted(RESHAPES))
def test_moments_that_do_not_fit_their_weights_are_refused(saved, tmp_path, name, how):
    content = load_checkpoint(saved)
    moments = content["training"]["optimizer"]["state"][3]
    moments[name] = RESHAPES[how](moments[name])
    torch.save(content, tmp_path / "changed.pth")
    assert "optimizer has moments" in use(tmp_path / "changed.pth")


@pytest.mark.parametrize("size", [{"width": 2**16}, {"blocks": 10**9}, {"image_size": 2**20}])
def test_no_memory_is_taken_by_a_declared_size(saved, tmp_path, size, monkeypatch):
    content = load_checkpoint(saved)
    content["network"] |= size
    torch.save(content, tmp_path / "huge.pth")
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)  # nothing is built
    assert "huge.pth" in use(tmp_path / "huge.pth")


@pytest.mark.parametrize("size", [{"width": 2**13}, {"blocks": 900}, {"image_size": 8192}])
def test_no_memory_is_taken_by_the_settings_of_a_run(saved, tmp_path, size, monkeypatch):
    content = load_checkpoint(saved)
    content["training"]["config"] |= size
    torch.save(content, tmp_path / "huge.pth")
    GaussianDiffusion.load(tmp_path / "huge.pth")
    monkeypatch.setattr(GaussianDiffusion, "load", lambda _: None)
    monkeypatch.setattr(Trainer, "__init__", None)  # nothing is built
    assert "the run to resume is damaged: its weights are not" in use(tmp_path / "huge.pth")


@pytest.mark.parametrize("number", [torch.zeros(3), [], "3", None, 0, -1])
def test_a_format_that_is_no_number_is_refused(saved, tmp_path, number):
    torch.save({**load_checkpoint(saved), "format": number}, tmp_path / "odd.pth")
    for read in (load_checkpoint, GaussianDiffusion.load):
        with pytest.raises(InputError, match=r"odd\.pth .* \(its format is no number\)"):
            read(tmp_path / "odd.pth")


def test_a_tensor_in_place_of_a_name_is_refused_in_one_line(saved, tmp_path):
    content = load_checkpoint(saved)
    content["schedule"]["path"] = torch.full((2, 2), float("nan"))  # of two lines
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError) as error:
        GaussianDiffusion.load(tmp_path / "other.pth")
    assert "\n" not in str(error.value) and "path" in str(error.value)


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    assert "compressed" in use(tmp_path / "bomb.pth")


def test_weights_that_are_not_finite_are_refused(saved, tmp_path):
    content = load_checkpoint(saved)
    content["weights"]["stem.1.bias"][0] = float("inf")
    torch.save(content, tmp_path / "changed.pth")
    assert "stem.1.bias" in use(tmp_path / "changed.pth")


def test_what_is_saved_is_taken_again(saved):
    assert use(saved) is None
    content = io.BytesIO(saved.read_bytes())
    assert zipfile.ZipFile(content).testzip() is None
