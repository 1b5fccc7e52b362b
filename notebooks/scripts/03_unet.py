# %% [markdown]
# # 03 · The U-Net
#
# **You will build the network that guesses the noise, see what each of its parts is for, prove that
# yours is, number for number, the network of this course, and break it on purpose to learn which
# check finds which mistake.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/main/notebooks/03_unet.ipynb)
#
# |  |  |
# |---|---|
# | You need | page 01; what a convolution does, and how a network is trained in PyTorch |
# | You get | a U-Net of your own, and a check that finds its mistakes before a long training does |
# | It runs in | about forty seconds on two CPU cores; it takes a GPU when there is one |
#
# The U is from Ronneberger, Fischer and Brox (2015), *U-Net*,
# [arXiv 1505.04597](https://arxiv.org/abs/1505.04597); what diffusion put into it from Ho, Jain and
# Abbeel (2020), [arXiv 2006.11239](https://arxiv.org/abs/2006.11239), appendix B; attention and the
# waves for the time from Vaswani et al. (2017), *Attention Is All You Need*,
# [arXiv 1706.03762](https://arxiv.org/abs/1706.03762).

# %%
# On Colab this installs the course's package beside Colab's own torch. Elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "git+https://github.com/simple-diffusion/simple-diffusion"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", address]
    subprocess.run(command, check=True)

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lib import (
    NoiseSchedule,
    OriginalUNet,
    UNet,
    exercises,
    find_device,
    load_images,
    plots,
    to_images,
)
from diffusion_lib.networks import layers, unet

torch.manual_seed(0)
device = find_device()
WIDTH = 32  # channels of the network's first level: fewer is faster
STEPS = 120  # of each of the eight little trainings: fewer is faster, but tells less

# %% [markdown]
# ## What the network is asked
#
# Page 01 left one thing open: given $x_t$ and $t$, what is the picture underneath? Or, what
# comes to the same, what is the noise? The network $\epsilon_\theta$ is shown noisy pictures and
# trained to make the squared error of its guess small (Ho et al. 2020, eq. 14):
#
# $$L = \mathbb E\left\| \epsilon - \epsilon_\theta\!\left(\sqrt{\bar\alpha_t}\,x_0
# + \sqrt{1-\bar\alpha_t}\,\epsilon,\; t\right)\right\|^2$$

# %%
x0 = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16), -1 to 1
schedule = NoiseSchedule("linear", timesteps=1000)
t = torch.tensor([50, 200, 350, 600])  # (4,)
noise = torch.randn(4, 3, 16, 16)
x_t = schedule.add_noise(x0[:4], t, noise)  # (4, 3, 16, 16)

# %%
plots.image_strip(
    [image for pair in zip(x_t, noise, strict=True) for image in pair],
    [label for step in t.tolist() for label in (f"asked: t = {step}", "wanted")],
    title="Four questions and their answers",
)

# %% [markdown]
# *A question is a picture and a number; the answer is a picture of the same size.* At t = 50 the
# noise is a faint veil over the picture, and at t = 600 it is nearly all there is.
#
# ## How far must it look?
#
# A convolution looks at a pixel and its eight neighbours. Is that enough to tell noise from
# picture? Before we build anything, let us ask what *could* be known. Take the best guess of a
# pixel of $x_0$ that is a **weighted sum of the pixels of $x_t$ in a window** around it (each
# counted from its mean). It needs no training: with $C$ the covariance of the pictures' pixels, and
# $w$ the pixels in the window, least squares gives
#
# $$\text{weights of pixel } p \;=\; \sqrt{\bar\alpha_t}\; C_{pw}
# \left(\bar\alpha_t\, C_{ww} + (1-\bar\alpha_t) I\right)^{-1}$$

# %%
flat = x0.flatten(1).double()  # (4000, 768): each picture as 3 · 256 numbers
mean, covariance = flat[:3500].mean(0), torch.cov(flat[:3500].T)  # (768,), (768, 768)
row, column = torch.arange(256) // 16, torch.arange(256) % 16  # (256,) each
place = torch.stack([row, column]).repeat(1, 3)  # (2, 768): the same for each of three colours
distance = (place[:, :, None] - place[:, None, :]).abs().amax(0)  # (768, 768), in pixels


# %%
def best_weights(alpha_bar, reach):
    """Of every pixel for those that are at most `reach` away: (768, 768), zero elsewhere."""
    of_noisy = alpha_bar * covariance + (1 - alpha_bar) * torch.eye(768).double()
    if reach == 15:  # every pixel sees all others: all weights at once
        return alpha_bar**0.5 * torch.linalg.solve(of_noisy, covariance).T
    weights = torch.zeros(768, 768, dtype=torch.float64)
    for pixel in range(256):
        own = torch.tensor([pixel, pixel + 256, pixel + 512])  # its red, green and blue
        seen = (distance[pixel] <= reach).nonzero()[:, 0]  # the window
        solved = torch.linalg.solve(of_noisy[seen][:, seen], covariance[seen][:, own])
        weights[own[:, None], seen] = alpha_bar**0.5 * solved.T
    return weights


# %% [markdown]
# Measure it on 500 pictures that had no part in $C$. How much of what makes a picture differ from
# the average picture does the guess recover?

# %%
clean = flat[3500:]  # (500, 768)
noise = torch.randn_like(clean)
guesses, recovered = {}, {}
for t in [20, 100, 250, 500]:
    a = schedule.alpha_bars[t]
    x_t = a**0.5 * clean + (1 - a) ** 0.5 * noise  # (500, 768)
    for reach in [0, 1, 2, 3, 5, 15]:
        guess = mean + (x_t - a**0.5 * mean) @ best_weights(a, reach).T  # (500, 768)
        error = (guess - clean).square().mean() / (clean - mean).square().mean()
        guesses[t, reach], recovered[t, reach] = guess, 1 - error.item()

# %%
figure, axes = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for t in [20, 100, 250, 500]:
    shares = [recovered[t, reach] for reach in [0, 1, 2, 3, 5, 15]]
    axes.plot(["1", "3", "5", "7", "11", "all"], shares, marker="o", label=f"t = {t}")
axes.set(title="The stronger the noise, the more a wide view is worth", ylim=(0, 1.03))
axes.set(xlabel="side of the window, in pixels", ylabel="share of the picture recovered")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# *At t = 20 a pixel nearly speaks for itself. At t = 500 a 3 × 3 window recovers little, and the
# whole picture more than twice that.* The noise of a pixel says nothing of the noise of another,
# but pixels of a picture belong together: a blue pixel at the top makes a blue one at the other end
# of the hat more likely, and the more noise there is, the more such hints it takes.

# %%
plots.image_strip(
    [x_t[0].view(3, 16, 16)]
    + [guesses[500, reach][0].view(3, 16, 16) for reach in [0, 1, 3, 15]]
    + [clean[0].view(3, 16, 16)],
    ["asked: t = 500", "sees 1", "sees 3 x 3", "sees 7 x 7", "sees all", "the truth"],
    title="The same question, for narrow and wide eyes",
)

# %%
for t in [20, 500]:
    ratio = recovered[t, 15] / recovered[t, 1]
    print(f"t = {t}: the whole picture is worth more than twice a 3 x 3 window: {ratio > 2}")
