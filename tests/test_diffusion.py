"""The model: its loss, what it makes of a network's answer, and its files."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    NoiseSchedule,
    OriginalUNet,
    UNet,
    load_images,
)
from diffusion_lib.data import to_images
from diffusion_lib.diffusion import PRETRAINED
from diffusion_lib.image_files import bundled_file

PREDICTIONS = ("epsilon", "x0", "v")


class Answer(nn.Module):
    """A network that always gives the same answer, and notes what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, x, t):
        self.asked.append((x, t))
        return self.answer


def noisy(shape=(6, 2, 4, 4), schedule="cosine"):
    """Schedule, x_0, epsilon, t, and by hand sqrt(alpha_bar), sqrt(1 - alpha_bar) and x_t."""
    schedule = NoiseSchedule(schedule, 100)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    t = torch.tensor([0, 1, 30, 60, 97, 98])
    kept = (1 - schedule.betas).cumprod(0)[t].view(-1, *[1] * (len(shape) - 1))
    a, b = kept.sqrt(), (1 - kept).sqrt()
    return schedule, x0, noise, t, a, b, a * x0 + b * noise


def ideal_answer(prediction, x0, noise, a, b):
    return {"epsilon": noise, "x0": x0, "v": a * noise - b * x0}[prediction]


def small_model(prediction="v", seed=0):
    """Untrained, but with all weights random: otherwise it would answer with zeros."""
    torch.manual_seed(seed)
    network = UNet(8, 1, 8, (1, 2), 1, (4,), 2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return GaussianDiffusion(network, NoiseSchedule("sigmoid", 30, 1e-3, 0.3), prediction)


def assert_same_model(a, b):
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 12, 29])
    with torch.no_grad():
        for found, expected in zip(a.denoise(x, t), b.denoise(x, t), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_is_the_mean_squared_distance_to_the_target(prediction):
    schedule, x0, noise, t, a, b, x_t = noisy()
    answer = torch.randn_like(x0)
    network = Answer(answer)
    loss = GaussianDiffusion(network, schedule, prediction).loss(x0, t, noise)
    differences = (answer - ideal_answer(prediction, x0, noise, a, b)).flatten().tolist()
    expected = sum(difference**2 for difference in differences) / len(differences)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    [(asked_x, asked_t)] = network.asked
    torch.testing.assert_close(asked_x, x_t, rtol=1e-10, atol=1e-12)
    assert torch.equal(asked_t, t)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_has_no_loss(prediction):
    schedule, x0, noise, t, a, b, _ = noisy()
    network = Answer(ideal_answer(prediction, x0, noise, a, b))
    assert GaussianDiffusion(network, schedule, prediction).loss(x0, t, noise) < 1e-24


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("shape", [(6, 2), (6, 1, 8, 8), (6, 3, 4, 4)])
def test_a_perfect_network_denoises_to_x0_and_epsilon(prediction, shape):
    schedule, x0, noise, t, a, b, x_t = noisy(shape)
    network = Answer(ideal_answer(prediction, x0, noise, a, b))
    denoised = GaussianDiffusion(network, schedule, prediction).denoise(x_t, t)
    torch.testing.assert_close(denoised.x0, x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(denoised.epsilon, noise, rtol=1e-8, atol=1e-8)
    [(asked_x, asked_t)] = network.asked
    assert torch.equal(asked_x, x_t)
    assert torch.equal(asked_t, t)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", [False, True])
def test_x0_and_epsilon_always_make_up_x_t(prediction, clip):
    schedule, x0, _, t, a, b, x_t = noisy()
    network = Answer(3 * torch.randn_like(x0))
    denoised = GaussianDiffusion(network, schedule, prediction).denoise(x_t, t, clip)
    again = a * denoised.x0 + b * denoised.epsilon
    torch.testing.assert_close(again, x_t, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_clipping_holds_x0_between_minus_one_and_one(prediction):
    schedule, x0, noise, t, a, b, x_t = noisy()
    assert x0.abs().max() > 2
    network = Answer(ideal_answer(prediction, x0, noise, a, b))
    denoised = GaussianDiffusion(network, schedule, prediction).denoise(x_t, t, clip=True)
    torch.testing.assert_close(denoised.x0, x0.clamp(-1, 1), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(denoised.epsilon, (x_t - a * x0.clamp(-1, 1)) / b)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_and_denoise_are_in_the_dtype_of_the_images(prediction):
    schedule, x0, noise, t, *_ = noisy()
    x0, noise = x0.float(), noise.float()
    diffusion = GaussianDiffusion(Answer(noise.bfloat16()), schedule, prediction)
    assert diffusion.loss(x0, t, noise).dtype == torch.float32
    assert [part.dtype for part in diffusion.denoise(x0, t)] == [torch.float32] * 2


def test_an_unknown_prediction_is_refused():
    with pytest.raises(InputError, match=r"epsilon, x0, v.*noise"):
        GaussianDiffusion(nn.Identity(), NoiseSchedule(), "noise")


def test_image_shape_is_channels_height_width():
    network = UNet(16, 5, 8, (1, 2), 1)
    assert GaussianDiffusion(network, NoiseSchedule()).image_shape == (5, 16, 16)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, prediction):
    saved = small_model(prediction)
    saved.save(tmp_path / "model.pth")
    loaded = GaussianDiffusion.load(tmp_path / "model.pth")
    assert_same_model(loaded, saved)
    assert not loaded.training
    assert loaded.prediction == prediction
    assert loaded.schedule.arguments == saved.schedule.arguments
    assert torch.equal(loaded.schedule.betas, saved.schedule.betas)


def test_a_path_may_be_text_and_its_folder_is_made(tmp_path):
    saved = small_model()
    saved.save(str(tmp_path / "new" / "folder" / "model.pth"))
    assert_same_model(GaussianDiffusion.load(str(tmp_path / "new/folder/model.pth")), saved)


def test_a_checkpoint_loads_with_weights_only_and_keeps_what_was_put_beside_it(tmp_path):
    small_model().save(tmp_path / "model.pth", training={"step": 7})
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert content["training"] == {"step": 7}
    assert content["format"] == 1
    assert set(content) == {"format", "network", "schedule", "prediction", "weights", "training"}
    assert GaussianDiffusion.load(tmp_path / "model.pth").prediction == "v"


def test_a_network_of_the_original_kind_is_saved_too(tmp_path):
    saved = GaussianDiffusion(OriginalUNet(8), NoiseSchedule("linear", 10))
    saved.save(tmp_path / "model.pth")
    loaded = GaussianDiffusion.load(tmp_path / "model.pth")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0, 9])
    with torch.no_grad():
        assert torch.equal(loaded.network(x, t), saved.network(x, t))


def test_a_network_that_could_not_be_rebuilt_is_not_saved(tmp_path):
    diffusion = GaussianDiffusion(nn.Linear(2, 2), NoiseSchedule())
    with pytest.raises(InputError, match="Linear"):
        diffusion.save(tmp_path / "model.pth")
    assert list(tmp_path.iterdir()) == []


def assert_refused(path, match=""):
    with pytest.raises(InputError, match=match) as caught:
        GaussianDiffusion.load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)


