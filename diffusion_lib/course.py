"""The pages of the course, for its map and its tables of contents (`notebooks/build.py map`)."""

from typing import NamedTuple


class Page(NamedTuple):
    """A page.

    file: its name in `notebooks/`, without .ipynb. It begins with the number.
    you_will: what a reader does there.
    runs_in: time of `notebooks/build.py run` on two CPU cores.
    memory: the peak that it prints, of the page and the programs that it starts, rounded up to half
        a GB.
    """

    file: str
    title: str
    you_will: str
    runs_in: str
    memory: str

    @property
    def number(self) -> str:
        return self.file.partition("_")[0]

    @property
    def is_side_page(self) -> bool:
        """Whether it goes deeper, and is not needed to go on: 02b, 04b, ..."""
        return not self.number.isdigit()


PAGES = (
    Page(
        "00_start_here",
        "Start here",
        "draw portraits with a bundled model, and look for copies among its training images",
        "15 s",
        "1 GB",
    ),
    Page(
        "01_forward_process",
        "The forward process",
        "add noise to images, jump to any timestep, undo a step",
        "10 s",
        "2 GB",
    ),
    Page(
        "02_schedules",
        "Noise schedules",
        "find the axis on which schedules compare, and play with them in the explorer",
        "15 s",
        "1.5 GB",
    ),
    Page(
        "02b_ends_of_a_schedule",
        "The ends of a schedule",
        "see what the first and the last timestep do to samples, and fix the last",
        "10 s",
        "1 GB",
    ),
    Page(
        "03_unet",
        "The U-Net",
        "build the network, and find mistakes by overfitting one batch",
        "40 s",
        "1.5 GB",
    ),
    Page(
        "04_training",
        "Training",
        "write the loss and the loop, train on portraits, tell a healthy run from a sick one",
        "4 min",
        "1.5 GB",
    ),
    Page(
        "04b_where_the_loss_comes_from",
        "Where the loss comes from",
        "derive the loss from the likelihood",
        "12 s",
        "1 GB",
    ),
    Page(
        "05_sampling",
        "Sampling",
        "build DDPM and DDIM, and see when sampling noise is needed",
        "45 s",
        "4.5 GB",
    ),
    Page(
        "05b_editing_images",
        "Editing images",
        "draw from a sketch, fill in what is missing",
        "30 s",
        "1 GB",
    ),
    Page(
        "06_is_it_any_good",
        "Is it any good?",
        "build the distances that judge samples, and catch a model that copies",
        "30 s",
        "1.5 GB",
    ),
    Page(
        "06b_ablations",
        "Ablations",
        "compare samplers, and take the recipe's choices back one by one",
        "25 s",
        "1.5 GB",
    ),
    Page(
        "07_labels_and_guidance",
        "Labels and guidance",
        "say what to draw: guidance by a classifier, then without one, and what it costs",
        "2 min",
        "2 GB",
    ),
    Page(
        "08_full_runs",
        "Full runs",
        "lose the machine and resume; know what a run costs; then AKOA, OASIS, CelebA or your own "
        "images on a GPU",
        "1 min 30 s",
        "3 GB",
    ),
    Page(
        "09_score_sde_ode",
        "Score, SDE and ODE",
        "see the landscape behind the arrows, walk it with and without noise, measure the order of "
        "solvers",
        "40 s",
        "3 GB",
    ),
    Page(
        "10_flow_matching",
        "Flow matching",
        "train on straight lines, straighten the trajectories, sample in one step",
        "1 min 40 s",
        "1.5 GB",
    ),
)
