# %% [markdown]
# # 05 · Sampling
#
# **You will turn noise into portraits in eight lines, find out how many of the thousand steps and
# how much of the dice they really need, and then bend the same few lines into a pencil that
# finishes your drawings.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/05_sampling.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 01 (the posterior) and 04 (what a network is trained to guess) |
# | You get | both classic samplers, written by your own hand; and what a sampler is good for besides making samples |
# | It runs in | about a minute on two CPU cores; it takes a GPU when there is one |
#
# The page follows Ho, Jain and Abbeel (2020), *Denoising Diffusion Probabilistic Models*,
# [arXiv 2006.11239](https://arxiv.org/abs/2006.11239), and Song, Meng and Ermon (2021), *Denoising
# Diffusion Implicit Models*, [arXiv 2010.02502](https://arxiv.org/abs/2010.02502). The exercises
# borrow from Meng et al. (2022), *SDEdit*, [arXiv 2108.01073](https://arxiv.org/abs/2108.01073),
# and Lugmayr et al. (2022), *RePaint*, [arXiv 2201.09865](https://arxiv.org/abs/2201.09865).

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
import tempfile
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from diffusion_lib import (
    GaussianDiffusion,
    ddim,
    ddpm,
    exercises,
    find_device,
    load_images,
    plots,
    sample,
    spaced_timesteps,
    to_images,
    toys,
    widgets,
)

torch.manual_seed(0)
torch.set_grad_enabled(False)  # nothing is trained on this page
device = find_device()
POINTS = 500  # in the plane
FACES = 8  # side by side: fewer is faster


# %% [markdown]
# ## The missing piece
#
# Page 01 ended with a walk out of pure noise, back to a portrait. It cheated: every step drew from
# the posterior $q(x_{t-1} \mid x_t, x_0)$, with the true $x_0$ in its hand. Since then a network
# has learnt to guess $x_0$. This one comes with the course, trained as on page 04:

# %%
diffusion = GaussianDiffusion.load("faces", device)
schedule = diffusion.schedule
T = schedule.timesteps
print(f"{schedule.name} schedule, T = {T}, predicts {diffusion.prediction}")
print("pictures of", diffusion.image_shape)

# %% [markdown]
# Whatever it predicts, `diffusion.denoise` turns its answer into both views of $x_t$: the clean
# picture `x0` and the noise `epsilon`. How good are its guesses? We noise one portrait to several
# timesteps, always with the same noise, and ask.

# %%
x0 = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16)
stops = torch.tensor([20, 100, 200, 400, 600, 800, 999])  # (7,)
portrait = x0[:1].expand(7, -1, -1, -1)  # (7, 3, 16, 16), one portrait seven times
noise = torch.randn(1, 3, 16, 16).expand_as(portrait)
x_t = schedule.add_noise(portrait, stops, noise)  # (7, 3, 16, 16)
guesses = diffusion.denoise(x_t.to(device), stops.to(device)).x0.cpu()  # (7, 3, 16, 16)

# %%
plots.image_rows(
    {"what it gets": x_t, "what it sees": guesses},
    [f"t = {t}" for t in stops],
    "The more noise, the vaguer the guess",
)

# %% [markdown]
# *With little noise the network gives the portrait back. With more, it keeps what can still be made
# out and blurs the rest. At t = 999 there is nothing to see, and it answers all the same. But who
# is that?*

# %%
mean_face = x0.mean(0)  # (3, 16, 16)
far = (x0 - mean_face).square().mean()  # how far a portrait is from the mean, on average
off = (guesses[-1] - mean_face).square().mean()  # how far the guess is
print(f"the last guess is less than a twentieth as far: {bool(off < far / 20)}")
assert off < far / 20
plots.image_strip([guesses[-1], mean_face], ["guess, t = 999", "mean of 4000"])

# %% [markdown]
# *Everybody: the guess is the mean of the training set.* That is no fault. The loss was the
# squared error, and among all guesses the **mean of everything that is possible** has the smallest:
#
# $$\hat x_0(x_t) = \mathbb E[x_0 \mid x_t]$$
#
# In the plane it can be computed exactly. `toys.spiral()` is a distribution of points made of 400
# small Gaussians along a spiral, so every possible $x_0$ has a probability that we can draw.

# %%
mixture = toys.spiral()
true_x0, noise = mixture.means[[230]], torch.tensor([[0.3, -0.9]])  # (1, 2) each
figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
for axes, t in zip(all_axes, [900, 250, 80], strict=True):
    point = schedule.add_noise(true_x0, t, noise)  # (1, 2)
    signal, sigma = schedule.signal(t), schedule.sigma(t)  # the factors of x_0 and the noise
    chance = mixture.log_components(point, signal, sigma).softmax(1)[0]  # (400,) of each Gaussian
    guess = mixture.posterior_mean(point, signal, sigma)  # (1, 2)
    axes.scatter(*mixture.means.T, c=chance / chance.max(), s=14, cmap="Blues", vmin=-0.25)
    axes.scatter(*point.T, marker="x", color="black", label="$x_t$")
    axes.scatter(*guess.T, marker="*", color="C1", s=130, label="best guess")
    axes.set(title=f"t = {t}", aspect="equal", xlabel="first number")
all_axes[0].set(ylabel="second number")
all_axes[0].legend(fontsize=8, loc="upper left")
figure.suptitle("The best guess is a mean of what is possible, and need not be possible itself")
plt.show()

# %% [markdown]
# *Dark blue: where $x_0$ may well be, given $x_t$ (the cross). At t = 900 that is everywhere, and
# the star is near the centre of the whole spiral. At t = 250 the outer arm is likely and the inner
# one possible, and the star lies in the empty space between them. At t = 80 only one place is left,
# and guess and truth agree.* A blurred face is the same thing: a point between many faces that is
# itself no face.
#
# So a single big step, from noise straight to the guess, can only ever give the mean. What else can
# we do with a guess like that?
#
# ## Go a little way, then look again
#
# The guess need not be right. It only has to point in the right direction *for now*. How much of it
# does a step take over? The posterior mean (eq. 7 of Ho et al.) is a mixture of guess and $x_t$:

