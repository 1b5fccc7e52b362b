"""The command line `evaluate`, used as people use it, rightly and wrongly."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import make_images
from PIL import Image
from torch import Tensor

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    UNet,
    evaluate,
    features,
    load_images,
    metrics,
    to_images,
    to_pixels,
)
from diffusion_lib.plots import save_image
from diffusion_lib.sampling import sample_batches


def make_model(channels: int = 3, size: int = 16) -> GaussianDiffusion:
    """A network of random weights."""
    torch.manual_seed(0)
    return GaussianDiffusion(UNet.for_images(size, channels, 8), NoiseSchedule("cosine", 20))


def fast_features(device: torch.device | str) -> features.Features:
    """Mean colours of the four quarters of an image, in place of a network's features."""

    def features(images: Tensor) -> Tensor:
        images = images.to(device).expand(-1, 3, -1, -1)
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1).cpu()

    return features


@pytest.fixture(scope="module")
def portraits(tmp_path_factory) -> Path:
    """Two folders of portraits, of 60 and of 20."""
    folder = tmp_path_factory.mktemp("portraits")
    pixels = load_images("faces", 16)[::50]
    for name, some in (("seen", pixels[:60]), ("unseen", pixels[60:])):
        (folder / name).mkdir()
        for i, image in enumerate(some):
            array = image.permute(1, 2, 0).contiguous().numpy()
            Image.fromarray(array).save(folder / name / f"{i:03d}.png")
    return folder


@pytest.fixture
def run(command, tmp_path, monkeypatch, portraits):
    """run(flag, ...) evaluates a model of coloured images of 16x16 pixels, in tmp_path."""
    monkeypatch.setitem(features.FEATURES, "efficientnet", fast_features)
    make_model().save(tmp_path / "model.pth")

    def call(*flags: object, path: str | Path = portraits / "seen", steps: int | None = 2):
        settings = ["--device", "cpu", "--num_images", 20]
        settings += [] if steps is None else ["--steps", steps]
        return command(evaluate.main, "evaluate", "model.pth", path, *settings, *flags)

    return call


def numbers_of(run, *flags: object, **settings) -> dict:
    """All numbers of a call that must succeed."""
    Path("numbers.json").unlink(missing_ok=True)
    outcome = run("--output", "numbers.json", *flags, **settings)
    assert outcome.status == 0 and outcome.messages == [], outcome
    return json.loads(Path("numbers.json").read_text())


def without_times(numbers: dict) -> dict:
    return {key: value for key, value in numbers.items() if key != "seconds"}


def assert_refused(outcome, *words: str) -> None:
    """One line that says what is wrong, and exit status 2."""
    assert outcome.status == 2
    assert len(outcome.messages) == 1, outcome.messages
    assert outcome.messages[0].startswith("evaluate: error: ")
    assert [word for word in words if word not in outcome.messages[0]] == []


def folder_of(sample_batch: Tensor, folder: Path) -> Path:
    """A folder of images in [-1, 1], shape (N, C, H, W)."""
    folder.mkdir()
    for i, image in enumerate(sample_batch):
        save_image(image, folder / f"{i:03d}.png")
    return folder


# What is shown


def test_the_table_shows_every_number_in_line(run, portraits):
    outcome = run("--held_out", portraits / "unseen", "--output", "numbers.json")
    assert outcome.status == 0 and outcome.messages == []
    numbers = json.loads(Path("numbers.json").read_text())
    for words in (
        "60 of ",
        "16x16, colour",
        "20 of model.pth, by dpm_solver in 2 steps, seed 0",
        "20 samples, and as many other real images, against 20 real images",
        "Frechet distance, 20 to all 60",
        "loss of epsilon",
        "t = 18..19",
    ):
        assert words in outcome.out
    for who in ("samples", "real"):
        for key, form in (("frechet_distance", ".2f"), ("precision", ".3f"), ("recall", ".3f")):
            assert format(numbers[who][key], form) in outcome.out
        for key in ("kernel_distance", "kernel_std"):
            assert format(1000 * numbers[who][key], ".2f") in outcome.out
    for key in ("samples", "held_out"):
        assert format(numbers["nearest"][key], ".4f") in outcome.out
    for level in numbers["loss"] + numbers["held_out_loss"]:
        assert format(level["loss"], ".4f") in outcome.out
    shown = outcome.out.split("\n\n", 1)[1].splitlines()
    alone = ("to all", "numbers", "half as far")  # of samples only
    aligned = [line for line in shown if line and not any(words in line for words in alone)]
    assert {len(line) for line in aligned} == {62} and len(aligned) == 20


def test_nothing_is_written_unless_asked_for(run):
    assert run().status == 0
    assert [path.name for path in Path().iterdir()] == ["model.pth"]


