# %% [markdown]
# # 02 · Noise schedules
#
# **You will build the four common schedules in a line each, find the one axis on which they can be
# compared, and learn to tell before any training whether a schedule suits your pictures.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/02_schedules.ipynb)
#
# |  |  |
# |---|---|
# | You need | 01: betas, $\bar\alpha$, and the jump from $x_0$ to $x_t$ |
# | You get | a choice of schedule, number of steps and settings that you can give reasons for |
# | It runs in | about fifteen seconds on two CPU cores; a GPU would not help, for there is still nothing to train |
#
# The sources are Ho et al. (2020, [arXiv 2006.11239](https://arxiv.org/abs/2006.11239)), Nichol and
# Dhariwal (2021, [arXiv 2102.09672](https://arxiv.org/abs/2102.09672)), Hoogeboom et al. (2023,
# [arXiv 2301.11093](https://arxiv.org/abs/2301.11093)), Chen (2023,
# [arXiv 2301.10972](https://arxiv.org/abs/2301.10972)) and Lin et al. (2023,
# [arXiv 2305.08891](https://arxiv.org/abs/2305.08891)).

# %%
# On Colab this installs the course's package beside Colab's own torch. Elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "git+https://github.com/simple-diffusion/simple-diffusion"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", address]
    subprocess.run(command, check=True)

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    ddim,
    exercises,
    explorer,
    load_images,
    plots,
    to_images,
    toys,
    widgets,
)

torch.manual_seed(0)
T = 1000  # steps of a schedule
POINTS = 600  # points of the spiral that are drawn
SAMPLES = 10_000  # how many brightnesses are sampled: fewer is faster, and rougher

# %% [markdown]
# ## Half of the work for nothing?
#
# In 01 the portrait was gone by t = 500, and 500 more steps turned snow into snow. A network will
# be trained on all thousand timesteps, each as often as the others, and a sampler will walk through
# all of them. Is half of that work wasted? Who says that $\beta$ has to rise on a straight line?
#
# Nobody. Here are three curves from one first $\beta$ to one last, where $u$ runs from 0 to 1:
#
# $$\begin{aligned}
# \text{linear:} \quad & \beta = \beta_1 + (\beta_T - \beta_1)\,u \\
# \text{quadratic:} \quad & \sqrt\beta = \sqrt{\beta_1} + (\sqrt{\beta_T} - \sqrt{\beta_1})\,u \\
# \text{sigmoid:} \quad & \beta = \beta_1 + (\beta_T - \beta_1)\,\sigma(12u - 6)
# \end{aligned}$$
#
# The first is that of Ho et al. (section 4), with $\beta_1 = 0.0001$ and $\beta_T = 0.02$. Stable
# Diffusion uses the second, with other ends, under the name `scaled_linear`. The third climbs on an
# S, for $\sigma(z) = 1/(1+e^{-z})$.

# %%
u = torch.linspace(0, 1, T, dtype=torch.float64)  # (T,)
first, last = 1e-4, 0.02
betas = {
    "linear": first + (last - first) * u,
    "quadratic": (first**0.5 + (last**0.5 - first**0.5) * u) ** 2,
    "sigmoid": first + (last - first) * torch.sigmoid(12 * u - 6),
}

# %% [markdown]
# Nichol and Dhariwal turn the question round. What counts is not the noise of a step but what is
# left of the picture, $\bar\alpha$. So say how *that* should fall (eq. 17), and let the betas
# follow:
#
# $$\bar\alpha_t = \frac{f(t/T)}{f(0)}, \qquad
# f(u) = \cos^2\!\left(\frac{u + s}{1 + s}\cdot\frac\pi2\right), \qquad s = 0.008$$
#
# Since $\bar\alpha_t$ is $\bar\alpha_{t-1}$ times $\alpha_t$, a step's beta is
# $\beta_t = 1 - \bar\alpha_t / \bar\alpha_{t-1}$.


# %%
def squared_cosine(u, s=0.008):
    """The f of eq. 17."""
    return torch.cos((u + s) / (1 + s) * torch.pi / 2) ** 2


f = squared_cosine(torch.linspace(0, 1, T + 1, dtype=torch.float64))  # (T + 1,)
betas["cosine"] = 1 - f[1:] / f[:-1]  # (T,)
print("the last three betas:", [round(beta, 3) for beta in betas["cosine"][-3:].tolist()])

# %% [markdown]
# A last beta of 1 keeps nothing of the picture. As an end of the forward process that is perfect,
# but think of the way back: whoever guesses the noise in $x_T$ gets the picture by dividing by
# $\sqrt{\bar\alpha_T}$, which is now 0. So the paper clips betas at 0.999:

# %%
betas["cosine"] = betas["cosine"].clamp(max=0.999)
alpha_bars = {name: torch.cumprod(1 - beta, dim=0) for name, beta in betas.items()}  # (T,) each
for name, alpha_bar in alpha_bars.items():
    print(f"{name:9}: to get x_0 from x_T, divide by {alpha_bar[-1].sqrt():.6f}")

