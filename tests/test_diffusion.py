"""The model: its loss, what it makes of a network's answer, and its files."""

import os
import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
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
    sample,
)
from diffusion_lib.config import BUNDLED, CLIPS, PREDICTIONS
from diffusion_lib.diffusion import clip_x0
from diffusion_lib.files import bundled_file
from diffusion_lib.images.pixels import to_images
from diffusion_lib.metrics import loss_by_timestep


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
    answers = {"epsilon": noise, "x0": x0, "v": a * noise - b * x0, "velocity": noise - x0}
    return answers[prediction]


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
@pytest.mark.parametrize("clip", ["off", "static"])
def test_x0_and_epsilon_always_make_up_x_t(prediction, clip):
    schedule, x0, _, t, a, b, x_t = noisy()
    network = Answer(3 * torch.randn_like(x0))
    denoised = GaussianDiffusion(network, schedule, prediction).denoise(x_t, t, clip)
    again = a * denoised.x0 + b * denoised.epsilon
    torch.testing.assert_close(again, x_t, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_clipping_keeps_x0_between_minus_one_and_one(prediction):
    schedule, x0, noise, t, a, b, x_t = noisy()
    assert x0.abs().max() > 2
    network = Answer(ideal_answer(prediction, x0, noise, a, b))
    denoised = GaussianDiffusion(network, schedule, prediction).denoise(x_t, t, clip="static")
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


# Zero terminal SNR, shift


def test_epsilon_is_refused_where_the_last_timestep_is_all_noise():
    schedule = NoiseSchedule("linear", 20, zero_terminal_snr=True)
    with pytest.raises(
        InputError, match=r"zero_terminal_snr.*epsilon.*prediction v or x0"
    ) as caught:
        GaussianDiffusion(nn.Identity(), schedule)
    assert len(str(caught.value).splitlines()) == 1
    for prediction in ("x0", "v"):
        assert GaussianDiffusion(nn.Identity(), schedule, prediction).prediction == prediction


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_the_last_of_a_schedule_that_leaves_nothing_is_denoised_to_the_answer(prediction, clip):
    schedule = NoiseSchedule("linear", 20, zero_terminal_snr=True)
    x0, noise = torch.rand(4, 1, 3, 3) * 2 - 1, torch.randn(4, 1, 3, 3)
    answer = {"x0": x0, "v": -x0}[prediction]
    diffusion = GaussianDiffusion(Answer(answer), schedule, prediction)
    for t in (19, torch.full((4,), 19)):
        assert diffusion.loss(x0, t, noise) < 1e-10
        denoised = diffusion.denoise(noise, t, clip)
        torch.testing.assert_close(denoised.x0, x0)
        torch.testing.assert_close(denoised.epsilon, noise)


# Min-SNR


def answers_with_error(schedule, x0, noise, t, error):
    """What networks of every prediction answer whose x_0 is off by `error` (exact x_t)."""
    kept = schedule.alpha_bars[t].view(-1, *[1] * (x0.dim() - 1))
    a, b = kept.sqrt(), (1 - kept).sqrt()
    seen = x0 + error
    epsilon = (a * x0 + b * noise - a * seen) / b
    return {"epsilon": epsilon, "x0": seen, "v": a * epsilon - b * seen}


@pytest.mark.parametrize("gamma", [1e-4, 0.5, 5.0, 1e9])
def test_min_snr_is_the_same_number_whatever_is_predicted(gamma):
    schedule, x0, noise, t, *_ = noisy()
    error = torch.randn(x0.shape, dtype=x0.dtype, generator=torch.Generator().manual_seed(1))
    snr = schedule.snr[t].view(-1, 1, 1, 1)
    expected = (snr.clamp(max=gamma) * error**2).mean().item()
    for prediction, answer in answers_with_error(schedule, x0, noise, t, error).items():
        diffusion = GaussianDiffusion(Answer(answer), schedule, prediction)
        found = diffusion.loss(x0, t, noise, min_snr=gamma)
        assert found.shape == ()
        assert found.item() == pytest.approx(expected, rel=1e-8)


def test_min_snr_holds_down_nearly_clean_images_and_leaves_noisy_ones_alone():
    schedule, x0, noise, t, *_ = noisy()
    error = torch.ones_like(x0)
    answer = answers_with_error(schedule, x0, noise, t, error)["x0"]
    diffusion = GaussianDiffusion(Answer(answer), schedule, "x0")
    weights = diffusion.min_snr_weight(t, x0, 5.0)
    assert weights.shape == (6, 1, 1, 1)
    snr = schedule.snr[t]
    assert snr[0] > 100 and snr[-1] < 1e-2  # both kinds are there
    assert weights[snr > 5].unique().tolist() == [5.0]
    torch.testing.assert_close(weights[snr < 5].flatten(), snr[snr < 5], rtol=1e-9, atol=0)


def test_min_snr_with_epsilon_is_the_plain_loss_below_gamma():
    """Ho et al.'s loss already weighs an error in x_0 by the SNR."""
    schedule, x0, noise, t, *_ = noisy()
    diffusion = GaussianDiffusion(Answer(torch.randn_like(x0)), schedule, "epsilon")
    plain, weighted, none = (diffusion.loss(x0, t, noise, min_snr=gamma) for gamma in (0, 1e9, 0.0))
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-9)
    assert torch.equal(plain, none) and torch.equal(plain, diffusion.loss(x0, t, noise))
    assert diffusion.loss(x0, t, noise, min_snr=1.0) < 0.9 * plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"shift": 0.01}, {"shift": 100.0}], ids=str)
