# %% [markdown]
# # 01 · The forward process
#
# **You will drown pictures in noise one small step at a time, find the formula that makes a
# thousand steps in one, and see that a step can be undone exactly by whoever knows the picture
# underneath.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/01_forward_process.ipynb)
#
# |  |  |
# |---|---|
# | You need | tensors in PyTorch; mean, variance and the bell curve of the normal distribution |
# | You get | the half of a diffusion model that needs no training, and what the other half must learn |
# | It runs in | about ten seconds on two CPU cores; a GPU would not help, for there is nothing to train yet |
#
# The page follows Ho, Jain and Abbeel (2020), *Denoising Diffusion Probabilistic Models*,
# [arXiv 2006.11239](https://arxiv.org/abs/2006.11239). "Eq. 4" means equation 4 there.

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
import torch

from diffusion_lib import NoiseSchedule, exercises, load_images, plots, to_images, toys

torch.manual_seed(0)
WALKERS = 20_000  # how many walk through the noise side by side: fewer is faster, and rougher

# %% [markdown]
# ## Pictures are points
#
# The bundled set `faces` has 4,000 portraits of 16 × 16 pixels. They arrive as bytes, 0 to 255, and
# leave as numbers from -1 (black) to 1 (white), because the noise that we are about to add is
# centred on 0 too.

# %%
pixels = load_images("faces", image_size=16)  # (4000, 3, 16, 16), uint8
x0 = to_images(pixels)  # (4000, 3, 16, 16), -1 to 1
print(tuple(pixels.shape), pixels.dtype)
print(tuple(x0.shape), f"from {x0.min():.0f} to {x0.max():.0f}")

# %%
plots.image_grid(pixels[:32], columns=8, title="Thirty-two of the four thousand")

# %% [markdown]
# *No two are alike, and all are portraits: a head in the middle, hair above, a shirt below.* To a
# model each is one point in a space of 3 · 16 · 16 = 768 dimensions. Almost every point of that
# space is junk: television snow. The portraits lie on a thin, folded sheet in it.
# A diffusion model learns to walk from anywhere back to the sheet. But first, **which way leads
# off it?** That is all this page does.

# %% [markdown]
# ## One small step
#
# Destroying a picture is easy: add noise. The question is how to do so a thousand times and end at
# something that we know perfectly. What happens if we just keep adding?

# %%
x = x0[:64]  # (64, 3, 16, 16)
spread_of_adding = []
for _ in range(1000):
    x = x + 0.1 * torch.randn_like(x)
    spread_of_adding.append(x.std().item())
print(f"spread before: {x0[:64].std():.1f}, after 1000 additions: {x.std():.1f}")

# %% [markdown]
# The numbers run away: the variance grows by $0.1^2$ a step, without end. So shrink the picture a
# little before each addition, by just as much variance as the noise will bring. This is the step of
# every diffusion model (eq. 2):
#
# $$q(x_t \mid x_{t-1}) = \mathcal N\!\left(\sqrt{1-\beta_t}\;x_{t-1},\; \beta_t I\right)
# \qquad\Longleftrightarrow\qquad
# x_t = \sqrt{1-\beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \epsilon, \quad \epsilon \sim \mathcal N(0, I)$$
#
# $\beta_t$ is the **variance** of the noise that step $t$ adds, so the noise itself is multiplied
# by its root. If $x_{t-1}$ has variance $v$, then $x_t$ has $(1-\beta_t)\,v + \beta_t$: a weighted
# mean of $v$ and 1. Whatever $v$ was, it drifts to 1 and stays there.


# %%
def one_step(x, beta):
    """x_{t-1} -> x_t (eq. 2)."""
    noise = torch.randn_like(x)
    return (1 - beta) ** 0.5 * x + beta**0.5 * noise


# %%
x = x0[:64]  # (64, 3, 16, 16)
spread_of_stepping = []
for _ in range(1000):
    x = one_step(x, beta=0.01)
    spread_of_stepping.append(x.std().item())
print(f"spread after 1000 steps: {x.std():.2f}")
assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(spread_of_adding, label="adding noise")
axes.plot(spread_of_stepping, label="shrinking, then adding noise")
axes.axhline(1, color="grey", linewidth=0.8)
axes.set(
    title="Shrinking first keeps the spread at 1", xlabel="steps", ylabel="spread of all pixels"
)
axes.legend()
plt.show()