# %% [markdown]
# Even clipped, the cosine schedule divides by 0.00005: at the last timestep an error of 0.01 in the
# guessed noise becomes an error of 200 in the picture. Remember this when 04 asks what a network
# should predict, and when 05 holds its guesses between -1 and 1.
#
# Are these the library's?

# %%
schedules = {name: NoiseSchedule(name, T) for name in betas}
for name, schedule in schedules.items():
    assert torch.allclose(schedule.betas, betas[name], rtol=1e-12)
    assert torch.allclose(schedule.alpha_bars, alpha_bars[name], rtol=1e-12)
print("the same as in diffusion_lib.schedules:", ", ".join(schedules))

# %%
colors = explorer.COLORS  # one for a name, from here to the end
way = torch.arange(T) / (T - 1)  # (T,) 0 at the first step, 1 at the last
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for name in schedules:
    left.plot(way, betas[name], colors[name], label=name)
    right.plot(way, alpha_bars[name], colors[name], label=name)
left.set(title="The cosine's last steps are huge", xlabel="t / T", ylabel="β: noise of a step")
left.set_yscale("log")
right.set(title="... for it has kept more until then", xlabel="t / T", ylabel="ᾱ: variance left")
right.legend()
plt.show()

# %% [markdown]
# *Left: three schedules have (almost) the same first and last beta, and differ in between. Right:
# small differences in beta add up. Half-way, linear has lost more than nine tenths, and the cosine
# just half.*
#
# ## What each destroys, and when
#
# Curves are cheap. What does it look like? One portrait, the same noise, the same share of the way:


# %%
def strip(schedule, picture, t):
    """One picture at each timestep in t, always with the same noise. (len(t), C, H, W)"""
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    stack = picture.expand(len(t), -1, -1, -1)  # (len(t), C, H, W)
    return schedule.add_noise(stack, torch.as_tensor(t), noise.expand_as(stack))


# %%
faces = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16)
stops = [0, 125, 250, 375, 500, 625, 750, 875, 999]
rows = {name: strip(schedule, faces[0], stops) for name, schedule in schedules.items()}
plots.image_rows(rows, [f"t = {t}" for t in stops], "The linear schedule is done at half-time")

# %% [markdown]
# *Go down a column: the same timestep is four different things. At t = 375 the portrait is hard to
# find under linear, and easy under the three others. Go along a row: under sigmoid little happens
# for a third of the time, and then everything at once. The cosine keeps something for the eye
# longest.*

# %%
brains = to_images(load_images("brains", image_size=64))  # (1000, 1, 64, 64)
stops = [0, 300, 500, 700]
rows = {name: strip(schedule, brains[0], stops) for name, schedule in schedules.items()}
plots.image_rows(rows, [f"t = {t}" for t in stops], "A picture of 64 pixels outlasts one of 16")

# %% [markdown]
# *The same schedules, but a picture of 64 × 64 pixels: at t = 500 a shadow of it is left even under
# linear.* Keep this in mind; we will measure it below.
#
# When is half of the variance gone?

# %%
for name in schedules:
    half = int((alpha_bars[name] < 0.5).nonzero()[0])
    print(f"{name:9}: half gone at t = {half}")

# %% [markdown]
# And what becomes of a whole distribution? Here is a spiral again, 600 points in the plane, from
# `diffusion_lib.toys`. Watch where the colours start to mix.

# %%
spiral = toys.spiral()
generator = torch.Generator().manual_seed(0)
points, component = spiral.sample(POINTS, generator)  # (POINTS, 2), (POINTS,)
noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(1))  # (POINTS, 2)


def draw(both, share):
    t = torch.full((POINTS,), round(share * (T - 1)))
    for axes, name in zip(both, ["linear", "cosine"], strict=True):
        x_t = schedules[name].add_noise(points, t, noise)  # (POINTS, 2)
        axes.scatter(*x_t.T, c=component, s=4, cmap="plasma")
        axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", xlabel="first number")
        axes.set_title(f"{name}, t / T = {share:.2f}: ᾱ = {alpha_bars[name][t[0]]:.2f}")
    both[0].set_ylabel("second number")


plots.film(draw, torch.linspace(0, 1, 17).tolist(), figsize=(6.8, 3.6), columns=2, seconds=5)

# %% [markdown]
# *At half-time, under linear, the colours are mixed, and from then on next to nothing happens.
# Under the cosine yellow and violet are still apart: the spiral dissolves over the whole time.*
#
# ## The first step: what s is for
#
# Why the little $s$ in the cosine? Without it the cosine is flat at the beginning, so that the
# first steps add next to no noise. How much is next to none? Pictures come in 256 levels of grey,
# which are $2/255 \approx 0.008$ apart on our scale from -1 to 1. Noise finer than that can hardly
# be told from the rounding that is in every picture anyway.

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for s in [0, 0.008, 0.03]:
    noise_so_far = (1 - NoiseSchedule("cosine", T, s=s).alpha_bars[:12]).sqrt()  # (12,)
    axes.plot(range(12), noise_so_far, "o-", markersize=4, label=f"s = {s}")
