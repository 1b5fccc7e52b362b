"""The training loop: what it learns, what it reports, and that it can be stopped and taken up."""

import copy
import math
import time
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from helpers import record_calls

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    NoiseSchedule,
    TrainConfig,
    Trainer,
    sample,
)
from diffusion_lib.devices import find_device
from diffusion_lib.diffusion import build
from diffusion_lib.estimate import activation_bytes
from diffusion_lib.files import load_checkpoint
from diffusion_lib.training import EMA, QUARTERS, warmup_cosine

PIXELS = torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
TINY = TrainConfig(
    image_size=8, width=8, timesteps=20, epochs=4, batch_size=2, warmup=3, device="cpu"
)
STEPS_AN_EPOCH = 3  # 5 images in batches of 2


def make_trainer(pixels: torch.Tensor = PIXELS, **settings) -> Trainer:
    config = replace(TINY, **settings)
    return Trainer(build(config, pixels.shape[1]), pixels, config)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainer.diffusion.parameters()]


def averages(trainer: Trainer) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainer.average.parameters()]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


# Learning


def test_loss_falls():
    flat = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    trainer = make_trainer(
        flat, epochs=40, batch_size=4, lr=3e-3, report_every=10, beta_schedule="cosine"
    )
    losses = [report.loss for report in trainer]
    assert losses[0] > 0.5 and sum(losses[-10:]) / 10 < 0.6 * losses[0]


def test_learning_rate_rises_over_the_warmup_then_falls_to_nearly_0():
    rates = [warmup_cosine(step, steps=300, warmup=30) for step in range(300)]
    rise, fall = rates[:30], rates[31:]
    assert rise == sorted(rise) and 0 < rise[0] < 0.1
    assert fall == sorted(fall, reverse=True) and 0 < fall[-1] < 1e-4
    assert 0.95 < max(rates) <= 1
    assert rates[150] == pytest.approx(0.5)  # half a cosine: half of the way is half of the rate


def test_learning_rate_without_warmup_starts_at_its_highest():
    assert warmup_cosine(0, steps=100, warmup=0) == 1


def test_learning_rate_reaches_the_optimizer():
    trainer = make_trainer(lr=0.02, warmup=3)
    for step in range(4):
        trainer.train_step()
        rate = trainer.optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(0.02 * warmup_cosine(step, trainer.steps, 3))


def test_weight_decay_reaches_the_optimizer():
    assert make_trainer(weight_decay=0.25).optimizer.param_groups[0]["weight_decay"] == 0.25


def test_long_gradients_are_shortened_and_their_true_norm_is_reported():
    trainer = make_trainer(clip_norm=1e-3)
    _, norm = trainer.train_step()
    gradients = [weight.grad.flatten() for weight in trainer.diffusion.parameters()]
    assert norm > 0.01
    assert torch.cat(gradients).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_short_gradients_are_left_alone():
    trainer = make_trainer(clip_norm=1e6)
    _, norm = trainer.train_step()
    gradients = [weight.grad.flatten() for weight in trainer.diffusion.parameters()]
    assert torch.cat(gradients).norm().item() == pytest.approx(norm.item(), rel=1e-3)


# Schedules of which the network sees the image, or the noise, almost as it is.
NO_NOISE = dict(timesteps=2, start=1e-10, end=1e-10)
ALL_NOISE = dict(timesteps=2, start=0.999, end=0.999)


