"""The forward process q: how an image turns into noise, and one step back when x_0 is known.

Sources: Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239); Kingma et
al. 2021, "Variational Diffusion Models" (arXiv 2107.00630), appendix A, for the posterior.

The papers count timesteps 1..T, code counts t = 0..T-1: `betas[t]` is the papers' beta_{t+1}.
So t = 0 has the least noise, and t = T-1 the most. The clean image has no t of its own; where the
step before t = 0 is meant (the papers' alpha_bar_0 = 1), the index is -1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lib.errors import InputError


def linear(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """beta_t on a straight line from start to end (Ho et al. 2020, section 4). Float64, (T,)."""
    return torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)


@dataclass(eq=False)
class NoiseSchedule:
    """The forward process, x_t = signal(t) x_0 + sigma(t) epsilon, and its posterior.

    name: linear, or one of page 02: cosine, quadratic, sigmoid; or that of page 10: straight.
    timesteps: T, at least 2.
    beta_start, beta_end: 0 < beta_start <= beta_end < 1; cosine and straight do not use them.
    s: offset of the cosine schedule, 0 <= s < 1; the others do not use it.
    shift: more than 1 for more noise at every timestep: see `shifted`.
    zero_terminal_snr: whether the last timestep is nothing but noise: see `zero_terminal`. Then a
        network cannot predict epsilon, but anything else. That of straight always is.
    path: variance_preserving: signal^2 + sigma^2 = 1; straight: signal + sigma = 1, with the same
        ratio of the two at each timestep. auto: straight for the schedule of that name.

    Attributes (float64, shape (T,), on the CPU):
        betas: variance of the noise that step t adds.
        alphas: 1 - betas.
        alpha_bars: running product of alphas, the share of the image's variance left at t. (All
            three are those of the variance-preserving path, on the straight one too.)
        snr, log_snr: signal-to-noise ratio alpha_bar / (1 - alpha_bar), and its natural logarithm.

    Raises:
        InputError: an unknown name, or a number out of its range.
    """

    name: str = "linear"
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    s: float = 0.008
    shift: float = 1.0
    zero_terminal_snr: bool = False
    path: str = "auto"

    def __post_init__(self):
        check_arguments(self)
        ends = self.beta_start, self.beta_end
        shape = {"cosine": (self.s,), "straight": ()}.get(self.name, ends)
        self.betas = SCHEDULES[self.name](self.timesteps, *shape)
        self.alphas = 1 - self.betas
        self.alpha_bars = torch.cumprod(self.alphas, dim=0)
        check_end(self)
        if self.shift != 1 or self.zero_terminal_snr:
            self._reshape()
        self.snr = self.alpha_bars / (1 - self.alpha_bars)
        self.log_snr = self.snr.log()

        # Entry 0 is the clean image, entry t + 1 is timestep t.
        alpha_bars = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars])
        self._factors = torch.stack([alpha_bars.sqrt(), (1 - alpha_bars).sqrt()])  # (2, T + 1)
        if (self.name if self.path == "auto" else self.path) == "straight":
            self._factors /= self._factors.sum(0)
        self._copies: dict[tuple, Tensor] = {}

    def signal(self, t: int | Tensor, x: Tensor | None = None) -> float | Tensor:
        """The signal coefficient, that of x_0 in x_t, for -1 <= t < T: sqrt(alpha_bar_t), or on the
        straight path that divided by sqrt(alpha_bar_t) + sqrt(1 - alpha_bar_t).

        For an int, a float. For timesteps of shape (N,): shape (N, 1, ..., 1), with as many axes as
        x, in its dtype and on its device; without x, float64 of shape (N,) on the CPU.
        """
        return self._look_up(0, t, x)

    def sigma(self, t: int | Tensor, x: Tensor | None = None) -> float | Tensor:
        """The noise coefficient, the standard deviation of the noise in x_t: sqrt(1 - alpha_bar_t),
        or on the straight path 1 - signal.

        Arguments and shapes are those of `signal`.
        """
        return self._look_up(1, t, x)

    def add_noise(self, x0: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0) in one jump (Ho et al. 2020, eq. 4).

            x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon

        x0: clean images in [-1, 1], (N, ...); t: an int or (N,); noise: epsilon, shape of x0.
        """
        return self.signal(t, x0) * x0 + self.sigma(t, x0) * noise

    def posterior(
        self, x0: Tensor, x_t: Tensor, t: int | Tensor, s: int | Tensor | None = None
    ) -> tuple[Tensor, float | Tensor]:
        """Mean and variance of q(x_s | x_t, x_0) for an earlier timestep s, by default t - 1.

            a = signal_t / signal_s,    b = sigma_t^2 - a^2 sigma_s^2
            mean     = signal_s b / sigma_t^2 x_0 + a sigma_s^2 / sigma_t^2 x_t
            variance = b sigma_s^2 / sigma_t^2

        x_t is a x_s plus noise of variance b. For s = t - 1, a = sqrt(alpha_t) and b = beta_t, and
        this is eq. 6 and 7 of Ho et al. 2020; for any s, see Kingma et al. 2021, appendix A.

        Returns:
            Mean, shape of x0, and variance, a float if t is an int, else (N, 1, ..., 1). At s = -1,
            the clean image, they are x_0 and 0.
        """
        s = t - 1 if s is None else s
        signal_t, signal_s = self.signal(t), self.signal(s)  # float64, because b is a small
        sigma2_t, sigma2_s = self.sigma(t) ** 2, self.sigma(s) ** 2  # difference of large numbers
        a = signal_t / signal_s
        b = sigma2_t - a**2 * sigma2_s
        of_x0, of_x_t = signal_s * b / sigma2_t, a * sigma2_s / sigma2_t
        variance = b * sigma2_s / sigma2_t
        if isinstance(t, Tensor):
            of_x0, of_x_t, variance = (expand(v, x0) for v in (of_x0, of_x_t, variance))
        return of_x0 * x0 + of_x_t * x_t, variance

    # ----------------------------------------------------------------------------------------------
    # Also here: the same for batches on any device, and schedules with other ends (page 02)

    def _look_up(self, row: int, t: int | Tensor, x: Tensor | None) -> float | Tensor:
        """The factors are no buffers of a model: they are float64, which MPS does not have, and
        `model.half()` would round them. float32 has three digits left of 1 - alpha_bar = 1e-4.
        """
        if isinstance(t, int):
            return self._factors[row, t + 1].item()
        if x is None:
            return self._factors[row, t.cpu() + 1]
        key = x.device, x.dtype
        if key not in self._copies:  # copied once a device, so that look-ups don't wait for a GPU
            self._copies[key] = self._factors.to(x.dtype).to(x.device)
        return expand(self._copies[key][row][t + 1], x)

    def _reshape(self) -> None:
        if self.shift != 1:
            self.alpha_bars = shifted(self.alpha_bars, self.shift)
        if self.zero_terminal_snr:
            self.alpha_bars = zero_terminal(self.alpha_bars)
        self.alphas = self.alpha_bars / torch.cat([torch.ones(1), self.alpha_bars[:-1]])
        self.betas = 1 - self.alphas