@pytest.mark.slow
def test_the_real_efficientnet_looks_at_them(run, monkeypatch, portraits):
    monkeypatch.setitem(features.FEATURES, "efficientnet", features.efficientnet_features)
    numbers = numbers_of(run, "--num_images", 10, path=portraits / "unseen")
    assert numbers["features"] == "efficientnet"
    assert numbers["samples"]["frechet_distance"] > 2 * numbers["real"]["frechet_distance"] > 0
    assert numbers["samples"]["kernel_distance"] > 5 * abs(numbers["real"]["kernel_distance"])


def test_a_grey_model_sees_grey_images(run, tmp_path):
    make_model(channels=1, size=8).save(tmp_path / "model.pth")
    numbers = numbers_of(run)
    assert numbers["image_shape"] == [1, 8, 8]


# What is measured


def test_all_numbers_are_those_of_the_functions(run, portraits):
    """In one go, where the command goes batch by batch, in batches that do not divide."""
    real, unseen = (load_images(portraits / name, 16, 3) for name in ("seen", "unseen"))
    numbers = numbers_of(run, "--batch_size", 7, "--seed", 3, "--held_out", portraits / "unseen")
    batches = sample_batches(make_model().eval(), 20, steps=2, batch_size=7, seed=3)
    pixels = to_pixels(torch.cat(list(batches)))
    look, statistics = fast_features("cpu"), features.FeatureStatistics
    drawn, known = (look(to_images(some)) for some in (pixels, real))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    half, other = known[order[:20]], known[order[20:40]]
    assert numbers["compared"] == 20
    for who, rows in (("samples", drawn), ("real", other)):
        frechet = metrics.frechet_distance(statistics().add(rows), statistics().add(half))
        assert numbers[who]["frechet_distance"] == pytest.approx(frechet, rel=1e-3)
        kernel = metrics.kernel_distance(rows, half, subset_size=10)
        assert numbers[who]["kernel_distance"] == pytest.approx(kernel.mean, rel=1e-3)
        assert numbers[who]["kernel_std"] == pytest.approx(kernel.std, rel=1e-3)
        found = metrics.precision_recall(half, rows)
        assert (numbers[who]["precision"], numbers[who]["recall"]) == pytest.approx(found)
    to_all = metrics.frechet_distance(statistics().add(drawn), statistics().add(known))
    assert numbers["frechet_distance_all"] == pytest.approx(to_all, rel=1e-3)
    copies = metrics.memorization(pixels, real, unseen)
    assert numbers["nearest"] == pytest.approx(copies._asdict(), rel=1e-3)
    assert len(numbers["loss"]) == len(numbers["held_out_loss"]) == 10
    mean = sum(level["loss"] for level in numbers["loss"]) / 10
    assert mean == pytest.approx(1, abs=0.2)  # untrained, it answers 0, and is asked for noise


def test_as_many_samples_are_compared_as_there_are_in_half_of_the_images(run):
    numbers = numbers_of(run, "--num_images", 50)
    assert (numbers["num_images"], numbers["compared"], numbers["real_images"]) == (50, 30, 60)


def test_images_of_the_model_itself_are_as_far_as_each_other(run, tmp_path):
    """And copies of what it was trained on are called so: here, its own samples."""
    batches = sample_batches(make_model().eval(), 40, steps=2, seed=1)
    others = folder_of(torch.cat(list(batches)), tmp_path / "others")
    numbers = numbers_of(run, path=others)
    ratio = numbers["samples"]["frechet_distance"] / numbers["real"]["frechet_distance"]
    assert 0.3 < ratio < 3 and numbers["nearest"]["copies"] < 0.3
    numbers = numbers_of(run, "--seed", 1, path=others)
    assert numbers["nearest"]["samples"] == 0 and numbers["nearest"]["copies"] == 1


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(run):
    first, again, other = (numbers_of(run, "--seed", seed) for seed in (1, 1, 2))
    assert without_times(first) == without_times(again)
    assert first["samples"] != other["samples"] and first["real"] != other["real"]