def seen(trainer: Trainer, steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """x_t and t, as the network sees them in some steps."""
    calls = record_calls(trainer.diffusion.network)
    for _ in range(steps):
        trainer.train_step()
    return calls


def noise_in(trainer: Trainer, x0: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor):
    schedule = trainer.diffusion.schedule
    return (x_t - schedule.signal(t, x0) * x0) / schedule.sigma(t, x0)


def test_every_step_and_every_seed_draws_other_noise():
    seeds = [0, 1, 2, 3, 4, 2**31, 2**32 - 1]
    trainers = [make_trainer(PIXELS[:1], seed=seed, epochs=9, **ALL_NOISE) for seed in seeds]
    noises = torch.cat([x_t.flatten(1) for trainer in trainers for x_t, _ in seen(trainer, 3)])
    assert len(noises) == 2 * 3 * len(seeds)
    assert torch.pdist(noises).min() > 5  # sqrt(2 * 64) is usual, 0 is the same twice


def test_timesteps_cover_the_whole_schedule():
    calls = seen(make_trainer(batch_size=64, timesteps=5), 3)
    assert {t for _, timesteps in calls for t in timesteps.tolist()} == set(range(5))


def test_seed_decides_on_the_first_weights():
    first, again, other = (weights(make_trainer(seed=seed)) for seed in (0, 0, 1))
    assert equal(first, again) and not equal(first, other)


def test_a_step_is_algorithm_1_of_the_ddpm_paper():
    """Written out: x_t by eq. 4, the error of epsilon, AdamW with its schedule, and the average."""
    trainer = make_trainer(lr=0.01, warmup=2, ema=0.5)
    network = copy.deepcopy(trainer.diffusion.network)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0)
    alpha_bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 20).double(), 0).float()
    average = None
    for step in range(4):
        x0 = trainer.batches.batch(step)
        generator = torch.Generator().manual_seed(step)
        t = torch.randint(20, (2,), generator=generator)
        noise = torch.randn(2, 1, 8, 8, generator=generator)
        alpha_bar = alpha_bars[t].view(2, 1, 1, 1)
        x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
        loss = ((noise - network(x_t, t)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        gradient = torch.cat([w.grad.flatten() for w in network.parameters()])
        for w in network.parameters():
            w.grad *= min(1, 1 / gradient.norm().item())
        rise, fall = min(1, (step + 1) / 3), 0.5 * (1 + math.cos(math.pi * step / trainer.steps))
        optimizer.param_groups[0]["lr"] = 0.01 * rise * fall
        optimizer.step()
        new = torch.cat([w.detach().flatten() for w in network.parameters()])
        decay = min(0.5, (1 + step) / (10 + step))
        average = new if average is None else decay * average + (1 - decay) * new

        found, norm = trainer.train_step()
        torch.testing.assert_close(found, loss.detach())
        torch.testing.assert_close(norm, gradient.norm())
    found = torch.cat([w.flatten() for w in weights(trainer)])
    torch.testing.assert_close(found, new, atol=1e-4, rtol=1e-3)
    found = torch.cat([w.flatten() for w in averages(trainer)])
    torch.testing.assert_close(found, average, atol=1e-4, rtol=1e-3)


# The average of the weights


def test_an_average_is_that_of_any_module():
    model = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(model, decay=0.5)
    found = []
    for step, value in enumerate([4.0, 2.0, 8.0]):
        torch.nn.init.constant_(model.weight, value)
        ema.update(step)
        found.append(ema.model.weight.item())
    second = 2 / 11 * 4 + 9 / 11 * 2  # the decay rises: (1 + step) / (10 + step)
    assert found == pytest.approx([4, second, 3 / 12 * second + 9 / 12 * 8])
    assert model.weight.item() == 8 and model.weight.requires_grad


def test_average_is_the_weights_after_the_first_step():
    trainer = make_trainer()
    trainer.train_step()
    assert equal(averages(trainer), weights(trainer))


@pytest.mark.parametrize("ema", [0.3, 0.999])
def test_average_follows_its_recursion(ema):
    trainer = make_trainer(ema=ema, lr=0.01, warmup=0)
    trainer.train_step()
    expected = [weight.double() for weight in weights(trainer)]
    for step in range(1, 12):
        trainer.train_step()
        decay = min(ema, (1 + step) / (10 + step))
        expected = [
            decay * old + (1 - decay) * new
            for old, new in zip(expected, weights(trainer), strict=True)
        ]
    for average, wanted in zip(averages(trainer), expected, strict=True):
        torch.testing.assert_close(average.double(), wanted, atol=1e-6, rtol=1e-5)
    assert not equal(averages(trainer), weights(trainer))


def test_average_remembers_no_history():
    """Else every step would be kept in memory, for a gradient that nobody asks for."""
    trainer = trained()
    assert not any(w.requires_grad or w.grad_fn for w in trainer.average.parameters())


def test_average_has_no_gradients_in_the_optimizer():
    trainer = make_trainer()
    optimised = {id(w) for group in trainer.optimizer.param_groups for w in group["params"]}
    assert not optimised & {id(weight) for weight in trainer.average.parameters()}


# Reports and ends


def test_reports_say_how_the_run_stands():
    trainer = make_trainer(report_every=2)
    reports = list(trainer)
    assert [report.step for report in reports] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert [report.epoch for report in reports] == [0, 1, 1, 2, 2, 3, 3, 4]
    assert [report.step for report in reports if report.epoch_ended] == [3, 6, 9, 12]
    assert {report.steps for report in reports} == {12} and trainer.step == 12
    assert [r.learning_rate for r in reports] == [
        trainer.config.lr * warmup_cosine(r.step - 1, 12, warmup=3) for r in reports
    ]
    seconds = [0.0, *(report.seconds for report in reports)]
    assert all(earlier < later for earlier, later in pairwise(seconds))


def test_report_means_over_the_steps_since_the_last_one():
    reports = list(make_trainer(report_every=2))
    by_hand = make_trainer()
    steps = [by_hand.train_step() for _ in range(12)]
    since = 0
    for report in reports:
        losses, norms = zip(*steps[since : report.step], strict=True)
        assert report.loss == pytest.approx(torch.stack(losses).mean().item())
        assert report.gradient_norm == pytest.approx(torch.stack(norms).mean().item())
        since = report.step


def test_throughput_counts_the_images_of_the_steps():
    trainer = make_trainer(report_every=1)
    before = 0.0
    for report in trainer:
        assert report.images_per_second == pytest.approx(2 / (report.seconds - before), rel=1e-6)
        before = report.seconds


@pytest.mark.parametrize("count, batch_size", [(5, 2), (6, 4), (3, 8), (1, 1)])
def test_any_number_of_images_goes_with_any_batch_size(count, batch_size):
    pixels = PIXELS[:1].repeat(count, 1, 1, 1)
    trainer = make_trainer(pixels, batch_size=batch_size, epochs=2)
    reports = list(trainer)
    assert trainer.steps == 2 * math.ceil(count / batch_size) == reports[-1].step
    assert all(math.isfinite(report.loss) for report in reports)


def test_all_weights_learn():
    trainer = make_trainer(lr=0.01)
    before = weights(trainer)
    list(trainer)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))


