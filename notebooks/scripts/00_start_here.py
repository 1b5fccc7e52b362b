# %% [markdown]
# # 00 · Start here
#
# **You will draw portraits that nobody drew before, watch each of them come out of pure noise, and
# ask the one question that every such picture has to answer: is it new?**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/00_start_here.ipynb)
#
# |  |  |
# |---|---|
# | You need | Python, and tensors in PyTorch; nothing about diffusion |
# | You get | pictures at once, a check that your computer is ready, and the map of the course |
# | It runs in | about fifteen seconds on two CPU cores; it takes a GPU when there is one |
#
# Run a cell with Shift + Enter, and the whole page with *Run → Run All Cells*.

# %%
# On Colab this installs the course's package beside Colab's own torch. Elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "git+https://github.com/simple-diffusion/simple-diffusion"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", address]
    subprocess.run(command, check=True)

# %% [markdown]
# ## Is everything here?
#
# The next cell looks at what the course needs, and names whatever is wrong together with the
# command that mends it. If it stops with *No module named 'diffusion_lib'*, this notebook runs in
# another Python than the one that the course was installed into: close JupyterLab and start it with
# `make lab` in the folder of the repository.

# %%
from diffusion_lib import environment

problems = environment.problems()
print("\n".join(problems) or "All is well.")

# %% tags=["nbval-ignore-output"]
assert not problems
print(environment.summary())

# %% [markdown]
# The second cell shows what this computer has. The line `device` says where the work will be done:
# `cuda` is an NVIDIA GPU, `mps` the one of an Apple computer, `cpu` neither. Every page of the
# course runs on a CPU, and takes the GPU by itself where there is one.
#
# ## Portraits out of nothing
#
# A trained model comes with the course. It has seen 4,000 pixel-art portraits of 16 × 16 pixels,
# and weighs less than three megabytes.

# %%
import torch

from diffusion_lib import (
    GaussianDiffusion,
    ddim,
    exercises,
    find_device,
    load_images,
    plots,
    sample,
    to_images,
    widgets,
)

COUNT = 32  # portraits to draw
device = find_device()

# %%
diffusion = GaussianDiffusion.load("faces", device)
portraits = sample(diffusion, COUNT, seed=0)  # (32, 3, 16, 16), from -1 (black) to 1 (white)
print(tuple(portraits.shape))
assert portraits.abs().max() <= 1

# %%
plots.image_grid(portraits, columns=8, title="Thirty-two people who do not exist")

# %% [markdown]
# *Hats, glasses, beards, backgrounds: nobody told the model that there are such things. Another
# `seed` makes other people.* There is nothing about people in it, either. Trained on handwritten
# digits, or on slices of a brain, the same program draws those:

# %%
others = {
    name: sample(GaussianDiffusion.load(name, device), 8, seed=0)
    for name in ("digits", "brains")  # (8, 1, 28, 28) and (8, 1, 64, 64)
}
plots.image_rows(others)

# %% [markdown]
# *No one wrote the digits, and no one has the brains.* If you want to know how these models were
# trained: `make weights` does it again.
#
# ## Where did they come from?
#
# From this: numbers drawn at random, as many as a portrait has pixels and colours.

# %%
generator = torch.Generator().manual_seed(1)
noise = torch.randn(8, 3, 16, 16, generator=generator).to(device)  # (8, 3, 16, 16)
plots.image_grid(noise, columns=8, title="Eight pictures of noise")

# %% [markdown]
# *Television snow, and nothing is hidden in it.* The model was asked fifty times in a row: "here is
# a noisy picture; what do you think is underneath?" After each answer a little of the noise was
# removed. `ddim` is the loop that does so. It hands out every step, so that we can look:

# %%
steps = list(ddim(diffusion, noise, steps=50))
print(len(steps), "steps, from t =", steps[0].t, "to t =", steps[-1].t)

# %%
plots.denoising_strip(noise, steps)

# %% [markdown]
# *Above: one picture on its way from noise to portrait. Below: what the model took it for at that
# moment. At first it sees no more than a blur, the average of all that it might become. Then the
# colours and the large shapes are settled, and last the mouth and the edges.* And all eight at
# once:

# %%
film = [noise] + [step.x for step in steps]  # 51 of (8, 3, 16, 16)
plots.image_film(film, columns=8, seconds=5)

# %% [markdown]
# *Eight portraits in fifty steps.* If you run this page yourself, there is more: press ▶, or drag
# the slider back and forth. On the left is the picture so far, on the right the model's guess of
# its end.

# %% tags=["nbval-ignore-output"]
scrubber = widgets.denoising_scrubber(noise, steps)
assert scrubber.children[0].children[1].max == 50
scrubber

# %% [markdown]
# (Text instead of a slider? Then JupyterLab was started from another Python than `make lab` uses. A
# slider that does not move is a page without a kernel: run its cell.)
#
# ## The noise is the portrait
#
# `ddim` adds no chance of its own: whoever begins with the same noise ends at the same portrait.
# And close to it? Take two pictures of noise, and mix them.

# %%
first, second = noise[0], noise[1]  # (3, 16, 16) each
angle = torch.linspace(0, torch.pi / 2, 8).view(-1, 1, 1, 1).to(device)  # (8, 1, 1, 1)
between = angle.cos() * first + angle.sin() * second  # (8, 3, 16, 16), noise again
for step in ddim(diffusion, between, steps=50):
    walk = step.x  # (8, 3, 16, 16)

# %%
plots.image_grid(walk, columns=8, title="From one portrait to another, by way of noise")

# %% [markdown]
# *The first and the last are the first two of the film. In between are portraits, too, and not two
# pictures laid over each other: the model has learnt what a portrait is, and not only 4,000 of
# them.* Why sine and cosine, and not simply a mean? Page 05 knows.
#
# ## Is it new?
#
# A model that had learnt its 4,000 portraits by heart would also draw beautiful pictures. So look
# for the nearest of the 4,000 to each of ours.

