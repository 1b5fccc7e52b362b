"""The forward process and its reversal, against formulas written out once more in plain Python."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lib import InputError, NoiseSchedule

NAMES = ("linear", "cosine", "quadratic", "sigmoid")
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def expected_betas(name: str, timesteps: int, start: float = 1e-4, end: float = 0.02):
    def between(low, high, i):
        return low + (high - low) * i / (timesteps - 1)

    def remaining(t):
        return (
            math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
            / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        )

    formulas = {
        "linear": lambda i: between(start, end, i),
        "quadratic": lambda i: between(math.sqrt(start), math.sqrt(end), i) ** 2,
        "sigmoid": lambda i: start + (end - start) / (1 + math.exp(-between(-6, 6, i))),
        "cosine": lambda i: min(0.999, 1 - remaining(i + 1) / remaining(i)),
    }
    return np.array([formulas[name](i) for i in range(timesteps)])


def log_alpha_bars(betas) -> list[float]:
    """Summed exactly, so that 1 - alpha_bar = -expm1(log alpha_bar) has all its digits."""
    logs = [math.log1p(-beta) for beta in betas]
    return [math.fsum(logs[: t + 1]) for t in range(len(logs))]


def bayes(a, b, signal, variance):
    """Posterior of x_s from x_s ~ N(signal x_0, variance) and x_t ~ N(a x_s, b): the factors of
    x_0 and of x_t in its mean, and its variance."""
    precision = 1 / variance + a**2 / b
    return signal / variance / precision, a / b / precision, 1 / precision


def coefficients(schedule, t, dtype=torch.float64, s=None):
    """The factors of x_0 and of x_t in the posterior's mean, and its variance, each (N,)."""
    one, zero = torch.ones(len(t), 1, dtype=dtype), torch.zeros(len(t), 1, dtype=dtype)
    of_x0, variance = schedule.posterior(one, zero, t, s)
    of_x_t, _ = schedule.posterior(zero, one, t, s)
    return of_x0[:, 0], of_x_t[:, 0], variance[:, 0]


@st.composite
def schedules(draw):
    timesteps = draw(st.integers(2, 1000))
    highest = min(0.9, 20 / timesteps)
    start, end = sorted(draw(st.tuples(*[st.floats(1e-6, highest)] * 2)))
    return NoiseSchedule(draw(st.sampled_from(NAMES)), timesteps, start, end)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("timesteps", [2, 3, 50, 1000])
def test_betas_follow_the_formula(name, timesteps):
    betas = NoiseSchedule(name, timesteps).betas
    assert betas.dtype == torch.float64
    np.testing.assert_allclose(betas, expected_betas(name, timesteps), rtol=1e-9)


@pytest.mark.parametrize("name", ["linear", "quadratic", "sigmoid"])
def test_betas_follow_start_and_end(name):
    betas = NoiseSchedule(name, 20, beta_start=0.01, beta_end=0.3).betas
    np.testing.assert_allclose(betas, expected_betas(name, 20, 0.01, 0.3), rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "quadratic"])
def test_first_and_last_beta_are_start_and_end(name):
    betas = NoiseSchedule(name, 7, beta_start=0.01, beta_end=0.3).betas
    np.testing.assert_allclose(betas[[0, -1]], [0.01, 0.3], rtol=1e-12)


@pytest.mark.parametrize("timesteps", [2, 100, 1000])
def test_the_last_cosine_beta_is_clipped_and_only_that_one(timesteps):
    betas = NoiseSchedule("cosine", timesteps).betas
    assert betas[-1] == 0.999
    assert (betas[:-1] < 0.999).all()


def test_a_larger_offset_makes_the_first_cosine_steps_noisier():
    """beta_1 = 1 - f(1/T) / f(0) with f(u) = cos^2((u + s) / (1 + s) pi / 2), written out."""
    for s in (0.0, 0.008, 0.1):
        f0, f1 = (math.cos((u + s) / (1 + s) * math.pi / 2) ** 2 for u in (0, 0.01))
        assert NoiseSchedule("cosine", 100, s=s).betas[0].item() == pytest.approx(1 - f1 / f0)
    assert torch.equal(NoiseSchedule("linear", 9, s=0.1).betas, NoiseSchedule("linear", 9).betas)