# %%
for t in [999, 500, 50, 5, 0]:
    weight, _ = schedule.posterior(torch.ones(1), torch.zeros(1), t)  # the factor of x_0
    print(f"t = {t:3d}: a step takes over {weight.item():6.1%} of the guess")

# %% [markdown]
# While the guess is vague, a step hardly trusts it. At t = 0 it takes it as it is. That is
# **ancestral sampling** (Ho et al., algorithm 2): the walk of page 01 with the network in place of
# the truth.


# %%
def ancestral(diffusion, x, generator):
    """From x_T to x_0, by a draw from the posterior at every timestep (algorithm 2)."""
    for t in reversed(range(T)):
        x0 = diffusion.denoise(x, t).x0  # the guess, where page 01 had the truth
        x, variance = diffusion.schedule.posterior(x0, x, t)
        if t > 0:  # the last step, to the clean picture, has variance 0
            x = x + variance**0.5 * torch.randn(x.shape, generator=generator)
    return x


# %% [markdown]
# Try it first where the guess is perfect. `toys.IdealNetwork` answers with the star of the figure
# above, so whatever goes wrong in the plane is the sampler's fault, not the network's.

# %%
ideal = GaussianDiffusion(toys.IdealNetwork(mixture, schedule), schedule)
start = torch.randn(POINTS, 2)  # (POINTS, 2), pure noise
one_step = ideal.denoise(start, T - 1).x0  # (POINTS, 2)
ours = ancestral(ideal, start, torch.Generator().manual_seed(1))  # (POINTS, 2)

# %% [markdown]
# And the real thing? `ddpm` in `diffusion_lib/samplers.py` is the same loop, as a generator: it
# yields after every step, so that you can watch, stop or keep what you like. We keep all of it.

# %%
walks = list(ddpm(ideal, start, generator=torch.Generator().manual_seed(1), clip="off"))
assert len(walks) == T and [walks[0].t, walks[-1].t] == [T - 1, 0]
assert torch.allclose(walks[-1].x, ours, atol=1e-4)
print("The same dice, the same points: ddpm agrees with what you built.")

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
titles = ["the start: noise", "one big step", "a thousand small ones"]
for axes, points, title in zip(all_axes, [start, one_step, ours], titles, strict=True):
    axes.scatter(*mixture.means.T, s=2, color="lightgrey")
    axes.scatter(*points.T, s=5)
    axes.set(title=title, xlim=(-2.7, 2.7), ylim=(-2.7, 2.7), aspect="equal")
    axes.set(xlabel="first number")
all_axes[0].set(ylabel="second number")
plt.show()

# %% [markdown]
# *Grey: the spiral. One big step puts everyone on the same spot, where there is no data at all. A
# thousand small ones, with the same guesser, put everyone on the spiral.*
#
# Now the portraits. Above, what the walk has reached; below, what the network takes it for.

# %%
x_T = torch.randn(FACES, 3, 16, 16, generator=torch.Generator().manual_seed(2)).to(device)
dice = torch.Generator(device).manual_seed(3)
steps = list(ddpm(diffusion, x_T, generator=dice))
assert steps[-1].x.shape == x_T.shape and steps[-1].x.abs().max() < 1.001

# %%
kept = [step for step in steps if step.t % 40 == 0]  # 25 of the thousand
plots.image_film([torch.cat([step.x, step.x0]) for step in kept], columns=FACES, seconds=5)

# %% [markdown]
# *For a long time nothing seems to happen above. Below, the mean face splits into persons: first
# light or dark skin, much hair or little; then glasses and shirts; single pixels last. It is page
# 01 backwards.*

# %% [markdown]
# ## Must there be dice?
#
# A thousand calls of the network for one picture are many. But before we save steps, another
# question, which will turn out to be the same: every step adds fresh noise (let us call it the
# dice) to a picture that we want to free from noise. Why?
#
# Look at what training used. It showed the network $x_t$ made from $x_0$ by one jump, and nothing
# else: no chain, no $x_{t-1}$. So the network fits **every** process whose $x_t$ has the
# distribution
#
# $$q(x_t \mid x_0) = \mathcal N(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I)$$
#
# at each timestep, however the timesteps hang together. How could they? Someone gives us
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$, and we want an $x_s$ of an
# earlier timestep $s$. Its picture must be $\sqrt{\bar\alpha_s}\,x_0$, and its noise must have the
# variance
# $1-\bar\alpha_s$. Nobody says that the noise must be new! Take some of the old $\epsilon$ and some
# fresh $z$ (Song et al., eq. 7; their $\alpha$ is our $\bar\alpha$):
#
# $$x_s = \sqrt{\bar\alpha_s}\,x_0
# + \underbrace{\sqrt{1-\bar\alpha_s-\sigma^2}\;\epsilon}_{\text{kept}}
# + \underbrace{\sigma\, z}_{\text{fresh}}$$
#
# The variances add up to $(1-\bar\alpha_s-\sigma^2) + \sigma^2 = 1-\bar\alpha_s$, **whatever
# $\sigma$ is**. (In the code $\sigma^2$ is `variance`: `schedule.sigma(t)` is all the noise at
# $t$, $\sqrt{1-\bar\alpha_t}$, and `schedule.signal(t)` is $\sqrt{\bar\alpha_t}$.)


# %%
def step_back(x_t, x0, t, s, variance):
    """x_t -> x_s, an earlier timestep (Song et al., eq. 7); s = -1 is the clean picture."""
    epsilon = (x_t - schedule.signal(t) * x0) / schedule.sigma(t)  # the old noise
    kept = math.sqrt(max(0.0, schedule.sigma(s) ** 2 - variance))
    x_s = schedule.signal(s) * x0 + kept * epsilon
    return x_s + math.sqrt(variance) * torch.randn_like(x_t)


# %% [markdown]
# Twenty thousand walkers, all from one pixel of value 0.8 as on page 01, stand at t = 600. They
# step back to s = 400 in three ways: without dice, with some, with nothing but dice.

