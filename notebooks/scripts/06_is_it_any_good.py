# %% [markdown]
# # 06 · Is it any good?
#
# **You will build the two distances by which image models are judged, find out what each of them
# cannot see, catch a model that has learnt its pictures by heart, and then measure the bundled
# model with all of it.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/06_is_it_any_good.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 04 and 05; mean, covariance, eigenvalues |
# | You get | Fréchet and kernel distance, precision and recall, a test for copies; and the habit to ask "compared with what?" |
# | It runs in | a minute and a quarter on one CPU core; it takes a GPU where there is one |
#
# The page follows Heusel et al. (2017), *GANs Trained by a Two Time-Scale Update Rule Converge to a
# Local Nash Equilibrium*, [arXiv 1706.08500](https://arxiv.org/abs/1706.08500), for the Fréchet
# distance; Bińkowski et al. (2018), *Demystifying MMD GANs*, [arXiv
# 1801.01401](https://arxiv.org/abs/1801.01401), for the kernel distance; and Kynkäänniemi et al.
# (2019), *Improved Precision and Recall Metric for Assessing Generative Models*, [arXiv
# 1904.06991](https://arxiv.org/abs/1904.06991).

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
import torch.nn.functional as F
from torch import nn

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    TrainConfig,
    Trainer,
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
from diffusion_lib.benchmark.records import measurements, medians
from diffusion_lib.features import FeatureStatistics, efficientnet_features
from diffusion_lib.metrics import frechet_distance, kernel_distance
from diffusion_lib.neighbors import nearest

torch.manual_seed(0)
device = find_device()
SAMPLES = 80  # of each kind; with fewer, checks may fail
REAL = 800  # portraits to compare with

# %% [markdown]
# ## Which of the three is real?
#
# Three grids of portraits: one of the training set, one drawn by the bundled model, and one drawn
# by it and then blurred a little. Decide before you read on.

# %%
pixels = load_images("faces", image_size=16)  # (4000, 3, 16, 16), uint8
order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
real = to_images(pixels[order[:REAL]])  # (REAL, 3, 16, 16), in [-1, 1]
diffusion = GaussianDiffusion.load("faces", device)
samples = sample(diffusion, SAMPLES, steps=20, batch_size=SAMPLES)  # (SAMPLES, 3, 16, 16)


# %%
def blur(images):
    """Each pixel becomes the mean of the nine around it. Shape stays."""
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, stride=1)


suspects = {"A": samples, "B": 0.5 * samples + 0.5 * blur(samples), "C": real[:SAMPLES]}
plots.image_rows({name: images[:12] for name, images in suspects.items()})

# %% [markdown]
# *C is real. B gives itself away beside the others. A passes at a glance; look longer, and its flat
# colours have a grain.* Twelve pictures, one tired eye, and you knew what to look for: is that a
# measurement? Who looks at samples sees whether they are sharp. Nobody sees in a grid that one kind
# of hat is missing, or that the samples are copies.
#
# So let a computer look. The first thing that comes to mind are pixels: their mean, and how much
# they vary.

# %%
means = [images.mean(0) for images in suspects.values()]  # (3, 16, 16) each
contrast = [images.std(dim=(1, 2, 3)).mean().item() for images in suspects.values()]
plots.image_strip(means, list(suspects), "The mean of each grid")

# %% [markdown]
# *All three have about the same mean face, because a blur hardly changes a mean, and because a
# model's first duty is to get it right.* The contrast within a picture? Blurred pictures have less
# of it. But a single factor repairs that, and the pictures are as blurred as before:

# %%
fake_contrast = contrast[0] / contrast[1] * suspects["B"]  # (SAMPLES, 3, 16, 16)
assert abs(fake_contrast.std(dim=(1, 2, 3)).mean().item() - contrast[0]) < 0.02
assert all((mean - means[2]).abs().mean() < 0.1 for mean in means)
print("blurred, but with the mean and the contrast of A")

# %% [markdown]
# Every single number can be satisfied by bad pictures. We need a distance between two *crowds* of
# pictures. Let us first find one where crowds can be drawn.
#
# ## The Fréchet distance
#
# Take each crowd for a Gaussian, and compare the Gaussians. In one dimension that is a mean $m$ and a
# standard deviation $s$, a point in a plane, and the distance is the one you know:
#
# $$d^2 = (m_a - m_b)^2 + (s_a - s_b)^2 = (m_a - m_b)^2 + s_a^2 + s_b^2 - 2\sqrt{s_a^2\, s_b^2}$$
#
# In more dimensions the variance $s^2$ becomes a covariance matrix $C$, and the root becomes that
# of a matrix. This is eq. 6 of Heusel et al.:
#
# $$d^2 = \lVert m_a - m_b \rVert^2 + \operatorname{tr}\!\left(C_a + C_b - 2\,(C_a C_b)^{1/2}\right)$$
#
# The trace of that root is the sum of the roots of the eigenvalues.


