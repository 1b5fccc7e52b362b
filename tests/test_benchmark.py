"""The measurements: what is measured is what is said, and a run goes on where it ended."""

import itertools
import json
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from diffusion_lib.benchmark import __main__ as command
from diffusion_lib.benchmark import config as options
from diffusion_lib.benchmark import contestants, predictions, quality, records
from diffusion_lib.config import TrainConfig
from diffusion_lib.errors import InputError
from diffusion_lib.images.cache import load_images
from diffusion_lib.images.pixels import to_images
from diffusion_lib.sampling import SAMPLERS
from diffusion_lib.training import Trainer, warmup_cosine


def test_records_are_lines_that_stand_after_each_run(tmp_path):
    path = tmp_path / "new" / "some.jsonl"
    assert records.read(path) == []
    for seed, kernel in enumerate([0.3, 0.1, 0.2]):
        records.append(path, {"who": "ours", "seed": seed, "kernel": kernel})
    records.append(path, {"who": "theirs", "seed": 0, "kernel": 1.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 2, 0]
    assert all("cores" in line["machine"] and line["torch"][0].isdigit() for line in lines)
    assert records.read(path) == lines
    middle = records.medians(lines, ("who",), "kernel")
    assert middle == {("ours",): [0.1, 0.2, 0.3], ("theirs",): [1.0, 1.0, 1.0]}


def test_the_table_has_a_line_for_each_kind_of_run(capsys):
    some = [
        {"who": who, "seed": seed, "kernel": kernel}
        for who in ("ours", "another one")
        for seed, kernel in enumerate([3, 1, 2])
    ]
    records.print_medians(some, ("who",))
    head, *lines, foot = capsys.readouterr().out.splitlines()
    assert head.split() == ["who", "kernel", "distance"]
    assert [line.split("  ")[0] for line in lines] == ["ours", "another one"]
    assert all(line.endswith("2.000 (1.000 to 3.000)") for line in lines)
    assert foot == "median (lowest to highest) of the seeds"


def test_all_predictions_were_measured_with_three_seeds_at_the_rate_that_is_best_for_each():
    found = records.measurements("predictions")
    rates = predictions.better_rates(found)
    assert set(rates) == set(itertools.product(predictions.CHOICES, ["faces", "digits"]))
    for (choice, data), rate in rates.items():
        of_one = [r for r in found if (r["choice"], r["data"], r["lr"]) == (choice, data, rate)]
        assert sorted(record["seed"] for record in of_one) == [0, 1, 2]


@pytest.mark.parametrize("name", ["quality", "ablation", "steps"])
def test_what_comes_with_the_course_was_measured_with_three_seeds(name):
    found = records.measurements(name)
    assert {record["seed"] for record in found} == {0, 1, 2}
    assert all(record["kernel"] > 0 and record["samples"] >= 250 for record in found)


@pytest.mark.slow
def test_ours_is_the_recipe_of_today_and_the_others_have_what_page_04_has(tmp_path, monkeypatch):
    trained = {}
    for name in quality.CONTESTANTS:
        monkeypatch.setitem(
            quality.CONTESTANTS,
            name,
            lambda pixels, config, name=name: trained.update({name: config}),
        )
    monkeypatch.setattr(quality, "train", lambda make, seconds: (make(), 1))
    monkeypatch.setattr(quality, "draw", lambda _: load_images("digits", 16)[:20] / 127.5 - 1)
    monkeypatch.setattr(quality, "load_images", lambda name, size: load_images(name, size)[:40])
    quality.quality(str(tmp_path / "q.jsonl"), quality.CONTESTANTS, ["digits"], 16, [1], 1)
    page_04 = {**quality.RECIPE, **quality.PAGE_04, "image_size": 16, "seed": 0}
    for name, config in trained.items():
        expected = quality.TODAY | {"image_size": 16, "seed": 0} if name == "ours" else page_04
        assert config == TrainConfig(**expected)


def small(**changes) -> TrainConfig:
    size = {"image_size": quality.IMAGE_SIZE, "batch_size": 8}
    return TrainConfig(**{**quality.RECIPE, **size, **changes})


@pytest.mark.slow
def test_our_trainer_uses_up_the_time_and_lets_the_learning_rate_fall_to_nothing(monkeypatch):
    made = []
    monkeypatch.setattr(
        contestants, "Trainer", lambda *parts: made.append(Trainer(*parts)) or made[0]
    )
    config = small(warmup=0)
    contestant = contestants.ours(load_images("faces", quality.IMAGE_SIZE)[:64], config)
    (trainer,), rates = made, []
    for number in range(1, 101):
        contestant.step(number / 100)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert trainer.step == 100
    assert rates[-1] < 0.01 * config.lr < max(rates)
    assert rates[49] == pytest.approx(config.lr * warmup_cosine(49, 98, 0), rel=0.02)


def test_our_trainer_draws_other_images_at_every_call():
    config = small(prediction="epsilon")  # at first it predicts 0, which as x0 is one grey image
    contestant = contestants.ours(load_images("faces", quality.IMAGE_SIZE)[:64], config)
    first, second = (contestant.sample(3) for _ in range(2))
    assert first.shape == second.shape == (3, 3, 16, 16)
    assert not torch.allclose(first, second, atol=0.1)


def test_a_contestant_trains_until_its_seconds_are_over_then_samples(monkeypatch):
    now, progresses = [0.0], []

    def process_time():
        now[0] += 1.0
        return now[0]

    class Contestant:
        def step(self, progress):
            progresses.append(progress)

        def sample(self, count):
            return torch.full((count, 1, 2, 2), 3.0)

    monkeypatch.setattr(quality.time, "process_time", process_time)
    contestant, steps = quality.train(Contestant, seconds=4)
    assert progresses == [0.25, 0.5, 0.75] and steps == 3
    samples = quality.draw(contestant)
    assert samples.shape == (quality.SAMPLES, 1, 2, 2) and samples.unique().tolist() == [1.0]


@pytest.mark.slow
def test_a_run_that_is_in_the_file_is_not_done_again(tmp_path, monkeypatch, capsys):
    trained = []

    def train(make: partial, seconds: float):
        function, pixels, config = make.func, *make.args
        trained.append((function.__name__, tuple(pixels.shape[1:]), seconds, config.seed))
        return to_images(pixels[:8]), 1

    monkeypatch.setattr(quality, "train", train)
    monkeypatch.setattr(quality, "draw", lambda samples: samples)
    monkeypatch.setattr(quality, "load_images", lambda name, size: load_images(name, size)[:40])
    path = tmp_path / "quality.jsonl"
    asked = ["quality", "--who", "ours", "--data", "digits", "--seconds", "5"]
    asked += ["--output", str(path)]
    command.main([*asked, "--seeds", "1"])
    assert trained == [("ours", (1, 16, 16), 5, 0)]
    command.main([*asked, "--seeds", "2"])
    assert trained[1:] == [("ours", (1, 16, 16), 5, 1)]
    assert [record["seed"] for record in records.read(path)] == [0, 1]
    assert ["digits", "16", "5", "ours"] in [
        line.split()[:4] for line in capsys.readouterr().out.splitlines()
    ]


@pytest.mark.slow
def test_real_images_are_nearer_to_real_images_than_noise_is():
    pixels = load_images("faces", 16)[:60]
    scorer = quality.Scorer(pixels[:30])
    real, noise = (
        scorer.distances(images)
        for images in (to_images(pixels[30:]), torch.randn(30, 3, 16, 16).clamp(-1, 1))
    )
    assert real["kernel"] < 0.3 * noise["kernel"] and real["frechet"] < 0.6 * noise["frechet"]
    assert real["samples"] == noise["samples"] == 30


@pytest.mark.parametrize("choice", quality.CHOICES)
def test_each_choice_is_a_configuration_that_differs_from_the_recipe(choice):
    config = TrainConfig(**quality.settings_of(choice))
    assert (config == TrainConfig(**quality.RECIPE)) == (choice == "the recipe")


def test_a_choice_may_be_flags_of_train_which_change_what_it_does_today(tmp_path, monkeypatch):
    configs = []

    def train(make: partial, seconds: float):
        configs.append(make.args[1])
        return None, 1

    monkeypatch.setattr(quality, "train", train)
    monkeypatch.setattr(quality, "draw", lambda contestant: None)
    monkeypatch.setattr(quality, "load_images", lambda name, size: None)
    scorer = SimpleNamespace(distances=lambda drawn: {"kernel": 1.0})
    monkeypatch.setattr(quality, "Scorer", lambda pixels: scorer)
    path = tmp_path / "ablation.jsonl"
    asked = ["ablation", "--choices", "--patch 4 --batch-size=8", "--seconds", "5", "--seeds", "1"]
    command.main([*asked, "-i", "32", "--data", "mine", "-o", str(path)])
    today = {**quality.TODAY, "image_size": 32, "seed": 0}
    assert configs == [TrainConfig(**{**today, "patch": 4, "batch_size": 8})]
    assert records.read(path)[0]["choice"] == "--patch 4 --batch-size=8"
    for wrong in ("--patches 4", "--seed 4", "-i 32"):
        with pytest.raises(SystemExit, match="2"):
            command.main(["ablation", "--choices", wrong])
    with pytest.raises(InputError, match=r"flags of `train` or among the recipe, .* 'a unet'"):
        command.main(["ablation", "--choices", "a unet"])


def test_the_bundled_records_are_of_the_choices_that_there_are():
    found = {record["choice"] for record in records.measurements("ablation")}
    assert found == set(quality.CHOICES)


def test_all_samplers_and_all_trainers_are_measured():
    assert set(quality.STEPS) == set(SAMPLERS)
    assert set(options.QUALITY) == set(quality.CONTESTANTS)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["velocity"],
            f"the task must be one of {', '.join(command.TASKS)}, not 'velocity'",
        ),
        (["loading", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_task_is_answered_with_one_line(arguments, line):
    with pytest.raises(InputError, match=line):
        command.main(arguments)


@pytest.mark.slow
def test_loading_is_timed_beside_a_training_step(capsys):
    arguments = ["faces", "--image_size=16", "--images=8", "--width=8", "--batch_size=4"]
    command.main(["loading", *arguments])
    account, *lines = capsys.readouterr().out.splitlines()
    assert account.startswith("faces: 4,000 images from 4,000 files")
    assert lines[0].startswith("4000 images at 16x16, batches of 4, on ")
    rows = [re.findall(r"[\d,.]+", line) for line in lines[2:]]
    assert rows[0][-1] == "1.00" and len(rows) == 4
    for row in rows:
        middle, lowest, highest = (float(number.replace(",", "")) for number in row[-4:-1])
        assert 0 < lowest <= middle <= highest