# %%
t, s, count = 600, 400, 20_000
walkers = schedule.signal(t) * 0.8 + schedule.sigma(t) * torch.randn(count).double()
std = schedule.sigma(s)  # the standard deviation that x_s must have
arrived = {part: step_back(walkers, 0.8, t, s, (part * std) ** 2) for part in [0, 0.7, 1]}
for x_s in arrived.values():
    assert abs(x_s.mean() - schedule.signal(s) * 0.8) < 5 * std / count**0.5
    assert abs(x_s.std() / std - 1) < 5 / (2 * count) ** 0.5
print("All three have the mean and the standard deviation of q(x_s | x_0).")

# %%
figure, all_axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
titles = ["no dice", "some dice", "nothing but dice"]
for axes, x_s, title in zip(all_axes, arrived.values(), titles, strict=False):
    axes.scatter(walkers[:1500], x_s[:1500], s=2, color=f"C{titles.index(title)}")
    axes.set(title=title, xlim=(-3, 4), ylim=(-3, 4), aspect="equal")
    axes.set(xlabel="$x_t$, t = 600", ylabel="$x_s$, s = 400")
    all_axes[3].hist(x_s, bins=60, density=True, histtype="step", label=title)
all_axes[3].set(title="seen from $x_s$ alone: the same", xlabel="$x_s$", ylabel="density")
all_axes[3].legend(fontsize=8, loc="lower center")
plt.show()

# %% [markdown]
# *A dot is one walker: from where (across) to where (up). Without dice each keeps its place in the
# crowd; with nothing but dice it forgets it. The crowd as a whole is the same all three times, and
# the crowd is all that the network has ever been trained on.*
#
# So there is a knob. Song et al. (eq. 16) call it $\eta$ and give it a scale on which 1 is old
# acquaintance:
#
# $$\sigma^2 = \eta^2\;\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\left(1-\frac{\bar\alpha_t}{\bar\alpha_s}\right)$$
#
# For $s = t-1$ the bracket is $\beta_t$. With $\eta = 1$ this is $\tilde\beta_t$, the variance of
# the posterior; and for an earlier $s$ it is that of $q(x_s \mid x_t, x_0)$. And the mean?

