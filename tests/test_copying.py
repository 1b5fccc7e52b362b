"""Copies of training images are counted, foreseen, and said once; the model from before is kept."""

import math
import warnings
from itertools import product

import pytest
import torch
from torch import nn

from diffusion_lib import GaussianDiffusion, TrainConfig, Trainer, copying, record, toys
from diffusion_lib.batches import BatchStream
from diffusion_lib.benchmark import copying as measured
from diffusion_lib.benchmark.records import measurements
from diffusion_lib.config import BUNDLED
from diffusion_lib.diffusion import build
from diffusion_lib.errors import InputError
from diffusion_lib.images.cache import load_images
from diffusion_lib.images.pixels import to_images
from diffusion_lib.reports import Report
from diffusion_lib.schedules import NoiseSchedule

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return load_images("digits", 8)[:60]


def make_trainer(pixels: torch.Tensor, **settings) -> Trainer:
    default = dict(image_size=8, width=8, blocks=1, batch_size=30, held_out=0.2, device="cpu")
    quiet = dict(disable_images=True, disable_tensorboard=True)
    config = TrainConfig(**{**default, **quiet, **settings})
    return Trainer(build(config, channels=pixels.shape[1]), pixels, config)


def memorized(trainer: Trainer) -> GaussianDiffusion:
    """The model that has the lowest training loss: it knows the images it is trained on."""
    images = to_images(trainer.batches.pixels[trainer.batches.kept])
    schedule = NoiseSchedule("cosine")
    network = toys.IdealNetwork(toys.GaussianMixture(images, std=0.0), schedule)
    network.channels, network.image_size = images.shape[1:3]
    return GaussianDiffusion(network, schedule)


def copies_of_forty(trainer: Trainer) -> int:
    return copying.count_copies(trainer, copying.draw(trainer, 40, seed=0))


def gap_of(trainer: Trainer) -> float:
    distance = copying.distance_of_neighbors(trainer.batches)
    return copying.loss_gap(trainer.average, trainer.batches, distance)


def report(epoch: int, epochs: int = 1000) -> Report:
    numbers = dict(loss=0.1, loss_quarters=(), gradient_norm=1, learning_rate=1, memory=1)
    return Report(2 * epoch, 2 * epochs, epoch, True, images_per_second=1, seconds=1, **numbers)


def test_a_model_that_knows_its_images_by_now_copies_them_and_one_from_noise_does_not(digits):
    trainer = make_trainer(digits)
    assert copies_of_forty(trainer) == 0
    assert abs(gap_of(trainer)) < 0.1
    trainer.average = memorized(trainer)
    assert copies_of_forty(trainer) >= 38
    assert gap_of(trainer) > 2 * copying.COPYING


def test_mirror_images_are_copies_if_they_were_trained_on(digits):
    trainer = make_trainer(digits)
    trainer.average = memorized(trainer)
    trainer.batches.pixels = digits.flip(-1)
    assert copies_of_forty(trainer) < 30
    object.__setattr__(trainer.config, "flip", True)
    assert copies_of_forty(trainer) >= 38


class Shrinks(nn.Module):
    """x_0 as x_t, a little smaller, in the form that is asked for."""

    channels, image_size = 1, 8

    def __init__(self, prediction: str):
        super().__init__()
        self.diffusion = GaussianDiffusion(self, NoiseSchedule("cosine"), prediction)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        schedule = self.diffusion.schedule
        signal, sigma = (f(t, x) for f in (schedule.signal, schedule.sigma))
        x0 = 0.9 * x
        return x0 if self.diffusion.prediction == "x0" else (x - signal * x0) / sigma


def test_the_gap_needs_images_that_are_held_out(digits):
    batches = BatchStream(digits, 8, 0, CPU)
    assert math.isnan(copying.loss_gap(Shrinks("x0").diffusion, batches, 0.3))


def test_the_gap_is_of_the_loss_of_x0_whatever_is_predicted(digits):
    batches = BatchStream(digits, 8, 0, CPU, held_out=20)
    gaps = [
        copying.loss_gap(Shrinks(prediction).diffusion, batches, 0.3)
        for prediction in ("x0", "epsilon")
    ]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-4) and gaps[0] != 0


def test_the_gap_is_where_unseen_images_cannot_quite_be_told_apart(digits):
    """Found in a few steps, and as if one had looked at every timestep."""
    model, batches = Shrinks("x0").diffusion, BatchStream(digits, 8, 0, CPU, held_out=20)
    seen, unseen = (
        [copying.denoising_error(model, t, batches, which) for t in range(1000)]
        for which in (batches.kept.repeat(2)[:50], batches.unseen.repeat(3)[:50])
    )
    for distance in (0.1, 0.5, 1.0, 100.0):
        t = next((t for t in range(1000) if unseen[t] >= 0.6 * distance), 999)
        expected = 2 * math.log(unseen[t] / seen[t])
        assert copying.loss_gap(model, batches, distance) == pytest.approx(expected, abs=2e-3)