# %% [markdown]
# *Both walks add noise of the same size. Only the one that shrinks first ends at a distribution
# that can be written down, with mean 0 and variance 1, whatever picture it started from.*

# %% [markdown]
# ## A thousand steps: the chain
#
# Ho et al. take $T = 1000$ steps, with $\beta$ rising on a straight line from 0.0001 to 0.02:
# gently while there is detail to lose, roughly when there is little left.
#
# The papers count $t = 1 \dots T$. Code counts from 0, so `betas[0]` is the papers' $\beta_1$ and
# **our timesteps run from 0 to T - 1**. At `t = 0` one step has been taken, not none.

# %%
T = 1000
betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)  # (T,)

x = x0[:8]  # (8, 3, 16, 16)
chain = []
for t in range(T):
    x = one_step(x, betas[t])
    chain.append(x)

# %%
stops = [0, 25, 50, 100, 200, 300, 500, 999]
plots.image_strip(
    [x0[0]] + [chain[t][0] for t in stops],
    ["clean"] + [f"t = {t}" for t in stops],
    title="One portrait on its way through the chain",
)

# %% [markdown]
# *The mouth goes first, then the eyes; dark hair against a light background can be made out
# longest. By t = 500 the eye finds nothing any more. Small, faint details drown long before large,
# strong shapes, because a large shape is many pixels that agree.*
#
# ## What the chain does to a distribution
#
# One picture becomes noise. What becomes of *all* pictures, of the folded sheet? We cannot draw 768
# dimensions, but we can draw two. Let each point be a "picture" of two pixels, and let the sheet be
# a spiral. Nothing in the method knows how many numbers a point has. (This spiral stays with us
# through the course. In the plane a whole distribution can be drawn, and what a network should
# learn can be computed exactly.)

# %%
spiral = toys.spiral()
points, component = spiral.sample(2000)  # (2000, 2), (2000,): where on the spiral each one began
dissolving = [points]
for t in range(T):
    points = one_step(points, betas[t])
    dissolving.append(points)  # dissolving[k]: after k steps