# --------------------------------------------------------------------------------------------------
# Also here: the schedules of pages 02 and 10
#
# Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models" (arXiv 2102.09672).


def quadratic(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """sqrt(beta_t) on a straight line from sqrt(start) to sqrt(end). Float64, (T,)."""
    return linear(timesteps, beta_start**0.5, beta_end**0.5) ** 2


def sigmoid(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """beta_t on an S-curve: start + (end - start) sigmoid(-6 ... 6). Float64, (T,).

    As in GeoDiff (Xu et al. 2022, arXiv 2203.02923). The "sigmoid schedule" of Chen 2023 (arXiv
    2301.10972) is another one: it puts the sigmoid on alpha_bar.
    """
    return beta_start + (beta_end - beta_start) * linear(timesteps, -6, 6).sigmoid()


def cosine(timesteps: int, s: float = 0.008) -> Tensor:
    """alpha_bar falls as a squared cosine (Nichol & Dhariwal 2021, eq. 17). Float64, (T,).

    f(u) = cos^2((u + s) / (1 + s) * pi / 2) for u = t/T,    alpha_bar_t = f(t/T) / f(0),
    beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, clipped at 0.999 as in the paper: otherwise the
    last beta would be 1, and the last step could not be undone.
    """
    u = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def straight(timesteps: int) -> Tensor:
    """signal = 1 - u and sigma = u for u = (t + 1) / T, up to a common factor: the straight path
    from the image to noise (Liu et al. 2022, arXiv 2209.03003; Lipman et al. 2022, arXiv
    2210.02747; their time runs the other way). Float64, (T,); the last beta is 1.
    """
    u = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    alpha_bars = (1 - u) ** 2 / ((1 - u) ** 2 + u**2)
    return 1 - alpha_bars[1:] / alpha_bars[:-1]


SCHEDULES = {
    "linear": linear,
    "cosine": cosine,
    "quadratic": quadratic,
    "sigmoid": sigmoid,
    "straight": straight,
}
PATHS = ("auto", "variance_preserving", "straight")


def shifted(alpha_bars: Tensor, shift: float) -> Tensor:
    """The same schedule with sigma / signal multiplied by `shift` at every timestep. Shape (T,).

        log_snr' = log_snr - 2 log(shift)

    Neighboring pixels of a large image are alike, so averaging them removes noise and keeps the
    image: at a width of d pixels, shift = d / d_0 gives the log-SNR that no shift gives at d_0
    (Hoogeboom et al. 2023, "simple diffusion", arXiv 2301.11093).
    """
    return alpha_bars / (alpha_bars + shift**2 * (1 - alpha_bars))


def zero_terminal(alpha_bars: Tensor) -> Tensor:
    """The same schedule stretched until no signal is left at T-1: sampling starts from pure noise,
    so training should see it (Lin et al. 2023, arXiv 2305.08891, algorithm 1). Shape (T,).
    """
    signal = alpha_bars.sqrt()
    first, last = signal[0], signal[-1]
    return ((signal - last) * first / (first - last)) ** 2


# --------------------------------------------------------------------------------------------------
# Also here: a helper, and checks of the arguments


def expand(values: Tensor, x: Tensor) -> Tensor:
    """(N,) -> (N, 1, ..., 1), with as many axes as x, in its dtype and on its device."""
    return values.to(x).view(-1, *[1] * (x.dim() - 1))


def check_arguments(schedule: NoiseSchedule) -> None:
    """Raise InputError for a name that is unknown or a number that is out of range."""
    name, start, end = schedule.name, schedule.beta_start, schedule.beta_end
    if name not in SCHEDULES:
        raise InputError(f"no schedule is called {name!r}: choose from {', '.join(SCHEDULES)}")
    if schedule.timesteps < 2:
        raise InputError(f"a schedule needs at least 2 timesteps, not {schedule.timesteps}")
    if not 0 < start <= end < 1:
        raise InputError(f"betas must rise: 0 < beta_start <= beta_end < 1, not {start} and {end}")
    if not 0 <= schedule.s < 1:
        raise InputError(f"the offset s of the cosine schedule must be 0 to 1, not {schedule.s}")
    if not 0.01 <= schedule.shift <= 100:
        raise InputError(f"the shift of a schedule must be 0.01 to 100, not {schedule.shift}")
    if schedule.path not in PATHS:
        raise InputError(f"path must be one of {', '.join(PATHS)}, not {schedule.path!r}")


def check_end(schedule: NoiseSchedule) -> None:
    """Raise InputError if alpha_bar falls below 1e-60, as that of linear does from about 13,800
    timesteps on.
    """
    if schedule.name != "straight" and schedule.alpha_bars[-1] < 1e-60:
        raise InputError(
            f"{schedule.timesteps} timesteps with betas up to {schedule.betas.max():.4g} leave an "
            "alpha_bar that rounds to 0: take fewer timesteps or a smaller beta_end"
        )