# %%
alpha_bars = torch.cat([schedule.alpha_bars, torch.ones(1)])  # (T + 1,): entry -1 is "clean"
some_x0, some_x_t = torch.randn(2, 1, 100, dtype=torch.float64)  # (1, 100) each
for t in range(T):
    epsilon = (some_x_t - schedule.signal(t) * some_x0) / schedule.sigma(t)
    for s in {t - 1, t // 2 - 1}:  # one timestep back, and half of the way
        sigma2 = (1 - alpha_bars[s]) / (1 - alpha_bars[t]) * (1 - alpha_bars[t] / alpha_bars[s])
        kept = (1 - alpha_bars[s] - sigma2).clamp(min=0) ** 0.5
        mean, variance = schedule.posterior(some_x0, some_x_t, t, s)
        assert math.isclose(sigma2, variance, rel_tol=1e-6, abs_tol=1e-12)
        assert torch.allclose(schedule.signal(s) * some_x0 + kept * epsilon, mean, atol=1e-6)
print("With eta = 1 mean and variance are those of the posterior, at all", T, "timesteps.")

# %% [markdown]
# So ancestral sampling is one member of a family. The other famous one has $\eta = 0$ and no dice
# at all: **DDIM**. Put the network's guesses for $x_0$ and $\epsilon$ (eq. 12), and the whole
# family is one short loop:


# %%
def walk(diffusion, x, timesteps, eta=0.0, generator=None, clip="off"):
    """From x at timesteps[0] down to a clean picture (Song et al., eq. 12 and 16)."""
    schedule = diffusion.schedule
    for t, s in pairwise([*timesteps, -1]):
        x0, epsilon = diffusion.denoise(x, t, clip)
        variance = eta**2 * schedule.posterior(x0, x, t, s)[1]
        kept = math.sqrt(max(0.0, schedule.sigma(s) ** 2 - variance))
        x = schedule.signal(s) * x0 + kept * epsilon
        if eta and s >= 0:
            z = torch.randn(x.shape, device=x.device, generator=generator)
            x = x + math.sqrt(variance) * z
    return x


# %%
timesteps = spaced_timesteps(schedule, 50)  # [999, 979, ... 20, 0]
for eta in [0, 0.6, 1]:
    ours = walk(ideal, start, timesteps, eta, torch.Generator().manual_seed(4))
    dice = torch.Generator().manual_seed(4)
    *_, last = ddim(ideal, start, steps=50, generator=dice, clip="off", eta=eta)
    assert torch.allclose(ours, last.x, atol=1e-4)
print("ddim in diffusion_lib agrees with what you built, for three values of eta.")

# %% [markdown]
# ## Two ways home
#
# What do the two do to a crowd? Both start from the same noise; both have the perfect guesser. The
# colour of a point is its fate: the place on the spiral where it will end.

# %%
drift = list(ddim(ideal, start, steps=T, clip="off"))  # T steps of (POINTS, 2), without dice
crowds = {
    name: torch.stack([start] + [step.x for step in way])  # (T + 1, POINTS, 2)
    for name, way in [("with dice (ddpm)", walks), ("without (ddim)", drift)]
}
fates = {
    name: mixture.log_components(crowd[-1]).argmax(1)  # (POINTS,), 0 to 399
    for name, crowd in crowds.items()
}

# %%
axis = torch.linspace(-2.7, 2.7, 90)
plane = torch.cartesian_prod(axis, axis).double()  # (8100, 2)


def draw(all_axes, k):
    """The crowds after k steps, with some of their ways, on contours of q(x_t)."""
    t = T - 1 - k  # after the last step -1, the clean picture
    density = mixture.log_density(plane, schedule.signal(t), schedule.sigma(t)).exp()  # (8100,)
    density = density.view(90, 90).T
    levels = [part * density.max().item() for part in (0.1, 0.4, 0.7)]
    for axes, (name, crowd) in zip(all_axes, crowds.items(), strict=True):
        colors = plt.cm.plasma(fates[name] / 399)  # (POINTS, 4)
        axes.contour(axis, axis, density, levels, colors="lightgrey", linewidths=1)
        axes.scatter(*crowd[k, :200].T, s=8, color=colors[:200])
        ways, since = (6, max(0, k - 150)) if "ddpm" in name else (24, 0)
        for i in range(ways):
            axes.plot(*crowd[since : k + 1 : 3, i].T, color=colors[i], linewidth=1.2)
        axes.set(title=name, xlim=(-2.7, 2.7), ylim=(-2.7, 2.7), xticks=[], yticks=[])
    all_axes[0].set_xlabel(f"t = {max(t, 0)}")


# %%
plots.film(draw, range(0, T + 1, 50), figsize=(7.2, 3.9), columns=2, seconds=5)

# %% [markdown]
# *Grey: contours of $q(x_t)$, which both crowds follow at every moment. Lines: the last stretch of
# six ways (left), the whole of 24 (right). Left, the points jitter about like dust, and the colours
# of the first picture are thoroughly mixed: nothing about the end is decided yet. Right, they drift
# on short, smooth ways, and the colours are sorted from the very start: **the noise is the
# picture**, in another language.*

# %%
lengths = {
    name: (crowd[1:] - crowd[:-1]).norm(dim=-1).sum(0).mean().item()
    for name, crowd in crowds.items()
}
for name, length in lengths.items():
    print(f"mean length of a way {name}: {length:.2g}")
assert lengths["with dice (ddpm)"] > 100 * lengths["without (ddim)"]

# %% [markdown]
# Send one single point of noise on its way, again and again, with other dice each time:

# %%
same = start[:1].expand(POINTS, 2)  # (POINTS, 2)
ends = {}
for eta in [1, 0.5, 0]:
    dice = torch.Generator().manual_seed(5)
    *_, last = ddim(ideal, same, steps=100, generator=dice, clip="off", eta=eta)
    ends[eta] = last.x
assert torch.allclose(ends[0], ends[0][:1], atol=1e-4)

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
for axes, (eta, points) in zip(all_axes, ends.items(), strict=True):
    axes.scatter(*points.T, s=6, label="ends")
    axes.scatter(*same[0], marker="x", color="black", label="start")
    axes.set(title=f"η = {eta}", xlim=(-2.7, 2.7), ylim=(-2.7, 2.7), aspect="equal")
    axes.set(xlabel="first number")
all_axes[0].set(ylabel="second number")
all_axes[0].legend(fontsize=8)
figure.suptitle("One noise has many ends, or one")
plt.show()

# %% [markdown]
# *With $\eta = 1$ the end has forgotten the start. With $\eta = 0$ there is exactly one end.* And
# portraits?

# %%
row = x_T[:2].repeat_interleave(4, 0)  # (8, 3, 16, 16): two noises, four times each
rows = {}
for eta in [1, 0.5, 0]:
    dice = torch.Generator(device).manual_seed(6)
    *_, last = ddim(diffusion, row, steps=50, generator=dice, eta=eta)
    rows[f"η = {eta}"] = last.x
assert torch.allclose(rows["η = 0"][0], rows["η = 0"][3], atol=1e-4)

# %%
plots.image_rows(
    rows,
    [f"noise {noise}, dice {dice}" for noise in "AB" for dice in "1234"],
    "Without dice the noise alone decides",
)

# %% [markdown]
# *Two noises, A and B, four times each. The dice decide on the person; without them, A is always
# the same one.* That makes noise a handle: keep it, change something else, and compare.
#
# ## When is it decided who it will be?
#
# With dice, a picture is made up on the way. When is what settled? Stop the walk of one of the
# portraits at several timesteps, and let it finish eight times from there, with other dice.

# %%
rows, stops = {}, [900, 700, 500, 300, 100]
for stop in stops:
    frozen = next(step.x for step in steps if step.t == stop + 1)[:1]  # (1, 3, 16, 16), at t = stop
    left = [stop, *[t for t in timesteps if t < stop]]
    dice = torch.Generator(device).manual_seed(7)
    many = frozen.repeat(8, 1, 1, 1)  # (8, 3, 16, 16)
    rows[f"from t = {stop}"] = walk(diffusion, many, left, 1.0, dice, clip="static")

# %%
labels = [f"dice {i}" for i in range(1, 9)]
plots.image_rows(rows, labels, "Large things are decided early, small things late")

# %%
variety = [row.std(0).mean().item() for row in rows.values()]  # how much the eight differ
print("each row varies less than the one above:", variety == sorted(variety, reverse=True))
assert variety == sorted(variety, reverse=True)

# %% [markdown]
# *From t = 900 almost anyone can still come out. From 700 the skin is settled and how much hair
# there is, from 300 the shirt and the background too, and from 100 only single pixels differ.* (Ho
# et al. show the same in their figure 7.) Remember this: the third exercise makes a drawing aid of
# it.
#
# ## How many steps?
#
# `walk` did with 50 timesteps instead of 1000, and nobody minded. The formula for $x_s$ never asked
# that $s$ be $t-1$: a process that visits only some of the timesteps also has the right crowd at
# each, and is one more of those that the network fits (Song et al., section 4.2). So we may leap.
# What does it cost? A leap sticks to one guess all the way, although the guess would change as soon
# as the picture cleared. Back to the plane, where guesses are perfect and nothing but leaping can
# go wrong:

# %%
counts = [3, 5, 10, 20, 50, 100]
leapers = {"with dice (ddpm)": {}, "without (ddim)": {}}
noise = torch.randn(2000, 2)  # (2000, 2)
for name, eta in [("with dice (ddpm)", 1.0), ("without (ddim)", 0.0)]:
    for count in counts:
        dice = torch.Generator().manual_seed(8)
        leapers[name][count] = walk(ideal, noise, spaced_timesteps(schedule, count), eta, dice)

# %%
figure, all_axes = plt.subplots(
    2, 5, figsize=(12, 5.2), sharex=True, sharey=True, layout="constrained"
)
for row, (name, results) in zip(all_axes, leapers.items(), strict=True):
    for axes, count in zip(row, counts, strict=False):
        axes.scatter(*results[count].T, s=1)
        axes.set(title=f"{count} steps", xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), aspect="equal")
    row[0].set_ylabel(name)