def test_neighbors_are_as_far_as_the_nearest_other_training_image():
    pixels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.tensor([0, 10, 40, 90, 200, 255])
    batches = BatchStream(pixels, 2, 0, CPU)
    # distances to the nearest: 10, 10, 30, 50, 55, 55, of which PyTorch's median is 30
    assert copying.distance_of_neighbors(batches) == pytest.approx(30 / 127.5 / 2)
    assert copying.distance_of_neighbors(BatchStream(pixels, 2, 0, CPU, held_out=5)) == 0


def test_a_gap_that_grows_as_measured_is_forecast_exactly():
    for epoch in (100, 150, 220):
        gap = copying.COPYING * (epoch / 240) ** copying.GROWTH
        assert copying.forecast(100, epoch, gap) == pytest.approx(240)
    assert copying.forecast(100, 50, copying.COPYING) == 200  # no run copied before
    assert copying.forecast(10**6, 50, copying.COPYING) == 50  # so many were not measured


@pytest.fixture
def watched(digits, tmp_path, monkeypatch):
    """A run, and a function that shows it to the watch with this gap and share of copies, and
    returns what is said.
    """
    trainer = make_trainer(digits)
    watch = copying.CopyWatch(trainer, tmp_path / "mine_before_copying.pth")

    def look(epoch: int, gap: float, share: float, epochs: int = 1000) -> list[str]:
        monkeypatch.setattr(copying, "loss_gap", lambda *_: gap)
        monkeypatch.setattr(copying, "draw", lambda _, count, seed: torch.zeros(count))
        monkeypatch.setattr(copying, "count_copies", lambda _, images: round(share * len(images)))
        watch.next_time = 0
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            watch.look(report(epoch, epochs))
        return [str(each.message) for each in said]

    look.trainer, look.file = trainer, watch.file
    return look


def test_a_healthy_run_hears_nothing(watched):
    for epoch in range(50, 1000, 10):
        assert watched(epoch, gap=0.2 + epoch / 1e4, share=0.03) == []
    assert not watched.file.exists()


def test_when_copies_may_be_expected_is_said_once(watched):
    assert watched(100, gap=0.59, share=0) == []
    (said,) = watched(250, gap=0.7, share=0)
    assert said.startswith("after epoch 250, the loss on held-out images is 2.0 times")
    assert f"from about epoch {copying.forecast(48, 250, 0.7):.0f} on" in said
    assert watched(300, gap=0.8, share=0) == []


def test_nothing_is_said_of_copies_that_would_come_after_the_end(watched):
    assert watched(250, gap=0.65, share=0, epochs=400) == []
    assert len(watched(300, gap=1.2, share=0, epochs=400)) == 1


def test_what_should_have_come_is_expected_from_now_on(watched):
    (said,) = watched(300, gap=2.5, share=0)
    assert "from about epoch 300 on" in said


def test_once_there_are_copies_it_is_said_and_the_model_from_before_is_saved(watched):
    watched(100, gap=0.5, share=0.01)
    before = {k: v.clone() for k, v in watched.trainer.average.network.state_dict().items()}
    with torch.no_grad():
        for weight in watched.trainer.average.parameters():
            weight.add_(1)
    (said,) = watched(200, gap=2.5, share=0.1)
    assert said.startswith("after epoch 200, 10% of the samples are copies of training images")
    assert f"epoch 100, before that, is {watched.file}" in said
    kept = GaussianDiffusion.load(watched.file).network.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in before.items())
    assert watched(400, gap=4, share=0.9) == []