def test_the_model_that_comes_with_the_course_is_found_by_its_name_and_knows_portraits():
    diffusion = GaussianDiffusion.load("faces")
    assert diffusion.image_shape == (3, 16, 16)
    x0 = to_images(load_images("faces", 16)[:64])
    generator = torch.Generator().manual_seed(0)
    t = torch.randint(1000, (64,), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    with torch.no_grad():
        loss = diffusion.loss(x0, t, noise)
    assert loss < 0.2  # an untrained one has about 1


def test_a_file_in_the_folder_goes_before_the_model_that_comes_with_the_course(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    small_model("x0").save("faces")
    assert GaussianDiffusion.load("faces").prediction == "x0"


def test_bundled_models_are_small():
    for name in PRETRAINED:
        assert bundled_file(f"{name}.pth").stat().st_size < 3_000_000


def test_a_file_of_a_newer_version_is_refused_with_what_to_do(tmp_path):
    newer = {**small_model().checkpoint(), "format": 2, "network": "something else"}
    torch.save(newer, tmp_path / "model.pth")
    assert_refused(tmp_path / "model.pth", r"has format 2, newer than .* update Simple Diffusion")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert_refused(tmp_path / "nothing.pth", "no file")
    assert_refused(tmp_path, "no file")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000), b"PK\x03\x04"]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    assert_refused(tmp_path / "model.pth", "not a checkpoint")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    small_model().save(tmp_path / "model.pth")
    content = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(content[: int(share * len(content))])
    assert_refused(tmp_path / "model.pth", "damaged")


