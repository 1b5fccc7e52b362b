# %% [markdown]
# # 08 · Full runs
#
# **You will take a set of images the whole way as it is done with thousands of them and hours of a
# GPU: know the cost before the start, lose the machine in the middle, go on as if nothing had
# happened, and judge what came out. With two words changed, the same page does it with the knees of
# AKOA, the brains of OASIS, the faces of CelebA, or images of your own.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/08_full_runs.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 04, 05 and 06 |
# | You get | a run of your own that survives the loss of its machine, and an estimate of what it takes on a card that you do not have yet |
# | It runs in | about a minute and three quarters on one CPU core; a full run takes hours on a GPU |

# %%
# On Colab this installs the course's package beside Colab's own torch. Elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "git+https://github.com/simple-diffusion/simple-diffusion"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", address]
    subprocess.run(command, check=True)

# %%
import json
import tempfile
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from diffusion_lib import (
    GaussianDiffusion,
    OriginalUNet,
    TrainConfig,
    Trainer,
    build,
    exercises,
    find_device,
    load_checkpoint,
    load_images,
    metrics,
    plots,
    record,
    sample,
    to_images,
    widgets,
)
from diffusion_lib.estimate import flops, seconds_per_step, training_bytes
from diffusion_lib.features import efficientnet_features

device = find_device()

# %% [markdown]
# ## Choose
#
# As the page stands, it trains for a minute on `brains`, 1,000 slices that come with the course. For
# a run that counts, change the two words and the folder in this cell, and run all cells.

# %%
SET = "brains"  # or "akoa", "oasis", "celeba", or the path of a folder or .zip of your own
FULL = False  # True: at 128x128, with a network to match, for a GPU
FOLDER = Path(tempfile.mkdtemp())  # for a run that counts: one that stays, e.g. Path("akoa_run")

# %%
PATHS = {
    "akoa": "../data/akoa",
    "oasis": "../data/oasis",
    "celeba": "../data/celeba/img_align_celeba.zip",
}
path, name = PATHS.get(SET, SET), Path(SET).stem

# %% [markdown]
# The large sets may not be passed on, so you get them from their owners; `data/README.md` says
# where, and in which form to put them where `PATHS` looks. DICOM files of the knee and volumes of
# the brain are read as they are; that takes `pip install pydicom nibabel`.
#
# **On Colab**, choose a GPU (*Runtime → Change runtime type*), and let the run live in your Drive,
# which is still there when the machine is not:
#
# ```python
# from google.colab import drive
# drive.mount("/content/drive")
# SET = "/content/drive/MyDrive/akoa"
# FOLDER = Path("/content/drive/MyDrive/akoa_run")
# ```
#
# Now the settings: those of the full run, and a small one with which all that follows can be tried
# on a CPU. Each of them is a flag of `python -m diffusion_lib.train`, too.

# %%
full = TrainConfig(image_size=128, batch_size=64, beta_schedule="cosine", prediction="v")
little = dict(image_size=32, batch_size=16, width=24, blocks=1, patch=2, epochs=12, lr=4e-3)
small = replace(full, **little, report_every=21, disable_images=True)
config = full if FULL else small

# %% [markdown]
# ## Prepare
#
# Every file is decoded once, in parallel, cut to a square, scaled, and kept as bytes in a cache.
# A preparation that is interrupted goes on where it was, and the next start reads nothing but the
# names and dates of the files.

# %%
pixels = load_images(path, config.image_size, progress=FULL)  # (N, C, H, W), uint8
again = load_images(path, config.image_size)  # this time from the cache
assert torch.equal(pixels[:100], again[:100])
plots.image_grid(to_images(pixels[:24]), columns=12, title=f"{len(pixels):,} such images")

# %% [markdown]
# *The first 24, as the network will see them.* Never skip this look. Too dark, upside down, a scanner's
# text in the corner, twelve empty slices: whatever is wrong here, the model will learn, for hours.
#
# How large does it get? Bytes, not floats, are kept: a pixel becomes a float only when its batch
# does.

# %%
SETS = {"AKOA": (18_681, 1), "OASIS": (11_329, 1), "CelebA": (202_599, 3)}  # images, channels
for title, (images, channels) in SETS.items():
    print(f"{title:<7}{images:>8,} images {images * channels * 128**2 / 1e9:6.2f} GB")

