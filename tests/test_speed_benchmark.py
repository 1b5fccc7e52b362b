"""The speed measurement: what it counts is counted right, and what it says follows from it."""

import itertools

import pytest
import torch

from diffusion_lib.benchmark import __main__ as benchmark
from diffusion_lib.benchmark import config as options
from diffusion_lib.benchmark import contestants, records, speed, timing
from diffusion_lib.benchmark.peers import PEERS
from diffusion_lib.config import TrainConfig
from diffusion_lib.images.pixels import to_images

TINY = ["-i", "8", "-b", "2", "--width", "8", "--blocks", "1", "--device", "cpu"]
ORIGINALS = ["original", "original, step alone"]


@pytest.mark.slow
def test_everything_follows_from_the_rounds_and_who_is_missing_is_named(
    command, tmp_path, monkeypatch
):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "diffusers.py").write_text("raise ImportError('nothing here')")
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    who = ["--who", "ours", "diffusers", "original"]
    few = ["--rounds", "2", "--seconds", "0.01"]
    outcome = command(benchmark.main, "benchmark", "speed", *TINY, *who, *few, "-o", "some.jsonl")
    assert outcome.status == 0, outcome.messages
    (report,) = records.read(tmp_path / "some.jsonl")

    assert report["left_out"] == {"diffusers": "pip install diffusers"}
    assert "diffusers is left out: pip install diffusers (nothing here)" in outcome.out
    assert list(report["trainers"]) == ["ours", *ORIGINALS]
    assert report["settings"]["who"] == ["ours", "diffusers", "original"]
    assert report["device"] == "cpu" and "thread" in report["machine"]
    assert report["torch"] == torch.__version__.split("+")[0]
    (product,) = report["matrix_product"].values()
    measured = [product, *report["loop"].values()]
    for name, record in report["trainers"].items():
        measured += [record["train"], record["sample"]]
        rate = record["train"]["median"]
        base = report["trainers"]["original, step alone"]["train"]["median"]
        assert record["ratio_to_original"] == pytest.approx(rate / base)
        share = 3 * record["flops"] * rate / product["median"]
        assert record["share_of_matrix_product"] == pytest.approx(share)
        assert record["first_step_seconds"] > 0 and record["memory_bytes"] >= 0
        assert f"\n{name} " in outcome.out and record["format"] == "float32"
    assert set(report["loop"]) == {"overhead", "batch", "pixels"}
    for some in measured:
        assert some["lowest"] == min(some["rounds"]) <= some["median"] <= max(some["rounds"])
        assert some["highest"] == max(some["rounds"])
    assert {len(some["rounds"]) for some in measured} == {2}
    ours, *originals = report["trainers"].values()
    assert ours["width"] == originals[0]["width"] == 8
    assert originals[0]["flops"] == originals[1]["flops"] == originals_flops(8)


def originals_flops(size: int) -> int:
    """By hand: two for each multiply-and-add, of one image."""
    w, time = size, 4 * size
    pixels = [size**2 // 4**level for level in range(4)]
    total = pixels[0] * (9 * 3 * w + w * 3) + time * time
    for level in range(3):
        inner, outer = w * 2**level, w * 2 ** (level + 1)
        # down: two convolutions of 3x3, the time, and one of 4x4 that halves
        total += pixels[level] * 9 * (inner * outer + outer * outer) + time * outer
        total += pixels[level + 1] * 16 * outer * outer
        # up: twice as many channels come in; one of 4x4, transposed, for each pixel of its input
        total += pixels[level + 1] * 9 * (2 * outer * inner + inner * inner) + time * inner
        total += pixels[level + 1] * 16 * inner * inner
    return 2 * total


@pytest.mark.parametrize("size", [8, 64])
def test_operations_are_those_of_a_count_by_hand(size):
    pixels = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    config = TrainConfig(image_size=size)
    assert speed.forward_flops("original", config, pixels, 0) == originals_flops(size)


@pytest.mark.parametrize(("target", "width"), [(50**2, 32), (60**2, 64), (64**2, 64), (1, 32)])
def test_a_peer_gets_the_width_of_the_nearest_number_of_operations(monkeypatch, target, width):
    def forward_flops(name, config, pixels, width):
        return target if name == "ours" else width**2

    monkeypatch.setattr(speed, "forward_flops", forward_flops)
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert speed.width_for_like_flops("smalldiffusion", TrainConfig(), pixels) == width


def test_a_measurement_lasts_as_long_as_it_should_and_gives_images_per_second(monkeypatch):
    now, done = [0.0], []

    def action():
        now[0] += 0.25
        done.append(now[0])

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    watch = timing.Stopwatch(action, 8, torch.device("cpu"), seconds=1.1)
    assert len(done) == 1
    assert watch.rate() == pytest.approx(8 / 0.25) and len(done) == 1 + 5


def test_all_trainers_take_part():
    assert set(options.SPEED) == {"ours", "original", *PEERS}
    assert set(options.PEERS) == set(speed.WIDTH_STEPS) == set(PEERS)


@pytest.mark.parametrize("who", ["ours", "original", "original, step alone", *PEERS])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_step_changes_the_weights_and_the_network_answers_with_an_image(who, channels):
    if who in PEERS:
        pytest.importorskip(who.replace("-", "_"))
    config = TrainConfig(image_size=16, batch_size=2, width=8, blocks=1, device="cpu")
    pixels = speed.random_pixels(channels, 16)
    if who == "ours":
        contestant = contestants.ours(pixels, config)
    elif who in PEERS:
        contestant = PEERS[who](pixels, config, 32)
    else:
        contestant = speed.ORIGINALS[who](pixels, config)
    before = [weights.clone() for weights in contestant.network.parameters()]
    contestant.step(0.1)
    contestant.step(0.2)
    after = list(contestant.network.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(weights.isfinite().all() for weights in after)
    x = torch.randn(2, 3 if who in ORIGINALS else channels, 16, 16)
    assert contestant.predict(x).shape == x.shape


def test_the_originals_files_give_one_image_after_the_other():
    config = TrainConfig(image_size=16, batch_size=100)
    pixels = speed.random_pixels(3, 16)
    batches = list(itertools.islice(contestants.opened_files(pixels, config), 4))
    assert all(batch.shape == (100, 3, 16, 16) for batch in batches)
    images = torch.cat(batches)
    assert -1 <= images.min() < -0.5 and 0.5 < images.max() <= 1
    count = speed.IMAGES
    assert torch.equal(images[:100], images[count : count + 100])
    assert not torch.equal(images[0], images[1])
    # They look like what they were made of, before they were enlarged and compressed.
    both = torch.stack([images[:count].flatten(), to_images(pixels).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.8


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--who", "nobody"], "invalid choice: 'nobody'"),
        (["-i", "12"], "image_size must be a multiple of 8, not 12"),
        (["--rounds", "0"], "rounds must be at least 1, not 0"),
        (["--width", "12", "--who", "ours"], "the width must be a multiple of 8, not 12"),
        (["--device", "abacus"], "the device 'abacus' cannot be used here"),
        (["-o", "nowhere/speed.jsonl"], "there is no folder nowhere"),
    ],
)
def test_a_wrong_input_is_answered_with_one_line(command, arguments, line):
    outcome = command(benchmark.main, "benchmark", "speed", *arguments)
    assert outcome.status == 2
    (message,) = outcome.messages
    assert line in message