axes.axhline(2 / 255, color="grey", linewidth=0.8, label="one level of grey")
axes.set(title="Without s, the first steps are finer than the grey levels")
axes.set(xlabel="t", ylabel="spread of the noise", xticks=range(12))
axes.legend()
plt.show()

# %%
for s in [0, 0.008]:
    first_spread = NoiseSchedule("cosine", T, s=s).betas[0].sqrt()
    print(f"s = {s}: the first step adds {first_spread / (2 / 255):.1f} levels of grey")

# %% [markdown]
# *With s = 0 the noise grows to one level of grey only at the fifth step.* A network can hardly
# guess such noise, and is asked about it as often as about any other. Nichol and Dhariwal chose $s$
# so that the first step adds slightly less than one level.

# %% [markdown]
# ## One axis for all: log-SNR
#
# The timestep is a bad name for an amount of noise: t = 375 meant four different things. What would
# be a good one? The network sees
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$. How hard its task is depends
# on the strength of the one part relative to the other: the **signal-to-noise ratio**. It runs over
# many powers of ten, so take its logarithm:
#
# $$\text{log-SNR}_t = \log\frac{\bar\alpha_t}{1-\bar\alpha_t}
# \qquad\Longleftrightarrow\qquad
# \bar\alpha_t = \sigma(\text{log-SNR}_t)$$
#
# At 0 picture and noise are equally strong; each 2.3 more or less is a factor of ten.

# %%
log_snr = {name: (bar / (1 - bar)).log() for name, bar in alpha_bars.items()}  # (T,) each
for name, schedule in schedules.items():
    assert torch.allclose(log_snr[name], schedule.log_snr, rtol=1e-9)
    assert torch.allclose(torch.sigmoid(log_snr[name]), alpha_bars[name], rtol=1e-9)
    print(f"{name:9}: log-SNR from {log_snr[name][0]:5.1f} to {log_snr[name][-1]:5.1f}")

# %%
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name in schedules:
    axes.plot(way, log_snr[name], colors[name], label=name)
axes.axhline(0, color="grey", linewidth=0.8)
axes.set(title="All schedules walk down the same stairs, at another pace", ylim=(-13, 11))
axes.set(xlabel="t / T", ylabel="log-SNR (natural logarithm)")
axes.legend()
plt.show()

# %% [markdown]
# *The steeper the curve, the faster the pace. Where picture and noise are of like strength, around
# the grey line, the linear schedule hurries and the cosine strolls.*
#
# Is log-SNR really all that matters? Look for the timesteps at which each schedule comes to the
# same levels, and noise the portrait there:

# %%
levels = [6, 4, 2, 0, -2, -4, -6]
times = {  # for each schedule, the timestep nearest to each level
    name: [int((values - level).abs().argmin()) for level in levels]
    for name, values in log_snr.items()
}
rows = {name: strip(schedules[name], faces[0], times[name]) for name in schedules}
notes = {name: [f"t = {t}" for t in times[name]] for name in schedules}
labels = [f"log-SNR {x}" for x in levels]
plots.image_rows(rows, labels, "At equal log-SNR, four times the same", notes)

# %%
for name in schedules:
    assert torch.allclose(rows[name], rows["linear"], atol=0.05)  # a timestep is not quite a level
    print(f"{name:9}: t = {times[name]}")

# %% [markdown]
# *The timesteps differ in every column, and the pictures do not.* The steps between them agree as
# well: a jump from $\bar\alpha_s$ to $\bar\alpha_t$ needs nothing but the ratio of the two
# (exercise 3 of 01), and the posterior of 01 needs no more. **Two schedules that visit the same
# log-SNRs are the same process at another pace.**
#
# So any schedule can be had from any other by an uneven clock. When the cosine's clock shows $t$,
# what does the linear one's show?

# %%
t = torch.arange(T)  # (T,)
in_reach = (log_snr["cosine"] < log_snr["linear"][0]) & (log_snr["cosine"] > log_snr["linear"][-1])
clock = np.interp(-log_snr["cosine"][in_reach], -log_snr["linear"], t)  # linear's time, a float
bars = np.interp(clock, t, alpha_bars["linear"])
assert np.allclose(bars, alpha_bars["cosine"][in_reach], atol=1e-4)
print("Linear, read by this clock, is the cosine schedule.")

# %%
figure, axes = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
axes.plot(t[in_reach], clock)
axes.plot([0, T], [0, T], color="grey", linewidth=0.8)
axes.set(title="The cosine's first half is\nthe linear schedule's first quarter")
axes.set(xlabel="t of the cosine schedule", ylabel="t of the linear schedule")
plt.show()

