"""How fast an image drowns in noise: the schedules, and what follows from them.

Sources: Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), and
Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models" (arXiv 2102.09672).

The papers count timesteps 1..T, code counts t = 0..T-1: `betas[t]` is the papers' beta_{t+1}.
So t = 0 is the first, faintest noise, and t = T-1 the last. The clean image has no t of its own;
where the step before t = 0 is meant (the papers' alpha_bar_0 = 1), the index is -1.

Everything is computed in float64 and cast to the dtype of the images only when used: 1 - alpha_bar
is about 1e-4 at the first step, where float32 would keep only three digits of it.
"""

import math

import torch
from torch import Tensor

from diffusion_lib.errors import InputError


def linear(timesteps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """beta_t on a straight line from start to end (Ho et al. 2020, section 4). Float64, (T,)."""
    return torch.linspace(start, end, timesteps, dtype=torch.float64)


def quadratic(timesteps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """sqrt(beta_t) on a straight line from sqrt(start) to sqrt(end). Float64, (T,)."""
    return torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float64) ** 2


def sigmoid(timesteps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """beta_t on an S-curve: start + (end - start) sigmoid(-6 ... 6). Float64, (T,)."""
    return start + (end - start) * torch.linspace(-6, 6, timesteps, dtype=torch.float64).sigmoid()


def cosine(timesteps: int, s: float = 0.008) -> Tensor:
    """alpha_bar falls as a squared cosine (Nichol & Dhariwal 2021, eq. 17). Float64, (T,).

    f(u) = cos^2((u + s) / (1 + s) * pi / 2) for u = t/T,    alpha_bar_t = f(t/T) / f(0),
    beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, clipped at 0.999 as in the paper: otherwise the
    last beta would be 1, and the last step could not be undone.
    """
    u = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def shifted(alpha_bars: Tensor, shift: float) -> Tensor:
    """The same schedule with `shift` times as much noise, beside the image, at every timestep.

        sigma'/alpha' = shift sigma/alpha,    so log_snr' = log_snr - 2 log(shift)

    A large image shows through more noise than a small one, because its neighbouring pixels say the
    same: at d pixels, shift = d / d_0 hides as much as no shift does at d_0 (Hoogeboom et al. 2023,
    "simple diffusion", arXiv 2301.11093, eq. 4). Shape (T,).
    """
    return alpha_bars / (alpha_bars + shift**2 * (1 - alpha_bars))


def zero_terminal(alpha_bars: Tensor) -> Tensor:
    """The same schedule stretched until nothing is left at T-1: sampling starts from pure noise, so
    training should see it (Lin et al. 2023, arXiv 2305.08891, algorithm 1). Shape (T,).
    """
    signal = alpha_bars.sqrt()
    first, last = signal[0], signal[-1]
    return ((signal - last) * first / (first - last)) ** 2


SCHEDULES = {"linear": linear, "cosine": cosine, "quadratic": quadratic, "sigmoid": sigmoid}


class NoiseSchedule:
    """The forward process q of one schedule, and its reversal when x_0 is known.

    Args:
        name: linear, cosine, quadratic or sigmoid.
        timesteps: T, at least 2.
        start, end: first and last beta, 0 < start <= end < 1 (the cosine schedule has neither and
            leaves them unused).
        s: offset of the cosine schedule, 0 <= s < 1, unused by the others: without it the first
            steps would add next to no noise.
        shift: more than 1 for more noise at every timestep, less for less: see `shifted`.
        zero_terminal_snr: whether the last timestep leaves nothing of the image: see
            `zero_terminal`. Then a network cannot predict epsilon, only x0 or v.

    Attributes (float64, shape (T,), on the CPU):
        betas: variance of the noise that step t adds.
        alphas: 1 - betas.
        alpha_bars: running product of alphas: how much of the image's variance is left after t.
        snr: signal-to-noise ratio alpha_bar / (1 - alpha_bar).
        log_snr: its natural logarithm.

    Raises:
        InputError: an unknown name, too small a T, betas or s out of range, or so much noise that
            alpha_bar falls below 1e-60 (the linear schedule does at about 13,800 timesteps, unless
            `end` is lowered).
    """

    def __init__(
        self,
        name: str = "linear",
        timesteps: int = 1000,
        start: float = 1e-4,
        end: float = 0.02,
        s: float = 0.008,
        shift: float = 1.0,
        zero_terminal_snr: bool = False,
    ):
        if name not in SCHEDULES:
            raise InputError(f"no schedule is called {name!r}: choose from {', '.join(SCHEDULES)}")
        if timesteps < 2:
            raise InputError(f"a schedule needs at least 2 timesteps, not {timesteps}")
        if not 0 < start <= end < 1:
            raise InputError(f"betas must satisfy 0 < start <= end < 1, not {start} and {end}")
        if not 0 <= s < 1:
            raise InputError(f"the offset s of the cosine schedule must be 0 to 1, not {s}")
        if not 0.01 <= shift <= 100:
            raise InputError(f"the shift of a schedule must be 0.01 to 100, not {shift}")
        self.arguments = dict(
            name=name,
            timesteps=timesteps,
            start=start,
            end=end,
            s=s,
            shift=shift,
            zero_terminal_snr=zero_terminal_snr,
        )
        self.name, self.timesteps, self.start, self.end, self.s = name, timesteps, start, end, s
        self.shift, self.zero_terminal_snr = shift, zero_terminal_snr

        shape = (s,) if name == "cosine" else (start, end)
        self.betas = SCHEDULES[name](timesteps, *shape)
        self.alphas = 1 - self.betas
        self.alpha_bars = torch.cumprod(self.alphas, dim=0)
        if shift != 1:
            self.alpha_bars = shifted(self.alpha_bars, shift)
        if self.alpha_bars[-1] < 1e-60:
            raise InputError(
                f"{timesteps} steps with betas up to {self.betas.max():.4g} leave nothing at all "
                "of the image, not even to the computer: take fewer timesteps or a smaller end"
            )
        if zero_terminal_snr:
            self.alpha_bars = zero_terminal(self.alpha_bars)
        if shift != 1 or zero_terminal_snr:
            self.alphas = self.alpha_bars / torch.cat([torch.ones(1), self.alpha_bars[:-1]])
            self.betas = 1 - self.alphas
        self.snr = self.alpha_bars / (1 - self.alpha_bars)
        self.log_snr = self.snr.log()

        # The papers' indices: entry 0 is the clean image, entry t + 1 is our timestep t.
        with_clean = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars])
        self._tables = {
            "alpha_bar": with_clean,
            "log_alpha_bar": with_clean.log(),
            "sqrt_alpha_bar": with_clean.sqrt(),
            "sqrt_one_minus_alpha_bar": (1 - with_clean).sqrt(),
            "angle": torch.acos(with_clean.sqrt()),
        }
        self._cast: dict[tuple, Tensor] = {}

    def at(self, table: str, t: Tensor, x: Tensor) -> Tensor:
        """The values of a table at timesteps t, ready to multiply x.

        Args:
            table: alpha_bar, log_alpha_bar, sqrt_alpha_bar or sqrt_one_minus_alpha_bar.
            t: integers -1..T-1, shape (N,); -1 is the clean image. Between them, floats: there the
                angle between image and noise, of which sqrt(alpha_bar) is the cosine, is
                interpolated.
            x: shape (N, ...); its device and dtype are taken over.

        Returns:
            Shape (N, 1, ..., 1), with as many axes as x.
        """
        if t.is_floating_point():
            values = self._between(table, t, x)
        else:
            values = self._on_device(table, x)[t + 1]
        return values.view(-1, *[1] * (x.dim() - 1))

    def _on_device(self, table: str, x: Tensor) -> Tensor:
        """A table in x's dtype on x's device, entry t + 1 for timestep t."""
        key = (table, x.device, x.dtype)
        if key not in self._cast:  # copied once a device: looking up must not wait for the GPU
            self._cast[key] = self._tables[table].to(x.dtype).to(x.device)
        return self._cast[key]

    def _between(self, table: str, t: Tensor, x: Tensor) -> Tensor:
        """The value of a table at timesteps -1 <= t <= T-1 that need not be whole."""
        angles = self._on_device("angle", x)
        below = t.floor().long().clamp(max=self.timesteps - 2)
        angle = torch.lerp(angles[below + 1], angles[below + 2], (t - below).to(x.dtype))
        if table == "sqrt_one_minus_alpha_bar":
            return angle.sin()
        cosine = angle.cos().clamp(min=0)
        if table == "sqrt_alpha_bar":
            return cosine
        return cosine**2 if table == "alpha_bar" else 2 * cosine.log()

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0) in one jump (Ho et al. 2020, eq. 4).

            x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon

        Args:
            x0: clean images in [-1, 1], shape (N, ...).
            t: timesteps 0..T-1, shape (N,).
            noise: epsilon, standard normal, shape of x0.
        """
        return (
            self.at("sqrt_alpha_bar", t, x0) * x0
            + self.at("sqrt_one_minus_alpha_bar", t, x0) * noise
        )

    def posterior(
        self, x0: Tensor, x_t: Tensor, t: Tensor, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 6 and 7).

            mean     = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) x_0
                     + sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) x_t
            variance = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t

        Args:
            x0, x_t: shape (N, ...).
            t: timesteps 0..T-1, shape (N,).
            previous: the earlier timestep, -1..t-1, shape (N,). By default t - 1. A leap further
                back is one step of the schedule that keeps only these two timesteps, so that
                alpha_t = alpha_bar_t / alpha_bar_previous and beta_t = 1 - alpha_t.

        Returns:
            Mean, shape of x0, and variance, shape (N, 1, ..., 1). At t = 0 these are x_0 and 0.
        """
        previous = t - 1 if previous is None else previous
        signal_previous = self.at("sqrt_alpha_bar", previous, x0)
        one_minus, one_minus_previous = (
            self.at("sqrt_one_minus_alpha_bar", i, x0) ** 2 for i in (t, previous)
        )
        # alpha through its logarithm, because in float32 a plain 1 - alpha loses a faint beta
        log_alpha = self.at("log_alpha_bar", t, x0) - self.at("log_alpha_bar", previous, x0)
        alpha, beta = torch.exp(log_alpha), -torch.expm1(log_alpha)

        mean = (
            signal_previous * beta / one_minus * x0
            + alpha.sqrt() * one_minus_previous / one_minus * x_t
        )
        return mean, one_minus_previous / one_minus * beta