def test_stopping_ends_the_run_after_the_step_under_way():
    trainer = make_trainer(report_every=100)
    train_step = trainer.train_step

    def stop_in_step_2():
        trainer.stopping = trainer.step == 1
        return train_step()

    trainer.train_step = stop_in_step_2
    reports = list(trainer)
    assert [report.step for report in reports] == [2] and trainer.step == 2


def test_stopping_at_a_report_ends_the_run():
    trainer = make_trainer(report_every=1)
    for _ in trainer:
        trainer.stopping = True
    assert trainer.step == 1


def test_a_stopped_run_goes_on_when_asked_again():
    trainer, whole = make_trainer(report_every=1), make_trainer()
    for _ in trainer:
        trainer.stopping = True
    list(trainer)
    list(whole)
    assert trainer.step == 12 and equal(weights(trainer), weights(whole))


def test_time_limit_ends_the_run_with_a_report():
    trainer = make_trainer(minutes=1e-9)
    reports = list(trainer)
    assert [report.step for report in reports] == [1] and not reports[0].epoch_ended


def test_the_learning_rate_of_a_run_with_a_time_limit_falls_over_it(monkeypatch):
    """A step takes two seconds, and one picture a minute another ten."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    trainer = make_trainer(minutes=2, epochs=None, warmup=0, report_every=5)
    rates, ends = [], []

    def after_step():
        now[0] += 2
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        ends.append(trainer.steps)

    trainer.after_step = after_step
    for report in trainer:
        now[0] += 5 if report.step % 15 == 0 else 0
    assert 48 <= trainer.step <= 62 and trainer.step == trainer.steps == report.steps
    assert rates[0] == pytest.approx(1e-3) and rates[-1] < 1e-5
    middle = rates[len(rates) // 2]
    assert middle == pytest.approx(5e-4, rel=0.15)


def test_a_run_with_a_time_limit_goes_on_for_what_is_left(monkeypatch, tmp_path):
    now = [0.0]
    for clock in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: now[0])
    first, second = (make_trainer(minutes=2, epochs=None, report_every=1) for _ in range(2))
    rates = []

    def after_step(trainer):
        now[0] += 2
        rates.append(trainer.optimizer.param_groups[0]["lr"])

    for trainer in (first, second):
        trainer.after_step = partial(after_step, trainer)
    for report in first:
        first.stopping = report.step == 20
    first.save(tmp_path / "run.pth")
    second.restore(load_checkpoint(tmp_path / "run.pth"))
    list(second)
    assert second.seconds == pytest.approx(120, abs=5) and 58 <= second.step <= 62
    after_warmup = rates[5:]
    assert all(b < a + 2e-5 for a, b in pairwise(after_warmup)) and rates[-1] < 1e-5


def test_a_break_leaves_the_trainer_usable():
    trainer = make_trainer(report_every=1)
    for _ in trainer:
        break
    assert trainer.step == 1
    assert next(iter(trainer)).step == 2


def test_a_finished_run_reports_nothing():
    trainer = make_trainer()
    list(trainer)
    assert list(trainer) == []


def test_sampling_between_reports_changes_nothing():
    sampling, plain = make_trainer(), make_trainer()
    for _ in sampling:
        sampling.diffusion.eval()
        sampling.average.network(torch.zeros(1, 1, 8, 8), torch.zeros(1))
        torch.randn(3)
    list(plain)
    assert equal(weights(sampling), weights(plain))


# Mirrored images, other schedules, weighted losses

WAYS = [
    dict(flip=True),
    dict(min_snr=5.0),
    dict(shift=2.0),
    dict(zero_terminal_snr=True, prediction="v"),
    dict(flip=True, min_snr=5.0, shift=2.0, prediction="v"),
    dict(optimizer="muon"),
    dict(network="dit", width=32, blocks=1, optimizer="muon"),
]


def same(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Which images of two batches are the same, up to a trace of noise. (N,)"""
    return torch.isclose(some, others, rtol=0, atol=1e-3).flatten(1).all(1)


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else():
    pixels = PIXELS[:1].repeat(64, 1, 1, 1)
    settings = dict(batch_size=64, epochs=8, **NO_NOISE)
    plain, mirrored = (make_trainer(pixels, flip=flip, **settings) for flip in (False, True))
    fractions = []
    for (straight, t), (x, same_t) in zip(seen(plain, 8), seen(mirrored, 8), strict=True):
        assert torch.equal(t, same_t)
        turned = same(x, straight.flip(-1))
        assert torch.equal(turned, ~same(x, straight))
        fractions.append(turned.double().mean().item())
    assert len(set(fractions)) > 1 and 0.35 < sum(fractions) / 8 < 0.65