# %% [markdown]
# *Both clocks start and end together, but the linear one lags behind all the way (the grey line
# would be equal pace) and has to make up for it at the end.*
#
# ## Then why care?
#
# If it is one and the same process, a perfect network must draw the same from the same noise,
# whatever the schedule. On the spiral we have one: `toys.IdealNetwork` computes the best possible
# guess. Borrow a sampler from page 05 (`ddim`, which adds no noise of its own) and see where it
# leads.


# %%
def draw_samples(schedule, mixture, x_T, steps):
    """What an ideal model of the mixture makes of x_T, in so many steps."""
    diffusion = GaussianDiffusion(toys.IdealNetwork(mixture, schedule), schedule)
    *_, end = ddim(diffusion, x_T, steps, clip="off")
    return end.x  # shape of x_T


# %%
x_T = torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(2))  # (POINTS, 2)
drawn = {
    (name, steps): draw_samples(schedules[name], spiral, x_T, steps)  # (POINTS, 2)
    for steps in [250, 10]
    for name in ["linear", "cosine"]
}
apart = (drawn["linear", 250] - drawn["cosine", 250]).norm(dim=1)  # (POINTS,)
print("250 steps: nine in ten end less than 0.02 apart:", bool(apart.quantile(0.9) < 0.02))
assert apart.quantile(0.9) < 0.02


# %%
def off_the_spiral(points):
    """The share of points further than three spreads from the nearest bell."""
    distance = torch.cdist(points, spiral.means).min(1).values  # (POINTS,)
    return (distance > 3 * spiral.std).double().mean().item()


missed = {key: off_the_spiral(some) for key, some in drawn.items()}
print("10 steps: linear misses more than 25%:", missed["linear", 10] > 0.25)
print("10 steps: cosine misses less than 10%:", missed["cosine", 10] < 0.10)
assert missed["linear", 10] > 0.25 and missed["cosine", 10] < 0.10

# %%
figure, all_axes = plt.subplots(1, 4, figsize=(12, 3.5), sharey=True, layout="constrained")
for axes, (name, steps) in zip(all_axes, drawn, strict=True):
    axes.scatter(*drawn[name, steps].T, c=torch.atan2(*x_T.T), s=3, cmap="hsv")
    axes.set_title(f"{name}, {steps} steps: {missed[name, steps]:.0%} off")
    axes.set(xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), aspect="equal", xlabel="first number")
all_axes[0].set_ylabel("second number")
plt.show()

# %% [markdown]
# *Colour marks the direction from which a point's noise came. With 250 steps the two schedules draw
# the same spiral, point for point. With ten steps, evenly spaced in t, they do not: linear takes
# half of them where all is snow, and leaps through the rest.* A schedule decides two things, and
# only two:
#
# - in **training**, how often the network is asked about each log-SNR;
# - in **sampling**, how finely each stretch of log-SNR is walked.
#
# ## Where is something left to see?
#
# Then the time should go where it is needed. A network at work guesses $x_0$ from $x_t$. With
# little noise any guess is nearly right, and with too much the best guess is the mean of all faces.
# The interesting part is between. Where does it lie for our 4,000 faces?
#
# The best possible guess is out of reach, but the best *linear* one is a formula. Turn the axes of
# the 768-dimensional space until the coordinates are uncorrelated (the principal components). Each
# is then a number of its own, with a variance $\lambda$, seen through noise. As in 01, precisions
# add: $1/\lambda$ from knowing the faces, SNR from looking at $x_t$. The error that remains has the
# variance
#
# $$\frac{1}{1/\lambda + \text{SNR}} = \frac{\lambda}{1 + \text{SNR}\cdot\lambda}$$

# %%
x0 = faces.flatten(1).double()  # (4000, 768)
variances, directions = torch.linalg.eigh(x0.T.cov())  # (768,), (768, 768) a column each


def error_left(log_snr):
    """Error of the best linear guess, as a share of the faces' variance. (N,) -> (N,)"""
    snr = log_snr.exp()[:, None]  # (N, 1)
    return (variances / (1 + snr * variances)).sum(1) / variances.sum()


# %% [markdown]
# Do not believe the algebra: guess, and measure. At log-SNR -2:

# %%
snr = math.exp(-2)
y = (x0 - x0.mean(0)) @ directions  # (4000, 768) uncorrelated coordinates
seen = y + torch.randn_like(y) / snr**0.5  # x_t over √ᾱ: the noise has variance 1 / SNR
guess = seen * variances * snr / (1 + snr * variances)  # each coordinate shrunk by what it is worth
measured = (guess - y).square().sum() / y.square().sum()
expected = error_left(torch.tensor([-2.0], dtype=torch.float64))[0]
print(f"expected {expected:.2f}, within 0.01 of it: {bool((measured - expected).abs() < 0.01)}")
assert (measured - expected).abs() < 0.01

