"""What a run reports while it trains."""

from dataclasses import dataclass

QUARTERS = 4  # of the timesteps, for each of which the loss is reported


@dataclass(frozen=True)
class Report:
    """The state of a run. Means are over the steps since the last report."""

    step: int  # steps done
    steps: int  # steps of the whole run
    epoch: int  # epochs done
    epoch_ended: bool  # whether this step was the last one of an epoch
    loss: float  # mean of the loss
    loss_quarters: tuple[float, ...]  # for each quarter of the timesteps, least noise first
    gradient_norm: float  # mean norm of the gradient, before clipping
    learning_rate: float  # of the last step
    images_per_second: float  # in training steps, without what is done between reports
    memory: int  # peak bytes: of the GPU, or of the process on another device
    seconds: float  # spent in training steps since the start of the run
