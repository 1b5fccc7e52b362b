# %% [markdown]
# # 04 · Training
#
# **You will boil a page of probability down to one line of code, train a network with it, first on
# points and then on portraits, and learn to tell a healthy run from a sick one by looking.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/04_training.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 01 to 03; how a training loop in PyTorch goes |
# | You get | the loss and where it comes from, the loop, and a model that draws portraits |
# | It runs in | about three and a half minutes on two CPU cores; it takes a GPU where there is one |
#
# The page follows Ho, Jain and Abbeel (2020), *Denoising Diffusion Probabilistic Models*, [arXiv
# 2006.11239](https://arxiv.org/abs/2006.11239); "eq. 5" means equation 5 there. The prediction
# called v is from Salimans and Ho (2022), *Progressive Distillation for Fast Sampling of Diffusion
# Models*, [arXiv 2202.00512](https://arxiv.org/abs/2202.00512).

# %%
# On Colab this installs the course's package beside Colab's own torch. Elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "git+https://github.com/simple-diffusion/simple-diffusion"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", address]
    subprocess.run(command, check=True)

# %%
import copy
import math
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.distributions import Normal, kl_divergence

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    TrainConfig,
    Trainer,
    build,
    ddim,
    exercises,
    find_device,
    load_checkpoint,
    load_images,
    plots,
    record,
    sample,
    sinusoidal_embedding,
    to_images,
    toys,
    widgets,
)

torch.manual_seed(0)
device = find_device()
PLANE_STEPS = 2000  # of the runs on points
EPOCHS = 18  # times through the 4,000 portraits, 63 steps each; with fewer than 10 checks may fail

# %% [markdown]
# ## What is a good model?
#
# Page 01 ended with a cheat: it walked from noise back to a portrait with the portrait in its
# hand. A model has to walk without. It starts at $x_T \sim \mathcal N(0, I)$, and each step is a
# draw from a bell curve whose mean the network decides on (eq. 1):
#
# $$p_\theta(x_{t-1} \mid x_t) = \mathcal N\!\left(\mu_\theta(x_t, t),\; \sigma_t^2 I\right)$$
#
# So the model makes some pictures often and others never: it has a density $p_\theta(x_0)$. A good
# model gives real portraits a high density, that is, a low **surprise** $-\log p_\theta(x_0)$. We
# would like to train for just that. But $p_\theta(x_0)$ is an integral over all ways that end at
# $x_0$, and nobody can compute it for a network.
#
# In a small enough world we can. Let a picture be *one* pixel, normal with mean 0.6 and spread 0.3.
# Then the best guess of $x_0$ is a short formula (the work of `toys.GaussianMixture`, here with a
# single bell), and a hundred steps will do.

# %%
few = NoiseSchedule("linear", 100, beta_start=1e-3, beta_end=0.2)
pixel = toys.GaussianMixture(torch.tensor([[0.6]], dtype=torch.float64), std=0.3)


def model_mean(x_t, t, tint=0.0):
    """mu of the model: the posterior of page 01 with a guess for x_0. x_t: (N, 1)"""
    guess = pixel.posterior_mean(x_t, few.signal(t), few.sigma(t)) + tint
    return few.posterior(guess, x_t, t)[0]


# %% [markdown]
# `tint` is a fault that we can dial: with 0.1 the model believes all pictures to be 0.1 brighter
# than they are. For $\sigma_t^2$ we take $\beta_t$, one of the two choices of the paper (section
# 3.2).
#
# This model's steps are straight lines plus noise, so what it makes is normal, and its mean and
# variance can be followed from step to step. That gives the true surprise:


# %%
def surprise(tint):
    """The mean of -log p(x_0) over all pictures x_0, exactly."""
    mean, variance = torch.zeros(1), torch.ones(1)  # of x_T
    for t in reversed(range(100)):
        start, end = model_mean(torch.tensor([[0.0], [1.0]], dtype=torch.float64), t, tint)
        mean = start + (end - start) * mean
        variance = (end - start) ** 2 * variance + few.betas[t]
    off = (0.6 - mean) ** 2 + 0.3**2  # the mean of (x_0 - mean)^2
    return (0.5 * (2 * torch.pi * variance).log() + 0.5 * off / variance).item()


print(f"right guesses: {surprise(0.0):.3f}, all too bright by 0.1: {surprise(0.1):.3f}")

# %% [markdown]
# ## A bound that can be computed
#
# The way out is old and simple. Take a picture, and walk it into the noise. Compare how likely the
# model finds this walk (backwards) with how likely it was (forwards). The mean of
# $p_\theta(x_{0:T}) \,/\, q(x_{1:T} \mid x_0)$ over many walks *is* $p_\theta(x_0)$, and the mean
# of a logarithm is never above the logarithm of the mean. So (eq. 3):
#
# $$-\log p_\theta(x_0) \;\le\; \mathbb E_q\!\left[-\log p(x_T)
# - \sum_{t=1}^{T} \log \frac{p_\theta(x_{t-1} \mid x_t)}{q(x_t \mid x_{t-1})}\right] \;=:\; L$$
#
# Everything on the right is a bell curve that we know. Walk, and add up:

# %%
walk = [pixel.sample(4000)[0].double()]  # x_0, (4000, 1)
for alpha, beta in zip(few.alphas, few.betas, strict=True):
    step_noise = torch.randn(4000, 1, dtype=torch.float64)
    walk.append(alpha**0.5 * walk[-1] + beta**0.5 * step_noise)
print(len(walk), "stations: x_0 and a hundred steps")


# %%
def bell(mean, variance):
    return Normal(mean, torch.as_tensor(variance, dtype=torch.float64) ** 0.5)


def bound_by_walking(tint):
    """Eq. 3, for each of the walks. (4000, 1)"""
    total = -bell(0, 1).log_prob(walk[-1])
    for t, (before, after) in enumerate(pairwise(walk)):
        forwards = bell(few.alphas[t] ** 0.5 * before, few.betas[t]).log_prob(after)
        backwards = bell(model_mean(after, t, tint), few.betas[t]).log_prob(before)
        total += forwards - backwards
    return total


# %% [markdown]
# That is a bound, but each look at it costs a walk of a hundred steps. **Bayes' rule sorts the
# sum.** With $x_0$ known, the chance of a step forwards can be written with the step backwards,
# which is the posterior of page 01:
#
# $$q(x_t \mid x_{t-1}) = q(x_{t-1} \mid x_t, x_0)\;\frac{q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)}$$
#
# Multiply over all steps, and the fractions eat each other up; only $q(x_T \mid x_0)$ survives.
# This must hold for every single walk, not only on average:

# %%
x_0, by_steps, by_posteriors = walk[0], 0, 0
for t, (before, after) in enumerate(pairwise(walk)):
    by_steps += bell(few.alphas[t] ** 0.5 * before, few.betas[t]).log_prob(after)
    if t > 0:
        by_posteriors += bell(*few.posterior(x_0, after, t)).log_prob(before)
by_posteriors += bell(few.alpha_bars[-1] ** 0.5 * x_0, 1 - few.alpha_bars[-1]).log_prob(walk[-1])
assert torch.allclose(by_steps, by_posteriors)
print("Forwards or backwards: the same sum, for each of 4,000 walks.")

