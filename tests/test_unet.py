"""The U-Net: its shapes, how it starts, and that nothing in it is cut off."""

import math
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lib import InputError, UNet
from diffusion_lib.networks.layers import Attention, sinusoidal_embedding
from diffusion_lib.networks.unet import Block, ResidualBlock

PROPERTY = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def awaken(network):
    """Shake all weights: layers that start at zero would hide what is before them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def small(channels=1, **settings):
    torch.manual_seed(0)
    defaults = dict(width=8, multipliers=(1, 2), blocks=1, attention=())
    return UNet(8, channels, **{**defaults, **settings})


@PROPERTY
@given(
    image_size=st.sampled_from([8, 12, 16, 28, 32, 64, 128]),
    channels=st.integers(1, 5),
    width=st.sampled_from([8, 16, 24]),
    count=st.integers(1, 2),
)
def test_images_come_out_as_large_as_they_went_in(image_size, channels, width, count):
    network = UNet.for_images(image_size, channels, width)
    x = torch.randn(count, channels, image_size, image_size)
    with torch.no_grad():
        assert network(x, torch.arange(count)).shape == x.shape


@PROPERTY
@given(
    patch=st.sampled_from([1, 2, 4]),
    multipliers=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    blocks=st.integers(1, 3),
    factor=st.integers(1, 3),
    attention=st.sampled_from([(), (2,), (8, 4)]),
)
def test_any_combination_of_arguments_keeps_the_shape(
    patch, multipliers, blocks, factor, attention
):
    image_size = factor * patch * 2 ** (len(multipliers) - 1)
    network = UNet(image_size, 2, 8, multipliers, blocks, attention, patch)
    x = torch.randn(2, 2, image_size, image_size)
    with torch.no_grad():
        assert network(x, torch.tensor([0, 999])).shape == x.shape


def test_arguments_make_the_same_network_again():
    network = small(3, attention=(4,), patch=2)
    again = UNet(**network.arguments)
    again.load_state_dict(network.state_dict())
    assert again.arguments == network.arguments
    assert (again.image_size, again.channels) == (8, 3)


@pytest.mark.parametrize(
    ("image_size", "levels", "patch", "usable"),
    [
        (30, 3, 1, [28, 32]),
        (7, 3, 1, [4, 8]),
        (3, 3, 1, [4]),
        (100, 4, 2, [96, 112]),
        (0, 2, 1, [2]),
    ],
)
def test_a_size_that_cannot_be_halved_is_answered_with_sizes_that_can(
    image_size, levels, patch, usable
):
    with pytest.raises(InputError) as caught:
        UNet(image_size, width=8, multipliers=(1,) * levels, patch=patch)
    named = [int(size) for size in re.findall(r"\d+", str(caught.value).split("use ")[1])]
    assert named == usable
    for size in named:
        UNet(size, width=8, multipliers=(1,) * levels, patch=patch)


def test_for_images_takes_a_size_or_names_one_that_it_takes():
    with torch.device("meta"):  # millions of weights less to draw
        refused = 0
        for image_size in [*range(-1, 70), 90, 100, 126, 129, 144, 200, 250, 500, 1000]:
            try:
                UNet.for_images(image_size, width=8)
            except InputError as error:
                refused += 1
                for size in re.findall(r"\d+", str(error).split("use ")[1]):
                    UNet.for_images(int(size), width=8)
        assert refused > 40


@pytest.mark.parametrize("image_size", [8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 128, 256])
def test_for_images_takes_common_sizes_and_folds_large_ones(image_size):
    with torch.device("meta"):
        network = UNet.for_images(image_size, width=8)
    assert image_size / network.arguments["patch"] <= 64
    assert image_size < 128 or image_size / network.arguments["patch"] > 32


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_for_images_can_be_told_the_patch(patch):
    network = UNet.for_images(64, 2, 8, patch=patch)
    x = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        assert network.stem(x).shape == (1, 8, 64 // patch, 64 // patch)
        assert network(x, torch.tensor([3])).shape == x.shape


@pytest.mark.parametrize("width", [0, -8, 4, 7, 12, 100])
def test_a_width_that_norms_cannot_group_is_refused(width):
    with pytest.raises(InputError, match=f"multiple of 8, not {width}"):
        UNet(8, width=width)


@pytest.mark.parametrize("patch", [1, 2])
def test_an_untrained_network_answers_with_zeros(patch):
    network = small(3, patch=patch)
    answer = network(torch.randn(2, 3, 8, 8), torch.tensor([0, 500]))
    assert torch.equal(answer, torch.zeros_like(answer))


def test_an_untrained_block_changes_nothing():
    block = Block(16, 16, 32, attend=True)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 32)), x)


def test_an_untrained_block_that_widens_is_only_its_shortcut():
    block = ResidualBlock(8, 16, 32)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 32)), block.shortcut(x))


@pytest.mark.parametrize("size", [4, 8, 64])
def test_the_embedding_is_sines_then_cosines_of_falling_frequency(size):
    t = [0, 1, 10, 999]
    half = size // 2
    expected = []
    for timestep in t:
        angles = [timestep / 10000 ** (k / (half - 1)) for k in range(half)]
        expected.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    found = sinusoidal_embedding(torch.tensor(t), size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-4)


def test_all_of_a_thousand_timesteps_are_embedded_differently():
    embedding = sinusoidal_embedding(torch.arange(1000), 32)
    distances = torch.cdist(embedding, embedding) + 10 * torch.eye(1000)
    assert distances.min() > 0.01


def test_the_answer_depends_on_the_time():
    network = awaken(small())
    x = torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)
    a, b, c = network(x, torch.tensor([3, 4, 900]))
    assert (a - b).abs().max() > 1e-4
    assert (a - c).abs().max() > 1e-2


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("pixel", [(0, 0), (5, 15)])
def test_every_pixel_can_change_every_other(patch, pixel):
    network = awaken(UNet(16, 2, 8, (1, 2), 1, (), patch))
    x = torch.randn(1, 2, 16, 16, requires_grad=True)
    network(x, torch.tensor([10]))[0, 1][pixel].backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize("attention", [(), (8, 4)])
def test_the_gradient_reaches_every_weight(attention):
    network = awaken(small(3, blocks=2, attention=attention, multipliers=(1, 2, 2)))
    network(torch.randn(2, 3, 8, 8), torch.tensor([1, 700])).square().mean().backward()
    unreached = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 1e-12
    ]
    assert unreached == []


def test_every_block_on_the_left_is_skipped_over_to_the_right():
    network = awaken(small(blocks=2, multipliers=(1, 2, 2)))
    way_down = []
    for blocks, downsampler in zip(network.down, network.downsamplers, strict=True):
        way_down += [*blocks, downsampler]
    way_down.append(network.middle1)
    for here, below in pairwise(way_down):
        if not isinstance(here, Block):
            continue
        outputs = []
        keep = here.register_forward_hook(lambda _, __, out, kept=outputs: kept.append(out))
        cut = below.register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
        answer = network(torch.randn(1, 1, 8, 8), torch.tensor([10]))
        keep.remove()
        cut.remove()
        # With the way down cut, a gradient can only have come by the skip.
        [gradient] = torch.autograd.grad(answer.sum(), outputs)
        assert (gradient != 0).all()


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (32, 1), (64, 2), (96, 3), (40, 1)])
def test_attention_is_the_softmax_formula_in_heads_of_32_channels(channels, heads):
    attention = awaken(Attention(channels)).double()
    x = torch.randn(2, channels, 3, 2, dtype=torch.float64)

    groups = attention.norm(x).flatten(2)  # (N, C, pixels)
    weight, bias = attention.qkv.weight[:, :, 0, 0], attention.qkv.bias
    size = channels // heads
    expected = []
    for pixels in groups:
        q, k, v = (weight @ pixels + bias[:, None]).split(channels)
        mixed = []
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            scores = q[rows].T @ k[rows] / math.sqrt(size)  # (who looks, who is looked at)
            shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            mixed.append((shares @ v[rows].T).T)
        out = attention.out.weight[:, :, 0, 0] @ torch.cat(mixed) + attention.out.bias[:, None]
        expected.append(out.view(channels, 3, 2))
    assert attention.heads == heads
    torch.testing.assert_close(attention(x), x + torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("attention", "expected"), [((), 0), ((8,), 4), ((4,), 4), ((8, 4), 8)])
def test_blocks_attend_at_the_resolutions_asked_for_and_in_the_middle(attention, expected):
    network = small(blocks=2, attention=attention)
    assert sum(isinstance(module, Attention) for module in network.modules()) == expected + 1


def test_images_of_a_batch_do_not_mix():
    network = awaken(small(3, attention=(8, 4)))
    x = torch.randn(2, 3, 8, 8)
    changed = torch.stack([x[0], torch.randn(3, 8, 8)])
    before, after = network(x, torch.tensor([5, 6])), network(changed, torch.tensor([5, 800]))
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=1e-6)
    assert (before[1] - after[1]).abs().max() > 1e-2


def test_it_can_learn_a_batch_by_heart():
    network = small(width=16, attention=(4,))
    generator = torch.Generator().manual_seed(2)
    x, target = torch.randn(2, 4, 1, 8, 8, generator=generator)
    t = torch.tensor([0, 10, 100, 900])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = (network(x, t) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
