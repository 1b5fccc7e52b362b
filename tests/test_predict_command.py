"""The command line `predict`, used as people use it, rightly and wrongly."""

import io
import os
import pickle
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    OriginalUNet,
    TrainConfig,
    Trainer,
    UNet,
    plots,
    predict,
    sample,
)
from diffusion_lib.config import CLIPS, SAMPLERS, SPACINGS
from diffusion_lib.diffusion import build
from diffusion_lib.images.account import is_own
from diffusion_lib.images.pixels import to_pixels
from diffusion_lib.samplers import Step


def make_model(channels: int = 3, timesteps: int = 20) -> GaussianDiffusion:
    """A network of random weights, which makes of noise something that depends on all of it."""
    torch.manual_seed(0)
    network = UNet.for_images(8, channels, 8)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return GaussianDiffusion(network, NoiseSchedule("cosine", timesteps))


@pytest.fixture
def run(command, tmp_path):
    """run(flag, ...) predicts with a model of coloured images of 8x8 pixels, in tmp_path."""
    make_model().save(tmp_path / "model.pth")
    return lambda *flags: command(
        predict.main, "predict", "model.pth", "--device", "cpu", "--steps", 3, *flags
    )


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def files(folder: str | Path = ".") -> set[str]:
    return {path.name for path in Path(folder).iterdir()} - {"model.pth"}


def assert_refused(outcome, *words: str) -> None:
    """One line that says what is wrong, and exit status 2."""
    assert outcome.status == 2
    assert len(outcome.messages) == 1, outcome.messages
    assert outcome.messages[0].startswith("predict: error: ")
    assert [word for word in words if word not in outcome.messages[0]] == []


# Images


def test_one_image_is_made_where_one_stands(run):
    outcome = run()
    assert outcome.status == 0 and outcome.messages == []
    assert files() == {"predict0.png"} and "predict0.png" in outcome.out
    image = Image.open("predict0.png")
    assert (image.size, image.mode) == ((8, 8), "RGB")


@pytest.mark.parametrize("flag", ["-i", "--num_images", "--num-images"])
def test_as_many_images_as_were_asked_for(run, flag):
    assert run(flag, 3).status == 0
    assert files() == {"predict0.png", "predict1.png", "predict2.png"}


@pytest.mark.parametrize("flags", [("-o", "deep/er"), ("--output", "deep/er/")])
def test_another_folder_is_made(run, flags):
    run(*flags)
    assert files("deep/er") == {"predict0.png"} and files() == {"deep"}


@pytest.mark.parametrize("flag", ["-n", "--name"])
def test_another_prefix(run, flag):
    run(flag, "knee", "-i", 2)
    assert files() == {"knee0.png", "knee1.png"}


