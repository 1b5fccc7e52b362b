"""AdamW and Muon: what a step does, and taking up what was saved."""

import copy
import math

import pytest
import torch
from torch import nn

from diffusion_lib import InputError
from diffusion_lib.networks.dit import DiT
from diffusion_lib.networks.unet import UNet
from diffusion_lib.optimizers import (
    Muon,
    load_optimizer,
    make_optimizer,
    orthogonalize,
    set_learning_rate,
)

NETWORKS = {
    "unet": lambda: UNet(8, 1, width=8, multipliers=(1, 2), blocks=1),
    "dit": lambda: DiT(8, 1, width=32, blocks=2, classes=(3,)),
}


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 30), (2, 30, 5)])
def test_orthogonal_steps_keep_directions_and_lose_lengths(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 7
    sizes = torch.linalg.svdvals(orthogonalize(matrices))
    assert (sizes > 0.3).all() and (sizes < 1.3).all()
    exact_u, _, exact_v = torch.linalg.svd(matrices, full_matrices=False)
    away = orthogonalize(matrices) - exact_u @ exact_v
    assert away.norm() < 0.4 * (exact_u @ exact_v).norm()


def with_gradients(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)
    return network


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_hidden_weights_take_steps_of_muon_and_all_others_of_adamw(make):
    torch.manual_seed(0)
    network = with_gradients(make())
    other = copy.deepcopy(network)
    with_gradients(other)
    make_optimizer(network, "muon", 0.01, 0.0).step()
    make_optimizer(other, "adamw", 0.01, 0.0).step()
    hidden = {id(weight) for weight in network.hidden_weights()}
    for (name, weight), same in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, same) == (id(weight) not in hidden), name
    names = [name for name, weight in network.named_parameters() if id(weight) in hidden]
    assert names and not [n for n in names if n.startswith(("stem", "head", "labels", "places"))]


def test_a_step_of_muon_is_its_formula():
    torch.manual_seed(0)
    network = UNet(8, 1, width=8, multipliers=(1, 2), blocks=1)
    optimizer = make_optimizer(network, "muon", 0.01, 0.0)
    weight = network.down[0][0].residual.conv1.weight
    expected, momentum = weight.detach().clone(), torch.zeros(8, 72)
    for lr in (0.01, 0.004):
        with_gradients(network)
        gradient = weight.grad.flatten(1)
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        step = orthogonalize(ahead[None])[0] * 0.2 * math.sqrt(72)
        expected -= lr * step.view_as(expected)
        set_learning_rate(optimizer, lr)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_a_step_of_muon_is_as_large_as_one_of_adamw():
    network = with_gradients(DiT(8, 1, width=64, blocks=1))
    weight = network.blocks[0].qkv.weight
    before = weight.detach().clone()
    make_optimizer(network, "muon", 0.01, 0.0).step()
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)


def test_a_network_that_does_not_name_its_hidden_weights_is_refused():
    with pytest.raises(InputError, match=r"Linear .* adamw"):
        make_optimizer(nn.Linear(2, 2), "muon", 0.01, 0.0)


def saved() -> tuple[Muon, dict]:
    network = with_gradients(NETWORKS["dit"]())
    optimizer = make_optimizer(network, "muon", 0.01, 0.0)
    optimizer.step()
    return optimizer, copy.deepcopy(optimizer.state_dict())


def test_momenta_are_taken_up():
    optimizer, state = saved()
    for momentum in optimizer.momenta:
        momentum.zero_()
    load_optimizer(optimizer, state)
    assert all(map(torch.equal, optimizer.momenta, state["momenta"]))
    assert all(momentum.norm() > 0 for momentum in optimizer.momenta)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["momenta"].pop(),
        lambda state: state.update(momenta={}),
        lambda state: state["momenta"].__setitem__(0, torch.zeros(2)),
        lambda state: state["momenta"][0].fill_(math.nan),
        lambda state: state["momenta"].__setitem__(0, "0"),
        lambda state: state["others"]["state"].pop(0),
    ],
)
def test_moments_that_do_not_belong_to_the_weights_are_refused_and_change_nothing(damage):
    optimizer, state = saved()
    before = copy.deepcopy(optimizer.momenta)
    for momentum in state["momenta"]:
        momentum.add_(1)
    damage(state)
    with pytest.raises((ValueError, KeyError)):
        load_optimizer(optimizer, state)
    assert all(map(torch.equal, optimizer.momenta, before))