# %%
def frechet(m_a, cov_a, m_b, cov_b):
    """Squared distance of two Gaussians (eq. 6). m: (D,), cov: (D, D)"""
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt()  # (D,)
    return (m_a - m_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * roots.sum()


# %%
for s_a, s_b in [(1.0, 1.0), (0.5, 2.0)]:
    d2 = frechet(torch.tensor([3.0]), torch.eye(1) * s_a**2, torch.zeros(1), torch.eye(1) * s_b**2)
    assert torch.isclose(d2, torch.tensor(3.0**2 + (s_a - s_b) ** 2))
print("In one dimension it is (m_a - m_b)^2 + (s_a - s_b)^2.")

# %% [markdown]
# One Gaussian moves to the other, then turns, then takes on its shape:


# %%
def ellipse(angle, long, short):
    """The covariance of a Gaussian that is turned by an angle, (2, 2)."""
    c, s = math.cos(angle), math.sin(angle)
    axes = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return axes * torch.tensor([long, short]) ** 2 @ axes.T


goal_mean, goal = torch.zeros(2).double(), ellipse(0.6, 1.2, 0.4)
stages = []
for done in torch.linspace(0, 3, 19).tolist():
    way, turn, shape = (1 - min(max(done - i, 0), 1) for i in range(3))  # what is left of each
    cov = ellipse(0.6 - 1.5 * turn, 1.2 - 0.4 * shape, 0.4 + 0.2 * shape)
    stages.append((way * torch.tensor([-2.0, 1.0]).double(), cov))
gaps = torch.stack([frechet(*stage, goal_mean, goal) for stage in stages])  # (19,)
assert gaps[-1].abs() < 1e-6 and (gaps.diff() < 1e-6).all()

# %%
circle = torch.linspace(0, 2 * torch.pi, 100).double()
circle = torch.stack([circle.cos(), circle.sin()])  # (2, 100)


def draw(all_axes, k):
    """Both Gaussians after k stages, and the distance until then."""
    for (mean, cov), colour in [((goal_mean, goal), "grey"), (stages[k], "C0")]:
        all_axes[0].plot(*(mean[:, None] + 2 * torch.linalg.cholesky(cov) @ circle), color=colour)
    all_axes[0].set(xlim=(-5, 3), ylim=(-3.5, 4.5), aspect="equal", xticks=[], yticks=[])
    all_axes[1].plot(gaps[: k + 1])
    all_axes[1].set(xlim=(0, 18), ylim=(0, 7), xticks=[0, 6, 12, 18], ylabel="$d^2$")
    all_axes[1].set_xticklabels(["", "moved", "turned", "shaped"])


plots.film(draw, range(19), figsize=(7, 3.2), columns=2)

# %% [markdown]
# *Left: two Gaussians, drawn at two standard deviations. Right: their distance. Where they lie counts most,
# but direction and shape count too, and 0 is reached only when everything agrees.*
#
# The package has the same as `frechet_distance`. It takes what a `FeatureStatistics` has collected,
# batch by batch, so that 50,000 pictures need no more memory than 50:

# %%
crowd = torch.randn(1000, 2).double() @ torch.linalg.cholesky(goal).T  # (1000, 2)
other = torch.randn(1000, 2).double() + 1  # (1000, 2)
ours = frechet(crowd.mean(0), crowd.T.cov(), other.mean(0), other.T.cov()).item()
theirs = frechet_distance(FeatureStatistics().add(crowd), FeatureStatistics().add(other))
assert abs(ours - theirs) < 1e-3
print("frechet_distance agrees with what you built.")

# %% [markdown]
# ## What a Gaussian does not see
#
# Real crowds are no Gaussians. Here are three with the same mean and the same covariance. (Whatever the
# cloud, `whiten` gives it the mean 0 and the covariance 1.)


# %%
def whiten(points):
    """Moved, turned and stretched, so that mean and covariance are 0 and 1. (N, 2) -> (N, 2)"""
    points = (points - points.mean(0)).double()
    values, vectors = torch.linalg.eigh(points.T.cov())
    return points @ vectors / values.sqrt() @ vectors.T


angle = torch.linspace(0.2, torch.pi - 0.2, 60)
moon = toys.GaussianMixture(torch.stack([angle.cos(), 1.4 * angle.sin()], 1), 0.08)
stripes = toys.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.15)
clouds = {
    "Gaussian": torch.randn(2000, 2),
    "moon": moon.sample(2000)[0],
    "stripes": stripes.sample(2000)[0],
}
clouds = {name: whiten(points) for name, points in clouds.items()}  # (2000, 2) each

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
gaussian = FeatureStatistics().add(clouds["Gaussian"])
for axes, (name, points) in zip(all_axes, clouds.items(), strict=True):
    d2 = frechet_distance(FeatureStatistics().add(points), gaussian)
    assert d2 < 1e-4
    axes.scatter(*points.T, s=2)
    axes.set(title=f"{name}: $d^2$ to the Gaussian = {abs(d2):.2f}", aspect="equal")
    axes.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xlabel="first number")
all_axes[0].set(ylabel="second number")
plt.show()

# %% [markdown]
# *Nobody would take one for another, but the Fréchet distance is 0 between any two of them.* It
# knows means and covariances, and nothing else.
#
# ## The kernel distance
#
# Another idea needs no Gaussian. Choose a **kernel** $k(x, y)$, a number that says how alike two points
# are. If two crowds are of one kind, a point is as much like its own crowd as like the other one.
# So compare likeness within with likeness across. This is the squared *maximum mean discrepancy*
# (Bińkowski et al., eq. 4):
#
# $$d^2 = \underbrace{\frac{1}{n(n-1)}\sum_{i \ne j} k(x_i, x_j)}_{\text{within the first}}
# + \underbrace{\frac{1}{m(m-1)}\sum_{i \ne j} k(y_i, y_j)}_{\text{within the second}}
# - \underbrace{\frac{2}{nm}\sum_{i,j} k(x_i, y_j)}_{\text{across}}$$
#
# Look at $i \ne j$. Each point is as much like itself as can be, and that says nothing about the
# crowd. Who leaves these pairs in gets the *biased* estimate:


# %%
def cubic(x, y):
    """The kernel of Bińkowski et al., for all pairs. (N, D), (M, D) -> (N, M)"""
    return (x @ y.T / x.shape[1] + 1) ** 3


def biased(x, y, kernel=cubic):
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


# %% [markdown]
# (The unbiased one is exercise 1. Until you have done it, here is the package's.) Draw two crowds
# of twenty from the *same* Gaussian, four hundred times:

# %%
draws = torch.randn(400, 2, 20, 2).double()  # (400, 2 crowds, 20 points, 2 numbers)
with_self = torch.stack([biased(x, y) for x, y in draws])  # (400,)
without = torch.tensor([kernel_distance(x, y, 1, 20).mean for x, y in draws])  # (400,)
assert (with_self > 0).all() and without.mean().abs() < 5 * without.std() / 400**0.5

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for values, label in [(with_self, "each point with itself, too"), (without, "unbiased")]:
    axes.hist(values, bins=40, range=(-2.5, 6), alpha=0.6, label=label)
    axes.axvline(values.mean(), color="black", linestyle=":")