@pytest.mark.parametrize(
    "name, format",
    [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tif", "TIFF")],
)
def test_formats(run, name, format):
    run("--format", name)
    image = Image.open(f"predict0.{name}")
    assert (image.format, image.size, image.mode) == (format, (8, 8), "RGB")


def test_png_is_the_sample_pixel_for_pixel_and_not_transposed(run):
    run("--seed", 5, "-i", 2)
    expected = to_pixels(sample(make_model(), 2, steps=3, seed=5)).permute(0, 2, 3, 1).numpy()
    for i in range(2):
        assert np.abs(pixels(f"predict{i}.png") - expected[i]).max() <= 1
        assert np.abs(pixels(f"predict{i}.png").transpose(1, 0, 2) - expected[i]).max() > 20


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_a_grey_model_makes_grey_files(run, tmp_path, format):
    make_model(channels=1).save(tmp_path / "model.pth")
    assert run("--format", format, "--grid", "--strip").status == 0
    assert Image.open(f"predict0.{format}").mode == "L"


def test_numbers_go_on_and_nothing_is_overwritten(run):
    run("-i", 2, "--seed", 1)
    before = [Path(f"predict{i}.png").read_bytes() for i in range(2)]
    assert run("-i", 2, "--seed", 2).status == 0
    assert files() == {f"predict{i}.png" for i in range(4)}
    assert [Path(f"predict{i}.png").read_bytes() for i in range(2)] == before


def test_numbers_go_on_after_the_highest_in_any_format(run):
    for name in ("predict7.jpg", "predict_old.png", "predicted9.png", "other50.png"):
        Path(name).write_bytes(b"mine")
    run()
    assert "predict8.png" in files() and Path("predict7.jpg").read_bytes() == b"mine"


def test_grids_and_strips_are_not_overwritten_either(run):
    for _ in range(2):
        assert run("--grid", "--strip").status == 0
    assert len([name for name in files() if "grid" in name]) == 2
    assert len([name for name in files() if "strip" in name]) == 2


def test_a_grid_alone_has_the_same_images(run):
    result = run("--only_grid", "-i", 4, "--seed", 1)
    assert files() == {"predict_grid.png"}
    alone = pixels("predict_grid.png")
    assert "seed 1, " in result.out and "predict_grid.png" in result.out
    Path("predict_grid.png").unlink()
    run("--grid", "-i", 4, "--seed", 1)
    assert np.array_equal(alone, pixels("predict_grid.png"))


def test_a_grid_shows_all_images(run):
    run("--grid", "-i", 4, "--seed", 1)
    grid = pixels("predict_grid.png")
    assert files() == {*(f"predict{i}.png" for i in range(4)), "predict_grid.png"}
    for i in range(4):
        large = pixels(f"predict{i}.png").repeat(8, 0).repeat(8, 1)  # at least 64 pixels wide
        y, x = (2 + 66 * place for place in divmod(i, 2))
        assert np.array_equal(grid[y : y + 64, x : x + 64], large)


@pytest.fixture
def strips(monkeypatch):
    """What is drawn as strips: (noise, steps) of each."""
    drawn, draw = [], plots.denoising_strip

    def spy(noise, steps, *more, **settings):
        steps = list(steps)
        drawn.append((noise, steps))
        return draw(noise, steps, *more, **settings)

    monkeypatch.setattr(plots, "denoising_strip", spy)
    return drawn


@pytest.mark.parametrize("flags", ["-i 1", "-i 3", "-i 3 --sampler ddpm", "-i 1 --sampler ddpm"])
def test_a_strip_ends_in_the_first_image(run, strips, flags):
    run("--strip", "--seed", 1, *flags.split())
    ((_, steps),) = strips
    assert Image.open("predict_strip.png").width > 500 and len(steps) == 3
    shown = to_pixels(steps[-1].x[0]).permute(1, 2, 0).numpy()
    assert np.abs(shown - pixels("predict0.png")).max() <= 1


def test_a_strip_takes_as_many_steps_as_the_images(command, strips, tmp_path):
    make_model(timesteps=70).save(tmp_path / "model.pth")
    command(predict.main, "predict", "model.pth", "--device", "cpu", "--strip", "--seed", 1)
    ((_, steps),) = strips
    assert len(steps) == 20


# Chance


def test_the_same_seed_gives_the_same_pixels_in_batches_of_any_size(run):
    for size in (1, 2, 5):
        run("--seed", 3, "-i", 5, "--batch_size", size, "-n", f"b{size}_")
    for i in range(5):
        assert np.abs(pixels(f"b1_{i}.png") - pixels(f"b5_{i}.png")).max() <= 1
        assert np.abs(pixels(f"b2_{i}.png") - pixels(f"b5_{i}.png")).max() <= 1
        assert np.abs(pixels(f"b5_{i}.png") - pixels(f"b5_{(i + 1) % 5}.png")).max() > 20


def test_another_seed_gives_another_image(run):
    for seed in (0, 1):
        run("--seed", seed, "-n", f"s{seed}_")
    assert np.abs(pixels("s0_0.png") - pixels("s1_0.png")).max() > 20


def test_without_a_seed_every_call_gives_another_image_and_names_its_seed(run):
    first, second = run(), run()
    assert np.abs(pixels("predict0.png") - pixels("predict1.png")).max() > 20
    assert first.out != second.out
    seed = first.out.split()[1].rstrip(":")
    run("--seed", seed)
    assert np.array_equal(pixels("predict2.png"), pixels("predict0.png"))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_repeats_itself(run, sampler):
    for _ in range(2):
        assert run("--seed", 1, "--sampler", sampler).status == 0
    assert np.array_equal(pixels("predict0.png"), pixels("predict1.png"))


def test_samplers_and_steps_make_a_difference(run):
    ways = ["", "--steps 20", *(f"--sampler {name}" for name in SAMPLERS[1:])]
    for flags in ways:
        assert run("--seed", 1, *flags.split()).status == 0
    images = [pixels(f"predict{i}.png") for i in range(len(ways))]
    for one, other in combinations(images, 2):
        assert np.abs(one - other).max() > 2  # more than rounding


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ("", dict(sampler="dpm_solver")),
        ("--sampler heun", dict(sampler="heun")),
        ("--spacing auto", dict(spacing="trailing")),
        ("--spacing auto --sampler ddim", dict(sampler="ddim", spacing="linspace")),
        *((f"--spacing {name}", dict(spacing=name)) for name in SPACINGS[1:]),
        ("--clip static", dict(clip="static")),
        ("--clip dynamic", dict(clip="dynamic")),
        ("--clip off", dict(clip="off")),
        (
            "--sampler ddim --spacing trailing --clip off",
            dict(sampler="ddim", spacing="trailing", clip="off"),
        ),
    ],
)
def test_flags_reach_the_sampler(run, strips, flags, settings):
    outcome = run("--seed", 5, "--strip", *flags.split())
    assert outcome.status == 0 and outcome.messages == []
    expected = to_pixels(sample(make_model(), 1, steps=3, seed=5, **settings))
    assert np.abs(pixels("predict0.png") - expected[0].permute(1, 2, 0).numpy()).max() <= 1
    ((_, steps),) = strips  # the strip shows the same way
    shown = to_pixels(steps[-1].x.clamp(-1, 1)[0]).permute(1, 2, 0).numpy()
    assert np.abs(shown - pixels("predict0.png")).max() <= 1


