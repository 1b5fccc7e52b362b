"""The diffusion transformer."""

import pytest
import torch
from torch import nn

from diffusion_lib import GaussianDiffusion, InputError, NoiseSchedule
from diffusion_lib.networks.dit import DiT, attend


def small(**arguments) -> DiT:
    torch.manual_seed(0)
    return DiT(**{**dict(image_size=8, channels=3, width=32, blocks=2), **arguments})


def trained(network: DiT) -> DiT:
    """With random weights where a new one has 0."""
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize("size, patch", [(8, 2), (12, 4), (30, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_output_has_the_shape_of_the_images(size, patch, channels):
    network = small(image_size=size, patch=patch, channels=channels)
    x = torch.randn(2, channels, size, size)
    assert network(x, torch.tensor([0, 5])).shape == x.shape
    assert network(x, torch.tensor([0, 5])).abs().max() == 0  # a new network predicts 0


def test_attention_is_its_formula():
    q, k, v = torch.randn(3, 2, 5, 64, generator=torch.Generator().manual_seed(0))
    heads = []
    for start in (0, 32):
        a, b, c = (x[..., start : start + 32] for x in (q, k, v))
        heads.append((a @ b.mT / 32**0.5).softmax(-1) @ c)
    torch.testing.assert_close(attend(q, k, v), torch.cat(heads, 2))


def test_patches_are_cut_out_and_put_back_where_they_were():
    """Without blocks and convolutions that do anything, the network treats each patch alone."""
    network = small(channels=1)
    with torch.no_grad():
        network.head.weight.copy_(torch.randn(4, 32))
    x = torch.randn(1, 1, 8, 8)
    other = x.clone()
    other[0, 0, 2:4, 4:6] += 1
    changed = (network(x, torch.zeros(1)) != network(other, torch.zeros(1)))[0, 0]
    assert changed[2:4, 4:6].all() and changed.sum() == 4


@pytest.mark.parametrize("patch, reach", [(2, 3), (4, 6)])
def test_convolutions_see_beyond_the_patch(patch, reach):
    """Three of them, of 3x3 folded pixels; the normalization between them sees the whole image."""
    network = small(channels=1, image_size=32, patch=patch, width=32)
    with torch.no_grad():
        network.finish.weight.copy_(torch.randn(network.finish.weight.shape))
        network.details.conv2.weight.normal_()
        network.details.norm1, network.details.norm2 = nn.Identity(), nn.Identity()
        network.features.weight.zero_()
    x = torch.randn(1, 1, 32, 32)
    other = x.clone()
    other[0, 0, 16, 16] += 1
    rows = (network(x, torch.zeros(1)) != network(other, torch.zeros(1)))[0, 0].any(1).nonzero()
    assert reach < 16 - rows.min() < 16 and 0 < rows.max() - 16 < 2 * reach + patch


def test_every_pixel_depends_on_every_other_and_on_time_place_and_label():
    network = trained(small(classes=(3,)))
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    network(x, torch.zeros(1))[0, 0, 0, 0].backward()
    assert (x.grad.abs().sum(1) > 0).all()
    x, zero = x.detach(), torch.zeros(1)
    labels = [torch.tensor([[n]]) for n in (-1, 0, 2)]
    outputs = [network(x, zero, label) for label in labels] + [network(x, zero + 500)]
    assert torch.pdist(torch.stack(outputs).flatten(1)).min() > 1e-3
    assert torch.equal(outputs[0], network(x, zero))  # no label is an unknown one
    shifted = network(x.roll(2, 3), zero).roll(-2, 3)
    assert not torch.allclose(shifted, outputs[0], atol=1e-3)


def test_it_is_saved_and_loaded(tmp_path):
    model = GaussianDiffusion(trained(small(classes=(2,))), NoiseSchedule("cosine", 50), "x0",
                              {"kind": ["a", "b"]})  # fmt: skip
    model.save(tmp_path / "model.pth")
    loaded = GaussianDiffusion.load(tmp_path / "model.pth")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 40])
    label = torch.tensor([[0], [1]])
    assert torch.equal(loaded(x, t, label), model(x, t, label))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(image_size=9), "an image of 9x9"),
        (dict(patch=1), "patches of 1x1"),
        (dict(width=48), "multiple of 32, not 48"),
        (dict(blocks=0), "at least one block"),
    ],
)
def test_sizes_that_do_not_work_are_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        small(**wrong)


@pytest.mark.parametrize(
    "size, tokens",
    [(8, 16), (16, 64), (28, 196), (32, 256), (48, 144), (62, 961), (64, 256), (128, 256)],
)
def test_larger_images_have_larger_patches(size, tokens):
    assert DiT.for_images(size, 1, width=32, blocks=1).places.shape == (1, tokens, 32)


def test_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        network = trained(small()).train()
        if checkpointing:
            network.enable_gradient_checkpointing()
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 3, 8, 8, generator=generator)
        network(x, torch.zeros(2)).square().sum().backward()
        gradients.append([weight.grad for weight in network.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