# %% [markdown]
# (How many images of AKOA and OASIS there are is a matter of choice; these are the sets of earlier
# work with this code's ancestor. CelebA's number is its authors'.) A set that takes at most half of
# what is free on the GPU is put there as a whole. CelebA on a small card is not: then batches are
# gathered on the CPU while the GPU computes.
#
# ## What will it cost?
#
# Three numbers can be known before anything runs: operations, memory, and from these, time.
#
# **Operations.** Nearly all are multiplications and additions in convolutions and matrix products,
# and they can be counted by running the network once and asking each layer. Two to a
# multiply-and-add:

# %%
networks = {"ours": build(full, channels=3).network, "the original's": OriginalUNet(128)}
cost = {title: flops(network, (3, 128, 128)) for title, network in networks.items()}
for title, operations in cost.items():
    print(f"{title:<16}{operations / 1e9:6.1f} GFLOP forward, an image of 128x128")

# %% [markdown]
# The original network is as wide as the image, so it has 128 channels at 128x128 pixels. Ours folds
# squares of 2x2 pixels into channels first (page 03), and has its weight where maps are small.
#
# **Time.** A training step is three forward passes: the backward pass computes two gradients, one
# for what came in and one for the weights, each as dear as the forward pass itself. What a card can
# do is in its data sheet. What it does do is a share of that: matrices are rarely as large as it
# would like, and what lies between them (normalisation, activation) waits for memory.


# %%
def hours(images, epochs, operations, speed, share):
    """Of training. operations: forward, an image; speed: of the card, in operations a second."""
    return images * epochs * 3 * operations / (share * speed) / 3600


# %% [markdown]
# **Memory.** Weights take little, and so do their gradients, their average, and the two numbers that
# AdamW keeps for each. The rest is what the forward pass must keep for the backward pass, and that
# grows with the batch. `training_bytes` measures it on one image and multiplies:

# %%
blank = torch.zeros(64, 1, 128, 128, dtype=torch.uint8)


def gigabytes(**changes):
    """Memory of a full run with some settings changed, in float32."""
    changed = replace(full, **changes, device="cpu")
    return training_bytes(Trainer(build(changed, channels=1), blank, changed)) / 1e9


# %%
needs = gigabytes()
fixed = (64 * gigabytes(accumulate=64) - needs) / 63  # GB, with no image at all
each = (needs - fixed) / 64  # GB, for an image more
print(f"{needs:.1f} GB for batches of 64: {fixed:.2f} for the weights, {each:.3f} an image")
print(f"{gigabytes(accumulate=4):.1f} GB if each batch is computed in 4 parts")
print(f"{gigabytes(checkpointing=True):.1f} GB if what a block keeps is computed twice instead")

# %% [markdown]
# The last two lines are what a small card is for. Parts cost nothing but a little speed: gradients
# of a sum are sums of gradients. Checkpointing costs a second forward pass, a third more time.
#
# ### A table of cards
#
# **Every number in it is estimated.** Batches: what fits into nine tenths of the memory by the
# measure above, which is in float32; on a GPU half precision keeps somewhat less, so they are safe.
# Hours: of 100 epochs, if a step reaches 40% of the card's peak, to 10%; a good share for such a
# network, and a poor one. Peaks are those of NVIDIA's data sheets for half precision with sums in
# float32, without sparsity: T4 65, A100 312, H100 SXM 989 (printed there as 1,979 with sparsity)
# TFLOP/s. That of the RTX 3060 is computed from its 112 tensor cores at 1.78 GHz with 128 such
# operations a clock each (GA102 white paper), 25.5.

# %%
CARDS = {
    "T4": (16, 65e12),
    "RTX 3060": (12, 25.5e12),
    "A100": (40, 312e12),
    "H100": (80, 989e12),
}
print("card        memory   batch  hours:", *(f"{title:>14}" for title in SETS))
for card, (memory, speed) in CARDS.items():
    batch = int((0.9 * memory - fixed) / each) // 16 * 16
    ranges = [
        " to ".join(f"{hours(images, 100, cost['ours'], speed, s):.2g}" for s in (0.4, 0.1))
        for images, _ in SETS.values()
    ]
    print(f"{card:<11}{memory:>4} GB {batch:>7}        ", *(f"{span:>14}" for span in ranges))