assert recovered[20, 15] / recovered[20, 1] < 1.1 and recovered[500, 15] / recovered[500, 1] > 2

# %% [markdown]
# *A weighted sum is a poor guesser, and yet it is clear who sees more.* So the network must do two
# things at once: **look at the whole picture, and answer for every single pixel.**
#
# ## See far by making the picture small
#
# Put 3 × 3 convolutions in a row, and each widens the view by one pixel on every side. That is
# slow. But in a picture of half the size, one pixel further is two of the old ones. So: **halve,
# look, and double again.** Halving here is a convolution that takes every second place (stride 2);
# doubling repeats every pixel. Eight convolutions each:


# %%
def look(stride=1):
    """A 3 x 3 convolution whose weights are all 1/9, so that nothing cancels out."""
    layer = nn.Conv2d(1, 1, 3, stride, padding=1, bias=False)
    nn.init.constant_(layer.weight, 1 / 9)
    return layer


def double():
    return nn.Upsample(scale_factor=2)


in_a_row = nn.Sequential(*[look() for _ in range(8)])
down = [look(), look(2), look(2), look(2)]  # 64 -> 64 -> 32 -> 16 -> 8 pixels
bent = nn.Sequential(*down, look(), double(), look(), double(), look(), double(), look())

# %% [markdown]
# Which pixels have a say in the one at the centre of the answer? Those to which its gradient is not
# zero. That is the network's **receptive field**, and autograd measures it:


# %%
def seen_from_the_centre(network, side=64):
    """The gradient of the middle of the answer by every pixel of the picture. (side, side)"""
    picture = torch.zeros(1, 1, side, side, requires_grad=True)
    network(picture)[0, 0, side // 2, side // 2].backward()
    return picture.grad[0, 0]


def flops(network, *inputs):
    """Additions and multiplications in convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops()


# %%
figure, both = plt.subplots(1, 2, figsize=(7, 3.9), layout="constrained")
for axes, network, name in zip(both, [in_a_row, bent], ["in a row", "bent down"], strict=True):
    seen = seen_from_the_centre(network)  # (64, 64)
    side = int((seen > 0).any(0).sum())
    axes.imshow(seen.where(seen > 0, torch.nan).log10(), cmap="viridis", vmin=-7, vmax=-1)
    axes.set_title(f"{name}: {side} x {side} pixels")
    axes.set(xlabel="column", ylabel="row")
    thousands = flops(network, torch.zeros(1, 1, 64, 64)) / 1000
    print(f"{name}: {side} pixels wide, {thousands:.0f} thousand operations")
figure.suptitle("Eight convolutions see further when they are bent down")
plt.show()

# %% [markdown]
# *White: pixels without any say. The brighter, the larger the say (on a logarithmic scale).*
# Bending down sees much further, and costs a third, because most of the work is done where the
# picture is small. That is the U. Each level further down doubles what a step is worth.
#
# ## What the detour loses, and how to get it back
#
# The answer is wanted for *every* pixel, and noise is the finest detail there is. What is left of
# it after the way down and up, if each small pixel is the average of the large ones beneath it?

# %%
noise = torch.randn(1, 3, 16, 16)
at_the_bottom = F.avg_pool2d(noise, 4)  # (1, 3, 4, 4)
back = F.interpolate(at_the_bottom, scale_factor=4)  # (1, 3, 16, 16)
plots.image_strip(
    [noise[0], at_the_bottom[0], back[0]],
    ["wanted", "at the bottom", "back at the top"],
    title="Noise does not survive the detour",
)

# %%
many = torch.randn(1000, 3, 16, 16)
left_over = F.avg_pool2d(many, 4).var() / many.var()
print(f"{left_over:.0%} of the variance is left: one number for every sixteen")
assert abs(left_over - 1 / 16) < 0.004

# %% [markdown]
# *Only a blur comes back.* The cure is as simple as can be: keep a copy of every feature map on the
# way down, and hand it over to the layer of the same size on the way up. These are the **skips**:
#
#         picture ── stem ── block ───────────── skip ────────────── block ── head ── answer
#                              └─ halve ─ block ── skip ── block ─ double ─┘
#                                           └─ halve ─ middle ─ double ─┘
#
# Now what is below can be vague about details and wise about the whole; the skip brings the
# details, and the block on the right combines both. Later on this page we will cut the skips and
# see what happens.
#
# ## Telling the network the time
#
# How much of $x_t$ is noise depends on $t$, so the network is told $t$. But how? The number itself,
# from 0 to 999, is a poor input for a layer of weights: all it can do is draw a straight line over
# it. Let us turn $t$ into many numbers: waves of many wavelengths (Vaswani et al. 2017, section
# 3.5):
#
# $$\omega_k = 10000^{-k/(K-1)}, \qquad
# \text{embedding}(t) = \left[\sin \omega_0 t,\; \ldots,\; \sin \omega_{K-1} t,\;
# \cos \omega_0 t,\; \ldots,\; \cos \omega_{K-1} t\right]$$


# %%
def embed(t, size):
    """(N,) -> (N, size)"""
    omega = 10000 ** -torch.linspace(0, 1, size // 2, device=t.device)  # (K,), 1 to 1/10000
    angles = t[:, None] * omega  # (N, K)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# %% [markdown]
# Each pair of a sine and a cosine is the hand of a clock: $\omega_k t$ is its angle. The first hand
# is hasty, each further one slower.


# %%
def clocks(axes, t):
    sines, cosines = embed(torch.tensor([t]), WIDTH).chunk(2, dim=1)  # (1, K) each
    for position, k in enumerate([0, 2, 4, 6, 8]):
        x, y = cosines[0, k].item(), sines[0, k].item()
        axes.add_patch(plt.Circle((2.6 * position, 0), 1, fill=False, color="grey"))
        axes.plot([2.6 * position, 2.6 * position + x], [0, y], color=f"C{position}", linewidth=3)
        axes.text(2.6 * position, -1.5, f"k = {k}", ha="center", fontsize=10)
    axes.set(title=f"t = {t}", xlim=(-1.4, 11.8), ylim=(-1.8, 1.3), aspect="equal")
    axes.set_axis_off()


plots.film(clocks, range(0, 30), figsize=(7, 2.2), seconds=6)

# %% [markdown]
# *Five of the sixteen hands. The fast ones tell t = 17 from t = 18, the slow ones tell early from
# late. Together they tell every timestep from every other, as hours, minutes and seconds do.*

# %%
everyone = embed(torch.arange(1000), 64)  # (1000, 64)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
shown = left.imshow(everyone.T, aspect="auto", cmap="RdBu", interpolation="nearest")
left.set(title="Each timestep is a column", xlabel="t", ylabel="component")
figure.colorbar(shown, ax=left)
for t, width in [(300, 7), (500, 3.5), (700, 1)]:
    alike = everyone[t - 250 : t + 250] @ everyone[t]  # (500,)
    right.plot(range(-250, 250), alike, linewidth=width, alpha=0.6, label=f"with t = {t}")
right.set(title="Likeness depends on the distance alone", ylabel="dot product")
right.set_xlabel("other timestep, counted from t")
right.legend()
plt.show()

# %% [markdown]
# *Left: sines above, cosines below; the hasty waves are so fast that they look like sand. Right:
# the dot product of one timestep with others. Neighbours are alike, strangers are not, and the
# three curves lie on each other: it is the same wherever you stand,* because
# $\sin a \sin b + \cos a \cos b = \cos(a - b)$.
#
# What is it good for? Ask a single layer of weights for something that the network needs to know:
# the factor of the picture, $\sqrt{\bar\alpha_t}$.

# %%
wanted = schedule.alpha_bars[:, None].sqrt()  # (1000, 1)
timesteps, ones = torch.arange(1000), torch.ones(1000, 1)
worst = {}
for name, inputs in {"t itself": timesteps[:, None], "waves": embed(timesteps, 32)}.items():
    features = torch.cat([inputs, ones], dim=1).double()  # (1000, 1 or 32, and one for the bias)
    best = torch.linalg.lstsq(features, wanted).solution
    worst[name] = (features @ best - wanted).abs().max()
for name, error in worst.items():
    print(f"{name}: off by more than 0.1 somewhere: {bool(error > 0.1)}")
assert worst["t itself"] > 0.1 and worst["waves"] < 1e-4

# %%
t = torch.tensor([0, 1, 500, 999])  # (4,)
assert torch.allclose(embed(t, 64), layers.sinusoidal_embedding(t, 64), atol=1e-3)
assert torch.allclose(embed(t[:2], 64), layers.sinusoidal_embedding(t[:2], 64), atol=1e-6)
print("The library's embedding is the same.")

# %% [markdown]
# (Why two tolerances? In float32 $\omega$ has seven digits, and at t = 999 the angle has spent
# three of them before the decimal point.)
#
# ## The residual block
#
# Now the part that does the work, again and again. It is made of four ideas.
#
# **Normalise.** A layer learns best if its input is about as large as it expects. *Group
# normalisation* (Wu and He 2018, [arXiv 1803.08494](https://arxiv.org/abs/1803.08494)) takes a few
# channels of one picture together, subtracts their mean and divides by their spread:


# %%
def normalise(x, groups):
    """(N, C, H, W) -> (N, C, H, W)"""
    parts = x.unflatten(1, (groups, -1))  # (N, groups, C / groups, H, W)
    mean = parts.mean((2, 3, 4), keepdim=True)
    variance = parts.var((2, 3, 4), correction=0, keepdim=True)
    return ((parts - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)


x = 3 + 5 * torch.randn(2, 32, 16, 16)
assert torch.allclose(normalise(x, 4), nn.GroupNorm(4, 32)(x), atol=1e-5)
print(f"spread before: {x.std():.0f}, after: {normalise(x, 4).std():.0f}")

# %% [markdown]
# **Bend.** Convolutions alone only add up; between them goes something that is not a straight line:
# $\text{silu}(x) = x \cdot \text{sigmoid}(x)$, a smooth relative of ReLU.
#
# **Add the time.** A layer of weights turns the embedding into one number for each channel, which
# is added to all pixels of that channel.
#
# **Change, do not replace.** The block computes a *correction* to its input, $x + f(x)$ (He et al.
# 2015, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385)). If the number of channels changes, a
# 1 × 1 convolution makes $x$ fit.


# %%
def zeroed(layer):
    """Why zeros? Wait for the next section."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    def __init__(self, before, after, time_size):
        super().__init__()
        self.norm1 = nn.GroupNorm(before // 8, before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.time = nn.Linear(time_size, after)
        self.norm2 = nn.GroupNorm(after // 8, after)
        self.conv2 = zeroed(nn.Conv2d(after, after, 3, padding=1))
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x)))  # (N, after, H, W)
        h = h + self.time(F.silu(time))[:, :, None, None]  # (N, after, 1, 1) is added
        h = self.conv2(F.silu(self.norm2(h)))  # (N, after, H, W)
        return self.shortcut(x) + h