def precisions_of(monkeypatch) -> set[torch.dtype]:
    """A set to which each call of a model's network adds its precision."""
    seen, forward = set(), GaussianDiffusion.forward

    def noted(self, *inputs):
        seen.add(self.precision)
        return forward(self, *inputs)

    monkeypatch.setattr(GaussianDiffusion, "forward", noted)
    return seen


@pytest.mark.parametrize(
    "flags, precision", [("", "float32"), ("--precision bfloat16", "bfloat16")]
)
def test_the_precision_reaches_the_network(run, monkeypatch, flags, precision):
    """float32 is what auto makes of a CPU."""
    seen = precisions_of(monkeypatch)
    flags = [] if precision == "float32" else ["--precision", precision]
    outcome = run("--seed", 5, "--strip", *flags)
    assert outcome.status == 0 and outcome.messages == []
    assert seen == {getattr(torch, precision)}
    expected = to_pixels(sample(make_model(), 1, steps=3, seed=5))[0].permute(1, 2, 0).numpy()
    error = np.abs(pixels("predict0.png") - expected).max()
    assert error <= 1 if precision == "float32" else 1 < error < 100


@pytest.mark.parametrize("flag, names", [("--spacing", SPACINGS[1:]), ("--clip", CLIPS)])
def test_spacings_and_clips_make_a_difference(run, flag, names):
    for name in names:
        run("--seed", 1, flag, name, "-n", name)
    for one, other in combinations(names, 2):
        assert np.abs(pixels(f"{one}0.png") - pixels(f"{other}0.png")).max() > 5


@pytest.mark.parametrize(
    "sampler, steps",
    [
        ("dpm_solver", 20),
        ("dpm_solver_sde", 20),
        ("heun", 19),  # calls: two a step, one for the last
        ("ddim", 50),
        ("ddpm", 70),
    ],
)
def test_steps_without_a_word(command, tmp_path, monkeypatch, sampler, steps):
    make_model(timesteps=70).save(tmp_path / "model.pth")
    calls, denoise = [], GaussianDiffusion.denoise
    monkeypatch.setattr(GaussianDiffusion, "denoise", lambda *a: calls.append(1) or denoise(*a))
    command(predict.main, "predict", "model.pth", "--device", "cpu", "--sampler", sampler)
    assert len(calls) == steps


# Models


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_model_with_a_shifted_schedule_that_leaves_nothing_predicts(run, tmp_path, sampler):
    schedule = NoiseSchedule("cosine", 20, shift=2.0, zero_terminal_snr=True)
    GaussianDiffusion(make_model().network, schedule, "v").save(tmp_path / "model.pth")
    outcome = run("--sampler", sampler, "--seed", 1)
    assert outcome.status == 0 and outcome.messages == []
    assert pixels("predict0.png").std() > 5