# %% [markdown]
# The full runs of AKOA and OASIS fit into a night on any of them. CelebA has ten times the images, so
# that ten epochs of it are as many steps as a hundred of the others. With the original's network,
# multiply by thirteen.
#
# And **the machine at hand** is measured: some steps of the run that this page is about to do. They
# are real steps of a trainer that is thrown away.

# %% tags=["nbval-ignore-output"]
trial = Trainer(build(config, channels=pixels.shape[1]), pixels, config)
seconds = seconds_per_step(trial)
done = 3 * config.batch_size * flops(trial.diffusion.network, pixels.shape[1:]) / seconds
print(f"measured on {device}: {seconds:.3g} s a step, {done / 1e9:,.0f} GFLOP/s")
print(f"so {trial.steps:,} steps take about {trial.steps * seconds / 60:.1f} minutes")
del trial  # and with it what it has on the GPU

# %% [markdown]
# On the command line, `--dry_run` prints all of this for any run, and trains nothing:
#
# ```sh
# python -m diffusion_lib.train akoa data/akoa --image_size 128 --beta_schedule cosine --prediction v --dry_run
# ```
#
# ## Lose the machine
#
# Colab takes its machines back after some hours, without asking. Let us see what that does, before
# it happens: this cell starts the same run as a command, waits until the first epoch is on the disk,
# and one second later kills the process in a way that leaves it no time to do anything.


# %%
def as_flags(config):
    """The command line's words for whatever is not as usual."""
    usual = asdict(TrainConfig())
    changed = {key: value for key, value in asdict(config).items() if value != usual[key]}
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in changed.items()]


# %%
autosave = FOLDER / "autosave.pth"
command = [sys.executable, "-m", "diffusion_lib.train", name, path, f"--folder={FOLDER}"]
if not FULL:
    with tempfile.TemporaryFile() as output:
        run = subprocess.Popen(command + as_flags(config), stdout=output, stderr=output)
        while run.poll() is None and not autosave.exists():
            time.sleep(0.1)
        time.sleep(1)
        run.kill()
        assert run.wait() < 0 or sys.platform == "win32", "it had ended before"
    print("killed, with one epoch saved:", *sorted(file.name for file in FOLDER.glob("[!.]*")))

# %% [markdown]
# What is left is `autosave.pth`, which is either the old one or the new one, and never half of one;
# and the log in `runs`, which may be ahead of it.
#
# ## Train
#
# This is all that it takes to go on, and it is the same cell that starts a run. If the machine is
# lost, run all cells of this page again.

# %%
trainer = Trainer(build(config, channels=pixels.shape[1]), pixels, config)
early = None
if autosave.exists():
    trainer.restore(load_checkpoint(autosave))
    early = GaussianDiffusion.load(autosave, device)  # the averaged model as it was then
resumed = trainer.step
print("A run was begun: it goes on." if early else "A new run.")

# %% tags=["nbval-ignore-output"]
reports = list(widgets.training_view(trainer, record(trainer, name, FOLDER)))

# %% [markdown]
# The stop button ends it cleanly; the cell again goes on. A full run also leaves sixteen samples
# after each epoch in `FOLDER/out`. Everything else is in `FOLDER/runs`, for TensorBoard:
#
# ```
# %load_ext tensorboard
# %tensorboard --logdir runs
# ```
#
# The same numbers are in `stats.jsonl`, a line a report, for plots of your own. Is there a trace of
# the kill?

# %%
log = FOLDER / "runs" / name / "stats.jsonl"
lines = [json.loads(line) for line in log.read_text().splitlines()]
steps = [line["step"] for line in lines]
assert trainer.step == trainer.steps == steps[-1]
gaps = [after - before for before, after in pairwise([0, *steps])]
assert all(0 < gap <= config.report_every for gap in gaps)
print("No report is missing, and none is there twice.")

# %%
quarters = ["least noise", "less", "more", "most noise"]
figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
for number, quarter in enumerate(quarters):
    axes.plot(steps, [line[f"loss_q{number}"] for line in lines], ".-", label=quarter)
if early:
    axes.axvline(resumed, color="grey", linestyle=":", label="resumed")