# %% [markdown]
# Now each step of the model stands beside the posterior that it ought to imitate. The mean of
# $\log(q/p)$ over draws from $q$ has a name, the Kullback-Leibler divergence $D_{KL}(q\,\Vert\,p)$,
# and for bell curves it is a formula. The bound becomes (eq. 5):
#
# $$L = \mathbb E_q\Big[\underbrace{D_{KL}(q(x_T|x_0)\,\Vert\,p(x_T))}_{L_T:\text{ nothing to train}}
# + \sum_{t>1}\underbrace{D_{KL}(q(x_{t-1}|x_t,x_0)\,\Vert\,p_\theta(x_{t-1}|x_t))}_{L_{t-1}}
# \;\underbrace{-\log p_\theta(x_0|x_1)}_{L_0}\Big]$$


# %%
def bound_by_comparing(tint):
    """The terms of eq. 5, L_0 to L_T, for each of the walks. (101, 4000, 1)"""
    terms = [-bell(model_mean(walk[1], 0, tint), few.betas[0]).log_prob(x_0)]  # L_0
    for t in range(1, 100):
        wanted = bell(*few.posterior(x_0, walk[t + 1], t))
        terms.append(kl_divergence(wanted, bell(model_mean(walk[t + 1], t, tint), few.betas[t])))
    end = bell(few.alpha_bars[-1] ** 0.5 * x_0, 1 - few.alpha_bars[-1])
    return torch.stack([*terms, kl_divergence(end, bell(0, 1))])  # L_T


# %% [markdown]
# Both ways give the same bound, up to the chance in 4,000 walks, and it lies above the surprise:

# %%
right_model, tinted = bound_by_comparing(0.0), bound_by_comparing(0.1)  # (101, 4000, 1)
print(f"L_T is {right_model[-1].mean():.0e}: the end of the walk is pure noise")

# %%
for tint, terms in [(0.0, right_model), (0.1, tinted)]:
    walked, compared = bound_by_walking(tint), terms.sum(0)  # (4000, 1) each
    chance = (walked.std() + compared.std()) / 4000**0.5
    assert (walked.mean() - compared.mean()).abs() < 5 * chance
    assert compared.mean() > surprise(tint)

# %%
tints = torch.linspace(-0.1, 0.1, 9).tolist()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(tints, [bound_by_comparing(tint).sum(0).mean() for tint in tints], "o-", label="bound L")
left.plot(tints, [surprise(tint) for tint in tints], label="the surprise itself")
left.set(title="The bound lies above, and is least at the same place")
left.set(xlabel="how much too bright the model guesses", ylabel="mean over all pictures")
left.set(xticks=[-0.1, -0.05, 0, 0.05, 0.1])
left.legend()
right.semilogy(range(1, 101), (tinted - right_model)[:-1].mean((1, 2)))
right.set(title="What the same fault costs at each step")
right.set(xlabel="t (as the papers count)", ylabel="what it adds to $L_{t-1}$")
plt.show()

# %% [markdown]
# *Left: what we would like to make small (orange) and what we can compute (blue). Who pushes the
# blue curve down finds the right model. Right: the terms of the bound can be looked at one by one.*
#
# And here is why the sorting was worth it. A term of eq. 5 needs only $x_0$ and $x_t$, and page
# 01 **jumps** to $x_t$ at once. No more walks: a training step can pick one $t$ at random, for each
# picture another, and work on that term alone.
#
# ## Only the means matter
#
# Look into one term $L_{t-1}$. Two bell curves are compared, and their widths are fixed: nothing
# that the network does changes them. How does the divergence depend on the means?

# %%
x = torch.linspace(-12, 12, 20001, dtype=torch.float64)  # (20001,)
q, distances = bell(0, 1), torch.linspace(0, 3, 13).tolist()
by_integral = []
for distance in distances:
    p = bell(distance, 1)
    integrand = q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x))
    by_integral.append(torch.trapezoid(integrand, x).item())
assert torch.allclose(torch.tensor(by_integral), torch.tensor(distances) ** 2 / 2, atol=1e-5)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
for mean, name in [(0, "q, the posterior"), (1.5, "p, the model")]:
    left.plot(x, bell(mean, 1).log_prob(x).exp(), label=name)
left.set(title="Two bells of the same width", xlim=(-4, 6), xlabel="x", ylabel="density")
left.legend()
right.plot(distances, by_integral, "o", label="the divergence, integrated")
right.plot(distances, torch.tensor(distances) ** 2 / 2, label=r"distance$^2 / (2\sigma^2)$")
right.set(title="Their divergence is the squared distance", xlabel="distance of the means")
right.set(ylabel="divergence")
right.legend()
plt.show()

# %% [markdown]
# *Dots: the integral of $q \log(q/p)$. Line: a parabola.* A difference in width would add a
# constant, which no training can change. So (eq. 8):
#
# $$L_{t-1} = \mathbb E_q\!\left[\frac{1}{2\sigma_t^2}
# \left\lVert \tilde\mu_t(x_t, x_0) - \mu_\theta(x_t, t) \right\rVert^2\right] + C$$
#
# **A logarithm of an integral over all walks has become a squared error.** Two steps are left.
#
# ## From means to noise
#
# The mean of the posterior is made of $x_t$ and $x_0$, and $x_t$ we are given. Eq. 4 of page 01,
# solved for $x_0$, trades it for the noise:
# $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\epsilon)/\sqrt{\bar\alpha_t}$. Put in, and tidied up (eq.
# 10):
#
# $$\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\right)$$

# %%
schedule = NoiseSchedule("linear")  # T = 1000
T, alphas, betas, alpha_bars = 1000, schedule.alphas, schedule.betas, schedule.alpha_bars


# %%
def mean_from_noise(x_t, epsilon, t):
    """The posterior's mean when the noise is known (eq. 10)."""
    return (x_t - betas[t] / (1 - alpha_bars[t]) ** 0.5 * epsilon) / alphas[t] ** 0.5


# %%
t = torch.arange(T)  # (T,)
x0, epsilon = torch.randn(2, T, dtype=torch.float64)  # (T,) each: another pair for every t
x_t = schedule.add_noise(x0, t, epsilon)  # (T,)
mean, _ = schedule.posterior(x0, x_t, t)
assert torch.allclose(mean_from_noise(x_t, epsilon, t), mean, atol=1e-10)
print("Eq. 10 gives the mean of eq. 7 at all", T, "timesteps.")

# %% [markdown]
# So let the network guess the noise, and build its mean in the same way (eq. 11). Then $x_t$
# cancels in the difference of the means, and what stays is the difference of the noises (eq. 12):
#
# $$\frac{1}{2\sigma_t^2}\left\lVert\tilde\mu_t-\mu_\theta\right\rVert^2
# = w_t \left\lVert \epsilon - \epsilon_\theta(x_t, t)\right\rVert^2, \qquad
# w_t = \frac{\beta_t^2}{2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}$$

# %%
guess = epsilon + 0.3 * torch.randn_like(epsilon)  # (T,): what some network says
off = mean - mean_from_noise(x_t, guess, t)
weights = betas**2 / (2 * betas * alphas * (1 - alpha_bars))  # (T,), with sigma^2 = beta
assert torch.allclose(off**2 / (2 * betas), weights * (epsilon - guess) ** 2)
print(f"the first step weighs {weights[0] / weights.min():.0f} times as much as the lightest")

# %% [markdown]
# ## What "simple" drops
#
# Ho et al. then do something bold: they leave $w_t$ out. This is the loss of nearly every diffusion
# model since (eq. 14):
#
# $$L_{\text{simple}} = \mathbb E_{t,\,x_0,\,\epsilon}\left[\,\left\lVert \epsilon
# - \epsilon_\theta\!\left(\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon,\; t\right)
# \right\rVert^2\right]$$
#
# ($L_0$, for which the paper has a formula of its own, eq. 13, is taken along as if it were any
# other term.) What did $w_t$ say?