# %%
def draw(axes, k):
    axes.scatter(*dissolving[k].T, c=component, s=2, cmap="plasma")
    axes.set(title=f"after {k} steps", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
    axes.set(xlabel="first number", ylabel="second number")


figure, all_axes = plt.subplots(1, 5, figsize=(13, 3.1), layout="constrained")
for axes, k in zip(all_axes, [0, 50, 150, 300, 1000], strict=True):
    draw(axes, k)
figure.suptitle("A spiral dissolves into a round cloud")
plt.show()

# %% [markdown]
# *Five moments of a thousand steps.* The same as a film. Watch one colour: the points of one
# stretch of the spiral first blur into their neighbours, then drift to the middle, then are
# everywhere.

# %%
plots.film(draw, [*range(0, 300, 15), *range(300, 1001, 100)])

# %% [markdown]
# *Colour marks where on the spiral a point began. At the end the colours are thoroughly mixed: the
# cloud remembers nothing of the spiral. To generate is to run this film backwards.*

# %% [markdown]
# ## All the steps in one jump
#
# Training will need a picture at a random timestep, millions of times. Must we walk there each
# time? Write $\alpha_t = 1 - \beta_t$ and put two steps into one another:
#
# $$x_2 = \sqrt{\alpha_2}\,x_1 + \sqrt{1-\alpha_2}\,\epsilon_2
#       = \sqrt{\alpha_2\alpha_1}\,x_0
#       + \underbrace{\sqrt{\alpha_2(1-\alpha_1)}\,\epsilon_1 + \sqrt{1-\alpha_2}\,\epsilon_2}_{\text{two independent normal variables}}$$
#
# Independent normal variables add up to a normal variable, and their variances add:
# $\alpha_2(1-\alpha_1) + 1-\alpha_2 = 1 - \alpha_1\alpha_2$. The two noises are as good as one! And
# so on for every further step. With $\bar\alpha_t = \alpha_1\alpha_2\cdots\alpha_t$ (eq. 4):
#
# $$q(x_t \mid x_0) = \mathcal N\!\left(\sqrt{\bar\alpha_t}\;x_0,\; (1-\bar\alpha_t) I\right)
# \qquad\Longleftrightarrow\qquad
# x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1-\bar\alpha_t}\; \epsilon$$

# %%
alphas = 1 - betas  # (T,)
alpha_bars = torch.cumprod(alphas, dim=0)  # (T,)
for t in [0, 100, 500, 999]:
    picture, noise = alpha_bars[t].sqrt(), (1 - alpha_bars[t]).sqrt()
    print(f"t = {t:3d}: factor of the picture {picture:.3f}, of the noise {noise:.3f}")


# %%
def add_noise(x0, t, noise):
    """x_0 -> x_t in one jump (eq. 4)."""
    return alpha_bars[t] ** 0.5 * x0 + (1 - alpha_bars[t]) ** 0.5 * noise


# %% [markdown]
# Do not believe the algebra: check it. First the bookkeeping, without any chance in it. One step
# multiplies the picture's factor by $\sqrt{\alpha_t}$, and turns the noise's variance $v$ into
# $\alpha_t v + \beta_t$. Do a thousand such steps land on the formula?

# %%
factor, variance = 1.0, 0.0
for t in range(T):
    factor = alphas[t] ** 0.5 * factor
    variance = alphas[t] * variance + betas[t]
    assert torch.isclose(factor, alpha_bars[t] ** 0.5, rtol=1e-12)
    assert torch.isclose(variance, 1 - alpha_bars[t], rtol=1e-9)
print("The formula holds at all", T, "timesteps.")

# %% [markdown]
# Then with chance. Twenty thousand walkers start from one pixel of value 0.8 and take every step;
# at each timestep we compare their mean and spread with what eq. 4 says.

# %%
walkers = torch.full((WALKERS,), 0.8, dtype=torch.float64)  # (WALKERS,)
means, spreads, crowd = [], [], {}
for t in range(T):
    walkers = one_step(walkers, betas[t])
    means.append(walkers.mean().item())
    spreads.append(walkers.std().item())
    crowd[t] = walkers

# %%
expected_mean = 0.8 * alpha_bars**0.5  # (T,)
expected_spread = (1 - alpha_bars) ** 0.5  # (T,)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
left.plot(means, linewidth=5, alpha=0.3, label="mean of the walkers")
left.plot(expected_mean, color="C0", linewidth=1, label="√ᾱ · 0.8")
left.plot(spreads, linewidth=5, alpha=0.3, label="spread of the walkers")
left.plot(expected_spread, color="C1", linewidth=1, label="√(1 - ᾱ)")
left.set(
    title="Walking and jumping agree at every timestep", xlabel="t", ylabel="value of the pixel"
)
left.legend()
right.hist(crowd[150], bins=80, density=True, alpha=0.4, label="walkers after t = 150")
value = torch.linspace(-2, 3, 200, dtype=torch.float64)
bell = torch.distributions.Normal(expected_mean[150], expected_spread[150])
right.plot(value, bell.log_prob(value).exp(), color="C1", label="eq. 4")
right.set(title="... and the crowd is normal", xlabel="value of the pixel", ylabel="density")
right.legend()
plt.show()

# %% [markdown]
# *The wide, pale lines are 20,000 random walks; the thin lines on them are eq. 4.* How far off may
# they be? A mean of $n$ walkers scatters by $\sigma/\sqrt n$. Five times that is next to impossible
# by chance, so it makes a fair test:

# %%
chance = expected_spread / WALKERS**0.5  # (T,) standard error of the mean
worst_mean = ((torch.tensor(means) - expected_mean).abs() / chance).max()
worst_spread = ((torch.tensor(spreads) - expected_spread).abs() / (chance / 2**0.5)).max()
print("within five standard errors:", bool(worst_mean < 5), bool(worst_spread < 5))
assert worst_mean < 5 and worst_spread < 5

# %% [markdown]
# ## Is the end really pure noise?
#
# To generate, we will start from $x_T \sim \mathcal N(0, I)$ and run the film backwards. That is
# honest only if the forward process ends there, that is, if $\sqrt{\bar\alpha_T}$, the picture's
# factor at the end, is about 0. With a thousand steps it is. And with fewer steps of the same
# betas?

# %%
for steps in [1000, 300, 100, 30]:
    fewer = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)  # (steps,)
    print(f"T = {steps:4d}: {torch.cumprod(1 - fewer, 0)[-1].sqrt():6.1%} of the picture is left")

# %% [markdown]
# A picture's trace in a single $x_T$ is hard to see, but there is a trick: average many $x_T$ of
# the same picture. The noise cancels out, and what is left of the picture does not.

