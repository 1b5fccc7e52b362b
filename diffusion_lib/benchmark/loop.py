"""What our training loop costs beside the network, and whether its cost is linear."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from diffusion_lib.benchmark.clock import Stopwatch, summary
from diffusion_lib.benchmark.trainees import random_pixels
from diffusion_lib.config import TrainConfig
from diffusion_lib.training import Trainer, build


class Loop:
    """Our trainer, to be compared with itself.

    Args:
        config: of the trainer.
        channels: of the images.
        rounds: of measurements.
        seconds: that a measurement lasts at least.
    """

    def __init__(self, config: TrainConfig, channels: int, rounds: int, seconds: float):
        self.config, self.channels, self.rounds, self.seconds = (config, channels, rounds, seconds)

    def trainer(self, config: TrainConfig, image_size: int) -> Trainer:
        """A trainer of the one network, on images of this size, after its first step."""
        pixels = random_pixels(self.channels, image_size)
        trainer = Trainer(build(config, self.channels), pixels, config)
        trainer.diffusion.train()
        trainer.train_step()
        return trainer

    def overhead(self) -> dict:
        """How much longer a training step takes than a forward and a backward pass and a step of
        the optimiser, with one batch: the share that random numbers, noising, clipping, the average
        of weights and book-keeping add. From pairs of measurements, each next to the other.
        """
        trainer = self.trainer(self.config, self.config.image_size)
        x = torch.randn_like(trainer.batches.batch(0))
        t = torch.zeros(len(x), dtype=torch.long, device=trainer.device)

        def bare_step() -> None:
            trainer.optimiser.zero_grad()
            with trainer.autocast():
                answer = trainer.trained.network(x, t)
            F.mse_loss(answer.float(), x).backward()
            trainer.optimiser.step()

        bare_step()
        pair = [
            Stopwatch(step, trainer.device, self.seconds)
            for step in (trainer.train_step, bare_step)
        ]
        ratios = []
        for number in range(3 * self.rounds):
            order = (0, 1) if number % 2 else (1, 0)
            step, bare = (seconds for _, seconds in sorted((i, pair[i].measure()) for i in order))
            ratios.append(step / bare - 1)
        return summary(ratios)

    def linearity(self) -> dict[str, dict]:
        """The time of a step, as a multiple of what it would be if twice the images took twice the
        time of half of them ("batch"), and four times the pixels four times the time ("pixels").
        The network is always the same. More than 1: the large pay more than their share.
        """
        size, batch = self.config.image_size, self.config.batch_size
        trainers = {"full": self.trainer(self.config, size)}
        if batch > 1:
            half = replace(self.config, batch_size=batch // 2)
            trainers["batch"] = self.trainer(half, size)
        arguments = trainers["full"].diffusion.network.arguments
        if size // 2 % (arguments["patch"] * 2 ** (len(arguments["multipliers"]) - 1)) == 0:
            trainers["pixels"] = self.trainer(self.config, size // 2)
        watches = {
            name: Stopwatch(trainer.train_step, trainer.device, self.seconds)
            for name, trainer in trainers.items()
        }
        seconds = [
            {name: watch.measure() for name, watch in watches.items()} for _ in range(self.rounds)
        ]
        shares = {"batch": batch // 2 / batch, "pixels": 1 / 4}
        return {
            name: summary([round["full"] * share / round[name] for round in seconds])
            for name, share in shares.items()
            if name in trainers
        }