# %%
mine, theirs = ResidualBlock(32, 64, 128), unet.ResidualBlock(32, 64, 128)
nn.init.normal_(theirs.conv2.weight, std=0.1)  # two blocks that answer with zeros agree too easily
mine.load_state_dict(theirs.state_dict())  # refuses if a name or a shape differs
x, time = torch.randn(2, 32, 8, 8), torch.randn(2, 128)
assert torch.allclose(mine(x, time), theirs(x, time), atol=1e-5)
print(tuple(x.shape), "->", tuple(mine(x, time).shape), "as in the library")

# %% [markdown]
# ## Start with "change nothing"
#
# The second convolution begins with all its weights at zero. So an untrained block hands on its
# input untouched, and a tower of twenty such blocks does, too. What would random weights do?

# %%
start, time = torch.randn(8, 32, 16, 16), torch.randn(8, 128)
likeness = {"zeros": [1.0], "random weights": [1.0]}
for name, likenesses in likeness.items():
    x = start
    for _ in range(20):
        block = ResidualBlock(32, 32, 128)
        if name == "random weights":
            block.conv2.reset_parameters()
        x = block(x, time).detach()
        pair = torch.stack([start.flatten(), x.flatten()])  # (2, 8 · 32 · 16 · 16)
        likenesses.append(torch.corrcoef(pair)[0, 1].item())

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, likenesses in likeness.items():
    axes.plot(likenesses, marker=".", label=f"second convolution starts with {name}")
axes.set(title="Untrained random blocks scramble what they are given", ylim=(0, 1.05))
axes.set(xlabel="blocks", ylabel="correlation with the input", xticks=range(0, 21, 5))
axes.legend(loc="lower left")
plt.show()
assert likeness["zeros"][-1] > 0.9999 and likeness["random weights"][-1] < 0.8

# %% [markdown]
# *A deep network that starts as "change nothing" is at first a shallow one, and every block can
# learn its correction from clean inputs.* (Goyal et al. 2017, section 5.1,
# [arXiv 1706.02677](https://arxiv.org/abs/1706.02677), do so by a zero in the last normalisation of
# a block.) But can a layer of zeros learn at all? We will watch it wake up below.
#
# ## Attention: every pixel looks at every other
#
# Halving widens the view, but information still travels from neighbour to neighbour. Attention
# takes the direct way. Each pixel sends out a **query** $q$ (what am I looking for?), a **key** $k$
# (what am I?) and a **value** $v$ (what do I have to say?). Where query and key match, the value is
# heard (Vaswani et al. 2017, eq. 1):
#
# $$\text{attention}(q, k, v) = \text{softmax}\!\left(\frac{q\,k^\top}{\sqrt d}\right) v$$


# %%
def who_looks_where(q, k):
    """(..., L, d), (..., L, d) -> (..., L, L): row i is how much i looks at each of the others."""
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)


def attend(q, k, v):
    """(..., L, d) three times -> (..., L, d)"""
    return who_looks_where(q, k) @ v


# %%
q, k, v = torch.randn(3, 2, 64, 32).unbind(0)  # (2, 64, 32) each: 64 pixels, d = 32
weights = who_looks_where(q, k)  # (2, 64, 64)
assert torch.allclose(weights.sum(-1), torch.ones(2, 64))  # everyone has one unit of attention
assert torch.allclose(attend(q, k, v), F.scaled_dot_product_attention(q, k, v), atol=1e-5)
print("PyTorch's own attention gives the same.")