def test_the_cosine_schedule_leaves_start_and_end_unused():
    changed = NoiseSchedule("cosine", 10, 0.2, 0.3).betas
    assert torch.equal(changed, NoiseSchedule("cosine", 10).betas)


@pytest.mark.parametrize("name", NAMES)
def test_alphas_alpha_bars_and_snr_follow_from_betas(name):
    schedule = NoiseSchedule(name, 100)
    product, alpha_bars = 1.0, []
    for beta in expected_betas(name, 100):
        product *= 1 - beta
        alpha_bars.append(product)
    snr = [kept / (1 - kept) for kept in alpha_bars]
    np.testing.assert_allclose(schedule.alphas, 1 - expected_betas(name, 100), rtol=1e-9)
    np.testing.assert_allclose(schedule.alpha_bars, alpha_bars, rtol=1e-9)
    np.testing.assert_allclose(schedule.snr, snr, rtol=1e-9)
    np.testing.assert_allclose(schedule.log_snr, np.log(snr), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "arguments",
    [
        ("linear", 1),
        ("linear", 0),
        ("cosine", 1),
        ("linear", -5),
        ("linear", 10, 0.02, 1e-4),
        ("linear", 10, 0.0, 0.02),
        ("linear", 10, -0.1, 0.02),
        ("linear", 10, 1e-4, 1.0),
        ("linear", 10, math.nan, 0.02),
        ("linear", 10, 1e-4, math.nan),
        ("cosine", 10, 1e-4, 0.02, -0.1),
        ("cosine", 10, 1e-4, 0.02, 1.0),
        ("cosine", 10, 1e-4, 0.02, math.nan),
        ("Linear", 10),
        ("", 10),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_one_line(arguments):
    with pytest.raises(InputError) as caught:
        NoiseSchedule(*arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"'cubic'.*linear, cosine, quadratic, sigmoid"):
        NoiseSchedule("cubic")


@pytest.mark.parametrize("arguments", [("linear", 200_000), ("sigmoid", 1000, 0.5, 0.99)])
def test_a_schedule_that_rounds_the_signal_to_zero_is_refused(arguments):
    # Nothing can be divided by sqrt(alpha_bar) = 0: samples would be NaN, hence black.
    with pytest.raises(InputError):
        NoiseSchedule(*arguments)


def test_arguments_make_the_same_schedule_again():
    for schedule in (
        NoiseSchedule("sigmoid", 30, 0.01, 0.4),
        NoiseSchedule("linear", 30, shift=2.5),
        NoiseSchedule("quadratic", 30, shift=0.5, zero_terminal_snr=True),
        NoiseSchedule("cosine", 30, s=0.1),
    ):
        again = NoiseSchedule(**asdict(schedule))
        assert torch.equal(again.betas, schedule.betas)
        assert torch.equal(again.alpha_bars, schedule.alpha_bars)
        assert asdict(again) == asdict(schedule)
    assert asdict(schedule) == dict(
        name="cosine",
        timesteps=30,
        beta_start=1e-4,
        beta_end=0.02,
        s=0.1,
        shift=1.0,
        zero_terminal_snr=False,
        path="auto",
    )


def test_arguments_without_a_shift_make_the_plain_schedule():
    old = dict(name="cosine", timesteps=30, beta_start=1e-4, beta_end=0.02, s=0.008)
    assert torch.equal(NoiseSchedule(**old).alpha_bars, NoiseSchedule("cosine", 30).alpha_bars)


@PROPERTY
@given(schedules())
def test_betas_are_variances_and_the_signal_only_fades(schedule):
    assert schedule.betas.shape == (schedule.timesteps,)
    assert ((schedule.betas > 0) & (schedule.betas < 1)).all()
    assert ((schedule.alpha_bars > 0) & (schedule.alpha_bars < 1)).all()
    assert (schedule.alpha_bars.diff() < 0).all()
    assert (schedule.log_snr.diff() < 0).all()


@PROPERTY
@given(schedules(), st.integers(0, 2**31))
def test_the_posterior_is_narrower_than_the_step_and_ends_at_x0(schedule, seed):
    t = torch.arange(schedule.timesteps)
    generator = torch.Generator().manual_seed(seed)
    x0, x_t = torch.randn(2, len(t), 3, dtype=torch.float64, generator=generator)
    mean, variance = schedule.posterior(x0, x_t, t)
    assert ((variance[:, 0] >= 0) & (variance[:, 0] <= schedule.betas * (1 + 1e-9))).all()
    torch.testing.assert_close(mean[0], x0[0], rtol=1e-9, atol=1e-12)
    assert variance[0] == 0
    assert (variance[1:] > 0).all()


@PROPERTY
@given(schedules(), st.integers(0, 2**31))
def test_the_posterior_keeps_the_forward_process(schedule, seed):
    # If x_t is drawn from q(x_t | x_0), the posterior must lead to q(x_{t-1} | x_0).
    t = torch.randint(1, schedule.timesteps, (1,), generator=torch.Generator().manual_seed(seed))
    of_x0, of_x_t, variance = coefficients(schedule, t)
    now, before = schedule.alpha_bars[t], schedule.alpha_bars[t - 1]
    torch.testing.assert_close(of_x0 + of_x_t * now.sqrt(), before.sqrt(), rtol=1e-8, atol=0)
    variance = of_x_t**2 * (1 - now) + variance
    torch.testing.assert_close(variance, 1 - before, rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_add_noise_is_the_markov_chain_in_one_jump(name):
    chains, x0 = 20_000, 0.7
    schedule = NoiseSchedule(name, 20, 1e-3, 0.3)
    random = np.random.default_rng(0)
    x = np.full(chains, x0)
    for t, beta in enumerate(expected_betas(name, 20, 1e-3, 0.3)):
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * random.standard_normal(chains)
        clean, noise = torch.tensor([[x0, 0.0]]), torch.tensor([[0.0, 1.0]])
        mean, std = schedule.add_noise(clean, torch.tensor([t]), noise)[0].tolist()
        assert abs(x.mean() - mean) < 5 * std / math.sqrt(chains)
        assert abs(x.std() - std) < 5 * std / math.sqrt(2 * chains)


def test_add_noise_keeps_unit_variance():
    schedule = NoiseSchedule("cosine", 50)
    one, zero = torch.ones(50, 1, dtype=torch.float64), torch.zeros(50, 1, dtype=torch.float64)
    t = torch.arange(50)
    power = schedule.add_noise(one, t, zero) ** 2 + schedule.add_noise(zero, t, one) ** 2
    torch.testing.assert_close(power, one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 8, 8), (5, 3, 4, 6)])
def test_points_and_images_each_get_their_own_timestep(shape):
    schedule = NoiseSchedule("linear", 100)
    t = torch.tensor([0, 99, 7, 50, 7])
    x0, noise = torch.randn(2, *shape, dtype=torch.float64)
    x_t = schedule.add_noise(x0, t, noise)
    mean, variance = schedule.posterior(x0, x_t, t)
    assert x_t.shape == mean.shape == shape
    assert variance.shape == (5, *[1] * (len(shape) - 1))
    for i in range(5):
        one = slice(i, i + 1)
        kept = np.prod(1 - expected_betas("linear", 100)[: t[i] + 1])
        expected = math.sqrt(kept) * x0[i] + math.sqrt(1 - kept) * noise[i]
        torch.testing.assert_close(x_t[i], expected, rtol=1e-9, atol=1e-12)
        alone = schedule.posterior(x0[one], x_t[one], t[one])
        torch.testing.assert_close(mean[one], alone[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(variance[one], alone[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_images_is_kept(dtype):
    schedule, t = NoiseSchedule("linear", 10), torch.tensor([3, 9])
    x0 = torch.zeros(2, 3, dtype=dtype)
    results = (schedule.add_noise(x0, t, x0), *schedule.posterior(x0, x0, t))
    assert [result.dtype for result in results] == [dtype] * 3


# Signal and sigma


@pytest.mark.parametrize("name", NAMES)
def test_signal_and_sigma_are_the_factors_of_the_image_and_of_the_noise(name):
    schedule, t = NoiseSchedule(name, 1000), torch.arange(1000)
    logs = log_alpha_bars(expected_betas(name, 1000))
    signal = [math.exp(log / 2) for log in logs]
    sigma = [math.sqrt(-math.expm1(log)) for log in logs]
    np.testing.assert_allclose(schedule.signal(t), signal, rtol=1e-8)
    np.testing.assert_allclose(schedule.sigma(t), sigma, rtol=1e-8)


def test_signal_and_sigma_of_an_int_are_floats():
    schedule, t = NoiseSchedule("cosine", 10), torch.arange(-1, 10)
    for of_t in (schedule.signal, schedule.sigma):
        values = [of_t(int(i)) for i in t]
        assert all(type(value) is float for value in values)
        assert values == of_t(t).tolist()
        assert of_t(3, torch.zeros(2, 5)) == values[4]


def test_signal_and_sigma_without_images_are_float64():
    t = torch.tensor([2, 8, -1])
    for of_t in (NoiseSchedule("linear", 10).signal, NoiseSchedule("linear", 10).sigma):
        assert of_t(t).dtype == torch.float64 and of_t(t).shape == (3,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_signal_and_sigma_follow_the_dtype_the_axes_and_the_device_of_the_images(dtype):
    """The device that holds nothing, meta, stands for one that the machine may not have."""
    schedule, t = NoiseSchedule("linear", 10), torch.tensor([2, 8])
    for device in ("cpu", "meta", "cpu"):
        x = torch.zeros(2, 3, 4, dtype=dtype, device=device)
        for of_t in (schedule.signal, schedule.sigma):
            values = of_t(t.to(device), x)
            assert (values.dtype, values.device.type) == (dtype, device)
            assert values.shape == (2, 1, 1)
            if device == "cpu":
                assert torch.equal(values.flatten(), of_t(t).to(dtype))
        assert schedule.add_noise(x, t.to(device), x).dtype == dtype


def test_minus_one_is_the_clean_image():
    schedule = NoiseSchedule("linear", 10)
    x0, noise = torch.randn(2, 4, 3)
    t = torch.full((4,), -1)
    for minus_one in (-1, t):
        assert torch.equal(schedule.add_noise(x0, minus_one, noise), x0)
    assert (schedule.signal(-1), schedule.sigma(-1)) == (1.0, 0.0)
    for x in (None, x0):
        assert schedule.signal(t, x).flatten().tolist() == [1] * 4
        assert schedule.sigma(t, x).flatten().tolist() == [0] * 4


def test_one_int_for_all_images_is_the_same_as_one_for_each():
    schedule = NoiseSchedule("sigmoid", 10)
    x0, noise = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    for t in (0, 4, 9):
        expected = schedule.add_noise(x0, torch.full((4,), t), noise)
        torch.testing.assert_close(schedule.add_noise(x0, t, noise), expected, rtol=1e-14, atol=0)


# The posterior


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)], ids=["double", "single"]
)
def test_the_posterior_is_that_of_bayes_at_every_timestep(name, dtype, tolerance):
    betas = expected_betas(name, 1000)
    logs = log_alpha_bars(betas)
    expected = [
        bayes(
            math.sqrt(1 - betas[t]), betas[t], math.exp(logs[t - 1] / 2), -math.expm1(logs[t - 1])
        )
        for t in range(1, 1000)
    ]
    found = coefficients(NoiseSchedule(name, 1000), torch.arange(1, 1000), dtype)
    np.testing.assert_allclose(torch.stack(found, dim=1), expected, rtol=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("t", "s"), [(2, 0), (9, 3), (19, 18), (19, 0)])
def test_a_leap_is_the_posterior_of_the_steps_it_skips(name, t, s):
    betas = expected_betas(name, 20, 1e-3, 0.3)
    alpha, beta = 1.0, 0.0  # of x_t given x_s, one step after the other
    for step in range(s + 1, t + 1):
        alpha, beta = alpha * (1 - betas[step]), beta * (1 - betas[step]) + betas[step]
    kept = math.prod(1 - betas[: s + 1])
    expected = bayes(math.sqrt(alpha), beta, math.sqrt(kept), 1 - kept)
    schedule = NoiseSchedule(name, 20, 1e-3, 0.3)
    found = coefficients(schedule, torch.tensor([t]), s=torch.tensor([s]))
    np.testing.assert_allclose(torch.cat(found), expected, rtol=1e-9)


def test_a_leap_to_the_clean_image_ends_at_x0_without_variance():
    schedule = NoiseSchedule("linear", 20)
    x0, x_t = torch.randn(2, 3, 2, dtype=torch.float64)
    t = torch.tensor([19, 5, 0])
    mean, variance = schedule.posterior(x0, x_t, t, torch.full((3,), -1))
    torch.testing.assert_close(mean, x0, rtol=1e-12, atol=1e-12)
    assert (variance == 0).all()


def test_a_leap_of_one_is_the_default():
    schedule, t = NoiseSchedule("cosine", 20), torch.tensor([4, 19])
    x0, x_t = torch.randn(2, 2, 3)
    for given_, default in zip(
        schedule.posterior(x0, x_t, t, t - 1), schedule.posterior(x0, x_t, t), strict=True
    ):
        assert torch.equal(given_, default)


@pytest.mark.parametrize("name", ["cosine", "straight"])
def test_the_posterior_of_ints_is_that_of_tensors(name):
    schedule = NoiseSchedule(name, 20)
    x0, x_t = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    for t, s in ((19, 18), (19, 3), (7, 0), (5, -1), (0, -1), (4, None)):
        mean, variance = schedule.posterior(x0, x_t, t, s)
        many = [None if i is None else torch.full((4,), i) for i in (t, s)]
        expected_mean, expected_variance = schedule.posterior(x0, x_t, *many)
        assert type(variance) is float and expected_variance.shape == (4, 1, 1)
        assert expected_variance.flatten().tolist() == pytest.approx([variance] * 4, rel=1e-12)
        torch.testing.assert_close(mean, expected_mean, rtol=1e-12, atol=1e-12)


def test_the_posterior_does_not_need_a_schedule_that_preserves_variance():
    schedule = NoiseSchedule("straight", 20)
    for t in range(1, 20):
        for s in range(t):
            (signal_t, signal_s), (sigma_t, sigma_s) = (
                (of_t(t), of_t(s)) for of_t in (schedule.signal, schedule.sigma)
            )
            a = signal_t / signal_s
            expected = bayes(a, sigma_t**2 - (a * sigma_s) ** 2, signal_s, sigma_s**2)
            found = coefficients(schedule, torch.tensor([t]), s=torch.tensor([s]))
            np.testing.assert_allclose(torch.cat(found), expected, rtol=1e-9)
        of_x0, of_x_t, variance = coefficients(schedule, torch.tensor([t]), s=torch.tensor([-1]))
        assert (of_x_t, variance) == (0, 0) and of_x0.item() == pytest.approx(1, rel=1e-12)


# Shift and zero terminal SNR


def assert_consistent(schedule):
    """Betas, alphas, alpha_bars and SNR tell the same story."""
    for values in (schedule.betas, schedule.alphas, schedule.alpha_bars, schedule.snr):
        assert values.dtype == torch.float64 and values.shape == (schedule.timesteps,)
    torch.testing.assert_close(schedule.alphas, 1 - schedule.betas, rtol=0, atol=1e-15)
    assert ((schedule.betas > 0) & (schedule.betas <= 1)).all()
    product = schedule.alphas.cumprod(0)
    torch.testing.assert_close(product, schedule.alpha_bars, rtol=1e-9, atol=0)
    ratio = schedule.alpha_bars / (1 - schedule.alpha_bars)
    torch.testing.assert_close(schedule.snr, ratio, rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.log_snr, ratio.log(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift", [0.1, 0.5, 2, 8.0])
def test_a_shift_moves_the_log_snr_by_the_same_everywhere(name, shift):
    logs = log_alpha_bars(expected_betas(name, 100))
    log_snr = np.array([log - math.log(-math.expm1(log)) for log in logs])
    schedule = NoiseSchedule(name, 100, shift=shift)
    expected = log_snr - 2 * math.log(shift)
    np.testing.assert_allclose(schedule.log_snr, expected, rtol=0, atol=1e-9)
    assert_consistent(schedule)


def test_a_shift_multiplies_the_noise_beside_the_image():
    """sigma / alpha of what `add_noise` makes is shift times what it was."""
    one, zero, t = torch.ones(50, 1).double(), torch.zeros(50, 1).double(), torch.arange(50)

    def noise_to_signal(schedule):
        return schedule.add_noise(zero, t, one) / schedule.add_noise(one, t, zero)

    plain, shifted = NoiseSchedule("cosine", 50), NoiseSchedule("cosine", 50, shift=4.0)
    expected = 4 * noise_to_signal(plain)
    torch.testing.assert_close(noise_to_signal(shifted), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift", [1, 1.0])
def test_a_shift_of_one_changes_nothing_bit_for_bit(name, shift):
    plain, shifted = NoiseSchedule(name, 100), NoiseSchedule(name, 100, shift=shift)
    for attribute in ("betas", "alphas", "alpha_bars", "snr", "log_snr"):
        assert torch.equal(getattr(shifted, attribute), getattr(plain, attribute))


def test_shifts_there_and_back_cancel():
    there = NoiseSchedule("linear", 100, shift=3.0).log_snr
    back = NoiseSchedule("linear", 100, shift=1 / 3).log_snr
    middle = NoiseSchedule("linear", 100).log_snr
    torch.testing.assert_close((there + back) / 2, middle, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shift", [0, 0.009, -1, 101, math.inf, math.nan])
def test_a_shift_that_cannot_be_is_refused_with_its_range(shift):
    with pytest.raises(InputError, match=r"shift .* 0\.01 to 100, not") as caught:
        NoiseSchedule("linear", 10, shift=shift)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("timesteps", [2, 3, 50, 1000])
@pytest.mark.parametrize("shift", [1.0, 0.5, 4.0])
def test_zero_terminal_snr_leaves_nothing_at_the_end_and_the_first_step_as_it_was(
    name, timesteps, shift
):
    plain = NoiseSchedule(name, timesteps, shift=shift)
    schedule = NoiseSchedule(name, timesteps, shift=shift, zero_terminal_snr=True)
    assert schedule.alpha_bars[-1] == schedule.snr[-1] == schedule.alphas[-1] == 0
    assert schedule.betas[-1] == 1 and schedule.log_snr[-1] == -math.inf
    torch.testing.assert_close(schedule.alpha_bars[0], plain.alpha_bars[0], rtol=1e-12, atol=0)
    assert (schedule.alpha_bars.diff() < 0).all()
    assert (schedule.alpha_bars[1:] < plain.alpha_bars[1:]).all()
    assert_consistent(schedule)


def test_zero_terminal_snr_is_algorithm_1_of_lin_et_al_2023():
    """sqrt(alpha_bar) on a straight map that takes the last to 0 and the first to itself."""
    before = np.sqrt(np.cumprod(1 - expected_betas("linear", 100)))
    after = NoiseSchedule("linear", 100, zero_terminal_snr=True).alpha_bars.sqrt()
    fraction = (before - before[-1]) / (before[0] - before[-1])
    np.testing.assert_allclose(after, before[0] * fraction, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_with_zero_terminal_snr_every_step_can_be_undone(name, dtype):
    schedule = NoiseSchedule(name, 1000, zero_terminal_snr=True)
    t = torch.arange(1000)
    x0, x_t = torch.randn(2, 1000, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert torch.equal(schedule.add_noise(x0, t, x_t)[-1], x_t[-1])  # pure noise
    for s in (t - 1, (t - 50).clamp(min=-1), torch.full_like(t, -1)):
        mean, variance = schedule.posterior(x0, x_t, t, s)
        assert mean.isfinite().all() and variance.isfinite().all()
        assert ((variance >= 0) & (variance <= 1)).all()
        # x_T says nothing: what is before it is drawn as if there were only x_0
        last, kept = s[-1:], schedule.signal(s[-1:], x0)[0] ** 2
        torch.testing.assert_close(mean[-1:], schedule.add_noise(x0[-1:], last, 0 * x0[-1:]))
        torch.testing.assert_close(variance[-1], 1 - kept, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("timesteps", [20_000, 80_000, 200_000])
def test_a_schedule_that_is_nothing_long_before_its_end_is_refused_or_finite(timesteps):
    try:
        schedule = NoiseSchedule("linear", timesteps, zero_terminal_snr=True)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert_consistent(schedule)