# %%
pixels = load_images("faces", image_size=16)  # (4000, 3, 16, 16), bytes
known = to_images(pixels)  # (4000, 3, 16, 16), -1 to 1
distance = torch.cdist(portraits.flatten(1), known.flatten(1))  # (32, 4000)
nearest = distance.argmin(dim=1)  # (32,)

# %%
pairs = torch.cat([portraits[:10], known[nearest[:10]]])  # (20, 3, 16, 16)
plots.image_grid(
    pairs, columns=10, title="Above: drawn. Below: the nearest of 4,000 that it learnt from"
)

# %% [markdown]
# *Relatives, not copies: each pair differs in hair, hat, mouth or colours.* Is the distance large
# or small, though? Portraits that the model has never seen would tell. We have none
# left, but we can ask how far each of the 4,000 is from its own nearest neighbour:

# %%
among_known = torch.cdist(known[:1000].flatten(1), known.flatten(1))  # (1000, 4000)
among_known[torch.arange(1000), torch.arange(1000)] = torch.inf  # not itself
ours, theirs = distance.min(1).values.median(), among_known.min(1).values.median()
print(
    "as far from the known portraits as these are from each other, within a third:",
    bool(2 / 3 < ours / theirs < 4 / 3),
)

# %% [markdown]
# ## What is a diffusion model?
#
# Two processes over the same thousand timesteps. One is trivial, the other is the inverse of it.

# %%
t = torch.tensor([0, 200, 400, 600, 999])  # (5,)
stack = known[:1].expand(5, -1, -1, -1)  # (5, 3, 16, 16)
noisy = diffusion.schedule.add_noise(stack, t, noise[:1].cpu().expand_as(stack))  # (5, 3, 16, 16)
plots.image_strip(noisy, [f"t = {i}" for i in t.tolist()], title="Forward: add noise. Anyone can.")

# %%
seen = diffusion.denoise(noisy.to(device), t.to(device), clip="static").x0  # (5, 3, 16, 16)
plots.image_strip(
    seen.detach(),
    [f"from t = {i}" for i in t.tolist()],
    title="Backward: guess what is underneath. This is learnt.",
)

# %% [markdown]
# *Each picture below is the model's answer to the one above it. At t = 200 it is nearly right. At t
# = 999 nothing can be known, and the best answer is the average of all portraits.* This guess is
# all that a diffusion model learns. The rest of the course is how to make it well, and what to do
# with it.
#
# ## The map
#
# | page | you will | two CPU cores |
# |---|---|---|
# | **00 start here** | draw portraits with a model that comes with the course | 10 s |
# | **01 forward process** | drown pictures in noise, jump to any step, undo a step | 10 s |
# | **02 schedules** | choose how fast the noise grows, and play with it in the explorer | 15 s |
# | **03 U-Net** | build the network piece by piece, and check it by overfitting one batch | 40 s |
# | **04 training** | derive the loss, train on portraits, and tell a healthy run from a sick one | 3 min 20 s |
# | **05 sampling** | build ddpm and ddim, paint from a sketch, fill in what is missing | 1 min |
#
# Times are of `python notebooks/build.py run` on two CPU cores; on a GPU none was measured yet.
# Read the pages in this order: each begins where the last one ended. A page builds a thing in a few
# lines, looks at it, and then meets the same thing in the package `diffusion_lib`, whose files read
# like the papers. Then train on images of your own: the README says how.
#
# ## Exercises
#
# Every page has some. Replace `raise NotImplementedError`, run the cell, and read what the check
# says: it knows the usual mistakes, and tells you which one you made. A solution is folded away
# below each; click on the three dots to see it.
#
# **1. Back to bytes.** A picture on a screen has bytes, 0 to 255. The model's numbers go from -1 to
# 1, and now and then a little beyond. Turn the one into the other.


# %%
def to_bytes(images):
    """Floats (N, C, H, W), -1 is black and 1 is white -> uint8 of the same shape"""
    raise NotImplementedError


exercises.check_to_bytes(to_bytes)


# %% jupyter={"source_hidden": true}
# Solution 1
def to_bytes_solution(images):
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


exercises.check_to_bytes(to_bytes_solution)

# %% [markdown]
# **2. The nearest.** Write the search for a copy: which of many images is nearest to a given one,
# by the sum of the squared differences of all pixels?


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
assert nearest_to_solution(portraits[0], known) == nearest[0]

# %% [markdown]
# ## Questions
#
# <details><summary>Why does the model need fifty steps? It guesses the finished picture at each
# one.</summary>
#
# Look at the lower row of the strip: its first guesses are averages of all that the noise might
# still become, and an average of portraits is a blur. Each small step settles a little, so that the
# next guess has less left to average over.
# </details>
#
# <details><summary>Is a portrait hidden in the noise, so that the model only has to find it?</summary>
#
# No. The noise was drawn without any portrait, and the model sees in it what it has learnt to see,
# as you see faces in clouds. But the same noise always leads to the same portrait.
# </details>
#
# <details><summary>A friend shows you samples that look wonderful. What do you ask first?</summary>
#
# "How near are they to your training images?" A model that copies looks best of all.
# </details>

# %% [markdown]
# ## What you now know
#
# - A diffusion model turns noise into pictures, in many small steps.
# - At each step it guesses the finished picture (or the noise, which comes to the same), and a little
#   of the noise is removed.
# - With `ddim` the noise alone decides on the picture, and noises near each other give pictures that
#   are alike.
# - Before you admire a sample, look for its nearest neighbour among the training images.
#
# **Next:** 01 takes pictures apart. It needs no network at all.