# %% [markdown]
# What could such a thing do for us? A network learns its queries and keys. But we can make some up:
# let each pixel look for **pixels of its own colour**, and say its colour. With $c_i$ the colour of
# pixel $i$, the match of $i$ and $j$ should be high where their colours are near:
#
# $$-\tfrac12\,|c_i - c_j|^2 \;=\; c_i \cdot c_j - \tfrac12\,|c_j|^2 - \tfrac12\,|c_i|^2$$
#
# The last term is the same for all $j$, so softmax does not notice it. The others are the dot
# product of $q_i = [c_i, -\tfrac12]$ and $k_j = [c_j, |c_j|^2]$.

# %%
face = x0[4]  # (3, 16, 16)
noisy = face + 0.2 * torch.randn(3, 16, 16)
colours = noisy.flatten(1).T  # (256, 3): a colour for each pixel
q = 16 * torch.cat([colours, torch.full((256, 1), -0.5)], dim=1)  # (256, 4); 16: be choosy
k = torch.cat([colours, colours.square().sum(1, keepdim=True)], dim=1)  # (256, 4)
gaze = who_looks_where(q, k)  # (256, 256)


# %%
def one_gaze(axes, pixel):
    row, column = pixel
    axes[0].imshow(plots.as_array(noisy))
    axes[1].imshow(gaze[16 * row + column].view(16, 16), cmap="magma", vmin=0, vmax=0.05)
    for panel, title in zip(axes, ["one pixel of the picture", "looks here"], strict=True):
        panel.plot(column, row, "s", markersize=13, mfc="none", mec="lime", markeredgewidth=2.5)
        panel.set(title=title, xticks=[], yticks=[])


path = [(row, 8) for row in range(16)] + [(row, 1) for row in range(15, -1, -2)]
plots.film(one_gaze, path, figsize=(6, 3.3), columns=2, seconds=9)

# %% [markdown]
# *The green square walks down through hat, face and shirt, and up again through the background.
# Bright is where it looks: at its own kind, however far away.* Now let everyone take the average of
# what they see. Compare with the average of the nine pixels around, which is what a convolution
# would have to work with:

# %%
heard = (gaze @ colours).T.view(3, 16, 16)  # (3, 16, 16)
blurred = F.avg_pool2d(F.pad(noisy[None], [1] * 4, mode="replicate"), 3, stride=1)[0]  # (3, 16, 16)
results = {"clean": face, "noisy": noisy, "3 x 3": blurred, "attention": heard}
plots.image_strip(
    list(results.values()),
    list(results),
    title="Whoever asks the right pixels need not blur",
)

# %%
errors = {name: (image - face).square().mean() for name, image in results.items()}
assert errors["attention"] < 0.5 * errors["noisy"]
assert errors["attention"] < 0.5 * errors["3 x 3"]
print("Attention leaves less than half of the error of either: True")

# %% [markdown]
# *Attention removes noise and keeps edges, without a single learnt weight.* (Buades, Coll and Morel
# found this in 2005, and called it non-local means.) The real layer learns from its inputs what to
# look for: three 1 × 1 convolutions make $q$, $k$ and $v$. To look for several things at once, it
# works in **heads** of 32 channels that know nothing of each other. And again it only adds a
# correction, which starts at zero.


# %%
class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(channels // 8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        pixels = self.qkv(self.norm(x)).flatten(2).mT  # (N, H · W, 3 C)
        q, k, v = pixels.chunk(3, dim=2)  # (N, H · W, C) each
        heads = zip(q.split(32, 2), k.split(32, 2), v.split(32, 2), strict=True)
        heard = torch.cat([attend(*head) for head in heads], dim=2)  # (N, H · W, C)
        return x + self.out(heard.mT.reshape(x.shape))


# %%
mine, theirs = Attention(64), layers.Attention(64)
nn.init.normal_(theirs.out.weight, std=0.1)
mine.load_state_dict(theirs.state_dict())
x = torch.randn(2, 64, 8, 8)
assert torch.allclose(mine(x), theirs(x), atol=1e-5)
print(tuple(x.shape), "->", tuple(mine(x).shape), "as in the library, with two heads")

# %% [markdown]
# Why not use it everywhere? Each of $H \cdot W$ pixels looks at $H \cdot W$ others. Count:

# %%
sides = [4, 8, 16, 32, 64]
with torch.device("meta"):  # tensors have shapes there, but no numbers: nothing is computed
    block, attention, time = ResidualBlock(64, 64, 128), Attention(64), torch.zeros(1, 128)
    pictures = [torch.zeros(1, 64, side, side) for side in sides]
cost_of_block = [flops(block, picture, time) for picture in pictures]
cost_of_attention = [flops(attention, picture) for picture in pictures]

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.loglog(sides, cost_of_block, marker="o", label="residual block")
axes.loglog(sides, cost_of_attention, marker="o", label="attention")
axes.set_xticks(sides, sides)
axes.minorticks_off()
axes.set(xlabel="side of the picture (pixels)", ylabel="operations (64 channels)")
axes.set_title("Attention is cheap where the picture is small")
axes.legend()
plt.show()
assert cost_of_attention[1] < cost_of_block[1] / 2 and cost_of_attention[4] > 5 * cost_of_block[4]

# %% [markdown]
# *The block's cost grows with the number of pixels, that of attention with its square.* So
# attention works at the bottom of the U, where a step is far and pixels are few.
#
# ## Putting the U together
#
# A block of the U is a residual block, with attention behind it where we want it.


# %%
class Block(nn.Module):
    def __init__(self, before, after, attend):
        super().__init__()
        self.residual = ResidualBlock(before, after, time_size=4 * WIDTH)
        self.attention = Attention(after) if attend else nn.Identity()

    def forward(self, x, time):
        return self.attention(self.residual(x, time))


# %% [markdown]
# Our U has three levels, of 16, 8 and 4 pixels, with 32, 64 and 64 channels: where there are fewer
# pixels, we can afford more channels. Two blocks on each side of each level. First what stands
# before the U: the **time**, whose waves pass through two layers, and the **stem**, which turns
# three colours into 32 channels.

# %%
W = WIDTH
net = nn.Module()
net.time = nn.Sequential(nn.Linear(W, 4 * W), nn.SiLU(), nn.Linear(4 * W, 4 * W))  # -> (N, 128)
net.stem = nn.Sequential(nn.Identity(), nn.Conv2d(3, W, 3, padding=1))  # -> (N, 32, 16, 16)

# %% [markdown]
# (The `nn.Identity()` keeps a place free, for something that larger pictures will need.) Then the
# left side, on the way down:

# %%
net.down = nn.ModuleList(
    [
        nn.ModuleList([Block(W, W, False), Block(W, W, False)]),  # 16 × 16
        nn.ModuleList([Block(W, 2 * W, True), Block(2 * W, 2 * W, True)]),  # 8 × 8
        nn.ModuleList([Block(2 * W, 2 * W, True), Block(2 * W, 2 * W, True)]),  # 4 × 4
    ]
)


def downsample(channels):
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


net.downsamplers = nn.ModuleList(  # 16 -> 8, 8 -> 4, and there we stay
    [downsample(W), downsample(2 * W), nn.Identity()]
)

# %% [markdown]
# At the bottom, two blocks stand in the **middle**. Then the right side, from the bottom up. Each
# block is handed the skip of its mirror image on the left, so it reads *two* feature maps laid upon
# each other: what came from below, and the skip. Can you tell from the left side how many channels
# each must read, before you look?

# %%
net.middle1, net.middle2 = Block(2 * W, 2 * W, True), Block(2 * W, 2 * W, False)  # 4 × 4
net.up = nn.ModuleList(
    [
        nn.ModuleList([Block(2 * W + 2 * W, 2 * W, True) for _ in range(2)]),  # 4 × 4
        nn.ModuleList([Block(2 * W + 2 * W, 2 * W, True) for _ in range(2)]),  # 8 × 8
        nn.ModuleList([Block(2 * W + W, W, False), Block(W + W, W, False)]),  # 16 × 16
    ]
)


# %%
def upsample(channels):
    repeat, smooth = nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(repeat, smooth)


net.upsamplers = nn.ModuleList(  # 4 -> 8, 8 -> 16
    [upsample(2 * W), upsample(2 * W), nn.Identity()]
)
net.head = nn.Sequential(nn.GroupNorm(W // 8, W), nn.SiLU(), zeroed(nn.Conv2d(W, 3, 3, padding=1)))

# %% [markdown]
# All parts are there. The way through them:


# %%
def go_down(net, x, time):
    skips = []
    for blocks, downsampler in zip(net.down, net.downsamplers, strict=True):
        for block in blocks:
            x = block(x, time)
            skips.append(x)
        x = downsampler(x)
    return x, skips


# %%
def go_up(net, x, skips, time):
    for blocks, upsampler in zip(net.up, net.upsamplers, strict=True):
        for block in blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), time)  # the last skip comes first
        x = upsampler(x)
    return x


# %%
def guess_noise(net, x, t, keep=1):
    """(N, 3, 16, 16), (N,) -> (N, 3, 16, 16). With keep = 0 the skips are cut."""
    time = net.time(embed(t, WIDTH))  # (N, 128)
    x, skips = go_down(net, net.stem(x), time)
    x = net.middle2(net.middle1(x, time), time)
    x = go_up(net, x, [keep * skip for skip in skips], time)
    return net.head(x)


# %%
x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 900])
time = net.time(embed(t, WIDTH))
bottom, skips = go_down(net, net.stem(x), time)
for skip in skips:
    print("kept as a skip:", tuple(skip.shape))
