"""The three sets that come with the repository are what data/README.md says."""

import csv
import io
import zipfile
from pathlib import Path

import pytest

from diffusion_lib import load_images
from diffusion_lib.config import BUNDLED
from diffusion_lib.files import bundled_file

DATA = Path(__file__).parents[1] / "data"
SETS = {  # name: fewest, most, channels, size
    "faces": (3900, 4100, 3, 16),
    "digits": (5000, 5000, 1, 28),
    "brains": (900, 1100, 1, 64),
}


def test_these_are_all_bundled_sets():
    assert set(BUNDLED) == set(SETS)
    assert {path.stem for path in DATA.glob("*.zip")} == set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_loaded_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewest, most, channels, size = SETS[name]
    pixels = load_images(name, size)
    assert fewest <= len(pixels) <= most
    assert pixels.shape[1:] == (channels, size, size)
    assert pixels.min() < 30 and pixels.max() > 225


@pytest.mark.parametrize("name", SETS)
def test_no_two_images_of_a_set_are_alike(name):
    pixels = load_images(name, SETS[name][3]).numpy()
    assert len({image.tobytes() for image in pixels}) == len(pixels)


@pytest.mark.parametrize("name", SETS)
def test_images_are_stored_in_the_size_in_which_they_are_shown(name):
    size = SETS[name][3]
    crop, squash = (load_images(name, size, fit=fit) for fit in ("crop", "squash"))
    assert (crop == squash).all()


@pytest.mark.parametrize("name", SETS)
def test_labels_name_exactly_the_images(name):
    with zipfile.ZipFile(bundled_file(f"{name}.zip")) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        images = [file for file in archive.namelist() if file.endswith(".png")]
    assert [row["file"] for row in rows] == sorted(images)
    assert all(None not in row and None not in row.values() for row in rows)


def test_there_are_as_many_digits_of_each_kind():
    with zipfile.ZipFile(bundled_file("digits.zip")) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
    labels = [row["label"] for row in rows]
    assert {label: labels.count(label) for label in set(labels)} == dict.fromkeys("0123456789", 500)


def test_the_sets_are_small():
    assert sum(path.stat().st_size for path in DATA.glob("*.zip")) < 8_000_000


def test_the_readme_names_every_set_its_size_and_its_count():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for name, (_, _, _, size) in SETS.items():
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"{size}x{size}" in row
        assert f"{len(load_images(name, size)):,}" in row


def test_the_readme_gives_licences():
    words = " ".join((DATA / "README.md").read_text(encoding="utf-8").replace(">", "").split())
    for wanted in (
        "CC0",
        "creativecommons.org/licenses/by-sa/3.0",
        "McConnell Brain Imaging Centre, Montreal Neurological Institute",
        "the above copyright notice appear in all copies",
    ):
        assert wanted in words


def test_the_licence_of_every_bundled_set_and_model_is_named():
    licences = (DATA / "README.md").read_text(encoding="utf-8").split("## Licences")[1]
    table = [line for line in licences.split("## ")[0].splitlines() if line.startswith("| ")]
    for file in [*DATA.glob("*.zip"), *DATA.glob("*.pth")]:
        assert sum(f"`{file.name}`" in line for line in table) == 1, file.name


def test_the_notice_of_the_brains_travels_with_them():
    with zipfile.ZipFile(bundled_file("brains.zip")) as archive:
        notice = " ".join(archive.read("NOTICE.txt").decode().split())
    assert "McConnell Brain Imaging Centre, Montreal Neurological Institute" in notice
