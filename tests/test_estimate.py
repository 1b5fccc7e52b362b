"""What a run will cost, before it runs."""

import time
from itertools import groupby

import pytest
import torch
from torch import nn

from diffusion_lib import TrainConfig, Trainer
from diffusion_lib.compiling import flops
from diffusion_lib.diffusion import build
from diffusion_lib.estimate import seconds_left, seconds_per_step, training_bytes
from diffusion_lib.networks.original import OriginalUNet
from diffusion_lib.networks.unet import UNet

PIXELS = torch.zeros(8, 1, 16, 16, dtype=torch.uint8)


def make_trainer(**settings) -> Trainer:
    config = TrainConfig(image_size=16, width=8, device="cpu", **settings)
    return Trainer(build(config, 1), PIXELS, config)


def test_operations_of_a_convolution_are_two_for_each_multiply_and_add():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x, t):
            return self.conv(x)

    # each of 5 channels of 8 x 8 pixels is a sum of 3 x 3 pixels in 3 channels
    assert flops(Network(), (3, 8, 8)) == 2 * 5 * 8 * 8 * 3 * 3 * 3


def test_at_128_pixels_the_network_is_a_tenth_of_the_originals():
    with torch.device("meta"):  # shapes only: nothing is computed
        ours = flops(UNet.for_images(128, 3), (3, 128, 128))
        originals = flops(OriginalUNet(128), (3, 128, 128))
    assert ours < 15e9 and 10 * ours < originals


def test_the_memory_that_training_takes_grows_with_the_images_at_a_time():
    eight, sixteen = (training_bytes(make_trainer(batch_size=size)) for size in (8, 16))
    weights = sum(w.numel() for w in make_trainer().weights)
    assert 2 * eight - sixteen == pytest.approx(20 * weights, abs=8)
    assert training_bytes(make_trainer(batch_size=16, accumulate=2)) == eight
    assert training_bytes(make_trainer(batch_size=16, checkpointing=True)) < 0.6 * sixteen


@pytest.mark.parametrize("size, timed", [(2, [2, 2]), (32, [2, 4])])
def test_a_step_is_timed_by_a_copy_of_the_run(monkeypatch, size, timed):
    """Of a batch that takes long only a part is computed: each image takes a second here."""
    sizes = []

    def step(trainer):
        sizes.append(trainer.config.batch_size)
        clock[0] += 3 + trainer.config.batch_size
        trainer.diffusion.network.stem[1].weight.data += 1
        return torch.zeros(2)

    clock = [0.0]
    monkeypatch.setattr(Trainer, "train_step", step)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    trainer = make_trainer(batch_size=size)
    before = [weight.clone() for weight in trainer.weights]
    assert seconds_per_step(trainer) == pytest.approx(3 + size)
    assert [size for size, _ in groupby(sizes)] == sorted(set(timed)) and trainer.step == 0
    assert all(map(torch.equal, before, trainer.weights))


def test_pictures_take_a_third_of_a_step_for_each_call_of_the_network():
    trainer = make_trainer(batch_size=8, sampler="ddim", steps=10, epochs=3)  # one step an epoch
    assert seconds_left(trainer, 6.0) == pytest.approx(3 * (6 + 6 / 3 * 16 / 8 * 10))
    assert seconds_left(make_trainer(batch_size=8, epochs=3, disable_images=True), 6.0) == 18