def test_a_run_that_is_not_finished_predicts_with_its_average(command, tmp_path):
    config = TrainConfig(image_size=8, width=8, timesteps=20, device="cpu")
    trainer = Trainer(build(config, 3), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), config)
    trainer.save(tmp_path / "autosave.pth", name="mine")
    assert command(predict.main, "predict", "autosave.pth", "--device", "cpu").status == 0


def test_a_model_of_the_original_predicts(command, tmp_path):
    torch.manual_seed(0)
    content = {
        "model_state_dict": OriginalUNet(8).state_dict(),
        "image_size": 8,
        "schedule": "linear",
        "timesteps": 30,
        "start": 1e-4,
        "end": 0.02,
        "create_images": True,
        "tensorboard": False,
    }
    torch.save(content, tmp_path / "AKOA2.pth")
    outcome = command(predict.main, "predict", "AKOA2.pth", "-i", 2, "--device", "cpu")
    assert outcome.status == 0 and outcome.messages == []
    assert Image.open("predict1.png").size == (8, 8) and Image.open("predict1.png").mode == "RGB"


class Evil:
    """Unpickling it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("hacked",)


def bad_files() -> dict[str, bytes]:
    def saved(content: object) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    whole = make_model().checkpoint()
    cut = saved(whole)
    return {
        "empty": b"",
        "text": b"hello\n",
        "static": cut[: len(cut) // 2],
        "pickle that runs code": pickle.dumps(Evil()),
        "checkpoint that runs code": saved({**whole, "more": Evil()}),
        "tensor": saved(torch.zeros(3)),
        "state_dict": saved(whole["weights"]),
        "other project": saved({"epoch": 3, "state_dict": whole["weights"]}),
        "newer": saved({**whole, "format": 99}),
        "format is text": saved({**whole, "format": "new"}),
        "unknown network": saved({**whole, "network": {"kind": "transformer"}}),
        "network is text": saved({**whole, "network": "unet"}),
        "network without levels": saved(
            {**whole, "network": {**whole["network"], "multipliers": ()}}
        ),
        "weights are a list": saved({**whole, "weights": [1, 2]}),
        "weights of another size": saved({**whole, "network": {"kind": "unet", "image_size": 8}}),
        "schedule is missing": saved({**whole, "schedule": None}),
        "schedule is unknown": saved({**whole, "schedule": {"name": "sine"}}),
        "original without weights": saved({"model_state_dict": {}, "image_size": 8}),
        "original of text": saved({"model_state_dict": "abc", "image_size": "8"}),
    }


@pytest.mark.parametrize("kind", bad_files())
def test_a_bad_model_is_answered_with_one_line(run, kind):
    Path("model.pth").write_bytes(bad_files()[kind])
    assert_refused(run(), "model.pth" if kind != "schedule is unknown" else "sine")
    assert files() == set()


@pytest.mark.parametrize("kind", ["pickle that runs code", "checkpoint that runs code"])
def test_nobody_is_told_how_to_run_the_code_of_a_bad_model(run, kind):
    Path("model.pth").write_bytes(bad_files()[kind])
    (message,) = run().messages
    assert "never run" in message and "weights_only" not in message


def test_a_missing_model_is_answered_with_one_line(command):
    assert_refused(command(predict.main, "predict", "nowhere.pth"), "nowhere.pth")


def test_a_folder_is_no_model(command, tmp_path):
    assert_refused(command(predict.main, "predict", tmp_path))


# Errors


@pytest.mark.parametrize(
    "flags, word",
    [
        ("-i 0", "0"),
        ("-i -3", "-3"),
        ("-i two", "two"),
        ("-b 0", "0"),
        ("--steps -1", "-1"),
        ("--steps 21", "21"),
        ("--steps 2.5", "2.5"),
        ("--sampler euler", "euler"),
        ("--spacing karras", "karras"),
        ("--spacing", "--spacing"),
        ("--clip", "--clip"),
        ("--clip true", "true"),
        ("--format gif", "gif"),
        ("--device gpu", "gpu"),
        ("--seed x", "x"),
        (f"--seed {10**30}", "seed"),
        ("-n a/b", "a/b"),
        ("-o model.pth", "model.pth"),
        ("-o model.pth/x", "model.pth"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_a_wrong_flag_is_answered_with_one_line(run, flags, word):
    assert_refused(run(*flags.split()), word)
    assert files() == set()


def test_the_model_must_be_named(command):
    assert_refused(command(predict.main, "predict"), "MODEL")


def test_images_that_cannot_be_written_are_answered_with_one_line(run):
    assert_refused(run("-n", "x" * 300), "x" * 20)


# Labels


@pytest.fixture
def labeled(command, tmp_path):
    """labeled(flag, ...) predicts with a model of two columns of labels."""
    torch.manual_seed(0)
    classes = {"hair": ["long", "short"], "hat": ["none", "red"]}
    network = UNet.for_images(8, 1, 8, classes=(2, 2))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    GaussianDiffusion(network, NoiseSchedule("cosine", 20), classes=classes).save("model.pth")
    return lambda *flags: command(
        predict.main, "predict", "model.pth", "--device=cpu", "--steps=3", "--seed=0", *flags
    )


def test_a_label_is_drawn_and_named(labeled):
    outcome = labeled("--label", "long+hat=none", "-i", 3)
    assert outcome.status == 0 and "long+hat=none: predict0.png ... predict2.png" in outcome.out
    model = GaussianDiffusion.load("model.pth")
    expected = sample(model, 3, steps=3, labels="long+hat=none", guidance=2.0)
    for number, image in enumerate(to_pixels(expected)):
        assert np.array_equal(pixels(f"predict{number}.png"), image[0].numpy())
    assert files() == {"predict0.png", "predict1.png", "predict2.png", "predict_grid.png"}


def test_every_label_has_a_row(labeled):
    outcome = labeled("--label", "all", "-i", 2, "--strip")
    for row, label in enumerate(["hair=long", "hair=short", "hat=none", "hat=red"]):
        assert f"{label}: predict{2 * row}.png ... predict{2 * row + 1}.png" in outcome.out
    height, width, _ = pixels("predict_grid.png").shape
    assert height == 4 * 66 + 2 and width > 2 * 66 + 2  # with room for the names
    assert Path("predict_strip.png").is_file()


def test_several_labels_give_eight_images_of_each(labeled):
    assert labeled("--label", "long,red").status == 0
    assert len(files()) == 2 * 8 + 1


def test_guidance_changes_the_images_and_scale_0_leaves_the_label_out(labeled):
    for name, flags in {
        "plain": [],
        "none": ["--label", "long", "--guidance", 0],
        "one": ["--label", "long", "--guidance", 1],
        "more": ["--label", "long", "--guidance", 4],
    }.items():
        assert labeled("-n", name, *flags).status == 0
    drawn = {name: pixels(f"{name}0.png") for name in ("plain", "none", "one", "more")}
    assert np.array_equal(drawn["plain"], drawn["none"])
    assert not np.array_equal(drawn["none"], drawn["one"])
    assert not np.array_equal(drawn["one"], drawn["more"])


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--label", "lnog"], ["lnog", "did you mean long"]),
        (["--guidance", "3"], ["--guidance", "--label"]),
        (["--label", "long", "--guidance", "-1"], ["guidance", "at least 0"]),
    ],
)
def test_a_label_that_cannot_be_drawn_is_answered_with_one_line(labeled, flags, words):
    assert_refused(labeled(*flags), *words)
    assert files() == set()


def test_a_model_without_labels_is_asked_for_none(run):
    assert_refused(run("--label", "7"), "trained without labels")


# From an image


@pytest.fixture
def sketch(tmp_path):
    """sketch.png: left red, right blue, 12 x 8; mask.png: white in the upper half."""
    image = np.zeros((8, 12, 3), np.uint8)
    image[:, :6, 0], image[:, 6:, 2] = 255, 255
    Image.fromarray(image).save(tmp_path / "sketch.png")
    mask = np.zeros((8, 12), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"sketch.png", "mask.png"}


def test_an_image_is_drawn_anew(run, sketch):
    for strength in (0.15, 1):
        flags = ("--strength", strength, "-i", 2, "-n", f"s{strength}_", "--seed", 0)
        assert run("--from", "sketch.png", *flags).status == 0
    red, blue = pixels("sketch.png")[0, 0], pixels("sketch.png")[0, -1]
    near, far = pixels("s0.15_0.png"), pixels("s1_0.png")
    assert np.abs(near[:, 0] - red).mean() < 40 and np.abs(near[:, -1] - blue).mean() < 40
    assert np.abs(far - near).mean() > 40


def test_half_of_an_image_is_drawn_anew(run, sketch, tmp_path):
    outcome = run(
        "--from", "sketch.png", "--inpaint", "mask.png", "-i", 2, "--strip", "--gif", "--seed", 0
    )
    assert outcome.status == 0 and "inpaint" in outcome.out
    for name in ("predict0.png", "predict1.png"):
        lower, upper = pixels(name)[4:], pixels(name)[:4]
        assert np.abs(lower[:, 0] - [255, 0, 0]).max() <= 1
        assert np.abs(lower[:, -1] - [0, 0, 255]).max() <= 1
        assert np.abs(upper[:, 0] - [255, 0, 0]).mean() > 20
    assert files() - sketch == {"predict0.png", "predict1.png", "predict_strip.png", "predict.gif"}


def test_a_grey_model_takes_a_coloured_image(run, sketch, tmp_path):
    make_model(channels=1).save(tmp_path / "model.pth")
    run("--from", "sketch.png", "--strength", 0.15, "--fit", "squash", "-i", 16, "--seed", 0)
    left, right = np.mean([pixels(f"predict{i}.png")[:, [0, -1]] for i in range(16)], axis=(0, 1))
    assert abs(left - 76) < 15 and abs(right - 29) < 15  # 0.299 x 255 of red, 0.114 x 255 of blue


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--from sktech.png", ["sktech.png", "did you mean sketch.png?"]),
        ("--from nowhere/sketch.png", ["nowhere/sketch.png"]),
        ("--from model.pth", ["model.pth", "not an image"]),
        ("--from cut.png", ["cut.png", "damaged"]),
        ("--from sketch.png --inpaint msk.png", ["did you mean mask.png?"]),
        ("--from sketch.png --inpaint black.png", ["black.png has no white"]),
        ("--from sketch.png --inpaint mask.png --sampler ddim", ["--sampler"]),
        ("--from sketch.png --strength 0", ["strength", "more than 0"]),
        ("--from sketch.png --strength 1.1", ["strength", "at most 1"]),
        ("--strength 0.5", ["--from"]),
        ("--inpaint mask.png", ["--from"]),
    ],
)
def test_an_image_that_cannot_be_edited_is_answered_with_one_line(run, sketch, flags, words):
    Path("cut.png").write_bytes(Path("sketch.png").read_bytes()[:60])
    Image.new("L", (12, 8)).save("black.png")
    assert_refused(run(*flags.split()), *words)
    assert not list(Path().glob("predict*"))


# Films and large pixels


def test_a_film_ends_in_the_first_images(run):
    assert run("-i", 20, "--gif", "--seed", 1).status == 0
    film = Image.open("predict.gif")
    assert film.n_frames == 4 and film.size == (4 * 66 + 2,) * 2  # noise and three steps; 16 images
    film.seek(3)
    shown = np.asarray(film.convert("RGB")).astype(int)[2:66:8, 2:66:8]
    assert np.abs(shown - pixels("predict0.png")).mean() < 10  # of 128 colours


def test_films_are_not_overwritten_and_not_trained_on(run):
    for _ in range(2):
        run("--gif")
    assert {"predict.gif", "predict1.gif"} <= files()
    assert all(is_own(path.read_bytes()) for path in Path().glob("*.gif"))


def test_a_film_of_many_steps_is_short(run):
    run("--gif", "--steps", 20, "--seed", 1)  # with some seeds two frames are alike
    assert Image.open("predict.gif").n_frames == 21
    noise, steps = (
        torch.zeros(1, 3, 8, 8),
        [Step(t, torch.zeros(1, 3, 8, 8), None) for t in range(200)],
    )
    assert len(plots.denoising_film(noise, steps).frames) == 60


def test_pixels_are_shown_larger(run):
    for scale in (1, 3):
        run("--seed", 1, "--scale", scale, "-n", f"x{scale}_")
    assert np.array_equal(pixels("x3_0.png"), pixels("x1_0.png").repeat(3, 0).repeat(3, 1))


def test_help_has_groups_and_examples(command):
    out = command(predict.main, "predict", "--help").out
    assert [g for g in ("what to draw:", "how to draw it:", "what to write:") if g not in out] == []
    assert out.count("python -m diffusion_lib.predict ") >= 3