# %%
axis = torch.linspace(-14, 11, 500, dtype=torch.float64)  # (500,) log-SNRs
useful = (error_left(axis) > 0.05) & (error_left(axis) < 0.95)
low, high = axis[useful][0].item(), axis[useful][-1].item()
figure, (upper, lower) = plt.subplots(2, 1, figsize=(7.5, 5.4), sharex=True, layout="constrained")
upper.plot(axis, error_left(axis), color="black")
upper.set(title="Faces are decided in the grey band", ylabel="error of the best linear guess")
for name in schedules:
    lower.hist(
        log_snr[name], bins=40, range=(-14, 11), histtype="step", color=colors[name], label=name
    )
lower.set(title="... and that is where the cosine spends its time", ylabel="timesteps of 1000")
lower.set(xlabel="log-SNR (more noise to the right)", xlim=(11, -14))
for axes in (upper, lower):
    axes.axvspan(low, high, color="grey", alpha=0.2)
lower.legend()
plt.show()

# %%
for name in schedules:
    left_over = error_left(log_snr[name])  # (T,)
    clean = (left_over <= 0.05).double().mean()
    snow = (left_over >= 0.95).double().mean()
    print(f"{name:9}: {clean:3.0%} nearly clean, {1 - clean - snow:3.0%} between, {snow:3.0%} snow")

# %% [markdown]
# *Above: the error rises from next to nothing to next to all within eight units (grey: 5% to 95%).
# Below: how many of its thousand timesteps a schedule spends at each log-SNR. That is also how
# often training sees it, for training draws t at random, each as often as the others.*
#
# So the suspicion was right: linear spends 30% of its timesteps on snow, the cosine 5%. Do not read
# more into it than it says. A network guesses better than any linear rule, so its own curve lies
# lower, and its band further towards the noise. And the snow is not quite useless: a few steps
# there decide the most general things, such as how bright a picture is. We will need that in a
# moment.
#
# ## A large picture drowns later
#
# The brain of 64 pixels outlasted the portrait of 16. Because brains are easier than faces? Let us
# compare like with like: the same brains, made small by averaging each block of 4 × 4 pixels.

# %%
large = brains[:100]  # (100, 1, 64, 64)
small = avg_pool2d(large, 4)  # (100, 1, 16, 16)
stops = [0, 125, 250, 375, 500]
rows = {
    "64 px": strip(schedules["linear"], large[0], stops),
    "16 px": strip(schedules["linear"], small[0], stops),
}
plots.image_rows(rows, [f"t = {t}" for t in stops], "One brain, one schedule, two sizes")

# %% [markdown]
# *At t = 375 the small one is all but snow, and the large one is still a brain.* Your eye
# does what a network will do: it averages neighbouring pixels. The picture survives that, because
# neighbours agree. The noise does not, because its neighbours are independent: the mean of 16 of
# them has a 16th of the variance. So average the 4 × 4 blocks of a noisy large picture:
#
# $$\underbrace{\sqrt{\bar\alpha_t}\,\operatorname{mean}(x_0)}_{\text{the small picture}} +
# \sqrt{1-\bar\alpha_t}\,\underbrace{\operatorname{mean}(\epsilon)}_{\text{variance } 1/16}
# \qquad\Longrightarrow\qquad \text{log-SNR}_\text{averaged} = \text{log-SNR} + \log 16$$


# %%
def agreement(x, y):
    """The correlation of all pixels of x with those of y, -1 to 1."""
    return torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1].item()


def noised(x, alpha_bar):
    """x_0 -> x_t (eq. 4 of Ho et al.)."""
    return alpha_bar**0.5 * x + (1 - alpha_bar) ** 0.5 * torch.randn_like(x)


averaged_noise = avg_pool2d(torch.randn_like(large), 4)  # (100, 1, 16, 16)
print(f"agreement of neighbouring pixels: {agreement(large[..., 1:], large[..., :-1]):.2f}")
print(f"variance of averaged noise: 1/{1 / averaged_noise.var():.0f}")
assert abs(16 * averaged_noise.var() - 1) < 0.03

# %% [markdown]
# Now measure it. How well does $x_t$ agree with the small picture, if it is the small one that was
# noised, and if it is the large one, averaged afterwards?

# %%
ts = list(range(0, T, 40))
bars = alpha_bars["linear"][ts].float()  # (25,)
from_small = [agreement(noised(small, bar), small) for bar in bars]
from_large = [agreement(avg_pool2d(noised(large, bar), 4), small) for bar in bars]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
left.plot(np.array(ts) / T, from_small, "o-", markersize=3, label="16 px, noised")
left.plot(np.array(ts) / T, from_large, "o-", markersize=3, label="64 px, noised, then averaged")
left.set(
    title="The large picture lasts longer", xlabel="t / T", ylabel="agreement with the picture"
)
left.legend()
levels = log_snr["linear"][ts]  # (25,)
right.plot(levels, from_small, "o-", markersize=3)
right.plot(levels + math.log(16), from_large, "o-", markersize=3)
right.set(title="... because its log-SNR is higher by log 16", xlim=(13, -11))
right.set(xlabel="log-SNR, for the large picture + log 16")
plt.show()