def test_flip_leaves_the_noise_as_it_is():
    plain, mirrored = (make_trainer(flip=flip, **ALL_NOISE) for flip in (False, True))
    ((x, _),), ((y, _),) = seen(plain, 1), seen(mirrored, 1)
    torch.testing.assert_close(x, y, rtol=0, atol=2.1 * 0.001**0.5)  # all that is left of images


def test_flip_mirrors_left_and_right_and_not_up_and_down():
    gradient = torch.arange(0, 256, 32).byte().view(1, 1, 1, 8).expand(8, 1, 8, 8)
    trainer = make_trainer(gradient, flip=True, batch_size=8, epochs=3, **NO_NOISE)
    for x, _ in seen(trainer, 3):
        assert same(x, x[:, :, :1].expand_as(x)).all()  # all rows alike, as before
        rising = (x.diff(dim=-1) > 0).flatten(1).all(1)
        assert 0 < rising.sum() < 8


def test_an_image_is_mirrored_at_one_time_and_not_at_another():
    calls = seen(make_trainer(PIXELS[:1], flip=True, epochs=20, **NO_NOISE), 20)
    assert 0 < sum(same(x[:1], calls[0][0][:1]).item() for x, _ in calls) < 20


def test_without_flip_images_are_shown_as_they_are():
    for x, _ in seen(make_trainer(PIXELS[:1], epochs=10, **NO_NOISE), 10):
        assert same(x, (PIXELS[:1].float() / 127.5 - 1).expand_as(x)).all()


def test_flip_is_refused_for_what_is_no_image():
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    diffusion = GaussianDiffusion(torch.nn.Linear(2, 2), NoiseSchedule("cosine", 20))
    with pytest.raises(InputError, match=r"flip is for images, not for data of shape \(2,\)"):
        Trainer(diffusion, points, replace(TINY, flip=True))


def test_timesteps_are_drawn_evenly():
    calls = seen(make_trainer(batch_size=512, timesteps=5), 3)
    counts = torch.bincount(torch.cat([t for _, t in calls]), minlength=5)
    assert ((counts / counts.sum() - 0.2).abs() < 0.06).all() and len(counts) == 5


def test_every_step_and_every_seed_draws_other_timesteps():
    drawn = [
        tuple(t.tolist())
        for seed in (0, 1, 2**32 - 1)
        for _, t in seen(make_trainer(seed=seed, batch_size=8, timesteps=1000), 3)
    ]
    assert len(set(drawn)) == 9


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_min_snr_reaches_the_loss(gamma):
    trainer = make_trainer(min_snr=gamma, beta_schedule="cosine", prediction="x0")
    calls, x0 = record_calls(trainer.diffusion.network), trainer.batches.batch(0)
    found, _ = trainer.train_step()
    ((x_t, t),) = calls
    by_hand = make_trainer(beta_schedule="cosine", prediction="x0").diffusion
    given = x0, t, noise_in(trainer, x0, x_t, t)
    assert found.item() == pytest.approx(by_hand.loss(*given, min_snr=gamma).item(), rel=1e-4)
    assert (found.item() == pytest.approx(by_hand.loss(*given).item(), rel=1e-4)) == (gamma == 0)