figure.suptitle("Too few steps leave the points stranded between the arms")
plt.show()

# %% [markdown]
# *Three steps are hardly better than one. With ten, most points are home and some hang between two
# arms, where their first guesses led them. With twenty steps both find the spiral, but with dice it
# comes out too thin: the variance of the posterior counts on a guess that is the truth.*
#
# To put a number on it, throw the shadows of two crowds onto a line, sort them, and take the mean
# gap between the first and the first, the second and the second, and so on; then average over lines
# of all directions (the sliced Wasserstein distance).

# %%
angle = torch.arange(32) * torch.pi / 32
lines = torch.stack([angle.cos(), angle.sin()])  # (2, 32), of length 1
data = mixture.sample(100_000)[0]  # (100_000, 2)
many = (data @ lines).sort(0).values[25::50]  # (2000, 32), shadows of the data


def distance(points):
    """How far a crowd, (2000, 2), is from the spiral."""
    return ((points @ lines).sort(0).values - many).abs().mean().item()


# %% [markdown]
# For portraits we have no such yardstick. But without dice each noise has its own portrait, so we
# can ask how far a quick one is from one that took 200 steps.

# %%
quick = {}
for sampler in [ddim, ddpm]:
    for count in [5, 10, 20, 50]:
        dice = torch.Generator(device).manual_seed(9)
        *_, last = sampler(diffusion, x_T, steps=count, generator=dice)
        quick[sampler, count] = last.x  # (FACES, 3, 16, 16)
*_, slow = ddim(diffusion, x_T, steps=200)
error = [(quick[ddim, count] - slow.x).abs().mean().item() for count in [5, 10, 20, 50]]
assert error[0] > 3 * error[2] and error[1] > 2 * error[3]

# %%
fresh = [distance(mixture.sample(2000)[0]) for _ in range(20)]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for name, results in leapers.items():
    left.plot(counts, [distance(points) for points in results.values()], "o-", label=name)
