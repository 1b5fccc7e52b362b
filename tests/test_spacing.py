"""Which timesteps a sampler visits."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lib import InputError, NoiseSchedule
from diffusion_lib.spacing import SPACINGS, spaced_timesteps

PROPERTY = settings(max_examples=100, deadline=None, derandomize=True, database=None)
LINEAR = NoiseSchedule("linear", 1000)


@PROPERTY
@given(
    st.data(),
    st.integers(2, 2000),
    st.sampled_from(["linear", "cosine", "quadratic", "sigmoid"]),
    st.sampled_from(list(SPACINGS)),
    st.booleans(),
)
def test_timesteps_are_different_fall_and_exist(data, timesteps, name, spacing, zero):
    schedule = NoiseSchedule(name, timesteps, 1e-6, 0.01, zero_terminal_snr=zero)
    steps = data.draw(st.integers(1, timesteps))
    spaced = spaced_timesteps(schedule, steps, spacing)
    assert len(spaced) == steps
    assert all(type(t) is int for t in spaced)
    assert all(a > b for a, b in pairwise(spaced))
    assert spaced[0] < timesteps and spaced[-1] >= 0
    if spacing != "leading" and steps > 1:
        assert spaced[0] == timesteps - 1
    if spacing in ("linspace", "log_snr") and steps > 1:
        assert spaced[-1] == 0


@PROPERTY
@given(st.data(), st.integers(2, 2000))
def test_linspace_is_even_from_the_last_to_zero(data, timesteps):
    steps = data.draw(st.integers(2, timesteps))
    spaced = spaced_timesteps(NoiseSchedule("cosine", timesteps), steps)
    exact = np.linspace(timesteps - 1, 0, steps)
    np.testing.assert_allclose(spaced, exact, rtol=0, atol=0.5 + 1e-9)


def test_the_spacings_of_table_2_of_lin_et_al_2023():
    """For T = 1000 and 10 steps; the paper counts timesteps from 1."""
    table = {
        "leading": [901, 801, 701, 601, 501, 401, 301, 201, 101, 1],
        "linspace": [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1],
        "trailing": [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100],
    }
    for spacing, expected in table.items():
        found = [t + 1 for t in spaced_timesteps(LINEAR, 10, spacing)]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1)


def test_log_snr_is_even_in_the_log_snr():
    schedule = NoiseSchedule("linear", 50_000, 1e-6, 4e-4)
    levels = schedule.log_snr[spaced_timesteps(schedule, 20, "log_snr")]
    # the faintest few timesteps are so far apart that rounding to them shows
    np.testing.assert_allclose(levels.diff()[:-4], levels.diff().mean(), rtol=0.02)


def test_log_snr_leaps_over_what_is_noise_to_any_eye():
    """The cosine schedule goes down to -20; steps there would decide nothing."""
    schedule = NoiseSchedule("cosine", 1000)
    levels = schedule.log_snr[spaced_timesteps(schedule, 20, "log_snr")]
    assert levels[0] < -19
    assert (levels[1:] > -11).all()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_all_timesteps_are_all_timesteps(spacing):
    assert spaced_timesteps(LINEAR, 1000, spacing) == list(range(999, -1, -1))


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "log_snr"])
def test_a_single_step_starts_from_the_last_timestep(spacing):
    assert spaced_timesteps(LINEAR, 1, spacing) == [999]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_number_of_steps_that_cannot_be_is_refused(steps):
    with pytest.raises(InputError, match=f"1 to 1000, not {steps}"):
        spaced_timesteps(LINEAR, steps)


def test_an_unknown_spacing_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match="'karras': choose from linspace, trailing"):
        spaced_timesteps(LINEAR, 5, "karras")
