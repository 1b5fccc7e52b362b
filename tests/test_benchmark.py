"""The measurements: what is measured is what is said, and a run goes on where it ended."""

import json

import pytest
import torch

from diffusion_lib.benchmark import __main__ as command
from diffusion_lib.benchmark import ablation, quality, records, steps
from diffusion_lib.benchmark.peers import PEERS
from diffusion_lib.config import TrainConfig
from diffusion_lib.errors import InputError
from diffusion_lib.images.cache import load_images
from diffusion_lib.images.pixels import to_images
from diffusion_lib.training import Trainer


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


def test_the_table_has_a_line_for_each_kind_of_run(tmp_path, capsys):
    some = [
        {"who": "ours", "seed": seed, "kernel": kernel} for seed, kernel in enumerate([3, 1, 2])
    ]
    records.print_table(some, ("who",))
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.split() == ["ours:", "2.000", "(1.000", "to", "3.000)"]


@pytest.mark.parametrize("name", ["quality", "ablation", "steps"])
def test_what_comes_with_the_course_was_measured_with_three_seeds(name):
    found = records.measurements(name)
    assert {record["seed"] for record in found} == {0, 1, 2}
    assert all(record["kernel"] > 0 and record["samples"] >= 250 for record in found)


def test_our_trainer_uses_up_the_seconds_and_lets_the_learning_rate_fall_to_nothing(monkeypatch):
    made = []
    monkeypatch.setattr(quality, "Trainer", lambda *parts: made.append(Trainer(*parts)) or made[0])
    pixels = load_images("faces", quality.IMAGE_SIZE)[:64]
    config = TrainConfig(**{**quality.OURS, "batch_size": 8})
    trainee = quality.ours(pixels, config)
    (trainer,), rates = made, []
    for number in range(1, 101):
        trainee.step(None, number / 100)
        rates.append(trainer.learning_rate(trainer.step - 1))
    assert trainer.step == 100
    assert rates[-1] < 0.01 * config.lr < max(rates)


def test_our_trainer_draws_other_images_at_every_call():
    pixels = load_images("faces", quality.IMAGE_SIZE)[:64]
    trainee = quality.ours(pixels, TrainConfig(**{**quality.OURS, "batch_size": 8}))
    first, second = (trainee.sample(3) for _ in range(2))
    assert first.shape == second.shape == (3, 3, 16, 16)
    assert not torch.allclose(first, second, atol=0.1)


def test_a_run_that_stands_in_the_file_is_not_done_again(tmp_path, monkeypatch, capsys):
    drawn = []

    def draw(who, pixels, seconds, seed, **changes):
        drawn.append((who, tuple(pixels.shape[1:]), seconds, seed))
        return to_images(pixels[:8])

    monkeypatch.setattr(quality, "draw", draw)
    monkeypatch.setattr(quality, "load_images", lambda name, size: load_images(name, size)[:40])
    path = tmp_path / "quality.jsonl"
    asked = [
        "quality",
        "--who",
        "ours",
        "--data",
        "digits",
        "--seconds",
        "5",
        "--output",
        str(path),
    ]
    command.main([*asked, "--seeds", "1"])
    assert drawn == [("ours", (1, 16, 16), 5, 0)]
    command.main([*asked, "--seeds", "2"])
    assert drawn[1:] == [("ours", (1, 16, 16), 5, 1)]
    assert [record["seed"] for record in records.read(path)] == [0, 1]
    assert "digits  5  ours" in capsys.readouterr().out


def test_the_judge_prefers_real_images_to_noise():
    pixels = load_images("faces", 16)[:60]
    judge = quality.Judge(pixels[:30])
    real, noise = (
        judge.distances(images)
        for images in (to_images(pixels[30:]), torch.randn(30, 3, 16, 16).clamp(-1, 1))
    )
    assert real["kernel"] < 0.3 * noise["kernel"] and real["frechet"] < 0.6 * noise["frechet"]


@pytest.mark.parametrize("choice", ablation.CHOICES)
def test_each_choice_is_a_configuration_that_differs_from_the_recipe(choice):
    config = TrainConfig(**{**quality.OURS, **ablation.CHOICES[choice]})
    assert (config == TrainConfig(**quality.OURS)) == (choice == "the recipe")


def test_all_samplers_and_all_trainers_are_measured():
    from diffusion_lib.samplers import SAMPLERS

    assert set(steps.STEPS) == set(SAMPLERS)
    assert set(command.TRAINERS) == {"ours", *PEERS}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["velocity"], "choose loading, speed, quality, ablation or steps, not 'velocity'"),
        (["loading", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_task_is_answered_with_one_line(arguments, line):
    with pytest.raises(InputError, match=line):
        command.main(arguments)


def test_loading_is_timed_beside_a_training_step(capsys):
    arguments = [
        "faces",
        "--image_size",
        "16",
        "--images",
        "8",
        "--width",
        "8",
        "--batch_size",
        "4",
    ]
    command.main(["loading", *arguments])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4000 images at 16x16, batches of 4, on ")
    rows = [line.split() for line in lines[2:]]
    assert rows[0][-1] == "1.00" and len(rows) == 4
    for row in rows:
        middle, lowest, highest = (float(number.replace(",", "")) for number in row[-4:-1])
        assert 0 < lowest <= middle <= highest
