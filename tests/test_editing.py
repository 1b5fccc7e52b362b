"""Images from an image: SDEdit and inpainting."""

from itertools import pairwise

import pytest
import torch

from diffusion_lib import (
    Edit,
    GaussianDiffusion,
    InputError,
    NoiseSchedule,
    UNet,
    ddim,
    load_images,
    sample,
    to_images,
    toys,
)
from diffusion_lib.editing import StartingAt, inpaint
from diffusion_lib.sampling import SAMPLERS, trajectory
from diffusion_lib.spacing import SPACINGS

EVERY = pytest.mark.parametrize("sampler", SAMPLERS)


@pytest.fixture(scope="module")
def portraits():
    return to_images(load_images("faces", 16)[:20])


@pytest.fixture(scope="module")
def diffusion():
    return GaussianDiffusion.load("faces")


@pytest.fixture(scope="module")
def small():
    """A network for grey images of 8x8 pixels, whose random weights make something of noise."""
    torch.manual_seed(0)
    network = UNet.for_images(8, 1, 8)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return GaussianDiffusion(network, NoiseSchedule("cosine", 1000))


def two_points(schedule="linear"):
    """The best possible network for two places in the plane, (-1, -1) and (1, 1)."""
    data = toys.GaussianMixture(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), 0.1)
    schedule = NoiseSchedule(schedule, 200, beta_end=0.1)
    return GaussianDiffusion(toys.IdealNetwork(data, schedule, "v"), schedule, "v")


@EVERY
@pytest.mark.parametrize("spacing", ["auto", *SPACINGS])
def test_every_sampler_starts_where_it_is_told(sampler, spacing):
    diffusion, t_0 = two_points(), 119
    rest = StartingAt(diffusion, t_0)
    how = {} if spacing == "auto" else {"spacing": spacing}
    seen = [step.t for step in SAMPLERS[sampler](rest, torch.zeros(3, 2), 6, **how)]
    assert seen == sorted(seen, reverse=True) and len(seen) == 6
    assert seen[0] == t_0 or (spacing == "leading" and seen[0] < t_0)


@EVERY
def test_a_start_at_the_last_timestep_changes_nothing(sampler):
    diffusion, noise = two_points(), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    models = (diffusion, StartingAt(diffusion, 199))
    ends = [
        list(SAMPLERS[sampler](model, noise, 10, generator))[-1].x
        for model, generator in zip(models, generators, strict=True)
    ]
    assert torch.equal(*ends)


def test_sdedit_is_that_of_the_page(diffusion, portraits):
    """Page 05b writes it in five lines."""
    edit = Edit(portraits[3], strength=0.65)
    x, steps = trajectory(diffusion, 2, "ddim", steps=10, seed=4, edit=edit)
    t_0, alpha_bars = 649, diffusion.schedule.alpha_bars.float()
    noise = torch.stack([torch.randn(3, 16, 16, generator=g) for g in [torch.manual_seed(4)] * 2])
    mine = alpha_bars[t_0] ** 0.5 * portraits[3] + (1 - alpha_bars[t_0]) ** 0.5 * noise
    assert torch.allclose(x, mine, atol=1e-5)
    alpha_bars = torch.cat([alpha_bars, torch.ones(1)])
    for t, s in pairwise([*(step.t for step in steps), -1]):
        x0 = diffusion.denoise(mine, t, "static").x0.detach()
        epsilon = (mine - alpha_bars[t] ** 0.5 * x0) / (1 - alpha_bars[t]) ** 0.5
        mine = alpha_bars[s] ** 0.5 * x0 + (1 - alpha_bars[s]) ** 0.5 * epsilon
    assert torch.allclose(steps[-1].x, mine, atol=1e-3)
    assert torch.allclose(
        sample(diffusion, 2, "ddim", 10, seed=4, edit=edit), mine.clamp(-1, 1), atol=1e-3
    )


def test_the_more_strength_the_less_is_left(diffusion, portraits):
    image = portraits[3]
    away = [
        (sample(diffusion, 2, seed=1, steps=5, edit=Edit(image, strength)) - image)
        .square()
        .mean()
        .item()
        for strength in (0.05, 0.5, 0.8, 1.0)
    ]
    assert away == sorted(away) and away[0] < 0.01 and away[-1] > 0.2