# %%
at_same_level = np.interp(levels + math.log(16), levels.flip(0), from_small[::-1])
assert np.abs(at_same_level - from_large).max() < 0.05
print("The two curves are one, moved by log 16 = 2 log 4.")

# %% [markdown]
# *Left: both under the linear schedule. Right: the same points, those of the large picture moved by
# log 16 = 2.8. They fall on one curve.*
#
# So a schedule that suits 16 pixels is too gentle for 64. The remedy is to move it by as much,
# which is what Hoogeboom et al. do for large pictures; $\bar\alpha$ follows by the sigmoid:
#
# $$\text{log-SNR}_\text{shifted} = \text{log-SNR}
# - 2\log\frac{\text{new width}}{\text{old width}}$$
#
# Chen reaches the same by multiplying the pictures by a number below 1, which lowers the signal.

# %%
shifted_bars = torch.sigmoid(log_snr["linear"] - math.log(16))  # (T,)
from_shifted = [
    agreement(avg_pool2d(noised(large, bar), 4), small) for bar in shifted_bars[ts].float()
]
assert np.abs(np.array(from_shifted) - from_small).max() < 0.05
print("64 px under the shifted schedule fade as 16 px do under the linear one.")

# %%
fresh = torch.randn(large[0].shape, generator=torch.Generator().manual_seed(0))  # (1, 64, 64)
shifted = [bar**0.5 * large[0] + (1 - bar) ** 0.5 * fresh for bar in shifted_bars[stops].float()]
plots.image_rows(
    {"16 px": rows["16 px"], "64 px, shifted": shifted, "64 px": rows["64 px"]},
    [f"t = {t}" for t in stops],
    "Shifted by log 16, the large picture keeps the small one's pace",
)

# %% [markdown]
# *Compare each row with the first: shapes of the same size vanish at the same time in the first and
# the second. In the third they linger.* Large shapes are what a viewer notices first, and a
# schedule that is too gentle leaves a model little time to learn them.
#
# ## The end must be noise
#
# Sampling starts from pure noise, so training must end there. In 01 you saw that few steps with the
# usual betas do not. Whose end depends on the number of steps?

# %%
for steps in [1000, 500, 200, 100, 50]:
    left_over = {name: NoiseSchedule(name, steps).alpha_bars[-1].sqrt() for name in schedules}
    print(f"T = {steps:4}", *(f"{name} {x:6.2%}" for name, x in left_over.items()), sep="   ")

# %% [markdown]
# Three schedules are made of betas: fewer steps of the same size get less far. The cosine is made
# of $\bar\alpha$ as a function of t / T, and arrives whatever T is.
#
# But 2.7% of the picture, as quadratic leaves it after a thousand steps: who would notice? A
# sampler would. What stays longest is what many pixels share, and all pixels share the
# **brightness**. Take the mean of $D$ pixels: its noise has a variance of $1/D$. With
# $D = 64 \cdot 64$ its log-SNR is higher by $\log 4096 = 8.3$ than that of a pixel! Multiply it by
# $\sqrt D$ to have noise of variance 1 again:

# %%
D = 64 * 64
brightness = brains.flatten(1).mean(1) * D**0.5  # (1000,)
mean, spread = brightness.mean().item(), brightness.std().item()
print(f"mean of the brightness: {mean:.1f}, spread {spread:.1f}, both in units of the noise")

# %% [markdown]
# The brains are dark: -34 in units of the noise. What is left of that at the end is
# $\sqrt{\bar\alpha_T}\cdot(-34)$, and a network learns to read it there. A sampler's pure noise has
# 0. To the network, that is the beginning of a bright picture.
#
# How bright will it come out? An ideal model with many steps of `ddim` only moves and squeezes a
# bell: who starts $z$ spreads from the middle ends $z$ spreads from the middle. In training the
# bell at the end has mean $\sqrt{\bar\alpha_T}\,\mu$ and variance
# $\bar\alpha_T\,\text{spread}^2 + 1 - \bar\alpha_T$. The sampler's bell is centred on 0, so its
# middle stands at
#
# $$z = \frac{0 - \sqrt{\bar\alpha_T}\,\mu}
# {\sqrt{\bar\alpha_T\,\text{spread}^2 + 1 - \bar\alpha_T}},
# \quad \text{and the samples' mean is} \quad \mu + z \cdot \text{spread}$$

# %%
five = {
    "cosine": schedules["cosine"],
    "linear": schedules["linear"],
    "quadratic": schedules["quadratic"],
    "Stable Diffusion's": NoiseSchedule("quadratic", 1000, beta_start=0.00085, beta_end=0.012),
    "linear, T = 300": NoiseSchedule("linear", 300),
}


# %%
def off_by(schedule):
    """How far the samples' mean brightness will be from the pictures', in spreads of these."""
    bar = schedule.alpha_bars[-1]
    return (-(bar**0.5) * mean / (bar * spread**2 + 1 - bar) ** 0.5).item()


for name, schedule in five.items():
    left_over = schedule.alpha_bars[-1].sqrt()
    print(f"{name:18}: √ᾱ_T = {left_over:.5f}, off by {off_by(schedule):.2f} spreads")