# %%
portrait = x0[0]  # (3, 16, 16)
single, average = [], []
for steps in [30, 100, 300, 1000]:
    fewer = torch.linspace(1e-4, 0.02, steps)  # (steps,)
    left_over = torch.prod(1 - fewer)
    noise = torch.randn(1000, *portrait.shape)  # (1000, 3, 16, 16)
    x_T = left_over**0.5 * portrait + (1 - left_over) ** 0.5 * noise
    single.append(x_T[0])
    average.append(x_T.mean(0))

# %%
plots.image_strip(
    [image for pair in zip(single, average, strict=True) for image in pair],
    [label for steps in [30, 100, 300, 1000] for label in (f"T = {steps}", "mean of 1000")],
    title="Only a thousand such steps leave nothing of the picture",
)

# %% [markdown]
# *With T = 30, 100 and even 300 the portrait shines through. A model that is trained on such $x_T$
# and then started from pure noise is asked about pictures that it never saw.*
#
# Fewer steps must be larger steps. If T shrinks by ten, ten times the betas do it:

# %%
larger = torch.linspace(1e-3, 0.2, 100, dtype=torch.float64)  # (100,)
left_over = torch.cumprod(1 - larger, 0)[-1].sqrt()
print(f"T = 100 with ten times the betas: {left_over:.1%} of the picture is left")
assert left_over < 0.01

# %% [markdown]
# ## Undoing one step
#
# Now backwards. Someone hands you $x_t$ and asks for $x_{t-1}$. You cannot know it: many pictures
# could have led here. But suppose that you also know the clean picture $x_0$. Then you know two
# things about the unknown $x = x_{t-1}$:
#
# - it came from $x_0$ by a jump: $x \sim \mathcal N(\sqrt{\bar\alpha_{t-1}}\,x_0,\ 1-\bar\alpha_{t-1})$,
# - it led to $x_t$ by a step: $x_t \sim \mathcal N(\sqrt{\alpha_t}\,x,\ \beta_t)$.
#
# Bayes' rule multiplies the two. Both are $e^{-\text{a square in } x}$, and the product of two bell
# curves is a bell curve, whose precisions (one over the variance) add up and whose mean is the mean
# of both opinions weighted by precision:
#
# $$\frac1{\tilde\beta_t} = \frac{\alpha_t}{\beta_t} + \frac1{1-\bar\alpha_{t-1}}, \qquad
# \tilde\mu_t = \tilde\beta_t\left(\frac{\sqrt{\alpha_t}}{\beta_t}\,x_t
# + \frac{\sqrt{\bar\alpha_{t-1}}}{1-\bar\alpha_{t-1}}\,x_0\right)$$


# %%
def posterior_by_bayes(x0, x_t, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0): two bell curves multiplied."""
    from_step = alphas[t] / betas[t]  # precision of what x_t tells
    from_jump = 1 / (1 - alpha_bars[t - 1])  # precision of what x_0 tells
    variance = 1 / (from_step + from_jump)
    mean = variance * (
        alphas[t] ** 0.5 / betas[t] * x_t + alpha_bars[t - 1] ** 0.5 * from_jump * x0
    )
    return mean, variance


# %% [markdown]
# Add the fractions up and this becomes what the paper prints (eq. 6 and 7), which says the same and
# also works for the first step, where $\bar\alpha_{t-1}$ is 1 and the fraction above divides by 0:
#
# $$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
# + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t, \qquad
# \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$$


# %%
def posterior(x0, x_t, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0) (eq. 6 and 7)."""
    before = alpha_bars[t - 1] if t > 0 else torch.ones(())
    mean = (
        before**0.5 * betas[t] / (1 - alpha_bars[t]) * x0
        + alphas[t] ** 0.5 * (1 - before) / (1 - alpha_bars[t]) * x_t
    )
    return mean, (1 - before) / (1 - alpha_bars[t]) * betas[t]


# %%
a, b = torch.randn(2, 1000, dtype=torch.float64)  # stand-ins for x_0 and x_t, (1000,) each
for t in range(1, T):
    by_bayes, by_paper = posterior_by_bayes(a, b, t), posterior(a, b, t)
    assert torch.allclose(by_bayes[0], by_paper[0], rtol=1e-7, atol=1e-9)
    assert torch.isclose(by_bayes[1], by_paper[1], rtol=1e-9)