print("the bottom:    ", tuple(bottom.shape))
assert guess_noise(net, x, t).shape == x.shape

# %% [markdown]
# ## Meet the real thing
#
# `UNet` in `diffusion_lib/networks/unet.py` builds the same for any size. `UNet.for_images(16, 3, 32)`
# chooses the levels that we chose. Does it have the same weights, and with the same weights the
# same answer? First we shake all weights a little: fresh from the shop, both would answer with
# zeros and agree too easily.

# %%
theirs = UNet.for_images(16, channels=3, width=WIDTH)
with torch.no_grad():
    for parameter in theirs.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
net.load_state_dict(theirs.state_dict())  # refuses if a name or a shape differs
print("Every weight of the library's network has its place in yours.")

# %%
with torch.no_grad():
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([0, 10, 500, 999])
    ours, real_answer = guess_noise(net, x, t), theirs(x, t)
assert real_answer.std() > 0.1  # it says something
assert torch.allclose(ours, real_answer, atol=1e-5)
print("Your network and the library's give the same answer.")

# %% [markdown]
# To see the whole, let each part note the shape of what it hands on (a *forward hook* is called
# whenever a module has answered), and draw that.

# %%
drawn = []
parts = [net.stem]
for blocks, downsampler in zip(net.down, net.downsamplers, strict=True):
    parts += [*blocks, downsampler]
parts += [net.middle1, net.middle2]
for blocks, upsampler in zip(net.up, net.upsamplers, strict=True):
    parts += [*blocks, upsampler]


# %%
def note(part, inputs, output):
    attends = isinstance(part, Block) and isinstance(part.attention, Attention)
    drawn.append((output.shape[1], output.shape[2], type(part) is Block, attends))


hooks = [part.register_forward_hook(note) for part in parts if type(part) is not nn.Identity]
guess_noise(net, x, t)
for hook in hooks:
    hook.remove()
print(len(drawn), "parts; the first hands on", drawn[0][0], "channels of", drawn[0][1], "pixels")

# %%
figure, axes = plt.subplots(figsize=(11, 4.4), layout="constrained")
level = {16: 0, 8: -1.3, 4: -2.2}  # how low the parts of each resolution are drawn
for place, (channels, side, is_block, attends) in enumerate(drawn):
    colour = ("C1" if attends else "C0") if is_block else "lightgrey"
    width, height = channels / 90, side / 16
    corner = (place - width / 2, level[side] - height / 2)
    axes.add_patch(plt.Rectangle(corner, width, height, facecolor=colour, edgecolor="black"))
    axes.text(place, level[side] - height / 2 - 0.2, channels, ha="center", fontsize=9)
    if is_block and place < 9:  # the skip, to its mirror image
        y = level[side] + height * (0.3 if place in (1, 4, 7) else 0)
        axes.plot([place, 19 - place], [y, y], linestyle="--", color="grey", zorder=0)
for side, y in level.items():
    axes.text(-1, y, f"{side} x {side}", ha="right", va="center")
for name, colour in {"block": "C0", "block with attention": "C1", "other": "lightgrey"}.items():
    axes.bar(0, 0, color=colour, label=name)
axes.set(xlim=(-2.4, 19), ylim=(-2.7, 0.7))
axes.set_title("Your network, drawn from the answers of its parts")
axes.set_axis_off()
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# *Time runs from left to right. A box is as tall as its picture and as wide as it has channels (the
# number beneath). Grey boxes: the stem, two halvings, two doublings. Dashed: the skips.*
#
# ## Watch it wake up
#
# So many layers end in zeros. Can they learn? The answer of a zeroed layer does not depend on what
# it is given, so no gradient passes *through* it. But the gradient *of its own weights* is what it
# was given, and that is not zero. Count the weight tensors that have a gradient, step by step:

# %%
fresh = UNet.for_images(16, channels=3, width=WIDTH)
optimizer = torch.optim.Adam(fresh.parameters(), lr=1e-3)
t, noise = torch.randint(1000, (4,)), torch.randn(4, 3, 16, 16)
x_t = schedule.add_noise(x0[:4], t, noise)  # (4, 3, 16, 16)
assert not fresh(x_t, t).any()
print("The first answer is 0 everywhere.")