# %%
share = weights.cumsum(0) / weights.sum()  # (T,)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
left.semilogy(t, weights / weights.mean(), label="the bound (eq. 12)")
left.axhline(1, color="C1", label="simple (eq. 14)")
left.set(
    title="The bound weighs the faintest noise most", xlabel="t", ylabel="weight / mean weight"
)
left.legend()
right.plot(t, share, label="the bound")
right.plot(t, (t + 1) / T, label="simple")
right.set(title="... and gives the first steps the most attention", xlabel="t")
right.set(ylabel="share of all weight up to t")
right.legend()
plt.show()
print(f"the first 50 of 1000 steps have {share[49]:.0%} of the bound's weight")

# %% [markdown]
# *The bound counts every last bit of information, and most bits of a picture are faint grain, which
# only the first steps decide on. Without the weights, training spends its effort where shapes and
# faces are decided.* The result is a slightly worse bound and much better pictures (table 1 and
# section 3.4 of the paper).
#
# ## Why guessing an average is enough
#
# One thing should worry you. From one $x_t$ many noises are possible. The network has to answer
# with *one*. Which one does a squared error ask for?
#
# Take pixels that are either black (-1) or white (+1), mix them with noise, and look only at those
# that came out near $x_t = 0.2$. What was their noise?

# %%
shade = torch.randint(2, (200_000,)) * 2.0 - 1  # black or white, (200000,)
noise = torch.randn(200_000)
mixed = 0.6 * shade + 0.8 * noise  # alpha_bar = 0.36
possible = noise[(mixed - 0.2).abs() < 0.01]  # the noises that lead to about 0.2
guesses = torch.linspace(-1.2, 1.8, 301)  # (301,)
errors = (possible[:, None] - guesses).square().mean(0)  # (301,)
best = guesses[errors.argmin()]
assert (best - possible.mean()).abs() < 0.011

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
left.hist(possible, bins=90)
left.set(title="One pixel value, two possible noises", xlabel="ε", ylabel="how many pixels")
left.axvline(best, color="C1", label="the best guess")
left.legend()
right.plot(guesses, errors)
right.axvline(best, color="C1")
right.plot(best, errors.min(), "o", color="C1", label="least, but not 0")
right.set(title="The squared error is least at their mean", xlabel="the guess")
right.set(ylabel="mean squared error", ylim=(0, None))
right.legend()
plt.show()

# %% [markdown]
# *The noise was either about -0.5 (a white pixel) or about 1 (a black one). The best single guess
# is neither: it is their mean.* In symbols: the error of a guess $g$ is
# $\mathbb E[(\epsilon-g)^2] = \operatorname{Var}[\epsilon] + (\mathbb E[\epsilon]-g)^2$. Two facts
# follow that you will need all the time:
#
# - **The perfect network answers with the mean of all noises that are possible,**
#   $\epsilon^*(x_t, t) = \mathbb E[\epsilon \mid x_t]$. It is also what a step of the model asks
#   for: a bell curve has one mean (eq. 11). The step is small, and then the network is asked again.
# - **The perfect network has a loss above 0.** What remains is the variance: what cannot be known.
#
# For points in the plane the perfect network is a formula, `toys.IdealNetwork`. Our set is a
# spiral, a chain of 400 small bells.

# %%
spiral = toys.spiral()
points, _ = spiral.sample(20_000)  # (20000, 2)
ideal = GaussianDiffusion(toys.IdealNetwork(spiral, schedule), schedule)
exam_x0, _ = spiral.sample(5000)  # (5000, 2), points for comparing models
exam_t, exam_noise = torch.randint(T, (5000,)), torch.randn(5000, 2)
floor = ideal.loss(exam_x0, exam_t, exam_noise).item()
print(f"the loss of the perfect network: about {floor:.1f}")

# %% [markdown]
# Can anyone beat it? Three challengers: one that always answers 0, the mean of all noise. One that
# is too timid by a tenth. And a clever one, which finds the bell that $x_t$ most likely comes from,
# and answers as if it were certain:

# %%
exam_x_t = schedule.add_noise(exam_x0, exam_t, exam_noise)  # (5000, 2)
mean_noise = ideal.network(exam_x_t, exam_t)  # (5000, 2)
signal, sigma = schedule.signal(exam_t, exam_x_t), schedule.sigma(exam_t, exam_x_t)  # (5000, 1)
likeliest = spiral.means[spiral.log_components(exam_x_t, signal, sigma).argmax(1)]  # (5000, 2)
certain = (exam_x_t - signal * likeliest) / sigma

# %%
answers = {"always 0": 0 * mean_noise, "the likeliest": certain, "timid": 0.9 * mean_noise}
answers["the mean"] = mean_noise
scores = {name: (exam_noise - a).square().mean().item() for name, a in answers.items()}
assert min(scores, key=scores.get) == "the mean"

# %%
figure, axes = plt.subplots(figsize=(6, 2.2), layout="constrained")
axes.barh(list(scores), list(scores.values()), color=["C0", "C0", "C0", "C1"])
axes.set(title="Nobody beats the mean, and the mean is not at 0", xlabel="mean squared error")
plt.show()

# %% [markdown]
# *The likeliest answer is often far off, and a squared error does not forgive that.*
#
# ## The loop
#
# Now a network has to find this out from examples. For two numbers a small stack of layers will do.
# It is told the time as page 03 does it. It is also shown the point as waves in random
# directions, because such a stack is slow to learn fine detail from the bare numbers (Tancik et al.
# 2020, [arXiv 2006.10739](https://arxiv.org/abs/2006.10739)).


# %%
class PlaneNetwork(nn.Module):
    """(N, 2), (N,) -> (N, 2)"""

    def __init__(self, width=128):
        super().__init__()
        self.register_buffer("waves", 2 * torch.randn(2, 32))
        sizes = [2 + 64 + 64, width, width, width]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x_t, t):
        angles = x_t @ self.waves  # (N, 32)
        time = sinusoidal_embedding(t, 64)  # (N, 64)
        return self.layers(torch.cat([x_t, angles.sin(), angles.cos(), time], 1))


# %% [markdown]
# And here it is, all of it. Algorithm 1 of the paper: draw points, draw timesteps, draw noise; mix;
# let the network guess the noise; go a step downhill.

# %%
network = PlaneNetwork()
optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
losses, stations = [], {}
stops = {int((PLANE_STEPS - 1) * (i / 19) ** 2.5) for i in range(20)}
for step in range(PLANE_STEPS):
    x0 = points[torch.randint(len(points), (512,))]  # (512, 2)
    t = torch.randint(T, (512,))
    noise = torch.randn_like(x0)
    x_t = schedule.add_noise(x0, t, noise)  # (512, 2)
    loss = (network(x_t, t) - noise).square().mean()  # eq. 14
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step in stops:
        stations[step] = copy.deepcopy(network)

# %% [markdown]
# Take away the stops, where we keep a copy of the network for a film, and it is twelve lines. Did
# it work?

# %%
smooth = torch.tensor(losses).unfold(0, 50, 10).mean(1)  # means over 50 steps
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.plot(torch.arange(len(smooth)) * 10 + 25, smooth, label="the network, mean of 50 steps")
axes.axhline(floor, color="C1", linestyle="--", label="the perfect network")
axes.set(title="The loss falls to its floor, which is not 0", xlabel="step", ylabel="loss")
axes.set_ylim(0, 0.6)
axes.legend()
plt.show()
assert smooth[-10:].mean() < 1.15 * floor