def test_min_snr_is_finite_at_every_timestep_of_every_schedule(settings, dtype):
    schedule = NoiseSchedule("cosine", 1000, **settings)
    x = torch.zeros(1000, 1, dtype=dtype)
    for prediction in PREDICTIONS:
        diffusion = GaussianDiffusion(nn.Identity(), schedule, prediction)
        weights = diffusion.min_snr_weight(torch.arange(1000), x, 5.0)
        assert weights.dtype == dtype and weights.isfinite().all() and (weights >= 0).all()


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_min_snr_gives_nothing_for_what_is_all_noise(prediction):
    schedule = NoiseSchedule("linear", 20, zero_terminal_snr=True)
    diffusion = GaussianDiffusion(Answer(torch.ones(2, 3)), schedule, prediction)
    x0, noise = torch.zeros(2, 3), torch.randn(2, 3)
    assert diffusion.loss(x0, torch.tensor([19, 19]), noise, min_snr=5.0) == 0


def test_min_snr_is_finite_where_the_images_have_too_few_digits_for_what_is_left():
    schedule = NoiseSchedule("linear", 13_000)
    assert 0 < schedule.alpha_bars[-1] < 1e-46  # 0 to float32
    diffusion = GaussianDiffusion(Answer(torch.zeros(2, 3)), schedule)
    loss = diffusion.loss(
        torch.zeros(2, 3), torch.tensor([0, 12_999]), torch.randn(2, 3), min_snr=5.0
    )
    assert loss.isfinite()


# Precision


def test_the_network_computes_in_the_precision_of_the_model_and_answers_in_that_of_the_images():
    model = small_model()
    inside = []
    model.network.stem.register_forward_hook(lambda *call: inside.append(call[2].dtype))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    exact = model(x, t)
    model.precision = torch.bfloat16
    rounded = model(x, t)
    assert inside == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("way", ["train", "evaluate", "sample"])
def test_training_evaluation_and_sampling_all_compute_in_the_precision_of_the_model(way):
    model = small_model()
    model.precision = torch.bfloat16
    inside = []
    model.network.stem.register_forward_hook(lambda *call: inside.append(call[2].dtype))
    if way == "train":
        images = torch.rand(2, 1, 8, 8)
        result = model.loss(images, torch.tensor([1, 5]), images)
        result.backward()
        assert {w.grad.dtype for w in model.parameters()} == {torch.float32}
    elif way == "evaluate":
        pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        loss_by_timestep(model, pixels, bins=2)
        result = torch.zeros(())
    else:
        result = sample(model, 2, steps=3)
    assert set(inside) == {torch.bfloat16} and result.dtype == torch.float32


# Clipping


def test_an_unknown_clip_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match="static, dynamic, off, not 'cut'"):
        clip_x0(torch.zeros(1, 1, 2, 2), "cut")


def test_no_clipping_leaves_everything_as_it_is():
    x0 = 5 * torch.randn(3, 2, 4, 4)
    assert torch.equal(clip_x0(x0, "off"), x0)