def test_a_model_from_before_that_cannot_be_written_is_tried_again(watched, monkeypatch):
    watched(100, gap=0.5, share=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(copying, "save_file", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            watched(200, gap=2.5, share=0.1)
    (said,) = watched(300, gap=2.5, share=0.1)
    assert f"epoch 100, before that, is {watched.file}" in said and watched.file.exists()


def test_losses_of_0_leave_no_gap(digits, monkeypatch):
    monkeypatch.setattr(copying, "denoising_error", lambda *_: 0.0)
    assert gap_of(make_trainer(digits)) == 0


def test_without_held_out_images_copies_are_counted_all_the_same(watched):
    assert watched(100, gap=math.nan, share=0.01) == []
    (said,) = watched(200, gap=math.nan, share=0.2)
    assert "20% of the samples are copies" in said


def test_a_run_that_copies_from_the_first_look_on_has_no_model_from_before(watched):
    (said,) = watched(50, gap=3, share=0.5)
    assert said.endswith("as before: start anew with more images") and not watched.file.exists()


def test_a_run_that_goes_on_is_not_told_again(digits, tmp_path):
    file = tmp_path / "mine_before_copying.pth"
    file.touch()
    trainer = make_trainer(digits)
    assert not copying.CopyWatch(trainer, file).over
    trainer.step = 1
    assert copying.CopyWatch(trainer, file).over


def test_before_copies_were_ever_measured_nobody_looks(watched):
    """48 images: 20 sqrt(48) / 3 = 46"""
    assert watched(46, gap=3, share=0.5) == [] and len(watched(47, gap=3, share=0.5)) == 1


def test_looks_become_rarer_and_take_a_sixth_of_the_time(digits, tmp_path, monkeypatch):
    now, looks = [0.0], []

    def loss_gap(*_):
        looks.append(now[0])
        now[0] += 1
        return 0.0

    monkeypatch.setattr(copying.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(copying, "loss_gap", loss_gap)
    watch = copying.CopyWatch(make_trainer(digits), tmp_path / "file.pth")
    for epoch in range(1, 301):
        watch.look(report(epoch))
        now[0] += 0.25
    assert looks[0] == 11.5 and looks[1] == 11.5 + 1 + copying.REST
    assert 6 <= len(looks) <= 9
    assert looks[-1] - looks[-2] > 1.5 * (looks[1] - looks[0])


@pytest.mark.slow
def test_a_run_on_few_images_is_warned_in_time(tmp_path):
    """From end to end: a real network, which learns fifty portraits by repetition."""
    pixels = load_images("faces", 8)[:56]
    trainer = make_trainer(
        pixels, network="dit", width=64, optimizer="muon", lr=8e-3, warmup=20, prediction="x0",
        beta_schedule="cosine", shift=0.5, timestep_sampling="logit_normal", epochs=1500,
        held_out=0.1,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = record(trainer, "mine", tmp_path)
        epoch = next(
            each.epoch for each in run if any("are copies" in str(w.message) for w in said)
        )
        run.close()
    foretold, told = [str(each.message) for each in said]
    assert "the model memorizes these" in foretold
    expected = int(foretold.split("from about epoch ")[1].split()[0])
    healthy = int(told.split("the model of epoch ")[1].split(",")[0])
    assert told.startswith(f"after epoch {epoch}") and healthy < epoch
    assert healthy / 1.5 < expected < epoch * 1.5
    after = gap_of(trainer)
    trainer.average = GaussianDiffusion.load(tmp_path / "mine_before_copying.pth")
    assert gap_of(trainer) < after


def test_the_benchmark_says_when_the_gap_opens_and_when_copies_begin(capsys):
    run = {"epoch": [100.0, 204, 400], "gap": [0.1, 0.8, 2.0], "copies": [0, 0.01, 0.3]}
    run |= {"data": "mine", "size": 8, "images": 100, "seed": 0}
    foreseen = copying.forecast(100, 204, 0.8)
    assert measured.clock(run) == (204, foreseen, pytest.approx(204 + 196 * 4 / 29))
    assert measured.clock(run | {"copies": [0.05, 0.1, 0.3]}).copies == 100
    gaps = measured.between_looks(run, "epoch", "gap", torch.tensor([80.0, 100, 204, 302]))
    assert gaps.tolist() == pytest.approx([math.nan, 0.1, 0.8, 1.4], nan_ok=True)
    run["copies"] = [0, 0, 0.01]
    assert math.isnan(measured.clock(run).copies)
    measured.show([run | {"kernel": [2.0, 1.0, 1.5]}])
    assert capsys.readouterr().out.splitlines()[1].split()[-4:] == ["204", "310", "-", "1.00"]


def test_the_benchmark_needs_as_many_images_as_it_is_to_train_on_and_to_hold_out(tmp_path):
    with pytest.raises(InputError, match="too few to train on 9999 and to hold 50"):
        measured.copying(str(tmp_path / "runs.jsonl"), ["digits"], [9999], 8, epochs=1, seeds=1)


def test_no_run_was_measured_to_copy_before_it_is_said():
    """Neither outside the epochs that `outlook` names, nor far from what was forecast."""
    runs = measurements("copying")
    measured_sets = {(run["data"], run["images"]) for run in runs}
    assert measured_sets >= set(product(BUNDLED, [50, 100, 200]))
    assert measured_sets >= set(product(["faces", "digits"], [400, 800]))
    for run in runs:
        images, clock = run["images"], measured.clock(run)
        assert 50 <= images <= copying.FEW
        if math.isnan(clock.copies):
            assert images > copying.FEWER
            assert not clock.forecast < run["epoch"][-1] / 1.5
        else:
            assert 1 / 1.5 <= clock.forecast / clock.copies <= 1.5
            assert clock.opened < clock.copies
            assert clock.copies >= copying.soonest(images)
            assert images > copying.FEWER or clock.copies <= copying.LATE * math.sqrt(images)


def test_before_a_run_it_is_said_when_there_may_be_copies():
    said = copying.outlook(100, 1500)
    assert said.startswith("1,500 epochs of 100 images: samples may become copies")
    assert "n = 50 to 100, that began after 20 to 42 sqrt(n) epochs, here 200 to 420" in said
    assert "20 sqrt(n) epochs at the soonest, here 400 (page 06)" in copying.outlook(400, 1500)
    assert copying.outlook(100, 199) == ""
    assert copying.outlook(copying.FEW + 1, 1500) == ""