print("Bayes and the paper agree at timesteps 1 to", T - 1)

# %% [markdown]
# Does it describe what really happens? Our walkers know. They all started from $x_0 = 0.8$, and we
# kept where each of them stood. Of those that stood near 0.74 at $t = 6$, where had they been one
# step earlier?

# %%
t, x_0, x_t = 6, 0.8, 0.74
near = (crowd[t] - x_t).abs() < 0.004  # (WALKERS,)
came_from = crowd[t - 1][near]  # (how many are near,)
mean, variance = posterior(x_0, x_t, t)
standard_error = variance**0.5 / near.sum() ** 0.5
assert near.sum() > 100
assert (came_from.mean() - mean).abs() < 5 * standard_error + 0.001  # "near" is not "at"
assert (came_from.std() / variance**0.5 - 1).abs() < 0.15
print(f"eq. 7 expects them at {mean:.3f}, spread by {variance**0.5:.3f}")

# %%
value = torch.linspace(0.66, 0.94, 400, dtype=torch.float64)
jump = torch.distributions.Normal(alpha_bars[t - 1] ** 0.5 * x_0, (1 - alpha_bars[t - 1]) ** 0.5)
both = torch.distributions.Normal(mean, variance**0.5)
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.hist(crowd[t - 1], bins=80, density=True, alpha=0.25, label="all walkers, a step before")
axes.plot(value, jump.log_prob(value).exp(), color="C0", label="what $x_0$ alone tells")
axes.hist(came_from, bins=25, density=True, alpha=0.4, label="those who then stood at 0.74")
axes.plot(value, both.log_prob(value).exp(), color="C1", label="the posterior (eq. 6)")
axes.axvline(x_t, color="grey", linewidth=0.8)
axes.set(title="$x_t$ and $x_0$ together pin the step before down", xlim=(0.66, 0.94))
axes.set(xlabel=f"value of the pixel at t = {t - 1}", ylabel="density")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *Blue: everyone, one step before. Orange: only those who then stood at 0.74 (the grey line). Their
# past is a narrow bell, slightly to the right of where they are now: pulled towards $x_0$.*
#
# ## The way back, for someone who knows the answer
#
# So let us go all the way: start from pure noise, and at every timestep draw from the posterior,
# with the true $x_0$ in our hand.

# %%
truth = x0[:1].double()  # (1, 3, 16, 16)
x = torch.randn_like(truth)  # (1, 3, 16, 16), noise that never came from any picture
way_back = {}
for t in reversed(range(T)):
    way_back[t] = x
    mean, variance = posterior(truth, x, t)
    x = mean + variance**0.5 * torch.randn_like(x)  # at t = 0 the variance is 0
assert torch.allclose(x, truth, atol=1e-9)
print("Back at the portrait, to the last digit.")

# %%
stops = [999, 500, 300, 200, 100, 50, 25, 0]
plots.image_strip(
    [way_back[t][0] for t in stops] + [x[0]],
    [f"t = {t}" for t in stops] + ["end"],
    title="Out of pure noise, by someone who knows where to go",
)

# %% [markdown]
# *This is sampling, exactly as page 05 will do it. The only cheat is `truth`.* A network will take
# its place: it looks at $x_t$ and guesses $x_0$ (or, what comes to the same, guesses the noise).
# Everything that is learnt in a diffusion model is this one guess.

# %% [markdown]
# ## Meet the real thing
#
# `NoiseSchedule` in `diffusion_lib/schedules.py` is what you just built. It has short names for the
# two factors of eq. 4, of which everything else follows:
#
# $$x_t = \text{signal}_t\; x_0 + \text{sigma}_t\; \epsilon, \qquad
# \text{signal}_t = \sqrt{\bar\alpha_t}, \quad \text{sigma}_t = \sqrt{1-\bar\alpha_t}$$
#
# Its posterior is written in these two, and so for any earlier timestep $s$, not only for
# $s = t - 1$. A jump from $s$ to $t$ multiplies by $a$ and adds noise of variance $b$:
#
# $$a = \frac{\text{signal}_t}{\text{signal}_s}, \qquad
# b = \text{sigma}_t^2 - a^2\, \text{sigma}_s^2$$
#
# For $s = t - 1$ they are $\sqrt{\alpha_t}$ and $\beta_t$. Put them there into the product of the
# two Gaussians, add the fractions up, and you have the general form of eq. 6 and 7:


