"""The speedrun and the table of predictions: what is counted, kept and refused."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_lib import InputError, TrainConfig
from diffusion_lib.benchmark import predictions, quality, records, speedrun
from diffusion_lib.benchmark.contestants import Contestant
from diffusion_lib.images.cache import load_images
from diffusion_lib.recipe import CPU, as_flags, recipe

CONTESTANT = '''"""The mean image

Nothing is learned.
"""

import torch
from torch import nn

from diffusion_lib.benchmark.contestants import Contestant


def contestant(pixels, seed):
    mean = pixels.float().mean(0) / 127.5 - 1
    network = nn.Identity()

    def sample(count):
        for _ in range(%d):
            network(torch.zeros(count, 1))
        return mean.expand(count, -1, -1, -1)

    return Contestant(network, 1, lambda progress: None, lambda x: x, sample)
'''


@pytest.fixture
def few_images(monkeypatch):
    """A speedrun of a moment: forty images of each set, and judges that know fewer."""
    monkeypatch.setattr(speedrun, "load_images", lambda name, size: load_images(name, size)[:40])
    monkeypatch.setattr(speedrun, "SECONDS", 0.01)
    monkeypatch.setattr(quality, "SAMPLES", 50)


@pytest.mark.slow
def test_a_contestant_is_measured_once_and_shown(few_images, tmp_path, capsys):
    file = tmp_path / "mean.py"
    file.write_text(CONTESTANT % 25)
    speedrun.speedrun([str(file)], seeds=1)
    found = records.read(tmp_path / "mean.jsonl")
    assert [(record["data"], record["seed"]) for record in found] == [("faces", 0), ("digits", 0)]
    assert all(record["kernel"] > 0.5 and record["recall"] == 0 for record in found)
    assert {path.name for path in tmp_path.glob("*.png")} == {"mean_faces.png", "mean_digits.png"}
    mean = load_images("digits", 16)[:40].float().mean(0)
    assert (speedrun.pictured(file, "digits") - mean).abs().max() < 2
    assert "The mean image" in capsys.readouterr().out
    speedrun.speedrun([str(file)], seeds=1)
    assert records.read(tmp_path / "mean.jsonl") == found


@pytest.mark.slow
def test_too_many_calls_are_refused(few_images, tmp_path):
    file = tmp_path / "slow.py"
    file.write_text(CONTESTANT % 26)
    with pytest.raises(InputError, match=r"slow\.py calls its network 26 times .* 25"):
        speedrun.speedrun([str(file)], seeds=1)
    assert records.read(tmp_path / "slow.jsonl") == []


@pytest.mark.parametrize("text", ["1 / 0", "x = 1", "not python"])
def test_what_is_no_contestant_is_named(tmp_path, text):
    (tmp_path / "wrong.py").write_text(text)
    for file in ("wrong.py", "missing.py"):
        with pytest.raises(InputError, match=f"{file} is no contestant"):
            speedrun.load(tmp_path / file)


def test_images_are_counted_of_one_kind_of_network_only():
    class Network(nn.Module):
        def forward(self, x):
            return self.inner(x)

    network = Network()
    network.inner = nn.Identity()
    with speedrun.images_counted(Network) as count:
        network(torch.zeros(3, 1))
        network(torch.zeros(4, 1))
    network(torch.zeros(9, 1))
    assert count == [7]


def test_every_record_is_of_five_seeds_and_better_than_the_one_before_on_one_set_at_least():
    files = speedrun.records()
    assert len(files) >= 5
    medians = []
    for file in files:
        found = records.read(file.with_suffix(".jsonl"))
        for data in speedrun.SETS:
            assert {r["seed"] for r in found if r["data"] == data} == set(range(5)), file
            channels = 3 if data == "faces" else 1
            assert speedrun.pictured(file, data).shape == (speedrun.SHOWN, channels, 16, 16)
        middle = records.medians(found, ("data",), "kernel")
        medians.append([middle[data,][1] for data in speedrun.SETS])
    for before, after in pairwise(medians):
        assert any(new < old for old, new in zip(before, after, strict=True))


def test_the_records_are_made_by_files_that_can_be_run():
    for file in speedrun.records():
        contestant = speedrun.load(file)(torch.zeros(4, 1, 16, 16, dtype=torch.uint8), 3)
        assert isinstance(contestant, Contestant) and contestant.model is not None


def test_the_recipe_is_that_of_the_latest_record():
    assert recipe("cpu", True)["precision"] == "bfloat16"
    assert recipe("cpu", False)["precision"] == "float32"
    source = speedrun.records()[-1].read_text()
    for option, value in CPU.items():
        assert f"{option}={value!r},".replace("'", '"') in source


def test_the_recipe_suits_what_was_chosen():
    suits = [({"width": 64}, "dit"), ({"width": 24}, "unet"), ({"patch": 1}, "unet")]
    for chosen, network in suits:
        options = recipe("cpu", True, chosen)
        assert options["network"] == network and not options.keys() & chosen.keys()
    assert recipe("cpu", True, {"network": "unet"})["width"] == 24


def test_a_short_run_has_larger_patches():
    def patch(minutes: float, size: int, threads: int = 1, **chosen) -> int | None:
        chosen |= {"minutes": minutes, "image_size": size}
        return recipe("cpu", True, chosen, threads).get("patch")

    assert (patch(3, 32), patch(3, 48), patch(3, 64)) == (4, 6, 8)
    assert patch(2, 32, threads=2) == 4
    assert recipe("cpu", True, {"minutes": 3.0}).get("patch") == 8  # of 64x64, as usual
    long, none = (9, 32), (0, 32)
    small, odd, large = (3, 16), (3, 40), (3, 128)  # has 8x8 anyway; 5x5 pixels; not measured
    for other in (long, none, small, odd, large, (3, 32, 2)):
        assert patch(*other) is None
    assert patch(3, 32, network="unet") is None and patch(3, 32, patch=2) is None
    assert "patch" not in recipe("cuda", True, {"minutes": 3.0})


def test_options_are_shown_as_flags_without_those_that_are_as_usual():
    assert as_flags({"lr": 0.5, "batch_size": 64, "network": "dit"}) == "--lr 0.5 --network dit"


def test_each_prediction_is_a_configuration():
    configs = [TrainConfig(**{**CPU, **changed}) for changed in predictions.CHOICES.values()]
    assert len(set(map(str, configs))) == len(predictions.CHOICES)


def test_the_better_rate_is_that_with_the_smaller_distance():
    def record(choice, lr, kernel, seed=0):
        return {"choice": choice, "data": "faces", "lr": lr, "seed": seed, "kernel_20": kernel}

    some = [record("v", 1, 0.3), record("v", 2, 0.2), record("x0", 1, 0.1), record("x0", 2, 0.4)]
    some.append(record("v", 1, 0.0, seed=1))
    assert predictions.better_rates(some) == {("v", "faces"): 2, ("x0", "faces"): 1}


def test_what_was_tried_in_vain_was_measured_with_three_seeds_and_is_no_record():
    """No better than the latest record by more than the range of the seeds, on both sets."""
    tried = sorted((speedrun.records()[0].parents[1] / "tried").glob("*.py"))
    assert len(tried) >= 3

    def kernels(file: Path, data: str) -> list[float]:
        return [
            run["kernel"] for run in records.read(file.with_suffix(".jsonl")) if run["data"] == data
        ]

    latest = speedrun.records()[-1]
    for file in tried:
        speedrun.load(file)
        for data in speedrun.SETS:
            assert len(kernels(file, data)) == 3
            assert max(kernels(file, data)) >= min(kernels(latest, data))