# %% [markdown]
# *Most of the fall is over in a few hundred steps, and then almost nothing seems to happen.* Do not
# trust the curve. Look at what the network makes of pure noise, with `ddim`, a sampler of the next
# page:

# %%
start = torch.randn(600, 2)  # x_T of every picture of the film


def make_points(network, schedule=schedule, prediction="epsilon"):
    """Samples of a network, from the noise above. (600, 2)"""
    model = GaussianDiffusion(network, schedule, prediction)
    return list(ddim(model, start, steps=40, clip="off"))[-1].x


# %%
def draw_points(axes, station):
    axes.scatter(*spiral.means.T, s=2, color="lightgrey")
    axes.scatter(*make_points(stations[station]).T, s=3)
    axes.set(title=f"drawn after step {station + 1}", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
    axes.set(xlabel="first number", ylabel="second number")


plots.film(draw_points, stations, figsize=(4, 4), seconds=6)

# %% [markdown]
# *Grey: the spiral. Blue: 600 samples, always from the same noise. Between step 300 and the end the
# loss hardly moves, and the samples go from a smear to a spiral.* **The loss curve goes flat long
# before the samples are good**, because nearly all of the loss is what cannot be known.
#
# What the network learns is a field of arrows: at each point and each timestep, the way out of the
# noise. The perfect one can be drawn beside it.

# %%
ticks = torch.linspace(-2.4, 2.4, 15)
grid = torch.cartesian_prod(ticks, ticks)  # (225, 2)


# %%
def draw_fields(axes, t):
    log_density = spiral.log_density(grid, schedule.signal(t), schedule.sigma(t))  # (225,)
    seen = log_density > -9  # where examples come
    for panel, name, model in zip(
        axes, ["learned", "perfect"], [network, ideal.network], strict=True
    ):
        with torch.no_grad():
            arrows = -model(grid, torch.full((225,), t))  # (225, 2), against the noise
        arrows = arrows / arrows.norm(dim=1, keepdim=True).clamp(min=2) * 2  # long ones are cut
        panel.scatter(*(alpha_bars[t] ** 0.5 * spiral.means).T, s=2, color="C1")
        for some, colour in [(~seen, "lightgrey"), (seen, "C0")]:
            panel.quiver(*grid[some].T, *arrows[some].T, angles="xy", scale=40, color=colour)
        panel.set(title=f"{name}, t = {t}", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
        panel.set(xlabel="first number", ylabel="second number")


# %%
times = [int(999 * (1 - i / 17) ** 1.5) for i in range(17)]  # more of them at small t
plots.film(draw_fields, times, figsize=(7, 3.5), columns=2, seconds=7)

# %% [markdown]
# *Arrows point away from the guessed noise; orange is the spiral as it has shrunk by then. At first
# (large t) everything points to the middle. As t falls, the arrows begin to tell one turn of the
# spiral from the next. Where training examples come (blue), learned and perfect agree. Where next
# to none come (grey), the network makes something up, and that does no harm: samples do not come
# there either.*

# %%
exam = torch.arange(0, T, 50)  # (20,)
curves = []
for model in [GaussianDiffusion(network, schedule), ideal]:
    with torch.no_grad():
        curves.append([model.loss(exam_x0, t, exam_noise).item() for t in exam.tolist()])

# %%
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.plot(exam, curves[0], "o-", label="the network")
axes.plot(exam, curves[1], "--", label="the perfect network")
axes.set(title="Faint noise is hard to see, strong noise is easy", xlabel="t", ylabel="loss at t")
axes.set_ylim(0, None)
axes.legend()
plt.show()

# %% [markdown]
# *At small t the noise is lost in the spread of the spiral itself, and nobody can guess it. At
# large t nearly everything is noise: answer "what I see", and you are nearly right.* The loss of a
# training step depends mostly on which timesteps it drew. That is why the curve is so jagged.
#
# ## Meet the real thing
#
# `GaussianDiffusion.loss` is our line, and `Trainer` is our loop, grown up.

# %%
diffusion = GaussianDiffusion(network, schedule)
with torch.no_grad():
    ours = (network(exam_x_t, exam_t) - exam_noise).square().mean()
    theirs = diffusion.loss(exam_x0, exam_t, exam_noise)
assert torch.allclose(ours, theirs)
print("GaussianDiffusion.loss is our line.")

# %% [markdown]
# A `Trainer` is a generator: run it in a `for` loop, and it trains, and yields a report now and
# then. What to do with a report is up to you. Here we give both of its models the exam.


# %%
def excess(model):
    """How far a model's loss in the exam lies above the perfect one."""
    with torch.no_grad():
        return model.loss(exam_x0, exam_t, exam_noise).item() - floor


# %%
settings = TrainConfig(batch_size=512, lr=5e-3, epochs=PLANE_STEPS // 40, report_every=40)
settings = replace(settings, device="cpu")  # two numbers a point are no work for a GPU
trainer = Trainer(GaussianDiffusion(PlaneNetwork(), schedule), points, settings)
rates, raw, averaged = {}, {}, {}
for report in trainer:
    rates[report.step] = report.learning_rate
    raw[report.step], averaged[report.step] = excess(trainer.diffusion), excess(trainer.average)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
left.plot(rates.keys(), rates.values())
left.set(title="The learning rate rises, then falls", xlabel="step", ylabel="learning rate")
right.semilogy(raw.keys(), raw.values(), label="the weights as they are")
right.semilogy(averaged.keys(), averaged.values(), label="their running average (EMA)")
right.axhline(excess(diffusion), color="grey", linestyle="--", label="our loop, at its end")
right.set(title="The average is ahead, until the rate is 0", xlabel="step")
right.set(ylabel="loss above the floor")
right.legend(fontsize=8)
plt.show()
ahead = excess(trainer.average) / excess(diffusion)
print("closer to the floor than our loop by a third or more:", ahead < 0.67)

# %% [markdown]
# *Same network, same number of steps. The weights as they are (blue) tremble around a good place;
# their average (orange) sits in the middle of it. As the learning rate falls to 0 the trembling
# dies down, and both meet.*
#
# The learning rate is a small formula. It rises to its highest value over the first steps, and then
# falls to 0 on half a cosine:


# %%
def learning_rate(step, steps, warmup):
    """Of step number 0, 1, ..., as a fraction of the highest one."""
    rise = min(1.0, (step + 1) / (warmup + 1))
    fall = 0.5 * (1 + math.cos(math.pi * step / steps))
    return rise * fall


for step, rate in rates.items():  # a report comes after the step
    ours = settings.lr * learning_rate(step - 1, trainer.steps, settings.warmup)
    assert math.isclose(rate, ours, rel_tol=1e-9)
print("Every learning rate that the trainer reported follows the formula.")

# %% [markdown]
# These are all the differences between our loop and `Trainer`:
#
# | | our loop | `Trainer` | why |
# |---|---|---|---|
# | learning rate | constant | rises over `warmup` steps, then falls on a half cosine | the first gradients are wild; the last steps should settle |
# | weights to sample with | the last | an average over past steps (**EMA**, exponential moving average): `trainer.average` | the last ones tremble |
# | long gradients | taken as they are | shortened to `clip_norm` | one bad batch must not throw the run |
# | examples | drawn with replacement | every picture once an epoch, shuffled | no picture is missed |
# | random numbers | one stream | those of step k follow from the seed and k | a run can be stopped and goes on to the bit |
# | optimizer | Adam | AdamW; the same while `weight_decay` is 0 | |
# | target | the noise | noise, picture or v | next section |
# | device | the CPU | the best there is | |
# | results | a list | a generator of reports | a bar, a plot, a `break`: your choice |
# | saving | none | `save`, `restore` | see below |
#
# Open `diffusion_lib/training.py`. Everything above its first "Also here" is on this page:
#
# | You built | In `diffusion_lib/training.py` | What differs there |
# |---|---|---|
# | `learning_rate` | `warmup_cosine` | nothing |
# | `ema_update`, in exercise 4 | `EMA`, `EMA.update` | all weights at once; the first step simply copies them |
# | the loop over steps | `Trainer` | `for report in trainer` yields a report now and then, and ends at the last step, at a time limit, or when it is told to stop |
# | the inside of that loop | `Trainer.train_step`, `Trainer.descend` | images can be mirrored; the batch can be computed in parts; the gradient is clipped; in float16 the loss is scaled up so that small gradients do not vanish |
#
# | Also there | Why |
# |---|---|
# | `Trainer.draw` | the same random numbers for a batch, however many GPUs share it |
# | `Trainer.wrapped`, `Trainer.fast_descend`, `Trainer.wrap` | the network compiled, the step as one CUDA graph, and several GPUs |
# | `Trainer.add_losses`, `Trainer.report` | the state of the run, with the loss for each quarter of the timesteps |
# | `Trainer.save`, `Trainer.restore` | a run that was stopped goes on: further down this page |
#
# ## What to predict: the noise, the picture, or v
#
# One lesson more from the plane, and it is an expensive one when you learn it on pictures. Train on
# the cosine schedule of page 02, once for the noise and once for a target that the papers call
# v.

# %%
cosine = NoiseSchedule("cosine")
final, drawn = {}, {}
for prediction in ["epsilon", "v"]:
    plane = GaussianDiffusion(PlaneNetwork(), cosine, prediction)
    run = Trainer(plane, points, replace(settings, epochs=PLANE_STEPS // 80))
    final[prediction] = list(run)[-1].loss
    drawn[prediction] = make_points(run.average.network, cosine, prediction)  # (600, 2)
assert 0.3 < final["epsilon"] < 0.5 < 0.7 < final["v"] < 1

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
for axes, (prediction, x) in zip(all_axes, drawn.items(), strict=True):
    axes.scatter(*x.T, s=3)
    reach = max(2.6, x.abs().quantile(0.9).item())
    axes.set(title=f"predicts {prediction}: loss {final[prediction]:.1f}")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set(xlabel="first number", ylabel="second number")
plt.show()
thrown = {prediction: (x.norm(dim=1) > 3).float().mean() for prediction, x in drawn.items()}
assert thrown["epsilon"] > 0.5 and thrown["v"] < 0.05

# %% [markdown]
# *Mind the scales of the axes. The model that predicts noise throws its points far away, and the
# one that predicts v draws the spiral, with more than twice the loss.* So first: **losses of
# different targets are in different units. Never compare them.** And second: why? A sampler needs
# $x_0$, and gets it from the noise by dividing by $\sqrt{\bar\alpha_t}$. At the last timesteps of
# the cosine schedule almost nothing of the picture is left, so a small error of the noise becomes a
# huge one of the picture:

# %%
for name, some in [("linear", schedule), ("cosine", cosine)]:
    factor = ((1 - some.alpha_bars[-1]) / some.alpha_bars[-1]) ** 0.5
    print(f"{name}: at the last timestep an error of the noise counts {factor:,.0f} times in x_0")

# %% [markdown]
# (With pictures a sampler clips $x_0$ to [-1, 1], which hides the worst of it, but does not make
# the guess a good one.) And who predicts the picture instead has the same trouble at the other end,
# where the noise is faint. **v is the mixture of both that is never in trouble** (Salimans and Ho
# 2022, appendix D). Think of $x_0$ and $\epsilon$ as two axes. Because
# $\bar\alpha + (1-\bar\alpha) = 1$, making $x_t$ is a *rotation* by an angle $\varphi$ with
# $\cos\varphi = \sqrt{\bar\alpha_t}$, and v is the other axis of the rotated cross:
#
# $$x_t = \cos\varphi\; x_0 + \sin\varphi\;\epsilon, \qquad v = \cos\varphi\;\epsilon - \sin\varphi\; x_0$$
#
# Turning back needs no division: $x_0 = \cos\varphi\; x_t - \sin\varphi\; v$. An error of v counts
# at most once, at any timestep.

# %%
figure, axes = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
phi, right_angle = 0.6, torch.pi / 2
for name, turn in {"$x_0$": 0, "ε": right_angle, "$x_t$": phi, "v": right_angle + phi}.items():
    tip, colour = torch.tensor(turn), "C0" if name in ("$x_t$", "v") else "grey"
    axes.plot([0, tip.cos()], [0, tip.sin()], color=colour, linewidth=2)
    axes.text(1.12 * tip.cos(), 1.12 * tip.sin(), name, ha="center", va="center", color=colour)
axes.text(0.3, 0.08, "φ")
axes.set(title="Noising is a rotation by φ", xlim=(-0.9, 1.3), ylim=(-0.2, 1.3), aspect="equal")
axes.set_axis_off()
plt.show()

# %% [markdown]
# *Grey: the picture and the noise. Blue: what the network sees, and what it is asked for.*

# %%
x0, epsilon = torch.randn(2, T, dtype=torch.float64)  # (T,) each
t = torch.arange(T)
x_t = cosine.add_noise(x0, t, epsilon)  # (T,)
v = GaussianDiffusion(nn.Identity(), cosine, "v").target(x0, t, epsilon)  # (T,)
cos_phi, sin_phi = cosine.alpha_bars**0.5, (1 - cosine.alpha_bars) ** 0.5  # (T,)
assert torch.allclose(v, cos_phi * epsilon - sin_phi * x0)
assert torch.allclose(cos_phi * x_t - sin_phi * v, x0)
print("v turns back into x_0 at all", T, "timesteps, without a division.")

# %% [markdown]
# ## Portraits
#
# Everything is in place. What is to be learned:

# %%
pixels = load_images("faces", image_size=16)  # (4000, 3, 16, 16), uint8
plots.image_grid(pixels[:16], columns=8, title="What it learns from")

# %% [markdown]
# *Sixteen of the 4,000 portraits: flat colours, sharp edges, one face to each.*
#
# The network is the U-Net of page 03, small; the schedule is the cosine, the target is v. All
# choices of a run are in one `TrainConfig`.

# %%
config = TrainConfig(
    image_size=16,
    width=32,
    patch=2,  # the stem folds 2 x 2 pixels into one with four times the channels
    beta_schedule="cosine",
    prediction="v",
    lr=4e-3,
    epochs=EPOCHS,
    report_every=21,  # three reports an epoch
    disable_images=True,
)

# %%
trainer = Trainer(build(config, channels=3), pixels, config)
print(f"{sum(p.numel() for p in trainer.diffusion.parameters()):,} weights, {trainer.steps} steps")

# %% [markdown]
# `record` runs the trainer, and writes a log for TensorBoard and a checkpoint after every epoch.
# `widgets.training_view` shows how the run stands. Both pass every report on, so that the loop can
# do what it likes with it: this one keeps copies of both models, at each epoch's end and, more
# closely, around the middle.
#
# You may press the stop button at any time. The step under way is finished, and everything is
# saved.

# %% tags=["nbval-ignore-output"]
folder = Path(tempfile.mkdtemp())
reports, kept = [], {}
for report in widgets.training_view(trainer, record(trainer, "faces", folder)):
    reports.append(report)
    if report.epoch_ended or abs(report.step - trainer.steps / 2) < 70:
        kept[report.step] = copy.deepcopy((trainer.diffusion, trainer.average))
assert reports

# %% [markdown]
# Stopped it? Run this cell: it goes on from where it stood. (It does nothing if the run is over.)

# %%
for report in record(trainer, "faces", folder):
    reports.append(report)
    kept[report.step] = copy.deepcopy((trainer.diffusion, trainer.average))
assert trainer.step == trainer.steps
print("The run is complete.")

# %%
plots.loss_curve(reports, "The loss falls fast, then hardly moves")

# %%
losses = [report.loss for report in reports]
assert sum(losses[-6:]) < 0.5 * sum(losses[:6])
plots.image_grid(sample(trainer.average, 32, steps=50), columns=8, title="None of these exist")

# %% [markdown]
# *The loss falls fast, then slowly, as on the plane. Below it: portraits that are in no data set,
# by a network that knew nothing two minutes ago. Some are still spotty: the run is short.* How did
# they come about? The same noise, epoch by epoch:

# %%
ends = [step for step in kept if step % 63 == 0]  # 63 steps an epoch
progress = [sample(kept[step][1], 8, steps=25) for step in ends]  # (8, 3, 16, 16) each
plots.image_film(progress, columns=4, seconds=6)

# %% [markdown]
# *Light and dark come first, then hair, skin and eyes, all within a few epochs. The rest of the run
# takes the spots out.* Compare the second half of the film with the second half of the loss curve:
# there is little to see in the curve.
#
# ## The average and the raw weights
#
# On the plane the average was ahead in the loss. On pictures you can see why. Take the reports
# around the middle of the run, where the learning rate is high, and draw from the same noise each
# time:

# %%
middle = [step for step in kept if abs(step - trainer.steps / 2) < 70]
trembling, steady = (
    torch.stack([sample(kept[step][which], 8, steps=25) for step in middle]) for which in (0, 1)
)  # (reports, 8, 3, 16, 16) each

# %%
changes = [(x[1:] - x[:-1]).abs().mean((0, 2, 3, 4)) for x in (trembling, steady)]  # (8,) each
most = int(changes[0].argmax())
rows = {"raw weights": trembling[:, most], "average": steady[:, most]}
plots.image_rows(rows, [f"step {i}" for i in middle], "Always the same noise, 21 steps apart")

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for x, colour, name in [(trembling, "C0", "raw weights"), (steady, "C1", "average")]:
    brightness = x[:, :4].mean((2, 3, 4))  # (reports, 4)
    axes.plot(middle, brightness, color=colour, label=[name, None, None, None])
axes.set(title="Four portraits: raw weights tremble, the average moves on slowly")
axes.set(xlabel="step", ylabel="mean brightness")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
ratio = (changes[0].mean() / changes[1].mean()).item()
print("the raw weights' pictures change more than twice as much:", ratio > 2)

# %% [markdown]
# *Always the same noise. From one report to the next, 21 steps later, the raw weights give the same
# person another tint. The average keeps its mind.* A last batch with many bright pictures makes all
# samples a little brighter, and the next one pushes back. Whoever samples from raw weights samples
# the mood of the last batches.
#
# An average also has a weakness: it remembers its youth. Ho et al. use a fixed decay of 0.9999
# (appendix B), in runs of 800,000 steps. What would that do to ours?

# %%
print(f"share of the untrained weights at the end: {0.9999**trainer.steps:.0%}")

# %% [markdown]
# Such an average would draw noise. So `Trainer` lets the decay rise with the steps $k$:
# $\min(0.999,\ (1+k)/(10+k))$. Does that keep the average from lagging behind?

# %%
faces = to_images(pixels[:256]).to(device)  # (256, 3, 16, 16)
faces_t, faces_noise = torch.randint(T, (256,), device=device), torch.randn_like(faces)
with torch.no_grad():
    scores = [[m.eval().loss(faces, faces_t, faces_noise).item() for m in kept[e]] for e in ends]
gain = 1 - torch.tensor(scores)[:, 1] / torch.tensor(scores)[:, 0]  # (epochs,)

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
axes.bar(range(1, len(ends) + 1), (100 * gain).tolist())
axes.axhline(0, color="black", linewidth=0.8)
axes.set(title="The average is ahead in the middle of the run", xlabel="epoch")
axes.set_xticks(range(1, len(ends) + 1))
axes.set_ylabel("loss that the average saves, %")
plt.show()
assert gain[len(ends) // 4 : 3 * len(ends) // 4].mean() > 0.005

# %% [markdown]
# *At the very start the average lags a little behind, for the weights improve faster than it can
# follow. Then it is ahead. At the end the learning rate is near 0, the weights tremble no more, and
# the two are hard to tell apart.* So for a run that comes to its end the average is a small gift;
# for one that you stop in the middle, it is the model.
#
# ## How far is it from what is possible?
#
# On the plane we knew the floor. For portraits nobody does, but it can be fenced in. Two yardsticks
# can be computed from the pictures alone:
#
# - **The best linear guess** (the Wiener filter) knows the mean and the covariance of the pictures,
#   and nothing else.
# - **Who knows the 4,000 portraits by heart** finds the one that $x_t$ comes from. That is
#   `toys.GaussianMixture` again, with the portraits as its means.

# %%
everyone = to_images(pixels)  # (4000, 3, 16, 16)
by_heart = toys.GaussianMixture(everyone, std=0.0)

# %%
covariance = torch.cov(everyone.flatten(1).double().T)  # (768, 768)
variances, directions = torch.linalg.eigh(covariance)  # (768,), (768, 768)
variances = variances.clamp(min=0)


# %%
def linear_error(alpha_bar):
    """Mean squared error of the best linear guess of x_0."""
    return (variances * (1 - alpha_bar) / (alpha_bar * variances + 1 - alpha_bar)).mean().item()


# %% [markdown]
# Beside our model stands the one that comes with the package: a wider network with more than
# five times as many epochs behind it, on the same pictures and the same schedule.

# %%
levels = [20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 998]  # timesteps
pretrained = GaussianDiffusion.load("faces", device)
errors = {"ours": [], "package": [], "by heart": []}

# %%
for level in levels:
    noised = cosine.add_noise(faces[:128], level, faces_noise[:128])  # (128, 3, 16, 16)
    with torch.no_grad():
        guesses = [model.denoise(noised, level).x0 for model in (trainer.average, pretrained)]
    signal, sigma = cosine.signal(level), cosine.sigma(level)
    guesses.append(by_heart.posterior_mean(noised.cpu(), signal, sigma))
    for some, guess in zip(errors.values(), guesses, strict=True):
        some.append((guess.cpu() - faces[:128].cpu()).square().mean().item())

# %%
errors["linear"] = [linear_error(cosine.alpha_bars[level].item()) for level in levels]
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
axes.semilogy(levels, errors["linear"], "--", color="grey", label="the best linear guess")
axes.semilogy(levels, errors["ours"], "o-", label="our model")
axes.semilogy(levels, errors["package"], "o-", label="the package's model, trained for longer")
axes.semilogy(levels, errors["by heart"], ":", color="black", label="who knows them by heart")
axes.set(title="Our run ends about where the linear guess is; a longer one goes far below")
axes.set(xlabel="t (cosine schedule)", ylabel="mean squared error of x_0", ylim=(2e-4, 1))
axes.legend(fontsize=8)
plt.show()
ours, package, linear = (errors[name][6] for name in ("ours", "package", "linear"))  # t = 500
assert package < 0.75 * linear and package < ours < 1.5 * linear

# %% [markdown]
# *The squared error of the guessed picture, per pixel. Between t = 100 and 800 the package's model
# is well below ours: what is left to learn is there, where shapes are decided. Neither comes near
# the dotted line, and that is a good thing: who reaches it can draw nothing but the 4,000 portraits
# again.*
#
# So is our model no better than a linear guess? In squared pixels, no. But a linear guess can draw
# only one thing: the bell curve with the mean and the covariance of the portraits. Look at both:

# %%
normal = torch.randn(8, 768, dtype=torch.float64) * variances.sqrt()  # (8, 768)
blurred = (normal @ directions.T).view(8, 3, 16, 16).float() + everyone.mean(0)
rows = {"bell curve": blurred, "our model": sample(trainer.average, 8, steps=50)}
rows["package"] = sample(pretrained, 8, steps=50)
plots.image_rows(rows, title="The first two have about the same squared error")

# %% [markdown]
# *The bell curve is a warning: portraits that all look straight ahead are easy, and their
# covariance knows well where eyes and hair go. But it can only blend: hair that fades into the
# background, half a beard, lips of two shapes at once. Our model leaves spots, but it decides: cap
# or no cap. The package's model does both, clean and decided.* The squared error finds the first
# two rows about equal. It is what we train with; it cannot replace looking.
#
# ## What is on the disk
#
# While it ran, `record` wrote things down:

# %%
files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
for file in sorted({file.split(".tfevents")[0] for file in files}):
    print(file)

# %% [markdown]
# - `faces.pth` is the averaged model, ready for use.
# - `autosave.pth` is the run: both sets of weights, the optimizer's memory, the step.
# - `runs/faces/events.out...` is the log for TensorBoard.
# - `runs/faces/stats.jsonl` is the same log as text: one line of JSON for each report.
#
# (On the command line, and without `disable_images`, there are sample pictures of each epoch too.)

# %%
model = GaussianDiffusion.load(folder / "faces.pth", device)
weights, average = model.state_dict(), trainer.average.state_dict()
assert weights.keys() == average.keys()
assert all(torch.equal(weights[name], average[name]) for name in weights)
print("The file holds the trainer's average, to the last bit; it predicts", model.prediction)

# %% [markdown]
# ## A run that goes on as if nothing had happened
#
# A computer crashes, a session on Colab ends. What does a checkpoint need so that nobody can tell?
# Try it on a tiny run. Eight steps in one go:

# %%
tiny = TrainConfig(image_size=16, width=8, patch=4, batch_size=16, epochs=2, device="cpu")


def fresh():
    return Trainer(build(tiny, channels=3), pixels[:64], tiny)  # 4 steps an epoch


whole = fresh()
for _ in whole:
    pass
print(whole.step, "steps")

# %% [markdown]
# And four steps, a file, a new trainer, and four more:

# %%
first = fresh()
for report in first:
    if report.epoch == 1:
        break
first.save(folder / "half.pth")

# %%
second = fresh()
second.restore(load_checkpoint(folder / "half.pth"))
for _ in second:
    pass
print(first.step, "steps, then", second.step - first.step, "more")


# %%
def same_weights(one, other):
    """Equal to the last bit, in both models."""
    pairs = [(one.diffusion, other.diffusion), (one.average, other.average)]
    return all(
        torch.equal(a, b)
        for one, other in pairs
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


assert same_weights(whole, second)
print("4 + 4 steps are 8 steps, to the last bit.")

# %% [markdown]
# Many scripts save only the weights. Adam keeps two numbers beside each weight: the gradient's
# running mean, and that of its square. Forget them, and the run goes on as another one:

# %%
third = fresh()
third.restore(load_checkpoint(folder / "half.pth"))
third.optimizer.state.clear()
for _ in third:
    pass
print("without the optimizer's memory, the same run:", same_weights(whole, third))
assert not same_weights(whole, third)

# %% [markdown]
# After a crash, the portraits would go on like this: make the trainer as before, then
# `trainer.restore(load_checkpoint(folder / "autosave.pth"))`, then the loop again. On the command line it
# is `python -m diffusion_lib.train` with `--resume`.
#
# ## TensorBoard
#
# The log is made for looking at while a long run goes on. In a notebook:
#
# ```
# %load_ext tensorboard
# %tensorboard --logdir runs
# ```
#
# or in a terminal `tensorboard --logdir runs`, with the folder that you gave to `record`. It can be
# read by a program as well:

# %%
log = EventAccumulator(str(folder / "runs" / "faces"))
log.Reload()
logged = log.Scalars("loss")
print(", ".join(sorted(log.Tags()["scalars"])))
assert [event.step for event in logged] == [report.step for report in reports]
written, reported = ([x.value for x in logged], [report.loss for report in reports])
assert torch.allclose(torch.tensor(written), torch.tensor(reported))
print("The log has every report.")

# %% [markdown]
# ## A gallery of sick runs
#
# You will not remember advice. You may remember pictures. Here is the same run three times more,
# four epochs each, **with one thing wrong**: the same network, the same seeds, the same batches.


# %%
def sick_run(data, lr=config.lr):
    """Four epochs: the loss by step, and eight pictures."""
    changed = replace(config, lr=lr)
    run, history = Trainer(build(changed, channels=3), data, changed), {}
    for report in run:
        history[report.step] = report.loss
        if report.epoch == 4:
            return history, sample(run.average, 8, steps=25)


# %%
def part_of_the_run(steps):
    """The same of the run above."""
    history = {report.step: report.loss for report in reports if report.step <= steps}
    return history, sample(kept[steps][1], 8, steps=25)


# %%
runs = {
    "healthy": part_of_the_run(252),
    "stopped after\n2 epochs": part_of_the_run(126),
    "learning rate\nx 10": sick_run(pixels, lr=10 * config.lr),
    "pixels from\n0 to 255": sick_run(pixels.float()),
    "pixels from\n0 to 1": sick_run(pixels.float() / 255),
}

# %%
figure = plt.figure(figsize=(10.5, 1.35 * len(runs)), layout="constrained")
grid = figure.subplots(len(runs), 2, width_ratios=[1, 2.6])
for (curve, row), (name, (history, x)) in zip(grid, runs.items(), strict=True):
    curve.plot(*zip(*runs["healthy"][0].items(), strict=True), color="lightgrey", linewidth=4)
    curve.plot(*zip(*history.items(), strict=True), color="C3" if name != "healthy" else "C0")
    curve.set_yscale("log" if max(history.values()) > 10 else "linear")
    curve.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    framed = nn.functional.pad(x, (1, 1, 1, 1), value=1.0)  # (8, 3, 18, 18)
    row.imshow(plots.as_array(torch.cat(list(framed), 2)))
    row.set_axis_off()
grid[0, 0].set_title("loss over steps (grey: healthy)", fontsize=10)
grid[0, 1].set_title("what the average draws then", fontsize=10)
plt.show()

# %% [markdown]
# *Mind the scale of the fourth curve. Look at each row before you read on: which of these would you
# have caught by the curve alone?*


# %%
def last(name):
    """Mean loss of the last three reports."""
    return sum(list(runs[name][0].values())[-3:]) / 3


ratio = {name: last(name) / last("healthy") for name in runs}
assert ratio["learning rate\nx 10"] > 1.5
assert ratio["pixels from\n0 to 255"] > 1000
assert ratio["pixels from\n0 to 1"] < 0.9
assert ratio["stopped after\n2 epochs"] > 1.1
print("With pixels from 0 to 1 the loss is LOWER than the healthy one.")

# %%
drawn = {name: x for name, (_, x) in runs.items()}  # (8, 3, 16, 16) each
pinned = (drawn["pixels from\n0 to 255"].abs() > 0.95).float().mean()
pale = drawn["pixels from\n0 to 1"].mean() - drawn["healthy"].mean()
contrast = drawn["pixels from\n0 to 1"].std() / drawn["healthy"].std()
assert pinned > 0.8 and pale > 0.1 and contrast < 0.8
print("0 to 255: nearly all pixels are pinned to black or white.")
print("0 to 1: the pictures are paler, with less contrast.")

# %% [markdown]
# The pale ones are the trap. Pixels from 0 to 1 have half the spread of pixels from -1 to 1, so
# there is less to guess wrong, and the loss is *lower*. It is in another unit, like that of v.
#
# | What you see | What it is | What to do |
# |---|---|---|
# | loss falls fast, then looks flat; samples get better all the same | **healthy** | have patience, and look at samples |
# | loss still falling; samples are noise with something in it | too few steps | go on; compare with the samples of a run that was long enough |
# | loss jumps or lies flat, far above where it should be; samples are noise | learning rate too high | divide it by 3 until the first hundred steps fall smoothly |
# | loss in the thousands; samples flat black or white | pixels from 0 to 255 | scale to [-1, 1] |
# | loss better than expected; samples pale, without any black | pixels from 0 to 1 | scale to [-1, 1] |
# | loss fine; colours of one and the same sample change with every checkpoint | sampling from raw weights | sample from the average (EMA) |
# | loss fine; samples far off the map | the noise predicted where hardly any picture is left | predict v, or take another schedule |
#
# Each of these was on this page. And one habit catches most of them in a minute: **before any
# training, print the smallest and largest number in a batch; in the first minute, watch the loss
# fall; in the second, look at samples.**
#
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is
# folded away below each.
#
# **1. The line.** Do not look up. Write eq. 14 for pictures, each with its own timestep: from the
# clean pictures to the loss, with nothing but `alpha_bars` to help you.


# %%
def simple_loss(network, x0, t, noise, alpha_bars):
    """x0 and noise: (N, C, H, W), t: (N,), alpha_bars: (T,); network(x_t, t) -> ()"""
    raise NotImplementedError


exercises.check_simple_loss(simple_loss)


# %% jupyter={"source_hidden": true}
# Solution 1
def simple_loss_solution(network, x0, t, noise, alpha_bars):
    alpha_bar = alpha_bars[t].view(-1, 1, 1, 1)  # (N, 1, 1, 1)
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
    return (network(x_t, t) - noise).square().mean()


exercises.check_simple_loss(simple_loss_solution)

# %% [markdown]
# **2. Out of v.** You know how to get $x_0$ out of $x_t$ and v. A sampler also wants the noise.
# (Use the picture of the rotation, or solve the two equations.)


# %%
def noise_from_v(x_t, v, alpha_bar):
    """x_t and v: (N, C, H, W); alpha_bar: a number -> epsilon: (N, C, H, W)"""
    raise NotImplementedError


exercises.check_noise_from_v(noise_from_v)


# %% jupyter={"source_hidden": true}
# Solution 2
def noise_from_v_solution(x_t, v, alpha_bar):
    return (1 - alpha_bar) ** 0.5 * x_t + alpha_bar**0.5 * v


exercises.check_noise_from_v(noise_from_v_solution)

# %% [markdown]
# **3. What does an error of the picture cost?** A network predicts $x_0$, but you train it with the
# loss of the noise: you turn its picture into a noise by eq. 4 and compare that. By which factor
# does a squared error of the picture count at each timestep?


# %%
def picture_weight(alpha_bars):
    """(T,) -> (T,): squared error of the noise / squared error of x_0"""
    raise NotImplementedError


exercises.check_picture_weight(picture_weight)


# %% jupyter={"source_hidden": true}
# Solution 3
def picture_weight_solution(alpha_bars):
    # epsilon = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar): the signal-to-noise ratio
    return alpha_bars / (1 - alpha_bars)


exercises.check_picture_weight(picture_weight_solution)

# %% [markdown]
# **4. An average that forgets its youth.** Write the update of the average, with the decay of
# `Trainer`: the smaller one of `ema` and $(1+k)/(10+k)$, where $k$ is the step.


# %%
def ema_update(average, current, step, ema):
    """average and current: weights of one shape -> the new average"""
    raise NotImplementedError


exercises.check_ema_update(ema_update)


# %% jupyter={"source_hidden": true}
# Solution 4
def ema_update_solution(average, current, step, ema):
    decay = min(ema, (1 + step) / (10 + step))
    return decay * average + (1 - decay) * current


exercises.check_ema_update(ema_update_solution)

# %% [markdown]
# ## Questions
#
# <details><summary>Your loss has been 0.18 for an hour and does not move. Is the training over?</summary>
#
# The loss cannot tell. Most of it is what nobody can know, and that part stays for ever. What can
# still be learned hides in the last few percent, which drown in the jitter of random timesteps.
# Look at samples from the same noise, an hour apart, or measure the loss on a fixed set of
# pictures, timesteps and noises, as the exam on this page does.
# </details>
#
# <details><summary>The network answers with a mean of many possible noises. Why are samples not blurry
# means of many portraits?</summary>
#
# One answer at $t = 999$ is indeed a blurry mean. But the sampler takes only a small step in its
# direction and asks again. Each step rules some pictures out, so that the mean is taken over fewer
# and fewer, and at the end over one. Page 05 shows it.
# </details>
#
# <details><summary>A friend predicts the noise and has a loss of 0.03, you predict v and have 0.18. Who is
# ahead?</summary>
#
# Nobody knows. The targets are different, and so are the units. By exercise 3 the noise's loss
# counts an error of the picture $\bar\alpha/(1-\bar\alpha)$ times, and v's loss $1/(1-\bar\alpha)$
# times: at large t, where pictures are hard to guess, the first is near 0, and the second is not.
# Compare samples, or the error of $x_0$ at each timestep.
# </details>
#
# <details><summary>You resume a run from a file with only the weights, and the loss jumps up for a while.
# Why?</summary>
#
# Adam divides each step by the running mean of squared gradients. Without its memory the first
# steps are as large for every weight, whatever its gradients usually are. The learning rate begins
# with its warm-up again, too, if the step was not saved.
# </details>

# %% [markdown]
# ## What you now know
#
# - The surprise $-\log p_\theta(x_0)$ cannot be computed, but a bound on it can; Bayes' rule sorts
#   it into one term a step (eq. 3 and 5), and each term is a squared distance of means (eq. 8).
# - In terms of noise, and without weights, this is one line: the mean of
#   $\lVert\epsilon - \epsilon_\theta(x_t, t)\rVert^2$ (eq. 14). The best answer is the mean of all
#   possible noises, and its loss is not 0.
# - The loop is twelve lines. `Trainer` adds a learning rate that rises and falls, an average of the
#   weights, and runs that resume to the bit.
# - v can be turned into $x_0$ and $\epsilon$ without a division, so it works at every noise level.
# - A flat loss says little and a low one can lie: losses compare only within the same data range,
#   schedule and target. Samples decide.
#
# **Next:** 05 takes a trained model and asks how to sample from it well, and fast.