left.axhspan(min(fresh), max(fresh), color="lightgrey", label="fresh points of the spiral")
left.set(title="Spiral: twenty steps find it", ylabel="distance to the spiral")
right.plot([5, 10, 20, 50], error, "o-", color="C1", label="without (ddim)")
right.plot([5, 50], [error[0], error[0] / 10], "--", color="grey", label="1 / steps")
right.set(title="Portraits: twice the steps, half the error", ylabel="difference a pixel")
for axes, ticks in [(left, [0.02, 0.05, 0.1, 0.2, 0.5]), (right, [0.01, 0.02, 0.05, 0.1])]:
    axes.set(xlabel="steps", xscale="log", yscale="log")
    axes.set_xticks(counts[1:], counts[1:], minor=False)
    axes.set_yticks(ticks, ticks)
    axes.minorticks_off()
    axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *Left: the grey band is where crowds of 2000 real points lie. (This yardstick sees whether points
# are missing or astray; a spiral that is too thin hardly moves it.) Right: how much a pixel differs
# from the portrait of 200 steps. That difference falls about like one over the number of steps.*
# Euler's method does that with any differential equation: each step follows a straight line where
# the way is a curve (Song et al., section 4.3). Methods that feel the bend do with fewer steps;
# DPM-Solver++ (Lu et al. 2022, [arXiv 2211.01095](https://arxiv.org/abs/2211.01095)) looks back at
# the guess of the step before, and so sees where the guess is heading. In the package it is called
# `dpm_solver`, a generator like the others; page 06 measures what it buys.

# %%
plots.image_rows(
    {f"{count} steps": quick[ddim, count] for count in [5, 10, 20, 50]},
    [f"noise {i}" for i in range(1, FACES + 1)],
    "ddim: the same persons, ever sharper",
)

# %%
plots.image_rows(
    {f"{count} steps": quick[ddpm, count] for count in [5, 10, 20, 50]},
    [f"noise {i}" for i in range(1, FACES + 1)],
    "ddpm: other steps are other dice, and other persons",
)

# %% [markdown]
# *With ddim more steps mean the same person in more detail, and after ten there is little to add.
# With ddpm each number of steps means other dice.*
#
# ## Why clip?
#
# `ddpm` and `ddim` clip each guess of $x_0$ to [-1, 1] unless you say `clip="off"`. No pixel is
# brighter than white, so that cannot hurt. What is it good for? Many networks answer with the
# noise, and the guess is then computed:
#
# $$x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\epsilon}{\sqrt{\bar\alpha_t}}$$
#
# At large $t$ that divides by nearly nothing, and whatever is wrong with $\epsilon$ is multiplied:

# %%
for t in [999, 900, 500, 100]:
    times = schedule.sigma(t) / schedule.signal(t)
    print(f"t = {t}: an error in epsilon is multiplied by {times:,.1f}")


# %% [markdown]
# So take our network, let it answer with the noise, and make that wrong by one per cent of its
# size:


# %%
class SlightlyWrong(torch.nn.Module):
    """(N, 3, 16, 16), (N,) -> (N, 3, 16, 16)"""

    def forward(self, x_t, t):
        epsilon = diffusion.denoise(x_t, t).epsilon
        return epsilon + 0.01 * torch.randn_like(epsilon)


# %%
wrong = GaussianDiffusion(SlightlyWrong(), schedule, prediction="epsilon")
rows = {}
for sampler, clip in [(ddim, "static"), (ddim, "off"), (ddpm, "off")]:
    dice = torch.Generator(device).manual_seed(10)
    *_, last = sampler(wrong, x_T, steps=50, generator=dice, clip=clip)
    rows[f"{sampler.__name__}, clip {clip}"] = last.x
assert rows["ddim, clip static"].abs().max() < 1.001 and rows["ddim, clip off"].abs().max() > 4

# %%
labels = [f"noise {i}" for i in range(1, FACES + 1)]
plots.image_rows(rows, labels, "One per cent off: clip or dice mend it")

# %% [markdown]
# *The very first guess is far outside [-1, 1]. Clipped, it is merely a useless guess, and soon
# replaced. Unclipped, it becomes part of the picture, and ddim, which forgets nothing, carries it
# to the end. Dice are forgetful: ddpm replaces noise with fresh noise, and errors go with it.* Our
# own network was trained on v (page 04), which is not divided by anything, and hardly needs the
# clip.
#
# ## Between two noises
#
# If a noise is a picture, what is halfway between two noises? The obvious answer is their mean.
# Look at its length first: a tensor of 768 normal numbers has a length of about $\sqrt{768}$, which
# is 27.7. Not on average: practically always.

# %%
a, b = torch.randn(2, 3000, 3, 16, 16)  # (3000, 3, 16, 16) each
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for some, label in [(a, "a noise"), ((a + b) / 2, "the mean of two noises")]:
    axes.hist(some.flatten(1).norm(dim=1), bins=40, density=True, alpha=0.6, label=label)
axes.set(title="All noise lies on a sphere; the mean of two does not", xlim=(0, 32))
axes.set(xlabel="length", ylabel="density")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *Noise in many dimensions is a thin shell with nothing inside. The straight line between two
# points of the shell leads through the inside, where the network has never been.* Does it matter?
# Take noises of the right direction and the wrong length:

# %%
rows = {}
for factor in [0.4, 0.7, 1.0, 1.3]:
    *_, last = ddim(diffusion, factor * x_T, steps=20)
    rows[f"length {factor:.0%}"] = last.x
contrast = [row.std(dim=(1, 2, 3)).mean().item() for row in rows.values()]  # within a picture
assert contrast == sorted(contrast)

# %%
plots.image_rows(rows, labels, "Short noise makes bland faces, long noise makes speckled ones")

# %% [markdown]
# *Row 3 is as it should be. The mean of two noises has 0.7 of the length: row 2, where hair and
# colours fade towards the mean face.* So walk on the shell, along the arc from one noise to the
# other. That is the second exercise.
#
# ## Meet the real thing
#
# Open `diffusion_lib/samplers.py`: it begins with the two loops that you have written.
#
# | You built | In `diffusion_lib/samplers.py` | What differs |
# |---|---|---|
# | `ancestral` | `ddpm` | it may skip timesteps, so a step goes from t to any earlier s; it clips the guess; it yields t, x and the guess after each step, where yours returns the last x; `generator` may be left out |
# | `walk` | `ddim` | it takes a number of steps, where yours takes the timesteps; it clips unless told not to; it refuses an eta outside 0 to 1, and asks for no posterior if eta is 0; it yields like `ddpm` |
# | the pairs `t, s` in `walk` | `timestep_pairs` | it makes the list of timesteps first, from the number of steps (by default 50 for ddim, all T for ddpm) and the spacing |
#
# | Also there | Why |
# |---|---|
# | `Step` | the t, x and x0 that a sampler yields, with names |
# | `Denoiser` | what a model must have to be sampled from: a schedule, a device, `denoise` and little else |
# | `default_steps` | how many steps a sampler takes if you don't say |
# | `randn_like` | normal noise like x, from a generator, for which `torch.randn_like` has no argument |
#
# Two files belong to it. `solvers.py` holds the quicker samplers, `dpm_solver`, `dpm_solver_sde` and
# `heun`, with the same arguments. `sampling.py` holds `sample`, which knows all five by name, draws
# $x_T$, and works in batches.
#
# `ddpm` and `ddim` are generators, and a generator is a film that you can stop. Here is the
# network's opinion when a tenth of the way is done, and nothing beyond that is computed:

# %%
for step in ddim(diffusion, x_T, steps=50):
    if step.t < 900:
        break
plots.image_grid(step.x0, columns=FACES, title=f"Stopped at t = {step.t}")

# %% [markdown]
# *Six steps in: shades of the mean face, and already eight different ones.* `sample` is for those
# who only want pictures: it draws the noise, runs a sampler in batches (`dpm_solver` with 20 steps,
# if you name none), and returns them. The same seed gives the same portraits.

# %%
portraits = sample(diffusion, 32, steps=20, seed=1)  # (32, 3, 16, 16), -1 to 1
assert torch.allclose(portraits, sample(diffusion, 32, steps=20, seed=1), atol=1e-3)
plots.image_grid(portraits, columns=16)

# %% [markdown]
# *Thirty-two portraits that nobody has drawn.* (Or are they learnt by heart? Page 00 looked for
# copies.) The command line does the same, and writes files: `python -m diffusion_lib.predict
# MODEL`, where MODEL is a file from training, or `faces`.

# %%
with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "diffusion_lib.predict", "faces", "--num_images", "4"]
    done = subprocess.run(
        [*command, "--seed", "1", "--grid"], cwd=folder, capture_output=True, text=True, check=True
    )
    print(done.stdout.strip())
    print(sorted(file.name for file in Path(folder).iterdir()))

# %% [markdown]
# To show others how it happened, take the steps along. `plots.denoising_strip` makes a picture of
# them, `plots.image_film` a film, whose `save` writes a GIF; and `widgets.denoising_scrubber` is
# for your own fingers.

# %%
way = list(ddim(diffusion, x_T, steps=50))
with tempfile.TemporaryDirectory() as folder:
    film = plots.image_film([x_T] + [step.x for step in way], columns=4)
    film.save(Path(folder) / "portraits.gif")
    assert (Path(folder) / "portraits.gif").stat().st_size > 10_000
plots.denoising_strip(x_T, way)

# %% [markdown]
# *Above, one portrait on its way, in ten of fifty steps. Below, what the network took it for.*