def test_shift_and_zero_terminal_snr_reach_the_schedule():
    config = replace(TINY, shift=2.0, zero_terminal_snr=True, prediction="v")
    schedule = build(config, channels=1).schedule
    assert (schedule.shift, schedule.zero_terminal_snr, schedule.timesteps) == (2.0, True, 20)
    plain = build(TINY, channels=1).schedule
    assert (plain.shift, plain.zero_terminal_snr) == (1.0, False)


def test_epsilon_with_zero_terminal_snr_is_an_input_error_that_names_the_setting_to_change():
    with pytest.raises(InputError, match=r"zero_terminal_snr.*prediction v or x0"):
        build(replace(TINY, zero_terminal_snr=True), channels=1)


def test_blocks_reach_the_network():
    for blocks in (1, 3):
        network = build(replace(TINY, blocks=blocks), channels=1).network
        assert [len(column) for column in network.down] == [blocks] * len(network.down)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_of_training_learns_otherwise_and_finitely(way):
    trainer, plain = (make_trainer(lr=0.01, epochs=1, **settings) for settings in (way, {}))
    assert all(math.isfinite(report.loss) for report in trainer)
    list(plain)
    assert not equal(weights(trainer), weights(plain))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_of_training_goes_on_bit_for_bit(tmp_path, way):
    whole, first, second = (
        make_trainer(lr=0.01, epochs=2, report_every=1, **way) for _ in range(3)
    )
    losses = [report.loss for report in whole]
    for report in first:
        first.stopping = report.step == 2
    first.save(tmp_path / "run.pth")
    second.restore(load_checkpoint(tmp_path / "run.pth"))
    assert [report.loss for report in second] == losses[2:]
    assert equal(weights(second), weights(whole)) and equal(averages(second), averages(whole))


def test_these_ways_are_off_unless_asked_for():
    off = dict(flip=False, min_snr=0.0, shift=1.0, zero_terminal_snr=False)
    assert TrainConfig() == TrainConfig(**off)
    ((_, t),) = seen(make_trainer(), 1)
    assert t.dtype == torch.int64 and t.shape == (2,)


# Saving and restoring


@pytest.mark.parametrize("stop_at", [1, 3, 7])
def test_a_restored_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stop_at):
    whole, first, second = (make_trainer(lr=0.01, report_every=1) for _ in range(3))
    for report in first:
        first.stopping = report.step == stop_at
    first.save(tmp_path / "run.pth")
    with torch.no_grad():
        for weight in second.diffusion.parameters():
            weight.fill_(7)
    second.restore(load_checkpoint(tmp_path / "run.pth"))
    losses = [report.loss for report in whole]
    assert [report.loss for report in second] == losses[stop_at:]
    assert equal(weights(second), weights(whole)) and equal(averages(second), averages(whole))
    mine, theirs = second.optimizer.state_dict(), whole.optimizer.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    for i, state in theirs["state"].items():
        assert state.keys() == mine["state"][i].keys() and "exp_avg" in state
        assert all(torch.equal(state[key], mine["state"][i][key]) for key in state)


def test_time_spent_is_counted_on_after_restoring(tmp_path):
    first, second = make_trainer(), make_trainer()
    list(first)
    first.save(tmp_path / "run.pth")
    second.restore(load_checkpoint(tmp_path / "run.pth"))
    assert second.seconds == first.seconds > 0 and second.step == 12


def test_a_checkpoint_holds_its_settings_and_what_it_is_given(tmp_path):
    trainer = make_trainer()
    trainer.save(tmp_path / "run.pth", name="mine")
    training = load_checkpoint(tmp_path / "run.pth")["training"]
    assert TrainConfig(**training["config"]) == trainer.config
    assert training["config"] == asdict(trainer.config) and training["name"] == "mine"


def test_another_number_of_images_is_refused(tmp_path):
    make_trainer().save(tmp_path / "run.pth")
    with pytest.raises(InputError, match=r"5 images.*4"):
        make_trainer(PIXELS[:4]).restore(load_checkpoint(tmp_path / "run.pth"))


def test_other_images_than_those_of_the_run_are_refused(tmp_path):
    make_trainer().save(tmp_path / "run.pth")
    checkpoint = load_checkpoint(tmp_path / "run.pth")
    with pytest.raises(InputError, match="other images"):
        make_trainer(255 - PIXELS).restore(checkpoint)
    one_changed = PIXELS.clone()
    one_changed[3] = 255 - one_changed[3]
    with pytest.raises(InputError, match="other images"):
        make_trainer(one_changed).restore(checkpoint)
    decoded_anew = (PIXELS.int() + 1).clamp(max=255).byte()  # by another version of a library
    make_trainer(decoded_anew).restore(checkpoint)