def test_static_clipping_clamps_each_pixel():
    x0 = torch.tensor([[-3.0, -1.0, 0.25, 1.0, 7.0]])
    assert clip_x0(x0, "static").tolist() == [[-1.0, -1.0, 0.25, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dynamic_clipping_leaves_alone_what_is_inside(dtype):
    x0 = (torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(dtype)
    assert torch.equal(clip_x0(x0, "dynamic"), x0)


@pytest.mark.parametrize("shape", [(5, 400), (5, 1, 20, 20), (5, 4, 10, 10)])
def test_dynamic_clipping_shrinks_each_image_by_its_own_quantile(shape):
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(shape, dtype=torch.float64, generator=generator) * 2 - 1
    factors = torch.tensor([0.5, 1.0, 1.5, 3.0, 40.0]).view(-1, *[1] * (len(shape) - 1))
    x0 = factors * inside
    clipped = clip_x0(x0, "dynamic")
    assert clipped.shape == x0.shape and clipped.dtype == x0.dtype and clipped.abs().max() <= 1
    for image, found in zip(x0, clipped, strict=True):
        reach = max(1.0, np.quantile(image.abs().numpy(), 0.995))
        torch.testing.assert_close(found, (image / reach).clamp(-1, 1), rtol=1e-5, atol=1e-6)
    # 99.5% of 400 pixels are inside, the 2 beyond are cut off: not all of them shrunk to fit
    for found in clipped[3:]:
        assert (found.abs() == 1).sum() == 2
    assert torch.equal(clipped[0], x0[0])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_dynamic_clipping_keeps_x0_and_epsilon_together(prediction):
    schedule, x0, _, t, a, b, x_t = noisy()
    diffusion = GaussianDiffusion(Answer(3 * torch.randn_like(x0)), schedule, prediction)
    free, clipped = (diffusion.denoise(x_t, t, clip) for clip in ("off", "dynamic"))
    torch.testing.assert_close(clipped.x0, clip_x0(free.x0, "dynamic"))
    torch.testing.assert_close(a * clipped.x0 + b * clipped.epsilon, x_t, rtol=1e-8, atol=1e-8)
    assert clipped.x0.abs().max() <= 1 < free.x0.abs().max()


# Files


@pytest.mark.parametrize("settings", [dict(shift=2.5), dict(shift=0.5, zero_terminal_snr=True)])
def test_shift_and_zero_terminal_snr_come_back_from_a_file(tmp_path, settings):
    schedule = NoiseSchedule("sigmoid", 30, 1e-3, 0.3, **settings)
    saved = GaussianDiffusion(small_model().network, schedule, "v")
    saved.save(tmp_path / "model.pth")
    loaded = GaussianDiffusion.load(tmp_path / "model.pth")
    assert_same_model(loaded, saved)
    assert asdict(loaded.schedule) == asdict(schedule)
    assert (loaded.schedule.shift, loaded.schedule.zero_terminal_snr) == (
        settings["shift"],
        settings.get("zero_terminal_snr", False),
    )
    assert torch.equal(loaded.schedule.alpha_bars, schedule.alpha_bars)


def test_a_file_of_before_the_shift_was_invented_loads(tmp_path):
    saved = small_model()
    content = saved.checkpoint()
    content["format"] = 1
    content["schedule"] = dict(name="sigmoid", timesteps=30, start=1e-3, end=0.3, s=0.008)
    torch.save(content, tmp_path / "model.pth")
    loaded = GaussianDiffusion.load(tmp_path / "model.pth")
    assert_same_model(loaded, saved)
    assert asdict(loaded.schedule) == asdict(saved.schedule)


def test_a_file_whose_parts_contradict_each_other_is_refused(tmp_path):
    content = small_model("epsilon").checkpoint()
    content["schedule"] = {**content["schedule"], "zero_terminal_snr": True}
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(InputError, match="zero_terminal_snr"):
        GaussianDiffusion.load(tmp_path / "model.pth")


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, prediction):
    saved = small_model(prediction)
    saved.save(tmp_path / "model.pth")
    loaded = GaussianDiffusion.load(tmp_path / "model.pth")
    assert_same_model(loaded, saved)
    assert not loaded.training
    assert loaded.prediction == prediction
    assert asdict(loaded.schedule) == asdict(saved.schedule)
    assert torch.equal(loaded.schedule.betas, saved.schedule.betas)


def test_a_path_may_be_text_and_its_folder_is_made(tmp_path):
    saved = small_model()
    saved.save(str(tmp_path / "new" / "folder" / "model.pth"))
    assert_same_model(GaussianDiffusion.load(str(tmp_path / "new/folder/model.pth")), saved)


def test_a_checkpoint_loads_with_weights_only_and_keeps_what_was_put_beside_it(tmp_path):
    small_model().save(tmp_path / "model.pth", training={"step": 7})
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert content["training"] == {"step": 7}
    assert content["format"] == 3
    assert set(content) == {
        "format",
        "network",
        "schedule",
        "prediction",
        "classes",
        "weights",
        "training",
    }
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


@pytest.mark.parametrize(
    ("name", "image_shape"),
    [("faces", (3, 16, 16)), ("digits", (1, 28, 28)), ("brains", (1, 64, 64))],
)
def test_a_model_that_comes_with_the_course_is_found_by_its_name_and_knows_its_images(
    name, image_shape
):
    diffusion = GaussianDiffusion.load(name)
    assert diffusion.image_shape == image_shape
    x0 = to_images(load_images(name, image_shape[-1])[:64])
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
    for name in BUNDLED:
        assert bundled_file(f"{name}.pth").stat().st_size < 3_000_000


def test_a_file_of_a_newer_version_is_refused_with_what_to_do(tmp_path):
    newer = {**small_model().checkpoint(), "format": 4, "network": "something else"}
    torch.save(newer, tmp_path / "model.pth")
    assert_refused(tmp_path / "model.pth", r"has format 4, newer than .* update Simple Diffusion")


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