def test_the_known_part_stays_as_it_is(small):
    image = torch.linspace(-1, 1, 8).expand(1, 8, 8)
    mask = torch.zeros(1, 8, 8)
    mask[:, 4:] = 1
    edit = Edit(image, 1.0, mask)
    drawn = sample(small, 3, seed=2, steps=5, edit=edit)
    assert torch.allclose(drawn[:, :, 4:], image[:, 4:].expand(3, -1, -1, -1), atol=1e-6)
    assert (drawn[:, :, :4] - image[:, :4]).abs().amax((1, 2, 3)).min() > 0.5
    assert torch.equal(drawn, sample(small, 3, seed=2, steps=5, edit=edit))


@pytest.mark.parametrize("schedule", ["linear", "straight"])
def test_resampling_brings_the_drawn_part_in_line_with_the_known_one(schedule):
    """x is known to be 1, so y has to be 1 too; replacement alone often decides for -1 before the
    known part shows.
    """
    diffusion = two_points(schedule)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 2, generator=generator)
    known, mask = torch.ones(200, 2), torch.tensor([1.0, 0.0])
    share = []
    for repeats in (1, 8):
        how = dict(steps=20, generator=generator, clip="off", repeats=repeats)
        *_, last = inpaint(diffusion, noise, known, mask, **how)
        share.append((last.x[:, 1] > 0).float().mean().item())
        assert torch.equal(last.x[:, 0], known[:, 0])
    assert share[1] > 0.97 and share[1] > share[0]


@pytest.mark.parametrize("strength, count", [(1.0, 50), (0.02, 20)])
def test_inpainting_takes_fewer_steps_where_there_are_fewer(small, strength, count):
    edit = Edit(torch.zeros(1, 8, 8), strength, torch.ones(1, 8, 8))
    assert len(trajectory(small, 1, edit=edit)[1]) == count


@pytest.mark.parametrize(
    "edit, word",
    [
        (Edit(torch.zeros(3, 16, 16), 0.0), "strength"),
        (Edit(torch.zeros(3, 16, 16), 1.5), "strength"),
        (Edit(torch.zeros(1, 16, 16)), "(1, 16, 16)"),
        (Edit(torch.zeros(3, 16, 16), 0.5, torch.zeros(16, 16)), "mask"),
    ],
)
def test_what_cannot_be_edited_is_refused(diffusion, edit, word):
    with pytest.raises(InputError) as error:
        sample(diffusion, 1, edit=edit)
    assert word in str(error.value)


def test_inpainting_has_no_eta(diffusion):
    edit = Edit(torch.zeros(3, 16, 16), 1.0, torch.ones(1, 16, 16))
    with pytest.raises(InputError):
        sample(diffusion, 1, eta=0.5, edit=edit)


def test_ddim_from_the_middle_is_the_rest_of_ddim():
    """The steps of a shorter schedule are those of the longer one from there on."""
    diffusion, x = two_points(), torch.tensor([[0.4, -0.2]])
    whole = list(ddim(diffusion, x, steps=200))
    rest = list(ddim(StartingAt(diffusion, 99), whole[99].x, steps=100))
    assert torch.allclose(whole[-1].x, rest[-1].x, atol=1e-6)


def test_an_image_is_drawn_anew_as_another_label():
    torch.manual_seed(0)
    network = UNet.for_images(8, 1, 8, classes=(3,))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    labeled = GaussianDiffusion(network, NoiseSchedule("cosine", 100), classes={"n": list("abc")})
    mask = torch.zeros(1, 8, 8)
    for edit in (Edit(torch.zeros(1, 8, 8), 0.9), Edit(torch.zeros(1, 8, 8), 1.0, mask)):
        drawn = [
            sample(labeled, 2, steps=3, labels=name, edit=edit, guidance=scale)
            for name, scale in (("a", 0), ("c", 0), ("a", 3), ("c", 3))
        ]
        assert torch.equal(drawn[0], drawn[1])  # scale 0 leaves labels out
        assert not torch.equal(drawn[2], drawn[3])