# %% [markdown]
# That was algebra. Now sample, and see. The pictures' brightness is one bell; the ideal network for
# it is in `toys` as well.

# %%
bells = toys.GaussianMixture(torch.tensor([[mean]]), spread)
x_T = torch.randn(SAMPLES, 1, generator=torch.Generator().manual_seed(3))  # (SAMPLES, 1)
sampled = {name: draw_samples(schedule, bells, x_T, 250) for name, schedule in five.items()}
for name, samples in sampled.items():
    measured = (samples.mean().item() - mean) / spread
    print(f"{name:18}: as computed:", abs(measured - off_by(five[name])) < 0.1)
    assert abs(measured - off_by(five[name])) < 0.1

# %%
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
axes.hist(brightness / D**0.5, bins=40, density=True, color="lightgrey", label="the pictures")
for i, (name, samples) in enumerate(sampled.items()):
    color = ["C1", "C0", "C2", "C4", "C5"][i]
    axes.hist(
        samples[:, 0] / D**0.5, bins=60, density=True, histtype="step", color=color, label=name
    )
axes.set(title="What is left at the end turns into a wrong brightness", ylabel="density")
axes.set(xlabel="mean brightness of a picture (-1 black, 1 white)")
axes.legend(fontsize=8)
plt.show()

# %%
too_bright = [off_by(schedule) * spread / D**0.5 for schedule in five.values()]
plots.image_strip(
    [brains[0], *(brains[0] + extra for extra in too_bright)],
    ["a picture", *(name.replace(" ", "\n", 1) for name in five)],
    title="A brain with the brightness that each would give it",
)

# %% [markdown]
# *The histogram is measured; the strip only illustrates it, by adding to one brain what the samples
# of each schedule are too bright on average.* The model is perfect, the sampler exact, and the
# background is grey instead of black: a fault of the schedule alone. Lin et al. found it in Stable
# Diffusion, which made all pictures of medium brightness. Their remedy stretches
# $\sqrt{\bar\alpha}$ so that it ends at exactly 0 (you will, in exercise 3). From a picture that is
# quite gone nothing can be had by dividing, so the network must then predict something else than
# the noise: 04 shows what.
#
# ## The schedule explorer
#
# Now play. All that the explorer shows is one figure, which also stands alone. The thin line is a
# cursor: the column at the right shows the picture there.

# %%
pictures = {"a face": faces[0], "a brain": brains[0]}
explorer.schedule_figure([schedules["linear"], schedules["cosine"]], faces[0], t=0.4)

# %% [markdown]
# *At the cursor, 0.4 of the way, the portrait can still be made out under the cosine schedule, and
# hard to find under the linear one.* The explorer also writes the code that makes your choice, to
# take away:

# %%
code = explorer.schedule_code(["linear", "cosine"], timesteps=250, beta_end=0.08)
print(code)
linear_250, cosine_250 = [eval(line) for line in code.splitlines()]
assert torch.equal(linear_250.betas, NoiseSchedule("linear", 250, beta_end=0.08).betas)
assert torch.equal(cosine_250.betas, NoiseSchedule("cosine", 250).betas)

# %% tags=["nbval-ignore-output"]
widgets.schedule_explorer(pictures)

# %% [markdown]
# The explorer needs a running notebook: on a web page you see no sliders. Things to try, and to
# guess before you try them:
#
# <details><summary>Linear alone: from T = 1000 downwards, when does the last column begin to show
# the brain?</summary>
#
# At T = 200 you see it: 36% of it is left. At 500, where 8% is left, the eye finds nothing, but the
# curve of log-SNR does: its right end has risen. (So would the average of 01.)
# </details>
#
# <details><summary>Keep T = 100 and linear. What mends the end?</summary>
#
# A larger `beta_end`. With about 0.2, ten times the usual for a tenth of the steps, log-SNR at the end
# is back near -11. The picture is then gone in a hundred large steps.
# </details>
#
# <details><summary>Cosine: move s from 0 to 0.2. Which end of the curves moves, and which
# stays?</summary>
#
# The beginning: the more s, the noisier the first step, and log-SNR begins lower. The end stays,
# for f is 0 at u = 1 whatever s is.
# </details>
#
# <details><summary>Put the cursor where the face is just lost under the cosine schedule. Then
# choose the brain. What happens, and why?</summary>
#
# The brain can still be seen: it has 16 times as many pixels to average over, so that its large
# shapes have a log-SNR that is higher by log 16.
# </details>

# %% [markdown]
# ## Exercises
#
# **1. Betas that do as they are told.** You are given the $\bar\alpha$ that you want at every
# timestep. Find the betas that lead there. Mind the first step, and let no beta exceed 0.999.


# %%
def betas_of(alpha_bars):
    """(T,) -> (T,)"""
    raise NotImplementedError


exercises.check_betas(betas_of)