# Labels

CLASSES = {"kind": ["a", "b", "c"], "size": ["large", "small"]}
LABELS = torch.tensor([[0, 1], [1, 0], [2, 1], [0, 0], [1, 1]])


def labeled_trainer(labels: torch.Tensor = LABELS, classes=CLASSES, **settings) -> Trainer:
    config = replace(TINY, **settings)
    return Trainer(build(config, PIXELS.shape[1], classes), PIXELS, config, labels)


def seen_labels(trainer: Trainer, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels that the network was given in each step, and those of the images, one under the
    other.
    """
    given, batches = [], []
    trainer.diffusion.network.register_forward_pre_hook(lambda _, x: given.append(x[2]))
    for _ in range(steps):
        batches.append(LABELS[trainer.batches.indices(trainer.step)])
        trainer.train_step()
    return torch.cat(given), torch.cat(batches)


def test_the_network_is_given_the_labels_of_its_images():
    given, expected = seen_labels(labeled_trainer(label_dropout=0.0), 5)
    assert torch.equal(given, expected)


def test_some_labels_are_dropped():
    given, expected = seen_labels(labeled_trainer(label_dropout=0.5), 60)
    kept = given >= 0
    assert torch.equal(given[kept], expected[kept])
    assert 0.1 < kept.all(1).float().mean() < 0.2  # 1/8: not all of them, nor either alone
    assert 0.5 < (~kept).all(1).float().mean() < 0.75  # 5/8


def test_dropout_of_labels_leaves_the_other_draws_alone():
    """A step draws images, timesteps and noise first: what follows cannot change them."""
    with_labels, without = seen(labeled_trainer(label_dropout=0.5), 3), seen(make_trainer(), 3)
    for (x, t, _), (plain_x, plain_t) in zip(with_labels, without, strict=True):
        assert torch.equal(x, plain_x) and torch.equal(t, plain_t)


def test_a_run_with_labels_goes_on_bit_for_bit(tmp_path):
    whole, first, second = (labeled_trainer(lr=0.01, report_every=1) for _ in range(3))
    losses = [report.loss for report in whole]
    for report in first:
        first.stopping = report.step == 3
    first.save(tmp_path / "run.pth")
    second.restore(load_checkpoint(tmp_path / "run.pth"))
    assert [report.loss for report in second] == losses[3:]
    assert equal(weights(second), weights(whole)) and equal(averages(second), averages(whole))
    loaded = GaussianDiffusion.load(tmp_path / "run.pth")
    assert loaded.classes == CLASSES and loaded.network.classes == (3, 2)


def test_accumulated_labels_are_those_of_a_whole_batch():
    whole, parts = labeled_trainer(batch_size=4), labeled_trainer(batch_size=4, accumulate=2)
    for _ in range(3):
        whole.train_step(), parts.train_step()
    for some, others in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(some, others, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_run_with_labels_learns_them():
    """Black and white: after training, the label alone says which."""
    flat = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    config = replace(TINY, epochs=300, batch_size=8, lr=3e-3, beta_schedule="cosine")
    diffusion = build(config, 1, {"tone": ["black", "white"]})
    trainer = Trainer(diffusion, flat, config, torch.tensor([[0], [1]]))
    list(trainer)
    how = dict(labels=["black", "white"] * 16, steps=10)
    for guidance, right in {0.0: 16, 4.0: 30}.items():  # of 32; without labels, one in two
        drawn = sample(trainer.average, 32, guidance=guidance, **how)
        means = drawn.flatten(1).mean(1)
        found = (means[::2] < 0).sum() + (means[1::2] > 0).sum()
        assert found >= right if guidance else 8 < found < 24


def test_labels_and_models_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(InputError, match="trained with labels"):
        labeled_trainer(classes={})
    with pytest.raises(InputError, match="trained with labels"):
        labeled_trainer(labels=None)
    with pytest.raises(InputError, match=r"shape \(5, 2\).*kind, size.*\(5, 1\)"):
        labeled_trainer(labels=LABELS[:, :1])
    labeled_trainer().save(tmp_path / "run.pth")
    checkpoint = load_checkpoint(tmp_path / "run.pth")
    with pytest.raises(InputError, match="other classes"):
        make_trainer().restore(checkpoint)
    with pytest.raises(InputError, match="other labels"):
        labeled_trainer(labels=LABELS.flip(0)).restore(checkpoint)


def test_more_epochs_go_on_from_where_the_run_ended(tmp_path):
    first, longer = make_trainer(epochs=1), make_trainer(epochs=3)
    list(first)
    first.save(tmp_path / "run.pth")
    longer.restore(load_checkpoint(tmp_path / "run.pth"))
    reports = list(longer)
    assert (reports[0].step, reports[-1].step) == (6, 9)


# Randomness of others


def test_training_does_not_touch_the_global_random_state():
    trainer = make_trainer()
    state = torch.get_rng_state()
    list(trainer)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_does_not_depend_on_the_global_random_state():
    results = []
    for seed in (1, 2):
        trainer = make_trainer()
        torch.manual_seed(seed)
        list(trainer)
        results.append(weights(trainer))
    assert equal(*results)


# Devices


def test_auto_finds_a_device_that_works():
    device = find_device("auto")
    assert torch.zeros(1, device=device).item() == 0 and find_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x", "vulkan", "meta", "xla", "hpu"])
def test_a_device_that_is_not_there_is_an_input_error(name):
    with pytest.raises(InputError, match="device") as error:
        find_device(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 30}, {"image_size": 7}, {"width": 12}, {"start": 0.5, "end": 0.1}],
    ids=str,
)
def test_a_model_that_cannot_be_built_is_an_input_error(wrong):
    with pytest.raises(InputError):
        build(replace(TINY, **wrong), channels=1)


# Speed and memory


def trained(**settings) -> Trainer:
    trainer = make_trainer(lr=0.01, **settings)
    list(trainer)
    return trainer


def test_a_batch_in_parts_trains_as_the_whole_one_does():
    whole, parts = trained(batch_size=5), trained(batch_size=5, accumulate=3)
    for some, other in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(some, other, atol=1e-4, rtol=0)


def test_blocks_that_are_computed_twice_have_the_same_gradients():
    usual, saving = make_trainer(), make_trainer(checkpointing=True)
    for trainer in (usual, saving):
        trainer.train_step()
        trainer.train_step()
    assert equal(weights(usual), weights(saving))


def test_checkpointing_keeps_less_for_the_gradient():
    kept = []
    for checkpointing in (False, True):
        trainer = make_trainer(checkpointing=checkpointing)
        x = torch.randn(2, 1, 8, 8)
        kept.append(activation_bytes(trainer.diffusion.network, x, torch.zeros(2)))
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_computes_in_halves_and_keeps_whole_weights(precision):
    trainer = make_trainer(precision=precision)
    seen = []
    trainer.diffusion.network.stem.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    reports = list(trainer)
    assert set(seen) == {getattr(torch, precision)}
    assert {weight.dtype for weight in trainer.weights} == {torch.float32}
    assert all(math.isfinite(report.loss + report.gradient_norm) for report in reports)
    whole = trained()
    assert reports[0].loss == pytest.approx(next(iter(make_trainer())).loss, rel=0.05)
    assert not equal(weights(whole), weights(trainer))


def test_float16_leaves_out_a_step_whose_gradient_is_too_large():
    trainer = make_trainer(precision="float16", report_every=1)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)  # too much for float16
    before = weights(trainer)
    trainer.train_step()
    assert equal(before, weights(trainer)) and trainer.scaler.get_scale() == 2.0**59


def test_the_scale_of_float16_is_taken_up_again(tmp_path):
    first = make_trainer(precision="float16", epochs=2)
    first.train_step()
    first.scaler.update(1024.0)
    first.save(tmp_path / "run.pth")
    second = make_trainer(precision="float16", epochs=2)
    second.restore(load_checkpoint(tmp_path / "run.pth"))
    assert second.scaler.get_scale() == 1024.0


def compiled_by(monkeypatch, function) -> Trainer:
    monkeypatch.setattr(torch, "compile", function)
    return make_trainer(compile="on")


def test_a_compiled_network_is_the_one_that_is_trained(monkeypatch):
    calls = []

    def compile(function, dynamic):
        def compiled(x, t):
            calls.append(len(x))
            return function(x, t)

        return compiled

    trainer = compiled_by(monkeypatch, compile)
    list(trainer)
    assert calls == [2] * (1 + trainer.steps)  # once to try, then for every step
    usual = make_trainer()
    list(usual)
    assert equal(weights(trainer), weights(usual)) and equal(averages(trainer), averages(usual))
    assert trainer.diffusion.state_dict().keys() == usual.diffusion.state_dict().keys()


def test_where_nothing_can_be_compiled_training_goes_on_with_a_warning(monkeypatch):
    def broken(function, dynamic):
        def call(*_):
            raise RuntimeError("no compiler found\nin many lines")

        return call

    trainer = compiled_by(monkeypatch, broken)
    with pytest.warns(UserWarning, match=r"without it, more slowly \(no compiler found\)"):
        list(trainer)
    usual = make_trainer()
    list(usual)
    assert equal(weights(trainer), weights(usual))


@pytest.mark.slow
def test_a_network_is_compiled_once(monkeypatch):
    graphs, compile = [], torch.compile

    def backend(graph, example):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(
        torch, "compile", lambda *given, **more: compile(*given, **more, backend=backend)
    )
    list(make_trainer(compile="on"))
    assert len(graphs) == 1
    torch.compiler.reset()


# As it is said by a GPU, by PyTorch on a CPU, and by Python.
TOO_SMALL = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


def memory_for(trainer: Trainer, images: int, error: Exception = TOO_SMALL[0]) -> None:
    """Let the memory end at so many images at a time."""

    def limit(_, inputs):
        if len(inputs[0]) > images:
            raise error

    trainer.diffusion.network.register_forward_pre_hook(limit)


@pytest.mark.parametrize("error", TOO_SMALL, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_answered_with_the_largest_that_does(error):
    trainer = make_trainer(batch_size=64)
    memory_for(trainer, 9, error)
    with pytest.raises(InputError, match=r"64 images at a time, but 8 fit: .*--batch_size 8") as e:
        list(trainer)
    assert "--accumulate 8" in str(e.value) and "\n" not in str(e.value)
    fitting = make_trainer(batch_size=64, accumulate=8)
    memory_for(fitting, 9)
    assert next(iter(fitting)).step > 0


@pytest.mark.parametrize("setting", [dict(accumulate=4), dict(compile="on")], ids=str)
def test_the_answer_holds_also_in_parts_and_compiled(setting, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    trainer = make_trainer(batch_size=64, **setting)
    memory_for(trainer, 3)
    at_a_time = 16 if "accumulate" in setting else 64
    with pytest.raises(InputError, match=f"{at_a_time} images at a time, but 2 fit: .* 32, or"):
        list(trainer)


def test_an_image_that_does_not_fit_is_answered_with_what_makes_it_smaller():
    trainer = make_trainer(batch_size=4)
    memory_for(trainer, 0)
    with pytest.raises(InputError, match=r"single image.*--width"):
        list(trainer)


# Runs that diverge


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step():
    trainer = make_trainer(report_every=5, lr=0.09)
    trainer.diffusion.network.register_forward_hook(
        lambda network, inputs, output: output * (math.nan if trainer.step == 3 else 1)
    )
    with pytest.raises(InputError, match=r"step 4 \(loss nan.*try --lr 0\.03") as error:
        list(trainer)
    assert "\n" not in str(error.value)


def test_a_gradient_that_is_no_number_stops_the_run():
    trainer = make_trainer()
    weight = trainer.weights[0]
    weight.register_hook(lambda gradient: gradient * (math.inf if trainer.step == 1 else 1))
    with pytest.raises(InputError, match=r"step 2 \(loss [0-9.]+, gradient norm (nan|inf)"):
        list(trainer)


def overflowing(steps: int) -> Trainer:
    """A trainer in float16 whose gradient overflows in the first so many steps."""
    trainer = make_trainer(precision="float16", report_every=1, epochs=10)
    weight = trainer.weights[0]
    weight.register_hook(lambda gradient: gradient * (math.inf if trainer.step < steps else 1))
    return trainer


def test_gradients_that_overflow_float16_for_some_steps_do_not_stop_the_run():
    trainer = overflowing(5)
    assert len(list(trainer)) == trainer.steps > 20


def test_gradients_that_overflow_float16_forever_stop_the_run():
    with pytest.raises(InputError, match="too large for float16: try --precision float32"):
        list(overflowing(10**6))


def test_data_with_holes_are_named_as_the_cause():
    pixels = torch.randn(8, 1, 8, 8)
    pixels[3, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="some numbers in the data are not finite"):
        list(make_trainer(pixels))


def test_the_loss_of_each_quarter_of_the_timesteps_is_reported():
    trainer = make_trainer(batch_size=64, report_every=1000, epochs=1)
    calls, x0 = record_calls(trainer.diffusion.network), trainer.batches.batch(0)
    (report,) = trainer
    ((x_t, t),) = calls
    losses = noise_in(trainer, x0, x_t, t).square().flatten(1).mean(1)  # a new network predicts 0
    for quarter, loss in enumerate(report.loss_quarters):
        group = losses[QUARTERS * t // 20 == quarter]
        assert loss == pytest.approx(group.mean().item(), rel=1e-3)
    assert report.memory > 10**7