# %% tags=["nbval-ignore-output"]
assert len(way) == 50
widgets.denoising_scrubber(x_T, way)

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is
# folded away below each, and below that you see what it is good for.
#
# **1. Leap, up or down.** A step without dice takes $x$ apart into picture and noise, and puts them
# together again as they should be at another timestep. Nothing says that it must be an earlier one.


# %%
def leap(x, epsilon, alpha_bar_here, alpha_bar_there):
    """x and the noise in it: (N, C, H, W); the alpha_bars: numbers -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_leap(leap)


# %% jupyter={"source_hidden": true}
# Solution 1
def leap_solution(x, epsilon, alpha_bar_here, alpha_bar_there):
    x0 = (x - (1 - alpha_bar_here) ** 0.5 * epsilon) / alpha_bar_here**0.5
    return alpha_bar_there**0.5 * x0 + (1 - alpha_bar_there) ** 0.5 * epsilon


exercises.check_leap(leap_solution)

# %% [markdown]
# Leap *up* with it and you find the noise that a given portrait comes from. So the network is also
# a way to write any picture in the language of noise, and back.

# %%
real = x0[[3, 10, 57, 100]].to(device)  # (4, 3, 16, 16), from the training set
timesteps = spaced_timesteps(schedule, 100)
x, here = real, alpha_bars[-1]
for t in reversed(timesteps):
    epsilon = diffusion.denoise(x, t).epsilon
    x, here = leap_solution(x, epsilon, here, alpha_bars[t]), alpha_bars[t]
back = walk(diffusion, x, timesteps)  # (4, 3, 16, 16)
assert (back - real).abs().mean() < 0.1

# %%
rows = {"a portrait": real, "its noise": x / 2, "and back": back}
plots.image_rows(rows, list("ABCD"), "Up to the noise and down again")

# %% [markdown]
# *Middle: the noise that was found (at half strength, to fit the screen). It leads back to the
# portrait, with small errors because a hundred leaps are no smooth way.*
#
# **2. Walk on the sphere.** Go from noise $a$ to noise $b$ on the arc between them ("slerp"). If
# $\theta$ is the angle between the two, the point at share $u$ of the way is
#
# $$\frac{\sin((1-u)\,\theta)}{\sin\theta}\,a + \frac{\sin(u\,\theta)}{\sin\theta}\,b$$


# %%
def slerp(a, b, share):
    """a and b: (C, H, W); share: 0 to 1 -> (C, H, W)"""
    raise NotImplementedError


exercises.check_slerp(slerp)


# %% jupyter={"source_hidden": true}
# Solution 2
def slerp_solution(a, b, share):
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


exercises.check_slerp(slerp_solution)

# %% [markdown]
# Five walkers at once, each on its own round through four noises:

# %%
posts = torch.randn(5, 4, 3, 16, 16, generator=torch.Generator().manual_seed(12)).to(device)
frames = []
for share in torch.arange(0, 4, 0.125):  # 32 frames, from post to post to post
    i, u = int(share), share % 1
    noise = torch.stack([slerp_solution(p[i], p[(i + 1) % 4], u) for p in posts])
    *_, last = ddim(diffusion, noise, steps=15)
    frames.append(last.x)  # (5, 3, 16, 16)
plots.image_film(frames, columns=5, seconds=8)

# %% [markdown]
# *Every frame is a portrait of its own, made from nothing but a point on the sphere; neighbours on
# the sphere look alike.*
#
# **3. A pencil that finishes your drawings.** Above you saw that large things are decided early. So
# begin late: take a crude sketch, noise it to some timestep (which wipes out what is crude about
# it), and walk down from there. This is *SDEdit* (Meng et al., algorithm 1), here without dice.
# `guess` stands for the network; as above, `alpha_bars[-1]` is 1, the clean picture.


# %%
def redraw(sketch, noise, guess, alpha_bars, timesteps):
    """sketch, noise: (N, C, H, W); guess(x, t) -> x_0; timesteps: t_0 ... 0 -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_redraw(redraw)


# %% jupyter={"source_hidden": true}
# Solution 3
def redraw_solution(sketch, noise, guess, alpha_bars, timesteps):
    here = alpha_bars[timesteps[0]]
    x = here**0.5 * sketch + (1 - here) ** 0.5 * noise
    for t, s in pairwise([*timesteps, -1]):
        x0 = guess(x, t)
        epsilon = (x - alpha_bars[t] ** 0.5 * x0) / (1 - alpha_bars[t]) ** 0.5
        x = alpha_bars[s] ** 0.5 * x0 + (1 - alpha_bars[s]) ** 0.5 * epsilon
    return x


exercises.check_redraw(redraw_solution)

# %% [markdown]
# A sketch for it, in seven rectangles. Change them!


# %%
def paint(rows, columns, red, green, blue):
    sketch[:, rows, columns] = torch.tensor([red, green, blue]).view(3, 1, 1) / 127.5 - 1


sketch = torch.zeros(3, 16, 16)
paint(slice(0, 16), slice(0, 16), 150, 190, 230)  # background
paint(slice(1, 5), slice(3, 13), 120, 50, 20)  # hair
paint(slice(4, 14), slice(4, 12), 235, 190, 150)  # face
paint(slice(6, 8), slice(5, 7), 255, 255, 255)  # eyes
paint(slice(6, 8), slice(9, 11), 255, 255, 255)
paint(slice(9, 10), slice(6, 10), 200, 40, 40)  # mouth
paint(slice(13, 16), slice(3, 13), 220, 200, 40)  # shirt


# %%
def guess(x, t):
    return diffusion.denoise(x, t, clip="static").x0


noise = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(21)).to(device)
redrawn = {}
for t_0 in [50, 150, 250, 350, 450, 550, 650, 800, 999]:
    left = [t_0, *[t for t in spaced_timesteps(schedule, 40) if t < t_0]]
    redrawn[t_0] = redraw_solution(sketch.to(device), noise, guess, alpha_bars, left).cpu()