axes.set(title="Two crowds of one kind: 0 would be right", xlabel="$d^2$", ylabel="how often")
axes.legend()
plt.show()

# %% [markdown]
# *Dotted: the means. The biased estimate is above 0 in every draw. The unbiased one is right on
# average, and so it must be below 0 about half of the time.* (A negative square is nothing to worry
# about: it says that the distance is too small to tell.)
#
# Now the three clouds. Bińkowski et al. take the cubic kernel, because it has nothing to tune. We
# add one that looks at neighbours, $k(x, y) = e^{-\lVert x-y \rVert^2 / (2 h^2)}$ with $h = 0.5$.


# %%
def local(x, y):
    return (-torch.cdist(x, y).square() / (2 * 0.5**2)).exp()  # (N, M)


seen = {
    name: [
        frechet_distance(gaussian, FeatureStatistics().add(points)),
        kernel_distance(clouds["Gaussian"], points, 1, 2000).mean,
        biased(clouds["Gaussian"], points, local).item(),
    ]
    for name, points in [("another one", whiten(torch.randn(2000, 2))), *list(clouds.items())[1:]]
}

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
for i, title in enumerate(["Fréchet", "kernel, cubic", "kernel, local (biased)"]):
    all_axes[i].bar(list(seen), [values[i] for values in seen.values()], color=["grey", "C0", "C1"])
    all_axes[i].axhline(0, color="black", linewidth=0.8)
    all_axes[i].set(title=title, ylabel="$d^2$ to the Gaussian")
all_axes[0].set(ylim=(-0.1, 1))
plt.show()

# %%
assert seen["moon"][1] > 5 * abs(seen["another one"][1]) and seen["stripes"][2] > 0.02
assert abs(seen["stripes"][1]) < 0.3 * seen["moon"][1]

# %% [markdown]
# *Fréchet sees no difference anywhere. The cubic kernel knows the moon, but takes the stripes for a
# Gaussian. The local one knows both.* A cubic kernel compares means of products of up to three numbers
# (multiply it out!), which includes how lopsided a crowd is. The stripes are as symmetric as the
# Gaussian, and give themselves away only in products of four. **Each distance has its blind spots, and
# a good number means: nothing that I can see.**
#
# ## Eyes for pictures
#
# In the plane we compared points. For pictures, pixels are the wrong numbers: move a face by one
# pixel, and every pixel is another. So let a network that was trained to recognise things look at
# the pictures first, and compare what it sees, the *features* of its last layer. The usual network
# is Inception-v3, and the distances then are called **FID** and **KID**. Its weights are a large
# download; the course takes EfficientNet-Lite0 (Tan and Le, [arXiv
# 1905.11946](https://arxiv.org/abs/1905.11946)), which comes in a Python package. So our numbers
# cannot be compared with those in papers, only with each other.

# %%
network = efficientnet_features(device)


def look(images):
    """What the network sees in images as they would be saved, in 8 bits. -> (N, 1280)"""
    images = to_images(to_pixels(images))
    return torch.cat([network(some) for some in images.split(16)])


features = look(real)  # (REAL, 1280)
print(tuple(features.shape))

# %% [markdown]
# The first half of the real portraits stays untouched, to be compared with. Those of the other half
# we damage in ways that we understand:

# %%
reference, fresh = features[: REAL // 2], features[REAL // 2 :]  # (REAL / 2, 1280) each
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

# %%
rows = {"untouched": x} | damaged
plots.image_rows({name.replace(" ", "\n"): images[:10] for name, images in rows.items()})

# %% [markdown]
# *How would you order them, from harmless to bad?* The network's order is a matter of a few seconds
# for the features, and of none for the distance:

# %%
seen = {"untouched": fresh[:SAMPLES]} | {name: look(images) for name, images in damaged.items()}
harm = {name: kernel_distance(reference, rows, 20, SAMPLES).mean for name, rows in seen.items()}
assert harm["half blurred"] < harm["blurred"] and harm["little noise"] < harm["much noise"]
assert all(abs(harm["untouched"]) < 0.3 * harm[name] for name in list(harm)[3:])
assert harm["little noise"] > harm["upside down"]

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.barh(list(harm)[::-1], list(harm.values())[::-1])
axes.set(title="The same damage, in numbers", xlabel="kernel distance to other real portraits")
plt.show()

# %% [markdown]
# *Untouched portraits are at 0, up to chance. Half a blur is better than a whole one, a little
# noise is better than much. To the network, a portrait made of its left half twice is a portrait.*
# So far it agrees with us. But across kinds it has a taste of its own: it finds a little noise,
# which we easily forgive, worse than faces that stand on their heads. Remember this when a number
# is a little better or worse: the distance says *different*, and not in which respect, nor whether
# anyone would mind.
#
# ## How many samples does a number need?
#
# 1280 features have a covariance of 1280 × 1280 numbers, and we have a hundred samples. What comes
# of that? With fewer samples than features there is a shorter way to the trace of the root: if the
# rows of $A$ and $B$ are the centred features over $\sqrt{n-1}$, then $C_a = A^\top A$, and the
# roots that we want are the singular values of $A B^\top$.


# %%
def frechet_of_rows(a, b):
    """The Fréchet distance of features (N, D) and (M, D); the matrix is (N, M), not (D, D)."""
    gap = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    overlap = torch.linalg.matrix_norm(a @ b.T, "nuc")  # the sum of the singular values
    return (gap.square().sum() + a.square().sum() + b.square().sum() - 2 * overlap).item()


few, others = reference[:50].double(), fresh[:50].double()
theirs = frechet_distance(FeatureStatistics().add(few), FeatureStatistics().add(others))
assert abs(frechet_of_rows(few, others) / theirs - 1) < 1e-3

# %% [markdown]
# Now take $n$ real portraits and $n$ other real portraits, again and again. An honest distance
# would be 0. We do it with all 1280 features, and with only 16 numbers made of them (their shadows
# on 16 random directions).

# %%
generator = torch.Generator().manual_seed(3)
shadow = torch.randn(1280, 16, generator=generator).double() / 16**0.5  # (1280, 16)
counts = [25, 50, 100, 200, 400]
found = {"Fréchet, 1280": [], "Fréchet, 16": [], "kernel": []}
for n in counts:
    shuffled = [features[torch.randperm(REAL, generator=generator)].double() for _ in range(5)]
    pairs = [(rows[:n], rows[REAL // 2 :][:n]) for rows in shuffled]
    found["Fréchet, 1280"].append([frechet_of_rows(a, b) for a, b in pairs])
    found["Fréchet, 16"].append([frechet_of_rows(a @ shadow, b @ shadow) for a, b in pairs])
    found["kernel"].append([kernel_distance(a, b, 1, n).mean for a, b in pairs])

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for axes, (name, values) in zip(all_axes, found.items(), strict=True):
    axes.plot(counts, values, "o", color="C0", alpha=0.6)
    axes.plot(counts, torch.tensor(values).mean(1), color="C0")
    axes.set(title=name, xlabel="n, on either side", xscale="log")
    axes.set_xticks(counts, counts)
    axes.minorticks_off()
middle = torch.tensor(found["Fréchet, 16"]).mean(1)  # (5,)
all_axes[1].plot(counts, middle[2] * 100 / torch.tensor(counts), "--", color="C1", label="1 / n")
all_axes[1].legend()
all_axes[2].axhline(0, color="grey", linestyle="--")
all_axes[0].set(ylabel="distance, real to real", ylim=(0, None))
plt.show()

# %%
wide = torch.tensor(found["Fréchet, 1280"]).mean(1)  # (5,)
assert (wide.diff() < 0).all() and wide[0] > 3 * wide[-1] and middle[0] > 6 * middle[-1]
assert torch.tensor(found["kernel"]).mean(1).abs().max() < 0.1

# %% [markdown]
# *Dots: single draws. Lines: their means. Left and middle: the Fréchet distance between real and
# real is large, and falls the more samples there are. Right: the kernel distance is about 0 with
# any number, and only its scatter shrinks.* With many more samples than features the bias falls
# like $1/n$ (middle, dashed; Chong and Forsyth, [arXiv
# 1911.07023](https://arxiv.org/abs/1911.07023), use that to get rid of it). With fewer it falls
# even more slowly. That is why papers agree on 50,000 samples, and why **a Fréchet distance without
# its number of samples says nothing**. On this page samples are few, so we go on with the kernel.
#
# ## Two ways to be wrong
#
# One number cannot say whether a model draws *bad* portraits or only *few kinds* of good ones.
# Kynkäänniemi et al. ask two questions. Put a ball around each real point, as large as the way to
# its third nearest neighbour; the union of the balls is where real data lives. **Precision** is the
# share of samples in there. Do the same with the samples: **recall** is the share of real points
# that lie in *their* balls.


# %%
def share_within(points, region, k=3):
    """Which share of points, (N, D), lies in the balls around the region's points, (M, D)?"""
    reach = torch.cdist(region, region).sort(1).values[:, k]  # (M,), entry 0 is the point itself
    return (torch.cdist(points, region) <= reach).any(1).double().mean().item()


# %%
data = toys.spiral().sample(300)[0].double()  # (300, 2)
inner = data[data.norm(dim=1) < 1] + 0.01  # (some, 2), all near a real point
everywhere = torch.randn(300, 2).double() * 1.2  # (300, 2)
crowds = {"few kinds": inner, "anything goes": everywhere}
for fake in crowds.values():
    theirs = metrics.precision_recall(data, fake)
    assert abs(theirs.precision - share_within(fake, data)) < 1e-9
    assert abs(theirs.recall - share_within(data, fake)) < 1e-9

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
reach = torch.cdist(data, data).sort(1).values[:, 3]  # (300,)
for axes, (name, fake) in zip(all_axes, crowds.items(), strict=True):
    for centre, radius in zip(data.tolist(), reach.tolist(), strict=True):
        axes.add_patch(plt.Circle(centre, radius, color="lightgrey"))
    axes.scatter(*fake.T, s=6, color="C1")
    precision, recall = share_within(fake, data), share_within(data, fake)
    axes.set(title=f"{name}: precision {precision:.1f}, recall {recall:.1f}", aspect="equal")
    axes.set(xlim=(-2.7, 2.7), ylim=(-2.7, 2.7), xlabel="first number")
all_axes[0].set(ylabel="second number")
plt.show()

# %% [markdown]
# *Grey: the balls around real points. Orange: samples. Left, all samples are right, and most of the
# spiral is missing. Right, the whole spiral is among the samples, and most samples are wrong.*
#
# Portraits, now. Few kinds: of the untouched portraits, those that look most like one of them.

# %%
alike = torch.cdist(fresh[:1], fresh)[0].argsort()[:SAMPLES]  # the numbers of SAMPLES portraits
crowds = {
    "real": fresh[:SAMPLES],
    "few kinds": fresh[alike],
    "half blurred": seen["half blurred"],
    "the model": look(samples),
}
scores = {name: metrics.precision_recall(reference, rows) for name, rows in crowds.items()}

# %%
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
place = torch.arange(len(scores))
axes.bar(place - 0.2, [score.precision for score in scores.values()], 0.4, label="precision")
axes.bar(place + 0.2, [score.recall for score in scores.values()], 0.4, label="recall")
axes.set(title=f"{SAMPLES} pictures each, beside {len(reference)} real ones", ylim=(0, 1))
axes.set_xticks(place, list(scores))
axes.legend()
plt.show()

# %%
assert scores["few kinds"].recall < scores["real"].recall - 0.15
assert scores["few kinds"].precision > scores["real"].precision - 0.1
assert scores["half blurred"].precision < scores["real"].precision - 0.3

# %% [markdown]
# *Real portraits do not reach 1 either, because balls around a few hundred points leave gaps: their
# bars are the best that one can hope for. A model of few kinds is as precise as reality and lacks
# recall. Blurring costs precision.* And the bundled model? It has most of the kinds, but many of
# its portraits are not where real ones live. The network sees the same grain in them that it
# disliked above.
#
# ## Has it learnt them by heart?
#
# A machine that hands out its training set has distance 0, full precision and full recall. None of
# the numbers above would notice. What would? Look for the nearest training picture, as page 00 did.
#
# First we want to catch a culprit. Here is one, without any training: the *ideal denoiser* of fifty
# portraits. For a training set, the best guess of page 05 is a short formula: the mean of the fifty
# portraits, weighted with how likely $x_t$ comes from each (a softmax). `toys.GaussianMixture` is
# that, with portraits as means and a standard deviation of 0.

# %%
few = pixels[order[REAL : REAL + 50]]  # (50, 3, 16, 16), uint8
schedule = NoiseSchedule("cosine")
by_heart = toys.GaussianMixture(to_images(few), std=0.0)
perfect = GaussianDiffusion(toys.IdealNetwork(by_heart, schedule), schedule)
start = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(4))
*_, last = ddim(perfect, start, steps=20)
copies = last.x  # (48, 3, 16, 16)

# %% [markdown]
# Its training loss on the fifty is the lowest there is, by definition. And it can draw nothing but
# them:

# %%
found = nearest(copies, few)  # distance: (48,), number: (48,)
assert found.distance.max() < 0.02
rows = {"drawn": copies[:10], "nearest\nof the 50": to_images(few[found.number[:10]])}
plots.image_rows(rows, title="The ideal denoiser of fifty portraits")

# %% [markdown]
# *Each sample is one of the fifty, pixel for pixel.* **So what we train for, driven to its end, is
# a copying machine.** That also holds for the four thousand. It is only because networks miss the
# goal that they can draw anything new!
#
# Can a network get that far? A plain one, without convolutions, three layers wide enough, needs
# little time to learn fifty portraits by heart:


# %%
class Plain(nn.Module):
    """x_t and t -> x_0, by three layers in which every number meets every other."""

    channels, image_size = 3, 16

    def __init__(self, width=512):
        super().__init__()
        self.layers = nn.Sequential(
            *[nn.Linear(768 + 64, width), nn.SiLU()],
            *[nn.Linear(width, width), nn.SiLU()],
            nn.Linear(width, 768),
        )

    def forward(self, x, t):
        whole = torch.cat([x.flatten(1), sinusoidal_embedding(t, 64)], dim=1)  # (N, 832)
        return self.layers(whole).view_as(x)


# %%
config = TrainConfig(image_size=16, epochs=180, batch_size=64, lr=2e-3, ema=0.99, prediction="x0")
plain = GaussianDiffusion(Plain(), schedule, config.prediction)
trainer = Trainer(plain, few.repeat(5, 1, 1, 1), config)  # each five times in an epoch
losses = [report.loss for report in trainer]
assert losses[-1] < 0.3 * losses[0]
drawn = sample(trainer.average, 48, steps=20)  # (48, 3, 16, 16)

# %%
found = nearest(drawn, few)
rows = {"drawn": drawn[:10], "nearest\nof the 50": to_images(few[found.number[:10]])}
plots.image_rows(rows, title="A plain network that was trained on fifty portraits")

# %% [markdown]
# *Most are copies, if smudged ones, and some are a blend of two.* And the bundled model, a U-Net
# that has seen each of 4,000 portraits a hundred times?

# %%
found = nearest(samples, pixels)
rows = {"drawn": samples[:10], "nearest\nof 4,000": to_images(pixels[found.number[:10]])}
plots.image_rows(rows, title="The bundled model")

# %% [markdown]
# *Cousins, not copies.* To judge a distance we need another one beside it: how far from the nearest
# training picture are *real* portraits that were not trained on? For the fifty we have plenty. For
# the 4,000 we have none left, but can ask how far each is from its nearest other.

# %%
unseen = pixels[order[:REAL]]  # (REAL, 3, 16, 16), not among the fifty
verdicts = {
    "ideal, 50": metrics.memorization(copies, few, unseen),
    "plain, 50": metrics.memorization(drawn, few, unseen),
    "bundled, 4000": metrics.memorization(samples, pixels),
}
assert verdicts["ideal, 50"].copies == 1 and verdicts["plain, 50"].copies > 0.5
assert verdicts["bundled, 4000"].copies < 0.1

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
place = torch.arange(3)
left.bar(place - 0.2, [v.samples for v in verdicts.values()], 0.4, label="samples")
left.bar(place + 0.2, [v.held_out for v in verdicts.values()], 0.4, label="real, not trained on")
left.set(title="To the nearest training picture", ylabel="distance a pixel (median)", ylim=(0, 0.5))
left.legend(loc="upper left", ncols=2)
right.bar(place, [v.copies for v in verdicts.values()], color="C3")
right.axhline(0.01, color="black", linestyle=":", label="by chance: 1%")
right.set(title="Share of copies", ylim=(0, 1))
right.legend()
for axes in (left, right):
    axes.set_xticks(place, list(verdicts))
plt.show()

# %% [markdown]
# *Left: distances on the scale of -1 to 1. Who copies is nearer to the training set than any real
# portrait is. Right: the share of samples that are as near as only one in a hundred real portraits
# is; `metrics.memorization` calls these copies.*
#
# ## Why does a network draw anything new?
#
# With enough pictures, and not too much network, it cannot store them all; but that alone does not
# make what it does instead look like faces. Two findings, each for the networks and pictures that
# were studied:
#
# - Kadkhodaie et al. (2024), [arXiv 2310.02557](https://arxiv.org/abs/2310.02557), trained two
#   networks on two halves of a set. With few pictures each network draws its own by heart; with
#   enough of them, both draw nearly the *same new* picture from the same noise. What they have
#   learnt then is not the set.
# - Kamb and Ganguli (2024), [arXiv 2412.20292](https://arxiv.org/abs/2412.20292), worked out what
#   the ideal denoiser becomes if it may only look at patches, and treats all places alike, as
#   convolutions do. It puts pictures together like a mosaic, from patches of many training
#   pictures, and predicts what small convolutional networks draw quite well, those with attention
#   less so.
#
# So what saves us seems to be what a network *cannot* do easily: a kind of smoothness, and looking
# at neighbourhoods first. Our plain network has no notion of neighbourhood, but it also had only
# fifty portraits, and with few pictures the convolutional networks of the first paper learn them by
# heart, too. It is a matter of degree, and an open field. The test above is the part that you can
# rely on.
#
# ## What the loss says
#
# Another way to catch a copying machine costs no samples: its loss on pictures that it was not
# trained on. Page 04 measured the loss on a fixed set of noises. `metrics.loss_by_timestep` does
# that for each tenth of the timesteps.

# %%
loss_by_timestep = metrics.loss_by_timestep
cases = {
    "plain, its fifty": loss_by_timestep(trainer.average, few),
    "plain, fifty others": loss_by_timestep(trainer.average, unseen[:50]),
}
bundled = loss_by_timestep(diffusion, pixels[:100])
print([f"{part.first}..{part.last}" for part in bundled[:3]], "...")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
for name, parts in cases.items():
    left.plot([(x.first + x.last) / 2 for x in parts], [x.loss for x in parts], "o-", label=name)
left.set(title="The plain network's loss of $x_0$", xlabel="t", ylabel="mean squared error")
left.legend()
t = torch.tensor([(part.first + part.last) // 2 for part in bundled])  # (10,)
loss = torch.tensor([part.loss for part in bundled])  # (10,)
right.plot(t, loss, "o-", label="of v")
right.plot(t, loss * (1 - diffusion.schedule.alpha_bars[t]), "o-", label="of $x_0$, from that")
right.set(title="The bundled model's loss", xlabel="t", ylabel="mean squared error", ylim=(0, None))
right.legend()
plt.show()

# %%
gap = [b.loss - a.loss for a, b in zip(*cases.values(), strict=True)]
assert all(g > 0.02 for g in gap[:9]) and gap[4] > gap[9]

# %% [markdown]
# *Left: on its own fifty the plain network hardly errs, until noise covers everything; others it
# does not know how to clean at all. Right: the bundled model's loss, as v was trained (blue), and
# as an error of the picture (orange, exercise 3 of page 04 says why).*
#
# What to read in such a curve: where a model gets worse from one version to the next; whether it
# has trouble with faint noise, that is with detail, or with strong noise, that is with what the
# picture shows; and, with held-out pictures beside it, whether it learns by heart.
#
# What not to read in it: how good samples are. Most of the loss is what nobody can know. The ideal
# denoiser has the lowest loss of all on its pictures, and draws nothing new. And a sampler walks
# through all levels one after the other, so that small errors at one may weigh more than large ones
# at another. Compare losses only with the same schedule, prediction and pictures.
#
# ## Which sampler, how many steps?
#
# Time for the first real measurement. Page 05 had four quick ways from noise to portrait, and could
# compare them only by eye. A call of the network is what costs time, so we give each the same
# number of them: 5, 10, 20. (`heun` calls twice in all steps but the last: 3, 5 and 10 steps are 5,
# 9 and 19 calls.)

# %%
RUNNERS = 60  # portraits for each sampler and number of calls
quality = {name: {} for name in ["ddim", "dpm_solver", "heun", "dpm_solver_sde"]}
for name, found in quality.items():
    for steps in [3, 5, 10] if name == "heun" else [5, 10, 20]:
        calls = 2 * steps - 1 if name == "heun" else steps
        images = sample(diffusion, RUNNERS, sampler=name, steps=steps)
        found[calls] = kernel_distance(reference, look(images), 20, RUNNERS)

# %%
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, found in quality.items():
    values = [distance.mean for distance in found.values()]
    axes.errorbar(list(found), values, [d.std for d in found.values()], marker="o", label=name)
axes.set(title=f"{RUNNERS} portraits each", xlabel="calls of the network", ylim=(0, None))
axes.set(ylabel="kernel distance to real ones", xticks=[5, 10, 20])
axes.legend()
plt.show()

# %%
ends = {name: list(found.values()) for name, found in quality.items()}  # three distances each
assert all(few.mean > 1.1 * many.mean for few, _, many in ends.values())

# %% [markdown]
# *Bars: the standard deviation between subsets of the real portraits, which is a part of the uncertainty and
# not all of it: other noises move the points, too, and not less.* With more calls everybody gains,
# and with 20 all four are near each other: what is left then is mostly the fault of the model, and
# not of the sampler. Do not read an order into points that are closer than a few bars. Who wants to
# decide such a race needs hundreds of samples and several seeds, which takes longer than a page may.
# `python -m diffusion_lib.benchmark steps` has run it, with `ddpm` beside the others: 250 portraits
# for each of three seeds.

# %%
steps = medians(measurements("steps"), ("sampler", "calls"), "kernel")
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name in ["ddim", "dpm_solver", "heun", "dpm_solver_sde", "ddpm"]:
    calls = sorted(number for sampler, number in steps if sampler == name)
    lowest, middle, highest = torch.tensor([steps[name, number] for number in calls]).T
    axes.errorbar(calls, middle, [middle - lowest, highest - middle], marker="o", label=name)
axes.set(title="250 portraits each, three seeds", xlabel="calls of the network", xscale="log")
axes.set(ylabel="kernel distance to real ones", ylim=(0, None))
axes.set_xticks([5, 10, 20, 50, 1000], [5, 10, 20, 50, 1000])
axes.minorticks_off()
axes.legend()
plt.show()

# %%
for name, calls in [("dpm_solver", 10), ("dpm_solver", 20), ("ddpm", 1000)]:
    lowest, middle, highest = steps[name, calls]
    print(f"{name:>10} {calls:>5}: {middle:.2f} ({lowest:.2f} to {highest:.2f})")

# %% [markdown]
# *Points: medians. Bars: lowest and highest of three seeds.* Twenty calls of a solver do what a
# thousand of `ddpm` do, within what the seeds scatter: sampling has become fifty times cheaper. Ten
# come within a tenth of that. `ddim` stays behind, even with fifty. And fresh noise on the way does no
# harm: at twenty calls and at fifty a noisy sampler has the lowest median, if by little.
#
# ## What is each choice worth?
#
# Pages 02 to 04 made choices: a schedule, what to predict, how wide a network. Now there is a way to
# ask whether they help. An **ablation** trains with all choices, and then again with one of them
# taken back, everything else the same: the same pictures, the same seconds, the same seeds. `python
# -m diffusion_lib.benchmark ablation` has done that, for 60 seconds of one processor core each (which
# is short: such a portrait is hardly more than a beginning), three seeds.

# %%
choices = medians(measurements("ablation"), ("choice",), "kernel")
print("kernel distance, median (lowest to highest)")
for (name,), (lowest, middle, highest) in sorted(choices.items(), key=lambda item: item[1][1]):
    print(f"{middle:.2f} ({lowest:.2f} to {highest:.2f})  {name}")

# %%
names = [name for (name,) in sorted(choices, key=lambda key: -choices[key][1])]
lowest, middle, highest = torch.tensor([choices[name,] for name in names]).T  # (choices,) each
figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
colours = ["C1" if name == "the recipe" else "C0" for name in names]
axes.barh(names, middle, xerr=[middle - lowest, highest - middle], color=colours)
axes.axvline(choices["the recipe",][1], color="C1", linestyle=":")
axes.set(
    title="What each choice of the recipe is worth",
    xlabel="kernel distance to real portraits",
)
plt.show()

# %% [markdown]
# *Bars: medians. Whiskers: lowest and highest of three seeds. Dotted: the recipe.* The recipe predicts
# the noise, and has a cosine schedule with half the noise (`--shift 0.5`), because a small picture
# drowns sooner than a large one (page 02), a narrow network of one block a level on unfolded pixels,
# batches of 16 and a high learning rate: many cheap steps.
#
# Four changes clearly hurt: a second block and batches of 64, which make fewer steps of the minute,
# folded pixels, and the linear schedule. Four end just beyond the recipe's whiskers: a wider network,
# no shift, v, half the learning rate. Of the average of weights (which has little left to do where the
# learning rate falls to 0) three seeds cannot say anything: the whiskers overlap. And **one bar is shorter than the recipe's**: `--min_snr 5`, better in two seeds of
# three. That is how an ablation ends well: with what the next recipe should try, and this one did not.
#
# Read the largest bars with care. A second block makes each step dearer, so there are fewer of them
# in a minute; that says nothing about an hour. The ablation answers the question that was asked: what
# is best *for these pictures, in this time, to these eyes*. The bundled model predicts v from folded
# pixels with two blocks a level, and after twenty minutes it is better than any bar here.
#
# ## Meet the real thing
#
# Open `diffusion_lib/metrics.py`: it begins with the distances of this page.
#
# | You built | In `diffusion_lib/metrics.py` | What differs |
# |---|---|---|
# | `frechet` | `frechet_distance` | it takes two `FeatureStatistics`, and refuses those of fewer than two images; the roots are those of the eigenvalues of $C_a^{1/2} C_b\,C_a^{1/2}$, which are the same as of $C_a C_b$, but the matrix is symmetric, so that rounding cannot make them complex |
# | `unbiased_distance` (exercise 1) | `kernel_distance` | it takes the mean over 50 random subsets of at most 500 features each, and says how much they scatter |
# | `cubic` | `kernel` | nothing |
# | `share_within` | `precision_recall` | it returns both; it compares a thousand rows at a time, so that 50,000 samples fit into memory |
#
# | Also there | Why |
# |---|---|
# | `KernelDistance`, `PrecisionRecall` | what two of them return, with names |
# | `compare` | all distances at once, for the command below |
# | `require_same_width` | refuses features of two kinds |
# | `memorization`, `Memorization` | the bars of the section on copies, from nearest neighbours that `neighbors.py` finds |
# | `loss_by_timestep`, `TimestepLoss`, `draw_noise` | the curves of the section on the loss |
#
# `features.py` holds the network that looks at pictures, and `FeatureStatistics`.
#
# ## Measure a model of your own
#
# All of this is one command:
#
# ```sh
# python -m diffusion_lib.evaluate MODEL PATH
# ```
#
# MODEL is a `.pth` from training, or `faces`; PATH are the pictures it was trained on. It draws
# 1,000 samples (or `--num_images`), and prints both distances, precision and recall, the nearest
# training pictures and the loss by timestep. **Beside each number of samples stands the same
# number for real pictures**, as many of them: half of the training set against the other half. That
# column is the best one can hope for, and without it the first one means nothing. `--held_out`
# takes pictures that the model has not seen, and is worth it: no other test for copies is as clear.
# With `--features inception` the Fréchet distance is the usual FID, if torch-fidelity is installed.

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is
# folded away below each, and below that you see what it is good for.
#
# **1. No one is compared with himself.** Write the unbiased distance (Bińkowski et al., eq. 4), for
# whatever kernel.


# %%
def unbiased_distance(x, y, kernel):
    """x: (N, D), y: (M, D); kernel(x, y) -> (N, M). The answer is a tensor, shape ()"""
    raise NotImplementedError


exercises.check_unbiased_distance(unbiased_distance)


# %% jupyter={"source_hidden": true}
# Solution 1
def unbiased_distance_solution(x, y, kernel):
    def within(k):
        return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))

    return within(kernel(x, x)) + within(kernel(y, y)) - 2 * kernel(x, y).mean()


exercises.check_unbiased_distance(unbiased_distance_solution)

# %% [markdown]
# How near does the local kernel have to look to tell the stripes from the Gaussian best? In units of
# its own scatter between draws of one kind:

# %%
widths = [0.05, 0.1, 0.2, 0.5, 1, 2, 5]
signal = []
for h in widths:

    def near(x, y, h=h):
        return (-torch.cdist(x, y).square() / (2 * h**2)).exp()

    null = [unbiased_distance_solution(*torch.randn(2, 200, 2).double(), near) for _ in range(30)]
    found = unbiased_distance_solution(clouds["Gaussian"][:200], clouds["stripes"][:200], near)
    signal.append((found / torch.stack(null).std()).item())
assert max(signal) > 10 and signal.index(max(signal)) not in (0, len(widths) - 1)

# %%
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.semilogx(widths, signal, "o-")
axes.set(title="Neither too near nor too far", xlabel="h, what the kernel calls near")
axes.axhline(0, color="grey", linestyle=":")
axes.set(ylabel="distance / scatter")
axes.set_xticks(widths, widths)
axes.minorticks_off()
plt.show()

# %% [markdown]
# *A kernel that looks too near finds everybody alone; one that looks too far sees only means and
# covariances, which are the same here.*
#
# **2. What is not the mean's.** A Fréchet distance is a sum of two parts. The first is the squared
# distance of the means. Write the second, the trace in eq. 6, from two sets of features.


# %%
def covariance_term(a, b):
    """a: (N, D), b: (M, D) -> tr(C_a + C_b - 2 (C_a C_b)^(1/2)), a tensor of shape ()"""
    raise NotImplementedError


exercises.check_covariance_term(covariance_term)


# %% jupyter={"source_hidden": true}
# Solution 2
def covariance_term_solution(a, b):
    cov_a, cov_b = a.T.cov(), b.T.cov()
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt()
    return cov_a.trace() + cov_b.trace() - 2 * roots.sum()


exercises.check_covariance_term(covariance_term_solution)

# %% [markdown]
# Taken apart, the distance says a little more about what is wrong. (In pixels, of portraits shrunk
# to 4 × 4: 48 numbers, so that the hundred samples are more than those.)


# %%
def small(images):
    return F.avg_pool2d(images, 4).flatten(1).double()  # (N, 48)


parts = {}
for name, images in {"untouched": x, "the model": samples, **damaged}.items():
    a, b = small(real[:SAMPLES]), small(images)
    mean_part = (a.mean(0) - b.mean(0)).square().sum().item()
    parts[name] = (mean_part, covariance_term_solution(a, b).item())
assert parts["darker"][0] > parts["darker"][1] and parts["much noise"][0] < parts["much noise"][1]

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
first, second = zip(*list(parts.values())[::-1], strict=True)
axes.barh(list(parts)[::-1], first, label="of the means")
axes.barh(list(parts)[::-1], second, left=first, label="of the covariances")
axes.set(title="The two parts of the Fréchet distance, in 48 pixels", xlabel="squared distance")
axes.legend()
plt.show()

# %% [markdown]
# *Darker pictures are wrong in their mean. Upside down, mean and covariance are wrong. To these 48
# numbers, noise and blur are hardly anything: shrinking averages them away.* What you compare
# decides what you find.
#
# **3. The nearest other.** For each picture of a set, how far is its nearest *other* one (root mean
# square over all pixels and colours)?


# %%
def nearest_other(images):
    """(N, C, H, W) -> distances, (N,)"""
    raise NotImplementedError


exercises.check_nearest_other(nearest_other)


# %% jupyter={"source_hidden": true}
# Solution 3
def nearest_other_solution(images):
    rows = images.flatten(1)  # (N, D)
    squares = (rows[:, None] - rows[None]).square().mean(2)  # (N, N)
    return squares.fill_diagonal_(torch.inf).amin(1).sqrt()


exercises.check_nearest_other(nearest_other_solution)

# %% [markdown]
# With it you find out whether a set holds doubles. Sets that were gathered from the web do, and it
# is these that large models have been found to repeat (Carlini et al. 2023, [arXiv
# 2301.13188](https://arxiv.org/abs/2301.13188)). The most alike among our portraits:

# %%
some = real[:250]  # (250, 3, 16, 16)
alone = nearest_other_solution(some)  # (250,)
assert torch.allclose(alone, nearest(some, some, True).distance, atol=1e-3)
twins = alone.argsort()[:8]  # (8,)
partners = nearest(some, some, True).number[twins]  # (8,)
plots.image_rows({"portrait": some[twins], "nearest\nother": some[partners]})

# %% [markdown]
# *The most alike of 250. (Who is nearest to each other comes twice.)* No two are the same, but some
# differ in little more than the mouth and a few pixels of hair.

# %% [markdown]
# ## Questions
#
# <details><summary>A paper reports an FID of 12, you measure 15 with your model. Are you behind?</summary>
#
# Compared with what? The same pictures, scaled in the same way, the same number of samples, the
# same features from the same weights? Each of these moves the number by more than 3. Measure both
# models with one program, and measure real against real, too.
# </details>
#
# <details><summary>Your kernel distance is -0.002. Is your model better than reality?</summary>
#
# No. The unbiased estimate scatters around the truth, and when the truth is 0, it is negative half
# of the time. It says: with so many samples and such features, no difference can be seen.
# </details>
#
# <details><summary>Why compare samples with the training set and not with held-out pictures?</summary>
#
# For the distances it is custom, because there are more of them. But then a copying machine wins.
# So report the share of copies beside it, or take held-out pictures where you have enough.
# </details>
#
# <details><summary>Training goes on, the distance gets better, and the share of copies rises. What do you
# do?</summary>
#
# Stop earlier, gather more pictures, mirror them (`--flip`) if they have no left and right, or take
# a smaller network. The distance alone would have told you to go on.
# </details>
#
# <details><summary>Nearest in which sense? A copy that is shifted by one pixel is far away.</summary>
#
# True. A small distance in pixels proves a copy, a large one proves nothing. Look at the nearest
# neighbours in feature space, too, and with your eyes.
# </details>

# %% [markdown]
# ## What you now know
#
# - A grid of samples says whether they are sharp, and hardly anything else.
# - The Fréchet distance compares means and covariances, and nothing else. It is biased: compare only
#   at the same number of samples.
# - The kernel distance compares likeness within and across. Without the pairs of a point with itself
#   it is unbiased, at any number of samples, and sees what its kernel can see.
# - Both look through the eyes of a network, which has a taste of its own. No number means anything
#   alone: put that of real pictures beside it.
# - Precision finds bad samples, recall finds missing kinds, and the nearest training picture finds
#   copies. The ideal denoiser of a training set is a copying machine.
# - The loss by timestep says where a model errs, and not how its samples look.
#
# **Next:** train on pictures of your own with `python -m diffusion_lib.train`, and measure what you
# get with `python -m diffusion_lib.evaluate`.