# %%
for step in [1, 2, 3]:
    loss = F.mse_loss(fresh(x_t, t), noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    gradients = [parameter.grad.any().item() for parameter in fresh.parameters()]
    print(f"step {step}: {sum(gradients)} of {len(gradients)} tensors have a gradient")
assert gradients == [True] * len(gradients)

# %% [markdown]
# First only the head's last layer learns (its weights and its bias). Then it is no longer zero, and
# lets the gradient through to every block's last layer. One more step, and all are awake. It takes
# three steps out of thousands.
#
# And the first answer is worth knowing: whoever answers 0 has a loss of 1, for that is the variance
# of the noise. **A network that guesses noise should start at a loss of about 1.** If yours starts
# elsewhere, something is wrong.
#
# ## Large pictures: fold them first
#
# The widest level costs the most: it has the most pixels. A trick makes it smaller without losing
# anything: take each square of 2 × 2 pixels and lay its four colours behind each other, as channels
# (*space to depth*; Shi et al. 2016, [arXiv 1609.05158](https://arxiv.org/abs/1609.05158), call the
# way back *pixel shuffle*).

# %%
folded = nn.PixelUnshuffle(2)(x0[:1])  # (1, 3, 16, 16) -> (1, 12, 8, 8)
assert torch.equal(nn.PixelShuffle(2)(folded), x0[:1])  # and nothing is lost
four = folded[0].view(3, 4, 8, 8).unbind(1)  # of each of three colours four places in the square
plots.image_strip(
    [x0[0], *four],
    ["16 x 16", "upper left", "upper right", "lower left", "lower right"],
    title="One picture, or four small ones behind each other",
)

# %% [markdown]
# *Each small picture has every second pixel of every second row.* With `patch=2` the library's stem
# begins with this (it takes the place that our `nn.Identity()` kept free), and its head ends with
# the way back. All between them works on a quarter of the pixels.
#
# ## Beside the original
#
# The project that this course grew out of had a simpler U-Net, and `OriginalUNet` keeps it so that
# old files still load. It has two convolutions a level, without a residual path and without
# attention, and **as many channels at its first level as the picture has pixels in a row**. What
# does each network cost? Weights and operations can be counted. For memory, we collect all tensors
# that autograd keeps for the way back:


# %%
def megabytes_kept(network, *inputs):
    """What must be remembered of one picture until the gradients are computed, without weights."""
    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}
    kept = {}  # each piece of memory once, however many layers keep it

    def keep(tensor):
        memory = tensor.untyped_storage()
        kept[memory._cdata] = memory
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(*inputs)
    return sum(m.nbytes() for key, m in kept.items() if key not in weights) / 1e6


# %% [markdown]
# The receptive field needs some care. A group norm takes the mean over all pixels, and attention
# looks at all of them: strictly speaking, every pixel sees every other in both networks. That is
# true, but a mean does not show a *shape* at the other end. So we measure **the convolutions
# alone**: we take norms and attention out, draw the weights at random, and let the network work on
# a strip of 2048 pixels, much longer than its view. How long is the part of it whose gradient is
# not zero? (The number of channels does not matter for this, so narrow networks stand in for wide
# ones.)


# %%
def reach(network):
    """How many pixels in a row have a say in one, by way of convolutions."""
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.GroupNorm | layers.Attention):
                setattr(part, name, nn.Identity())
            if isinstance(child, nn.Conv2d):
                nn.init.normal_(child.weight, std=0.2)
    strip = torch.randn(1, 3, 16, 2048, requires_grad=True)
    network(strip, torch.tensor([0]))[0, :, 8, 1024].sum().backward()
    columns = strip.grad.abs().sum((0, 1, 2)).nonzero()  # those that have a say
    return int(columns.max() - columns.min() + 1)


# %%
contenders = {  # side of the picture, channels of the first level, a network of so many channels
    "original, 64 pixels": (64, 64, OriginalUNet),
    "ours, 64 pixels": (64, 64, lambda width: UNet.for_images(64, 3, width)),
    "original, 128 pixels": (128, 128, OriginalUNet),
    "ours, 128 pixels": (128, 64, lambda width: UNet.for_images(128, 3, width)),
    "ours, 16 pixels": (16, 32, lambda width: UNet.for_images(16, 3, width)),
    "ours, 16 pixels, patch=2": (16, 32, lambda width: UNet.for_images(16, 3, width, patch=2)),
}

# %%
measured = {}
for name, (side, width, make) in contenders.items():
    with torch.device("meta"):  # shapes only: nothing is computed, nothing is stored
        network, inputs = make(width), (torch.zeros(1, 3, side, side), torch.zeros(1))
    with sdpa_kernel(SDPBackend.MATH):  # attention step by step, as on this page
        million = sum(weight.numel() for weight in network.parameters()) / 1e6
        gigaflop = flops(network, *inputs) / 1e9
        measured[name] = million, gigaflop, megabytes_kept(network, *inputs), reach(make(8))

# %%
panels = ["million weights", "billion operations", "MB kept", "pixels seen by convolutions"]
names, columns = list(measured), zip(*measured.values(), strict=True)
figure, all_axes = plt.subplots(1, 4, figsize=(12, 2.8), sharey=True, layout="constrained")
for axes, label, numbers in zip(all_axes, panels, columns, strict=True):
    colours = ["C3" if "original" in name else "C0" for name in names]
    bars = axes.barh(names, numbers, color=colours)
    axes.bar_label(bars, [f"{number:.3g}" for number in numbers], fontsize=9, padding=2)
    axes.set(xscale="log", xlabel=label, xlim=(min(numbers) / 2, max(numbers) * 6))
all_axes[0].invert_yaxis()
figure.suptitle("From 64 to 128 pixels the cost of the original explodes, and ours stays")
plt.show()

# %% [markdown]
# *Red: the original. One picture, forward, in float32; logarithmic scales.* The same as a table:

# %%
print(f"{'':25} weights  operations      kept  convolutions see")
for name, (million, gigaflop, megabytes, pixels) in measured.items():
    print(f"{name:25} {million:5.1f} M  {gigaflop:8.2f} G  {megabytes:5.1f} MB  {pixels:9d} pixels")

# %% [markdown]
# Read it fairly. **At 64 pixels ours is no bargain**: as many weights, a quarter more operations,
# and more than three times the memory, because it has more layers at the wide levels. For that
# price it sees from any corner to any other and beyond, and has attention and residual paths
# besides. **At 128 pixels the tables turn.** The original doubles its channels with the picture, so
# that a call takes sixteen times as many operations as before, while its view stays at 124 pixels:
# no chain of convolutions leads from one corner to the opposite one. Ours folds the picture first,
# and costs what it cost at 64.
#
# The last two rows are networks for this course's small pictures. Folding saves three quarters of
# the operations and of the memory (and a level, hence the weights).
#
# ## Does it learn?
#
# Costs say nothing about whether a network is *right*. So let us train a small one, and three that
# someone broke. All four are the library's, called in the way that we wrote above:

# %%
answers = {
    "as built": guess_noise,
    "skips cut": lambda net, x_t, t: guess_noise(net, x_t, t, keep=0),
    "deaf to the time": lambda net, x_t, t: guess_noise(net, x_t, 0 * t),
    "tanh at the end": lambda net, x_t, t: guess_noise(net, x_t, t).tanh(),
}

# %% [markdown]
# (The tanh is a mistake that looks clever: are pictures not between -1 and 1?)


