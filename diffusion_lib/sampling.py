"""Images from a model, by the name of a sampler: `sample`, and what the command lines need."""

import inspect
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.editing import Edit, inpaint, inpaint_steps
from diffusion_lib.errors import InputError
from diffusion_lib.graphs import replayed
from diffusion_lib.guidance import ClassifierFreeGuidance, Guidance
from diffusion_lib.labels import find_labels
from diffusion_lib.samplers import Denoiser, Step, ddim, ddpm, default_steps
from diffusion_lib.solvers import dpm_solver, dpm_solver_sde, heun

SAMPLERS = {
    "dpm_solver": dpm_solver,
    "dpm_solver_sde": dpm_solver_sde,
    "heun": heun,
    "ddim": ddim,
    "ddpm": ddpm,
}


def sample(
    diffusion: Denoiser,
    count: int,
    sampler: str = "dpm_solver",
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    clip: str = "static",
    spacing: str = "auto",
    eta: float | None = None,
    labels: str | Sequence[str] | Tensor | None = None,
    guidance: float | Guidance = 2.0,
    edit: Edit | None = None,
) -> Tensor:
    """Make `count` images.

    x_T is drawn on the CPU, one image after another, so that with a sampler that adds no noise
    (dpm_solver, heun, ddim) the same seed gives the same images on any device and in batches of any
    size (up to rounding). One that adds noise (dpm_solver_sde, ddpm, inpainting, or an eta above 0)
    draws it for a whole batch at once: its images also depend on the size of their batch, and on
    the kind of device.

    Args:
        diffusion: a trained model, on the device that is to do the work.
        sampler: dpm_solver, dpm_solver_sde, heun, ddim or ddpm.
        steps: 1 to T; None takes the sampler's default.
        batch_size: images at a time; larger is faster until the device is saturated.
        progress: whether to show a progress bar.
        clip: static, dynamic or off, see `clip_x0`.
        spacing: auto (the sampler's default), log_snr, linspace, trailing or leading.
        eta: of ddim and dpm_solver; None takes the sampler's default.
        labels: what to draw: "7" for every image, or one for each, see `find_labels`; None for
            whatever comes.
        guidance: scale of `ClassifierFreeGuidance`, or more of its settings.
        edit: an image to start from. If it has a mask, `inpaint` is the sampler.

    Returns:
        Float32 in [-1, 1], (count, channels, height, width), on the CPU.

    Raises:
        InputError: an unknown name, or a number out of its range.
    """
    batches = sample_batches(
        diffusion,
        count,
        sampler,
        steps,
        batch_size,
        seed,
        progress,
        clip,
        spacing,
        eta,
        labels,
        guidance,
        edit,
    )
    return torch.cat(list(batches))


def run_sampler(
    sampler: str,
    diffusion: Denoiser,
    noise: Tensor,
    steps: int | None,
    generator: torch.Generator,
    clip: str,
    spacing: str,
    eta: float | None,
    edit: Edit | None = None,
) -> Iterator[Step]:
    """The steps of a sampler by its name, with the defaults that `sample` describes.

    diffusion, noise: those that `edit` starts with, if there is one.
    """
    check_sampler(sampler, eta)
    chosen = {"spacing": spacing, "eta": eta}
    chosen = {name: value for name, value in chosen.items() if value not in ("auto", None)}
    if edit is not None and edit.mask is not None:
        if eta is not None:
            raise InputError("inpainting has no eta: leave it out")
        known, mask = edit.image.to(noise).expand_as(noise), edit.mask.to(noise)[None]
        return inpaint(diffusion, noise, known, mask, steps, generator, clip, **chosen)
    return SAMPLERS[sampler](diffusion, noise, steps, generator, clip, **chosen)