# %% jupyter={"source_hidden": true}
# Solution 1
def betas_solution(alpha_bars):
    before = torch.cat([torch.ones(1), alpha_bars[:-1]])  # (T,) 1 before the first step
    return (1 - alpha_bars / before).clamp(max=0.999)


exercises.check_betas(betas_solution)

# %% [markdown]
# **2. A schedule for larger pictures.** Given the $\bar\alpha$ of a schedule that suits some
# pictures, find those that suit pictures `factor` times as wide and as high.


# %%
def shift(alpha_bars, factor):
    """(T,) and a number -> (T,)"""
    raise NotImplementedError


exercises.check_shift(shift)


# %% jupyter={"source_hidden": true}
# Solution 2
def shift_solution(alpha_bars, factor):
    return torch.sigmoid(alpha_bars.logit() - 2 * math.log(factor))  # logit(ᾱ) is the log-SNR


exercises.check_shift(shift_solution)

# %% [markdown]
# **3. An end that is an end** (Lin et al., algorithm 1). Take $\sqrt{\bar\alpha}$, the factor of
# the picture. Lower all of it by the same amount, so that the last one becomes 0. Then multiply all
# of it by the same number, so that the first one is again what it was. Return the new $\bar\alpha$.


# %%
def rescale(alpha_bars):
    """(T,) -> (T,), the last one 0"""
    raise NotImplementedError


exercises.check_zero_terminal_snr(rescale)


# %% jupyter={"source_hidden": true}
# Solution 3
def rescale_solution(alpha_bars):
    factor = alpha_bars.sqrt()  # (T,)
    lowered = factor - factor[-1]
    return (lowered * factor[0] / lowered[0]) ** 2


exercises.check_zero_terminal_snr(rescale_solution)
before = five["linear, T = 300"].alpha_bars  # (300,)
after = rescale_solution(before)  # (300,)
print(f"left at the end of 300 steps: {before[-1].sqrt():.0%} before, {after[-1].sqrt():.0%} after")

# %% [markdown]
# **4. As few steps as possible.** A linear schedule starts at $\beta = 0.0001$ and climbs to `end`.
# How many steps does it need so that less than `left` of the picture ($\sqrt{\bar\alpha_T}$)
# remains?


# %%
def fewest_steps(end, left):
    """Two numbers -> the smallest T, an int"""
    raise NotImplementedError


exercises.check_fewest_steps(fewest_steps)


# %% jupyter={"source_hidden": true}
# Solution 4
def fewest_steps_solution(end, left):
    steps = 2
    while NoiseSchedule("linear", steps, beta_end=end).alpha_bars[-1].sqrt() >= left:
        steps += 1
    return steps


exercises.check_fewest_steps(fewest_steps_solution)
for end in [0.02, 0.1]:
    print(f"up to {end}: T = {fewest_steps_solution(end, 0.01)} for less than 1%")

# %% [markdown]
# ## Questions
#
# <details><summary>A model was trained with the linear schedule. May you sample from it with the
# pace of the cosine?</summary>
#
# Yes. Choose those of its timesteps whose log-SNRs lie where the cosine's would: it is the same
# process at another pace, and the network was asked about each of these levels. What you may not do
# is go to a log-SNR that it never saw, such as the cosine's last ones.
# </details>
#
# <details><summary>Your pictures of 256 pixels have fine texture, but faces have three eyes. You
# use the cosine schedule. What would you try?</summary>
#
# Shift it. Layout is decided where the noise hides small shapes and leaves large ones. At 256
# pixels that is at a log-SNR that is lower by 2 log 4 than at 64, and the schedule hurries through
# it at the very end. (More training might help as well. The shift costs nothing.)
# </details>
#
# <details><summary>All samples of a model have a grey background, though all of its training
# pictures have a black one. Name a suspect, and how to convict it in one line.</summary>
#
# The end of the schedule. Print `schedule.alpha_bars[-1].sqrt()`: with 0.00005 it is innocent, with
# 0.07 you have it.
# </details>
#
# <details><summary>Why not the cosine schedule, always?</summary>
#
# It is a good first choice for small pictures. But its last steps divide by a very small number,
# which asks for care in what the network predicts; for large pictures it is too gentle unless it is
# shifted; and a model that was trained with another schedule has to be used with that.
# </details>

# %% [markdown]
# ## What you now know
#
# - A schedule can be given as betas (linear, quadratic, sigmoid) or as $\bar\alpha$ (cosine); each
#   follows from the other.
# - Log-SNR is the axis to compare on: at equal log-SNR all schedules show the same picture, and two
#   that visit the same log-SNRs are one process at another pace.
# - The schedule decides how often training sees a log-SNR, and how finely sampling walks it. For
#   small pictures the cosine spends most of its time where something is left to see.
# - Averaging $n \times n$ pixels adds $2 \log n$ to log-SNR. Larger pictures need a schedule that
#   is shifted down by as much.
# - The end must be pure noise. What is left there comes back as a wrong brightness.
#
# **Next:** 03 builds the network that will make the guess.