# %%
shown = [50, 250, 450, 650, 800, 999]
plots.image_rows(
    {f"noise {i + 1}": [sketch] + [redrawn[t_0][i] for t_0 in shown] for i in range(3)},
    ["sketch"] + [f"$t_0$ = {t_0}" for t_0 in shown],
    "From your drawing to its own ideas",
)

# %% [markdown]
# *Left the sketch; then what three noises make of it, from $t_0$ on. At 50 the network dares no
# more than to smudge your rectangles. At 450 it has rounded the head and put in a neck. At 999 it
# draws whom it likes.* Two wishes pull against each other, and both can be measured:

# %%
faithful = [(made - sketch).square().mean().item() for made in redrawn.values()]
nearest = [
    torch.cdist(made.flatten(1), x0.flatten(1)).min(1).values.square().mean().item() / 768
    for made in redrawn.values()
]
assert faithful == sorted(faithful) and nearest[0] > 1.2 * min(nearest)

# %%
figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
axes.plot(list(redrawn), faithful, "o-", label="from the sketch")
axes.plot(list(redrawn), nearest, "o-", label="from the nearest real portrait")
axes.set(title="More noise: less like your sketch, more like a portrait", xlabel="$t_0$")
axes.set(ylabel="mean squared distance a pixel", ylim=(0, None))
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *By about 500 the result is about as near to real portraits as it will get, and still has the hair
# and the shirt that you gave it.* Meng et al. recommend 0.3 to 0.6 of the way, for photographs.
#
# **4. Fill in what is missing.** Part of a portrait is lost. At each step of the walk, paste the
# known part over $x$, noised to where $x$ stands, and let the network make the rest fit. (This is
# the heart of *RePaint*, Lugmayr et al., eq. 8; they also go up and down again in between, so that
# both parts have time to agree.)


# %%
def paste_known(x, known, mask, alpha_bar, noise):
    """x, known and noise: (N, C, H, W); mask: 1 where known, else 0 -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_paste_known(paste_known)


# %% jupyter={"source_hidden": true}
# Solution 4
def paste_known_solution(x, known, mask, alpha_bar, noise):
    noised = alpha_bar**0.5 * known + (1 - alpha_bar) ** 0.5 * noise
    return mask * noised + (1 - mask) * x


exercises.check_paste_known(paste_known_solution)

# %% [markdown]
# Three portraits lose everything from the eyes up, seven times each, and get it back in a hundred
# ancestral steps, with a paste after each.

# %%
mask = torch.zeros(1, 1, 16, 16, device=device)
mask[:, :, 7:] = 1  # the lower part is known
known = x0[[3, 10, 57]].to(device).repeat_interleave(7, 0)  # (21, 3, 16, 16): each seven times
x = torch.randn(known.shape, generator=torch.Generator().manual_seed(5)).to(device)
for t, s in pairwise([*timesteps, -1]):
    mean, variance = schedule.posterior(guess(x, t), x, t, s)
    x = mean + variance**0.5 * torch.randn_like(x)  # one ancestral step, from t to s
    x = paste_known_solution(x, known, mask, alpha_bars[s], torch.randn_like(x))
assert torch.equal((x * mask).cpu(), (known * mask).cpu())

# %%
plots.image_rows(
    {"ABC"[i]: [known[7 * i], (known * mask)[7 * i], *x[7 * i : 7 * i + 7]] for i in range(3)},
    ["lost", "left"] + [f"dice {i}" for i in range(1, 8)],
    "The same faces under seven haircuts",
)

# %% [markdown]
# *The network has never been told about masks. It was only ever asked what a picture might be, and
# it takes the known part into account because that is part of the picture.*

# %% [markdown]
# ## Questions
#
# <details><summary>The first guesses are blurred. Why is the last picture sharp?</summary>
#
# The guess is a mean of all that is possible, given $x_t$. On the way down $x_t$ rules out ever
# more, first the wrong skins and shirts, then the wrong hair. In the end one picture is left, and
# the mean of one picture is that picture.
# </details>
#
# <details><summary>You want to know whether a second model is better than the first. Which sampler
# makes the comparison easier on the eye?</summary>
#
# ddim: from the same noise, well-trained models make similar pictures, and what differs is due to
# the models. With ddpm the dice are the same only as long as the number of steps is.
# </details>
#
# <details><summary>Why does the last step of ddpm add no noise?</summary>
#
# Its variance is 0: at t = 0 the step before is the clean picture, and the posterior, given $x_0$,
# knows it exactly. Noise added there would never be taken out again; the samples would look grainy.
# </details>
#
# <details><summary>With the ideal guesser, ddpm and ddim end at the same distribution. Why would
# anyone pay for dice?</summary>
#
# Real guessers err, and ddim carries errors to the end, while dice wash them out: you saw it
# without the clip. In table 1 of Song et al. ddim is the best with few steps, and the sampler with
# the most dice (there $\hat\sigma$) with a thousand.
# </details>
#
# <details><summary>SDEdit with t_0 = 999: how much of the sketch is left?</summary>
#
# Nothing: $\bar\alpha$ is about 0 there, so the sketch is multiplied by 0 and the portrait comes
# from the noise alone. With t_0 = 0 you get the sketch back, nearly as it was.
# </details>

# %% [markdown]
# ## What you now know
#
# - The network's guess is a mean of all that is possible. One big step gives that mean; many small
#   ones, each with a fresh look, give a sample.
# - Ancestral sampling (ddpm) draws from the posterior of page 01, with the guess in place of the
#   truth.
# - Training fixes what a crowd looks like at each timestep, not how a walker gets from one to the
#   next. That leaves a knob $\eta$: 1 is ddpm, 0 is ddim, without dice.
# - Without dice the noise *is* the picture: keep it and compare, leap up to find it, walk between
#   two on the sphere. And a few dozen steps do.
# - The same loop, begun late, finishes sketches; with the known part pasted in, it fills holes.
#
# **Next:** [06, is it any good?](06_is_it_any_good.ipynb) Looks lie: how to measure samples, and
# whether a model only knows its training set by heart. Or train on pictures of your own:
# `python -m diffusion_lib.train NAME PATH` is the loop of page 04 with all the trimmings.