# %%
def posterior_of(x0, x_t, t, s):
    """Mean and variance of q(x_s | x_t, x_0) for 0 <= s < t."""
    signal, sigma = alpha_bars**0.5, (1 - alpha_bars) ** 0.5  # (T,) each
    a = signal[t] / signal[s]
    b = sigma[t] ** 2 - a**2 * sigma[s] ** 2
    mean = signal[s] * b / sigma[t] ** 2 * x0 + a * sigma[s] ** 2 / sigma[t] ** 2 * x_t
    return mean, b * sigma[s] ** 2 / sigma[t] ** 2


for t in range(1, T):
    general, special = posterior_of(0.8, 0.74, t, t - 1), posterior(0.8, 0.74, t)
    assert torch.allclose(torch.stack(general), torch.stack(special), rtol=1e-9)
print("At s = t - 1 it is eq. 6 and 7, for timesteps 1 to", T - 1)

# %% [markdown]
# Does the library agree?

# %%
schedule = NoiseSchedule("linear", timesteps=1000)
assert torch.allclose(schedule.betas, betas, rtol=1e-12)
assert torch.allclose(schedule.alpha_bars, alpha_bars, rtol=1e-12)
print(schedule.betas.dtype, tuple(schedule.alpha_bars.shape))

# %%
t = torch.tensor([0, 10, 250, 999])  # (4,)
some, noise = x0[:4].double(), torch.randn(4, 3, 16, 16, dtype=torch.float64)
x_t = schedule.add_noise(some, t, noise)  # (4, 3, 16, 16)
mean, variance = schedule.posterior(some, x_t, t)  # (4, 3, 16, 16), (4, 1, 1, 1)
for i in range(4):
    assert math.isclose(schedule.signal(int(t[i])), alpha_bars[t[i]] ** 0.5, rel_tol=1e-12)
    assert math.isclose(schedule.sigma(int(t[i])), (1 - alpha_bars[t[i]]) ** 0.5, rel_tol=1e-9)
    ours = posterior(some[i], x_t[i], t[i])
    assert torch.allclose(x_t[i], add_noise(some[i], t[i], noise[i]), atol=1e-12)
    assert torch.allclose(mean[i], ours[0], atol=1e-10)
    assert torch.allclose(variance[i], ours[1], atol=1e-12)
print("add_noise and posterior agree with what you built.")

# %% [markdown]
# Open the file. You should recognise every line above its first "Also here":
#
# | You built | In `diffusion_lib/schedules.py` | What differs there |
# |---|---|---|
# | `betas`, by `linspace` | `linear` | start and end can be chosen |
# | `alphas`, `alpha_bars` | `NoiseSchedule` | it also computes the signal-to-noise ratio; page 02 explains the other arguments |
# | `picture` and `noise`, the factors | `NoiseSchedule.signal`, `NoiseSchedule.sigma` | t is one timestep, or a batch in which each picture has its own |
# | `add_noise` | `NoiseSchedule.add_noise` | nothing |
# | `posterior_of` | `NoiseSchedule.posterior` | $s$ is $t - 1$ unless it is given; $s = -1$ is the clean image, where signal is 1 and sigma 0 |
#
# Below that, the file has what this page did not need:
#
# | Also there | Why |
# |---|---|
# | `cosine`, `quadratic`, `sigmoid`, `SCHEDULES` | page 02 builds these schedules, and compares them |
# | `shifted`, `zero_terminal` | page 02 mends the two ends of a schedule with them |
# | `expand` | gives the N timesteps of a batch the axes of its images, (N, 1, 1, 1) |
# | `check_arguments`, `check_end` | say in one line what is wrong with a schedule that cannot be built |
#
# The next page asks which schedule is best.

# %%
plots.schedule_curves([NoiseSchedule("linear"), NoiseSchedule("cosine")])

# %% [markdown]
# *Left: the noise that a step adds (mind the logarithmic scale). Middle: the share of the picture's
# variance that is left, $\bar\alpha$. Right: the same as a signal-to-noise ratio. The cosine
# schedule spends more of its time where something can still be seen.*

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is
# folded away below each.
#
# **1. How much is left?** From the betas, compute $\bar\alpha$ for every timestep.


# %%
def alpha_bars_of(betas):
    """(T,) -> (T,)"""
    raise NotImplementedError


exercises.check_alpha_bars(alpha_bars_of)