axes.set(title="The loss by quarter of the timesteps", xlabel="step", ylabel="loss", yscale="log")
axes.legend(title="quarter of the timesteps", loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# *Nothing happens at the dotted line.* Order of the images, noise, learning rate, optimizer, average:
# all follow from the seed, the step and the file. On a CPU the resumed run is the same to the last
# bit, and `tests/test_kill.py` kills at random moments to make sure that every file left behind can be
# loaded.
#
# Look at the four curves when a long run worries you. One quarter that rises alone is a hint where
# to look: at strong noise for a schedule that ends too early (page 02), at faint noise for a learning
# rate that is too high to settle.
#
# ## Sample

# %%
samples = sample(trainer.average, 80, seed=0)  # (80, C, H, W), in [-1, 1]
plots.image_grid(samples[:24], columns=12, title="None of these exist")

# %% [markdown]
# *Twelve epochs of a thousand small images: outlines are there, the folds inside are not yet.* The
# bundled model of `brains` had sixty epochs at 64x64, and page 00 shows what that buys.
#
# In a terminal it is one command, with `FOLDER/NAME.pth` or the `autosave.pth` of a run that still
# goes on:
#
# ```sh
# python -m diffusion_lib.predict akoa_run/akoa.pth --num_images 64 --grid
# ```
#
# ## Judge
#
# Page 06 says how, and why never without a number to compare with: here those of real images, and of
# the model as it was when its machine died.

# %%
features = efficientnet_features(device)
real = features(to_images(pixels[torch.randperm(len(pixels))[:400]]))  # (400, D)


def distance(images):
    """Kernel distance to real images."""
    return metrics.kernel_distance(features(images), real[80:]).mean


# %%
distances = {
    "real images": metrics.kernel_distance(real[:80], real[80:]).mean,
    "samples of the whole run": distance(samples),
}
if early:
    distances["samples when it was killed"] = distance(sample(early, 80, seed=0))
figure, axes = plt.subplots(figsize=(7.5, 1.7), layout="constrained")
axes.barh(list(distances), list(distances.values()))
axes.invert_yaxis()
axes.set(xlabel="kernel distance to other real images")
plt.show()

# %%
ranking = sorted(distances, key=distances.get)
assert FULL or ranking == list(distances)
print("From near to far:", *ranking, sep="\n  ")

# %% [markdown]
# *Real images have a bar of no length. That of the samples has become shorter since the kill, and has
# some way to go.*
#
# After a full run, let the command do it, with a thousand samples, precision and recall, and the
# search for copies. That one matters most with medical images: a model that gives its patients back
# may not be passed on.
#
# ```sh
# python -m diffusion_lib.evaluate akoa_run/akoa.pth data/akoa
# ```
#
# ## A small card, or several
#
# `--accumulate 4` computes each batch in four parts, and takes the step with the sum of their
# gradients. That is the gradient of the whole:


# %%
def gradient(parts):
    """Of the first batch of the run, as one vector, (P,)."""
    same = dict(precision="float32", compile="off", clip_norm=1e6)  # nothing that could hide it
    changed = replace(config, accumulate=parts, **same)
    first = Trainer(build(changed, channels=pixels.shape[1]), pixels, changed)
    first.train_step()
    return torch.cat([weights.grad.flatten() for weights in first.weights])


whole, summed = gradient(parts=1), gradient(parts=4)
assert (whole - summed).norm() < 0.01 * whole.norm()
print("Four parts have the gradient of the whole.")

# %% [markdown]
# Several GPUs do the same side by side. Each process takes its share of the batch, gradients are
# averaged, and all take the same step; the first one writes files and speaks:
#
# ```sh
# torchrun --nproc-per-node 4 -m diffusion_lib.train akoa data/akoa --image_size 128 --batch_size 256
# ```
#
# The batch is that of all together. Keep it, and the run is the one that a single GPU would have
# done, faster; let it grow with their number, and raise the learning rate with care. A run that was
# begun on one GPU may go on with four, and the other way round.
#
# When a run stops by itself, it says why in one line. Those worth knowing:
#
# | it says | what to do |
# |---|---|
# | *the memory of cuda:0 is too small for 64 images at a time, but 32 fit* | what the line goes on to say: a smaller batch, the same one in parts, or checkpointing |
# | *at step 812 the loss is nan* | the learning rate, nearly always; the last checkpoint is from before |
# | *torch.compile does not work here* (a warning) | nothing, or install a C++ compiler for more speed |
# | *the run to resume had 18681 images, but now there are 18680* | a file has gone: put it back, or start anew |
# | *after step 500 all samples are of one colour* (a warning) | look at them, and at the loss: diverged, or in the wrong range (page 04) |

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is
# folded away below each.
#
# **1. How far in one sitting?** Colab may take its machine back after four hours, say. How many
# *whole* epochs of training are done by then?


# %%
def epochs_in(hours, images, operations, speed, share):
    """operations: forward, an image; speed: of the card, in operations a second -> int"""
    raise NotImplementedError


exercises.check_epochs_in(epochs_in)


# %% jupyter={"source_hidden": true}
# Solution 1
def epochs_in_solution(hours, images, operations, speed, share):
    an_epoch = images * 3 * operations / (share * speed)  # seconds
    return int(hours * 3600 / an_epoch)


exercises.check_epochs_in(epochs_in_solution)

# %% [markdown]
# **2. How many parts?** A batch does not fit into the memory of your card. The least number of parts
# that it must be computed in?


# %%
def parts_that_fit(batch_size, fixed, each, memory):
    """fixed: GB for the weights; each: GB for an image of a part -> int, at least 1"""
    raise NotImplementedError


exercises.check_parts_that_fit(parts_that_fit)


# %% jupyter={"source_hidden": true}
# Solution 2
def parts_that_fit_solution(batch_size, fixed, each, memory):
    at_a_time = int((memory - fixed) / each)  # images: no part may be larger
    return -(-batch_size // at_a_time)  # rounded up


exercises.check_parts_that_fit(parts_that_fit_solution)

# %% [markdown]
# **3. Uneven shares.** Four processes had to share a batch of 10, and took 3, 3, 3 and 1. Each knows
# the mean gradient of its own images. What is the mean gradient of the batch?


# %%
def gradient_of_the_batch(gradients, counts):
    """gradients: (K, P), the means of K processes; counts: (K,), their images -> (P,)"""
    raise NotImplementedError


exercises.check_gradient_of_the_batch(gradient_of_the_batch)


# %% jupyter={"source_hidden": true}
# Solution 3
def gradient_of_the_batch_solution(gradients, counts):
    return (counts[:, None] * gradients).sum(0) / counts.sum()


exercises.check_gradient_of_the_batch(gradient_of_the_batch_solution)

# %% [markdown]
# The usual exchange between GPUs averages without weights. That is why `train` refuses a batch that
# cannot be shared out evenly.
#
# ## Questions
#
# <details><summary>Your GPU shows 100% use, and yet a step reaches 15% of its peak. How can that be?</summary>
#
# "Use" only says that some kernel was running. One that adds two maps moves three of them through
# memory for a single operation a number, and the memory of an A100 delivers about two hundred times
# fewer numbers than its tensor cores could multiply. Larger batches do not help there; fewer and fused operations do,
# which is what `torch.compile` is for.
# </details>
#
# <details><summary>Twice the batch takes half the steps an epoch. Why is that not simply twice as fast?</summary>
#
# Each step costs twice as much, so an epoch costs the same, once the GPU is busy. And half the steps
# have to bring the weights as far. Up to some size larger batches make steps so much better that a
# higher learning rate pays for them; beyond, they only average what was clear before.
# </details>
#
# <details><summary>Is it safe to save straight to Google Drive, in the middle of a write, when the machine
# dies?</summary>
#
# The file is written beside the old one under another name, and renamed when it is complete. A
# rename is one operation: afterwards there is the new file, before it the old one. Drive uploads in its own
# time, though, so what it has may be a checkpoint older.
# </details>

# %% [markdown]
# ## What you now know
#
# - Operations, memory and hours of a run can be known before it starts, and `--dry_run` says them.
# - A training step costs three forward passes; a card reaches a share of its data sheet, and only a
#   measurement says which.
# - Batches too large for a card are computed in parts or shared by several; the step is the same.
# - A checkpoint holds all that the next step depends on. Losing the machine costs what was done since
#   the last one: an epoch, or ten minutes.
# - The loss by quarter of the timesteps, samples, and distances beside those of real images say
#   whether the hours were worth it.
#
# **Next:** your own images. Put them into a folder, write its path into `SET`, and begin at the top.