def trajectory(
    diffusion: Denoiser,
    count: int,
    sampler: str = "dpm_solver",
    steps: int | None = None,
    seed: int = 0,
    clip: str = "static",
    spacing: str = "auto",
    labels: str | Sequence[str] | Tensor | None = None,
    guidance: float | Guidance = 2.0,
    edit: Edit | None = None,
) -> tuple[Tensor, list[Step]]:
    """x_T of the first `count` images of a seed (or the image to edit, noised), and all steps from
    there to the samples.
    """
    noise_generator, generator = generators(seed, diffusion.device)
    noise = initial_noise(diffusion.eval(), count, noise_generator)
    if labels is not None:
        known = find_labels(labels, count, diffusion.classes)
        diffusion = ClassifierFreeGuidance(diffusion, known, *settings_of(guidance))
    if edit is not None:
        diffusion, noise = edit.start(diffusion, noise)
    steps = run_sampler(sampler, diffusion, noise, steps, generator, clip, spacing, None, edit)
    return noise, list(steps)


def sample_batches(
    diffusion: Denoiser,
    count: int,
    sampler: str = "dpm_solver",
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    clip: str = "static",
    spacing: str = "auto",
    eta: float | None = None,
    labels: str | Sequence[str] | Tensor | None = None,
    guidance: float | Guidance = 2.0,
    edit: Edit | None = None,
) -> Iterator[Tensor]:
    """The images of `sample`, which explains the arguments, batch by batch."""
    if count < 1 or batch_size < 1:
        raise InputError(f"count and batch size must be at least 1, not {count} and {batch_size}")
    check_sampler(sampler, eta)
    noise_generator, generator = generators(seed, diffusion.device)
    sizes = [min(batch_size, count - first) for first in range(0, count, batch_size)]
    each = planned_steps(sampler, steps, diffusion.schedule.timesteps, edit)
    diffusion.eval()
    how = steps, generator, clip, spacing, eta, edit
    guidance = settings_of(guidance)
    known = None if labels is None else find_labels(labels, count, diffusion.classes)
    twice = known is not None and guidance.scale not in (0, 1)  # with and without the labels
    example = torch.zeros(sizes[0] * (1 + twice), *diffusion.image_shape, device=diffusion.device)
    example_labels = (
        None if known is None else known[:1].expand(len(example), -1).to(example.device)
    )
    with (
        replayed(diffusion, example, example_labels, len(sizes) * each),
        tqdm(total=len(sizes) * each, desc="sampling", unit="step", disable=not progress) as bar,
    ):
        for number, size in enumerate(sizes):
            noise, model = initial_noise(diffusion, size, noise_generator), diffusion
            if known is not None:
                some = known[number * batch_size :][:size]
                model = ClassifierFreeGuidance(diffusion, some, *guidance)
            if edit is not None:
                model, noise = edit.start(model, noise)
            for step in run_sampler(sampler, model, noise, *how):
                bar.update()
                x = step.x
            yield x.clamp(-1, 1).cpu()


def planned_steps(sampler: str, steps: int | None, timesteps: int, edit: Edit | None) -> int:
    """How many steps it takes; T is `timesteps`."""
    if steps is not None:
        return steps
    if edit is None:
        return default_steps(sampler, timesteps)
    left = edit.timesteps(timesteps)
    return default_steps(sampler, left) if edit.mask is None else inpaint_steps(left)


def settings_of(guidance: float | Guidance) -> Guidance:
    """All settings of guidance, from these or from its scale."""
    return guidance if isinstance(guidance, Guidance) else Guidance(guidance)


def check_sampler(sampler: str, eta: float | None) -> None:
    """Raise InputError for an unknown sampler, or an eta for one that has none."""
    if sampler not in SAMPLERS:
        raise InputError(f"no sampler is called {sampler!r}: choose from {', '.join(SAMPLERS)}")
    if eta is not None and "eta" not in inspect.signature(SAMPLERS[sampler]).parameters:
        raise InputError(f"{sampler} has no eta: leave it out, or take ddim or dpm_solver")


def initial_noise(diffusion: Denoiser, count: int, generator: torch.Generator) -> Tensor:
    """x_T of the next `count` images of a generator on the CPU, one image after another. It lies
    on the model's device.
    """
    noises = [torch.randn(diffusion.image_shape, generator=generator) for _ in range(count)]
    return torch.stack(noises).to(diffusion.device)


def generators(seed: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Sources of x_T and of the noise of the steps: two streams, for every seed below 2^32."""
    noise = torch.Generator().manual_seed(seed)
    return noise, torch.Generator(device).manual_seed(seed ^ 0x9E3779B9)