# %% jupyter={"source_hidden": true}
# Solution 1
def alpha_bars_solution(betas):
    return torch.cumprod(1 - betas, dim=0)


exercises.check_alpha_bars(alpha_bars_solution)

# %% [markdown]
# **2. Who knows the noise knows the picture.** Solve eq. 4 for $x_0$. (This is how a network that
# guesses the noise is turned into one that guesses the picture.)


# %%
def recover_x0(x_t, noise, alpha_bar):
    """x_t and noise: (N, C, H, W); alpha_bar: a number -> x_0: (N, C, H, W)"""
    raise NotImplementedError


exercises.check_recover_x0(recover_x0)


# %% jupyter={"source_hidden": true}
# Solution 2
def recover_x0_solution(x_t, noise, alpha_bar):
    return (x_t - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5


exercises.check_recover_x0(recover_x0_solution)

# %% [markdown]
# **3. Jump on.** You stand at $x_s$ and want to be at $x_t$, a later timestep, in one jump. (Repeat
# the derivation of eq. 4, but start from $s$: which product of alphas is still to come?)


# %%
def jump_on(x_s, noise, alpha_bar_s, alpha_bar_t):
    """x_s and noise: (N, C, H, W); the alpha_bars: numbers -> x_t: (N, C, H, W)"""
    raise NotImplementedError


exercises.check_jump_on(jump_on)


# %% jupyter={"source_hidden": true}
# Solution 3
def jump_on_solution(x_s, noise, alpha_bar_s, alpha_bar_t):
    to_come = alpha_bar_t / alpha_bar_s
    return to_come**0.5 * x_s + (1 - to_come) ** 0.5 * noise


exercises.check_jump_on(jump_on_solution)

# %% [markdown]
# **4. Half gone.** At which timestep does the noise first become stronger than the picture, that
# is,
# $1-\bar\alpha_t > \bar\alpha_t$? Guess from the strip above before you compute it.


# %%
def half_gone(alpha_bars):
    """(T,) -> a timestep, an int from 0 to T-1"""
    raise NotImplementedError


exercises.check_half_gone(half_gone)


# %% jupyter={"source_hidden": true}
# Solution 4
def half_gone_solution(alpha_bars):
    return int((alpha_bars < 0.5).nonzero()[0])


exercises.check_half_gone(half_gone_solution)
print(f"linear schedule: t = {half_gone_solution(alpha_bars)} of {T}")

# %% [markdown]
# ## Questions
#
# <details><summary>Why is the noise multiplied by √β and not by β?</summary>
#
# β is a variance, and multiplying a random variable by a number multiplies its variance by the
# square of that number. With √β the variances (1 - β)·1 + β add up to 1.
# </details>
#
# <details><summary>Two pictures are noised to t = 999 and you get one of the results. Can you tell
# which picture it was?</summary>
#
# Hardly: √ᾱ is 0.006 there, so even where one picture is black and the other white, the bell curve
# of that pixel is shifted by about a hundredth of its width. Over all 768 pixels there is a trace
# left, but only a trace. That is the point: all pictures end in the same cloud.
# </details>
#
# <details><summary>Why is there no network on this page?</summary>
#
# Adding noise needs nothing but the schedule, and undoing a step needs only $x_0$ besides. What is
# missing is $x_0$ itself, when only $x_t$ is given. Guessing it is the network's whole task.
# </details>
#
# <details><summary>Someone trains with T = 100 and betas from 0.0001 to 0.02, and the samples come
# out grey and washed out. What happened?</summary>
#
# 60% of the picture is still there at the last timestep. The network only ever saw $x_T$ with a
# picture shining through, but sampling starts from pure noise, which to it looks like a picture of
# average grey. Larger betas (or more steps) mend it.
# </details>

# %% [markdown]
# ## What you now know
#
# - A step of the forward process shrinks the picture by $\sqrt{1-\beta_t}$ and adds noise of
#   variance $\beta_t$, so that the spread stays at 1 (eq. 2).
# - Any number of steps is one jump: $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$
#   (eq. 4).
# - The end is pure noise only if $\bar\alpha_T$ is about 0: fewer steps need larger betas.
# - With $x_0$ known, a step back is a draw from a normal distribution (eq. 6 and 7). Without it, a
#   network has to guess.
#
# **Next:** 02 asks how fast the noise should grow, and lets you play with it.