def changed(**changes):
    return {**small_model().checkpoint(), **changes}


UNET = dict(kind="unet", image_size=8, channels=1, width=8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"something": "else"},
        lambda: {},
        lambda: [1, 2, 3],
        lambda: torch.zeros(3),
        lambda: small_model().network.state_dict(),
        lambda: changed(format="one"),
        lambda: changed(network={**UNET, "kind": "transformer"}),
        lambda: changed(network={**UNET, "wings": 2}),
        lambda: changed(network={**UNET, "image_size": 7}),
        lambda: changed(network={**UNET, "multipliers": ()}),
        lambda: changed(network="unet"),
        lambda: changed(network=None),
        lambda: changed(weights={}),
        lambda: changed(weights=None),
        lambda: changed(weights=small_model().network.middle1.state_dict()),
        lambda: changed(schedule={"name": "cubic"}),
        lambda: changed(schedule=3),
        lambda: changed(prediction="noise"),
        lambda: {"model_state_dict": {}, "image_size": 8},
        lambda: {"model_state_dict": OriginalUNet(8).state_dict(), "image_size": 8},
        lambda: {"model_state_dict": OriginalUNet(8).state_dict(), "image_size": None},
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, make):
    torch.save(make(), tmp_path / "model.pth")
    with pytest.raises(InputError) as caught:
        GaussianDiffusion.load(tmp_path / "model.pth")
    assert len(str(caught.value).splitlines()) == 1


class Bait:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", ["torch", "pickle"])
@pytest.mark.parametrize("where", ["alone", "beside a model"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, write, where):
    bait = Bait(tmp_path / "sprung")
    content = bait if where == "alone" else {**small_model().checkpoint(), "more": bait}
    path = tmp_path / "model.pth"
    if write == "torch":
        torch.save(content, path)
        torch.load(path, weights_only=False)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(path.read_bytes())
    (tmp_path / "sprung").rmdir()  # so the trap works, where it is stepped on

    assert_refused(path, "never run")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (OSError(28, "No space left on device"), InputError),
        (RuntimeError("unexpected pos 64 vs 0\nmore"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (pickle.PicklingError("cannot pickle"), (InputError, pickle.PicklingError)),
    ],
    ids=["disk full", "torch fails", "interrupted", "cannot be pickled"],
)
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, failure, raised
):
    path = tmp_path / "model.pth"
    old = small_model(seed=1)
    old.save(path)
    before = path.read_bytes()

    def write_half(content, file):
        file = open(file, "wb") if isinstance(file, (str, Path)) else file  # noqa: SIM115
        file.write(before[: len(before) // 2])
        file.flush()
        raise failure

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(raised) as caught:
        small_model(seed=2).save(path)
    assert len(str(caught.value).splitlines()) <= 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(InputError, match="No space left"):
        small_model().save(tmp_path / "model.pth")
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_goes_only_when_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    small_model(seed=1).save(path)
    new, seen, replace = small_model(seed=2), [], os.replace

    def look_then_replace(source, target):
        seen.append((Path(source).parent, Path(target)))
        assert_same_model(GaussianDiffusion.load(source), new)
        assert_same_model(GaussianDiffusion.load(target), small_model(seed=1))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_then_replace)
    new.save(path)
    assert seen == [(tmp_path, path)]  # in one folder: elsewhere a rename would be a copy
    assert_same_model(GaussianDiffusion.load(path), new)


@pytest.mark.parametrize("name", ["file/model.pth", "folder", "n" * 300 + ".pth"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot write") as caught:
        small_model().save(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