# %%
def train(answer, question):
    """The loss of every step. question() -> x_t, t and the wanted answer."""
    torch.manual_seed(0)  # the same weights and the same questions for everyone
    small = UNet(16, 3, WIDTH, multipliers=(1, 2), blocks=1, attention=(4,), patch=2).to(device)
    optimizer = torch.optim.Adam(small.parameters(), lr=2e-3)
    losses = []
    for _ in range(STEPS):
        x_t, t, wanted = (tensor.to(device) for tensor in question())
        loss = F.mse_loss(answer(small, x_t, t), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
def new_pictures():
    """Sixteen pictures at random timesteps, others each time, as in a real training."""
    t, noise = torch.randint(1000, (16,)), torch.randn(16, 3, 16, 16)
    return schedule.add_noise(x0[torch.randint(4000, (16,))], t, noise), t, noise


ordinary = {name: train(answer, new_pictures) for name, answer in answers.items()}


# %%
def draw_losses(runs, title, every):
    """Losses over steps, each point the mean of `every` steps."""
    axes = plt.figure(figsize=(7, 3.2), layout="constrained").add_subplot()
    for name, losses in runs.items():
        means = torch.tensor(losses)[: len(losses) // every * every].view(-1, every).mean(1)
        axes.plot(torch.arange(len(means)) * every, means, label=name)
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return axes


draw_losses(ordinary, "An ordinary training: only the cut skips stand out", every=10)
plt.show()

# %%
end = {name: torch.tensor(losses[-30:]).mean() for name, losses in ordinary.items()}
print("all start at 1:", all(abs(losses[0] - 1) < 0.05 for losses in ordinary.values()))
twice = end["skips cut"] / end["as built"] > 2
near = abs(end["deaf to the time"] / end["as built"] - 1) < 0.25
print("without skips the loss is more than twice as high:", bool(twice))
print("deaf, it differs by less than a quarter:", bool(near))
assert twice and near

# %% [markdown]
# *Each point is the mean of ten steps.* Without its skips the network hardly learns: the detail of
# the noise does not pass through the bottom. But **the network that is never told the time learns
# just as well!** It can see how noisy the picture is, and that is nearly all that the time would
# tell it. (So well that Sun et al. 2025, [arXiv 2502.13129](https://arxiv.org/abs/2502.13129), ask
# whether one needs the time at all.) And with the tanh the loss falls as a loss should, only not as
# far; without the blue curve beside it, who would know? If one of these two mistakes were yours,
# this curve would not tell you.
#
# ## A check that tells: overfit one batch
#
# Before a long training, give the network one small batch, again and again. A network that cannot
# even learn sixteen answers by heart is broken. And a batch of your own making can ask a **trick
# question**: show *the same* noisy picture four times, and claim a different timestep each time.
# Eq. 4 of page 01, solved for the noise, has a different answer for each:
#
# $$\epsilon = \frac{x_t - \sqrt{\bar\alpha_t}\,x_0}{\sqrt{1-\bar\alpha_t}}$$

# %%
faces = x0[:4].repeat_interleave(4, dim=0)  # (16, 3, 16, 16): four of each
noise = torch.randn(4, 3, 16, 16).repeat_interleave(4, dim=0)  # (16, 3, 16, 16)
x_t = schedule.add_noise(faces, torch.full((16,), 250), noise)  # (16, 3, 16, 16), four of each
claimed = torch.tensor([100, 200, 300, 400]).repeat(4)  # (16,)
a = schedule.alpha_bars[claimed].float().view(16, 1, 1, 1)
wanted = (x_t - a.sqrt() * faces) / (1 - a).sqrt()  # (16, 3, 16, 16)

# %%
plots.image_strip(
    [x_t[0], *wanted[:4]],
    ["asked", *(f"if t = {step}" for step in claimed[:4].tolist())],
    title="The same picture, four times, four right answers",
)

# %% [markdown]
# *The picture was noised to t = 250. If less is claimed (left), the noise in it must have been very
# strong; if more is claimed (right), the face should have faded further, so some of it counts as
# noise.*
#
# Now we know beforehand how the broken ones will fail. Who is **deaf to the time** must give one
# answer to four questions; the best is their mean, and what is left is their spread about it. Who
# **ends in a tanh** cannot say anything beyond ±1.

# %%
of_each = wanted.view(4, 4, -1)  # (faces, timesteps, 768)
floors = {
    "deaf to the time": (of_each - of_each.mean(1, keepdim=True)).square().mean().item(),
    "tanh at the end": (wanted.abs() - 1).clamp(min=0).square().mean().item(),
}
for name, floor in floors.items():
    print(f"{name}: cannot get below {floor:.2f}")

# %%
check = {name: train(answer, lambda: (x_t, claimed, wanted)) for name, answer in answers.items()}

# %%
axes = draw_losses(check, "The trick question: two of them hit their floors", every=1)
axes.set_yscale("log")
for name, floor in floors.items():
    axes.axhline(floor, linestyle=":", color=f"C{list(answers).index(name)}")
plt.show()

# %%
for name, losses in check.items():
    print(f"{name}: learnt the batch by heart: {min(losses) < 0.15}")
    assert (min(losses) < 0.15) == (name not in floors)
for name, floor in floors.items():
    assert 0.99 * floor < min(check[name]) < 1.15 * floor
print("Both broken networks ended on the floor that was foretold.")

# %% [markdown]
# *Dotted: the floors that we computed before.* A loss that stops **exactly where a certain mistake
# would stop it** has told you which mistake it is. And note who passed: the network without skips.
# It can learn sixteen answers by heart; it only fails on new ones. No check sees everything:
#
# |  | first loss is 1 | ordinary training | overfit the trick question |
# |---|---|---|---|
# | skips cut | passes | **fails** | passes |
# | deaf to the time | passes | passes | **fails** |
# | tanh at the end | passes | falls, only not as far | **fails** |
#
# ## Read the real thing
#
# Open two files beside this page. The layers first. You have written each of them:
#
# | You built | In `diffusion_lib/networks/layers.py` | What differs there |
# |---|---|---|
# | `embed` | `sinusoidal_embedding` | nothing |
# | `zeroed` | `zeroed` | it sets all weights of any layer to 0 |
# | `nn.GroupNorm(channels // 8, channels)` | `group_norm` | nothing |
# | `Attention` | `Attention`, `Attention.forward` | all heads are computed at once, by PyTorch's `scaled_dot_product_attention`; where 32 does not divide the channels, there is one head |
#
# | Also there | Why |
# |---|---|
# | `GroupNorm`, `Upsample` | PyTorch's layers; compiled for a GPU, they keep images in the layout that convolutions want |
# | `recompute` | saves memory in the training of large networks, by computing a part twice |
#
# Then the network:
#
# | You built | In `diffusion_lib/networks/unet.py` | What differs there |
# |---|---|---|
# | `ResidualBlock` | `ResidualBlock`, `ResidualBlock.forward` | nothing |
# | `Block` | `Block`, `Block.forward` | `time_size` is given |
# | `downsample`, `upsample` | `downsample`, `upsample` | nothing |
# | the cells that fill `net` | `UNet` | a loop over any number of levels; where yours had an `nn.Identity()`, `nn.PixelUnshuffle` folds squares of pixels into channels, and behind the head `nn.PixelShuffle` unfolds them |
# | `guess_noise`, `go_down`, `go_up` | `UNet.forward` | all in one |
# | our choice of levels, and where to attend | `UNet.for_images` | for any size of image |
#
# | Also there | Why |
# |---|---|
# | `check_sizes` | says in one line why a network of such sizes cannot be built |
# | `UNet.enable_gradient_checkpointing` | applies `recompute` to every block, for page 08 |

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError`, run the cell, and read what the check says. A solution is
# folded away below each.
#
# **1. How far does it see?** Some convolutions stand in a row. Each is given as (side of its
# kernel, stride). How many pixels of a row of the picture have a say in one pixel of the answer?
# (How far apart, in pixels of the picture, are two neighbours of the feature map that a layer
# reads?)


# %%
def receptive_field(layers):
    """[(kernel, stride), ...], first layer first -> an int, e.g. [(3, 1)] -> 3"""
    raise NotImplementedError


exercises.check_receptive_field(receptive_field)


# %% jupyter={"source_hidden": true}
# Solution 1
def receptive_field_solution(layers):
    seen, apart = 1, 1
    for kernel, stride in layers:
        seen += (kernel - 1) * apart
        apart *= stride
    return seen


exercises.check_receptive_field(receptive_field_solution)

# %% [markdown]
# **2. What does the right side read?** The levels have `width` times each of `multipliers`
# channels, and each side has `blocks` blocks a level. List how many channels each block on the
# right reads, from the bottom up. (For our network, that is what you were asked above.)


# %%
def channels_read(width, multipliers, blocks):
    """-> a list of len(multipliers) * blocks numbers, the deepest block first"""
    raise NotImplementedError


exercises.check_channels_read(channels_read)


# %% jupyter={"source_hidden": true}
# Solution 2
def channels_read_solution(width, multipliers, blocks):
    read, below = [], width * multipliers[-1]
    for multiplier in reversed(multipliers):
        here = width * multiplier
        read += [below + here] + [here + here] * (blocks - 1)
        below = here
    return read


exercises.check_channels_read(channels_read_solution)
print(channels_read_solution(32, (1, 2, 2), 2), "in our network")

# %% [markdown]
# **3. Fold a picture yourself.** Do what `nn.PixelUnshuffle(patch)` does, with `reshape` (or
# `view`) and `permute`, without it and without loops. In the answer, the channels that come from
# one old channel stand together: first the upper left pixel of each square, then its neighbour to
# the right, and so on.


# %%
def space_to_depth(x, patch):
    """(N, C, H, W) -> (N, C * patch * patch, H / patch, W / patch)"""
    raise NotImplementedError


exercises.check_space_to_depth(space_to_depth)


# %% jupyter={"source_hidden": true}
# Solution 3
def space_to_depth_solution(x, patch):
    n, c, h, w = x.shape
    squares = x.reshape(n, c, h // patch, patch, w // patch, patch)
    return squares.permute(0, 1, 3, 5, 2, 4).reshape(n, c * patch**2, h // patch, w // patch)


exercises.check_space_to_depth(space_to_depth_solution)

# %% [markdown]
# **4. Attention for large pictures.** Attention over a whole 64 × 64 picture is dear. Write one in
# which each pixel looks only at **the pixels of its own row** (itself among them). How much cheaper
# is it?


# %%
def attend_rows(q, k, v):
    """(N, H, W, d) three times -> (N, H, W, d)"""
    raise NotImplementedError


exercises.check_attend_rows(attend_rows)


# %% jupyter={"source_hidden": true}
# Solution 4
def attend_rows_solution(q, k, v):
    # Each row is a picture of its own: (N, H) are both batch dimensions of (W, d).
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v


exercises.check_attend_rows(attend_rows_solution)
# H W pixels look at W others each, instead of at H W: H times cheaper.

# %% [markdown]
# **5. Set the clocks forward.** You are given the embeddings of some timesteps, but not the
# timesteps. Compute the embeddings of the timesteps that are `steps` later. (Each hand turns by the
# same angle, whatever it shows. This is why a network can easily tell how far two timesteps are
# apart.)


# %%
def later(embedding, steps):
    """(N, size), a number -> (N, size)"""
    raise NotImplementedError


exercises.check_later(later)


# %% jupyter={"source_hidden": true}
# Solution 5
def later_solution(embedding, steps):
    sines, cosines = embedding.chunk(2, dim=1)  # (N, K) each
    angle = steps * 10000 ** -torch.linspace(0, 1, sines.shape[1])  # (K,)
    return torch.cat(
        [
            sines * angle.cos() + cosines * angle.sin(),  # sin(a + b)
            cosines * angle.cos() - sines * angle.sin(),  # cos(a + b)
        ],
        dim=1,
    )


exercises.check_later(later_solution)

# %% [markdown]
# ## Questions
#
# <details><summary>Does any weight of the network depend on the size of the picture?</summary>
#
# No. A convolution slides over whatever it is given, a group norm takes the mean of whatever there
# is, and attention looks at however many pixels there are. (The strips above were 16 × 2048.) Only
# the choice of levels, and of where to attend, is made for a size. But a network trained at one
# size does not therefore draw *well* at another: all that it has seen is shapes of one size.
# </details>
#
# <details><summary>Shuffle the pixels that attention is given. What happens to its answer?
# </summary>
#
# It is shuffled in the same way, and that is all: queries, keys and values are made from each pixel
# alone, and a sum over all pixels has no order. Attention does not know where a pixel is. What it
# knows of places, the convolutions before it have written into the pixel: they see the border of
# the picture, where their padding is zero.
# </details>
#
# <details><summary>A training starts with a loss of 2.3. What do you suspect?</summary>
#
# Whoever answers 0 has the mean square of what is wanted as the loss: 1 for noise of variance 1. So
# either the network does not start with 0 (is the head's last layer zeroed?), or what is wanted
# does not have variance 1 (was the noise scaled before it became the wanted answer?). The trick
# question above starts at about 1.9, for just this reason, and rightly.
# </details>
#
# <details><summary>Someone initialises <i>every</i> layer with zeros, to be on the safe side. Does
# it learn?</summary>
#
# Next to nothing. The gradient of a layer's weights is the product of what it is given and of what
# is asked of it from above. If the layer before it also answers with zeros, and the one after it
# lets nothing through, both are zero and stay so: only the bias of the last layer learns. A zero at
# the *end* of each correction is safe because what it is given is not zero.
# </details>
#
# <details><summary>Why not judge a network by its loss after a short training?</summary>
#
# Above, the network that is deaf to the time was as good by that measure as the right one. The loss
# is a mean over all timesteps and all pixels; a mistake that matters in few places, or only to the
# sampler later, drowns in it. Make a batch on which the mistake you fear has a floor that you can
# compute.
# </details>

# %% [markdown]
# ## What you now know
#
# - The network gets a noisy picture and a timestep, and answers with a picture. At strong noise it
#   needs the whole picture; always, it must answer for each pixel.
# - Halving makes far things near and work cheap; skips bring back what the detour loses.
# - The time is told as waves, and added to the channels of every block.
# - Blocks and attention add corrections that start at zero: the network starts by changing nothing,
#   answers 0, and has a loss of 1.
# - Attention lets each pixel listen to those that match, anywhere; its cost grows with the square
#   of the number of pixels, so it works at the bottom.
# - A batch with a trick in it, and a floor computed beforehand, finds mistakes that a falling loss
#   hides.
#
# **Next:** 04 trains this network until it draws, and shows what a healthy training looks like.