def test_the_size_of_batches_changes_nothing(run):
    first, second = (numbers_of(run, "--batch_size", size) for size in (8, 64))
    for who in ("samples", "real"):
        assert first[who] == pytest.approx(second[who], rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("sampler, steps", [("ddpm", 20), ("heun", 10)])
def test_a_sampler_takes_its_default_steps_without_a_word(run, sampler, steps):
    numbers = numbers_of(run, "--sampler", sampler, steps=None)
    assert (numbers["sampler"], numbers["steps"]) == (sampler, steps)


def test_the_precision_reaches_the_network(run, tmp_path):
    model = make_model()
    with torch.no_grad():
        for weights in model.parameters():  # untrained, it answers 0 in any precision
            weights.add_(0.05 * torch.randn(weights.shape))
    model.save(tmp_path / "model.pth")
    exact, rounded = (numbers_of(run, *flags) for flags in ((), ("--precision", "bfloat16")))
    assert (exact["precision"], rounded["precision"]) == ("float32", "bfloat16")
    assert exact["samples"] != rounded["samples"]
    for one, other in zip(exact["loss"], rounded["loss"], strict=True):
        assert one["loss"] != other["loss"] and one["loss"] == pytest.approx(other["loss"], rel=0.1)


def test_only_sampling_is_timed(run, monkeypatch):
    """Not the features in between: the clock here goes on at each look."""
    clock = itertools.count()
    monkeypatch.setitem(features.FEATURES, "efficientnet", fast_features)
    monkeypatch.setattr(evaluate.time, "perf_counter", lambda: float(next(clock)))
    numbers = evaluate.measure(
        make_model(),
        load_images("faces", 16)[:20],
        None,
        evaluate.EvaluateConfig(num_images=20, steps=2, batch_size=5, device="cpu"),
    )
    assert numbers["seconds"] == 4  # one tick a batch: none of those between batches


# Errors


@pytest.mark.parametrize(
    "flags, word",
    [
        ("-i 0", "0"),
        ("-i 3", "3"),
        ("-i two", "two"),
        ("-b 0", "0"),
        ("--steps -1", "-1"),
        ("--steps 21", "21"),
        ("--sampler euler", "euler"),
        ("--features eye", "eye"),
        ("--fit stretch", "stretch"),
        ("--device gpu", "gpu"),
        ("--seed -1", "-1"),
        ("--held_out nowhere", "nowhere"),
        ("--output model.pth", "model.pth"),
        ("--output model.pth/x.json", "model.pth"),
        ("--output .", "exists already"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_a_wrong_flag_is_answered_with_one_line(run, flags, word):
    assert_refused(run(*flags.split()), word)


def test_missing_features_are_answered_with_one_line(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert_refused(run("--features", "inception"), "pip install torch-fidelity")


def test_missing_images_are_answered_with_one_line(run, tmp_path):
    assert_refused(run(path="nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    assert_refused(run(path="empty"), "empty")


def test_few_images_are_answered_with_one_line(run, tmp_path):
    assert_refused(run(path=make_images(tmp_path / "few", 7)), "at least 8", "has 7", "few")
    assert numbers_of(run, path=make_images(tmp_path / "enough", 8))["compared"] == 4


def test_a_missing_or_a_bad_model_is_answered_with_one_line(command, run, portraits):
    assert_refused(command(evaluate.main, "evaluate", "no.pth", portraits / "seen"), "no.pth")
    Path("model.pth").write_bytes(b"hello")
    assert_refused(run(), "model.pth")


def test_model_and_path_must_be_named(command):
    assert_refused(command(evaluate.main, "evaluate"), "MODEL", "PATH")
    assert_refused(command(evaluate.main, "evaluate", "faces"), "PATH")


def test_a_broken_model_is_answered_with_one_line(run, tmp_path):
    model = make_model()
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(torch.nan)
    model.save(tmp_path / "model.pth")
    assert_refused(run(), "not finite")


# Labels


@pytest.fixture
def labeled(tmp_path) -> Path:
    """Forty portraits in two folders, three of four in the first, and a model of these labels."""
    for i, image in enumerate(load_images("faces", 16)[::100]):
        folder = tmp_path / "set" / ("a" if i % 4 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{i}.png")
    network = UNet.for_images(16, 3, 8, classes=(2,))
    classes = {"folder": ["a", "b"]}
    return network, classes, tmp_path / "set"


def test_samples_have_the_labels_of_the_images(run, labeled, monkeypatch):
    network, classes, folder = labeled
    GaussianDiffusion(network, NoiseSchedule("cosine", 20), classes=classes).save("model.pth")
    seen, draw_labels = [], evaluate.draw_labels
    monkeypatch.setattr(evaluate, "draw_labels", lambda *x: seen.append(draw_labels(*x)) or seen[0])
    outcome = run("--num_images", 200, path=folder)
    assert outcome.status == 0 and "guidance 1" in outcome.out
    assert seen[0].shape == (200, 1) and 0.15 < seen[0].float().mean() < 0.35  # one in four


def test_images_of_other_classes_than_the_model_are_refused(run, labeled):
    network, _, folder = labeled
    classes = {"folder": ["a", "c"]}
    GaussianDiffusion(network, NoiseSchedule("cosine", 20), classes=classes).save("model.pth")
    assert_refused(run(path=folder), "other classes of folder")


def test_guidance_without_labels_is_refused(run):
    assert_refused(run("--guidance", 2), "trained without labels")
