"""Files of every kind: how they are found, and that each looks as it does in a viewer."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_lib import InputError
from diffusion_lib.config import BUNDLED
from diffusion_lib.images.files import read_square
from diffusion_lib.images.folders import find_files

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, format: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def read(image: Image.Image, format: str = "PNG", size: int = 8, fit: str = "crop", **settings):
    return read_square(encode(image, format, **settings), size, fit).astype(int)


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def split(mode: str, left, right) -> Image.Image:
    """8x8 pixels, the left half in one colour, the right half in another."""
    image = Image.new(mode, (8, 8), left)
    image.paste(right, (4, 0, 8, 8))
    return image


def halves(pixels: np.ndarray) -> tuple:
    """The colours of an image whose halves are flat."""
    assert (pixels[:, :4] == pixels[0, 0]).all() and (pixels[:, 4:] == pixels[0, 7]).all()
    return tuple(pixels[0, 0]), tuple(pixels[0, 7])


# How modes look


def test_colour_of_the_right_size_is_unchanged_bit_for_bit():
    pixels = random_pixels(8, 8, 3)
    assert np.array_equal(read(Image.fromarray(pixels)), pixels)


def test_grey_of_the_right_size_is_unchanged_bit_for_bit():
    pixels = random_pixels(8, 8)
    assert np.array_equal(read(Image.fromarray(pixels)), np.stack([pixels] * 3, axis=2))


def test_what_is_read_is_bytes_of_the_right_shape():
    square = read_square(encode(Image.new("L", (30, 20))), 8, "crop")
    assert square.shape == (8, 8, 3) and square.dtype == np.uint8


def test_transparent_pixels_are_laid_on_white():
    assert halves(read(split("RGBA", (*RED, 0), (*RED, 255)))) == (WHITE, RED)


def test_half_transparent_pixels_are_mixed_with_white():
    pixels = read(Image.new("RGBA", (8, 8), (200, 100, 0, 102)))  # 102 is 40 %
    assert np.abs(pixels - [233, 193, 153]).max() <= 1


def test_grey_with_alpha_is_laid_on_white():
    assert halves(read(split("LA", (50, 0), (50, 255)))) == (WHITE, (50, 50, 50))


def test_palette_colours():
    image = split("P", 0, 1)
    image.putpalette([*GREEN, *BLUE])
    assert halves(read(image)) == (GREEN, BLUE)


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["one colour", "alpha of each"])
def test_transparent_palette_colour_becomes_white(transparency):
    image = split("P", 0, 1)
    image.putpalette([*GREEN, *BLUE])
    assert halves(read(image, transparency=transparency)) == (WHITE, BLUE)


def test_transparent_grey_value_becomes_white():
    assert halves(read(split("L", 10, 20), transparency=10)) == (WHITE, (20, 20, 20))


def test_transparent_colour_becomes_white():
    assert halves(read(split("RGB", GREEN, BLUE), transparency=GREEN)) == (WHITE, BLUE)


def test_cmyk_becomes_rgb():
    image = split("CMYK", (0, 255, 255, 0), (255, 255, 0, 0))
    assert halves(read(image, "TIFF")) == (RED, BLUE)


def test_one_bit_becomes_black_and_white():
    assert halves(read(split("1", 0, 1))) == ((0, 0, 0), WHITE)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_12_bits_in_a_file_of_16_are_scaled_by_their_own_range(format):
    values = np.full((8, 8), 2056, np.uint16)
    values[0, :2] = 0, 4095
    pixels = read(Image.fromarray(values), format)
    assert (pixels[1:] == 128).all()
    assert tuple(pixels[0, :2, 0]) == (0, 255)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_do_not_turn_white(format):
    values = np.full((8, 8), 32896, np.uint16)
    values[0, :2] = 0, 65535
    pixels = read(Image.fromarray(values), format)
    assert (pixels[1:] == 128).all()
    assert tuple(pixels[0, :2, 0]) == (0, 255)


@pytest.mark.parametrize("value, expected", [(257 * 150, 150), (4096, 128), (803, 200), (9, 9)])
def test_white_is_the_largest_number_of_as_many_bits_as_are_used(value, expected):
    assert (read(Image.fromarray(np.full((8, 8), value, np.uint16))) == expected).all()


def test_32_bits_are_stretched_from_their_own_darkest_to_brightest():
    values = np.full((8, 8), 50_000, np.int32)
    values[:, 4:], values[0, 0] = 100_000, 0
    pixels = read(Image.fromarray(values), "TIFF")
    assert pixels[0, 0, 0] == 0 and (pixels[1:, :4] == 128).all() and (pixels[:, 4:] == 255).all()


@pytest.mark.parametrize(
    "low, middle, high", [(0, 0.2, 1), (0, 51, 255), (-10, -6, 10)], ids=["0..1", "0..255", "own"]
)
def test_floating_point_is_scaled_by_its_range(low, middle, high):
    values = np.full((8, 8), middle, np.float32)
    values[0, :2] = low, high
    pixels = read(Image.fromarray(values), "TIFF")
    assert (pixels[1:] == 51).all()
    assert tuple(pixels[0, :2, 0]) == (0, 255)


def test_floating_point_within_0_to_1_is_not_stretched():
    assert (read(Image.fromarray(np.full((8, 8), 0.4, np.float32)), "TIFF") == 102).all()


def test_not_a_number_is_black():
    values = np.full((8, 8), 1, np.float32)
    values[:, :4] = np.nan
    assert halves(read(Image.fromarray(values), "TIFF")) == ((0, 0, 0), WHITE)


def test_rotated_photo_comes_out_upright():
    upright = Image.new("RGB", (16, 16), RED)
    upright.paste(GREEN, (8, 0, 16, 8))
    upright.paste(BLUE, (0, 8, 8, 16))
    stored, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # "turn me a quarter to the right"
    lossless = dict(quality=100, subsampling=0)
    turned = read(stored, "JPEG", size=16, exif=exif, **lossless)
    assert np.abs(turned - np.asarray(upright).astype(int)).max() <= 4
    assert np.abs(read(stored, "JPEG", size=16, **lossless) - turned).max() > 200


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    pixels = read(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert halves(pixels) == (RED, RED)


# How sizes fit


def landscape() -> Image.Image:
    return Image.fromarray(random_pixels(20, 40, 3))


def test_crop_scales_the_shorter_side_and_keeps_the_centre():
    expected = landscape().resize((8, 8), Image.Resampling.LANCZOS, box=(10, 0, 30, 20))
    assert np.array_equal(read(landscape(), fit="crop"), np.asarray(expected))


def test_crop_of_a_tall_image_keeps_the_centre():
    tall = landscape().transpose(Image.Transpose.TRANSPOSE)
    wide = read(landscape(), fit="crop").astype(int)
    difference = read(tall, fit="crop") - wide.transpose(1, 0, 2)
    assert np.abs(difference).max() <= 8  # Pillow may round between its two passes


def test_squash_scales_both_sides():
    expected = landscape().resize((8, 8), Image.Resampling.LANCZOS)
    assert np.array_equal(read(landscape(), fit="squash"), np.asarray(expected))


def test_crop_leaves_the_margins_out_and_squash_keeps_them():
    image = Image.new("RGB", (96, 32), BLUE)
    image.paste(RED, (0, 0, 12, 32))
    assert tuple(read(image, fit="crop")[4, 0]) == BLUE
    assert read(image, fit="squash")[4, 0, 0] > 200


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_resizing_is_antialiased(fit):
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = read(Image.fromarray(board.astype(np.uint8)), fit=fit)
    assert np.abs(pixels - 127.5).max() < 4


def test_small_images_are_enlarged():
    assert halves(read(Image.new("RGB", (3, 2), GREEN))) == (GREEN, GREEN)


@pytest.mark.parametrize("shape", [(1024, 1536), (1200, 40), (24, 1600)])
def test_big_jpeg_looks_as_if_it_had_been_decoded_in_full(shape):
    height, width = shape
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(6 * x / width), np.cos(5 * y / height), np.sin(4 * (x + y) / (width + height))]
    picture = Image.fromarray((127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8))
    side = min(shape)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.LANCZOS, box=box)).astype(int)
    assert np.abs(read(picture, "JPEG", quality=95) - expected).max() <= 3


# What is no image, and what is broken


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x00" * 100])
def test_what_is_no_image_is_none(content):
    assert read_square(content, 8, "crop") is None


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_truncated_image_raises(format):
    content = encode(Image.fromarray(random_pixels(64, 64, 3)), format)
    with pytest.raises((OSError, SyntaxError, ValueError)):
        read_square(content[: len(content) // 2], 8, "crop")


# Finding files


def test_subfolders_are_searched_and_names_are_sorted(tmp_path):
    for name in ("b.png", "a/z.png", "a/b/c.png", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_files(tmp_path).names == ["a.png", "a/b/c.png", "a/z.png", "b.png"]


HIDDEN = [".DS_Store", "._photo.png", "__MACOSX/._photo.png", "__MACOSX/photo.png", ".git/x.png"]


def test_hidden_files_of_a_folder_are_passed_over(tmp_path):
    for name in ["photo.png", *HIDDEN]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_files(tmp_path).names == ["photo.png"]


def test_hidden_files_of_a_zip_are_passed_over(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("deep/", b"")
        for name in ["deep/photo.png", *HIDDEN, *(f"deep/{name}" for name in HIDDEN)]:
            archive.writestr(name, b"")
    assert find_files(tmp_path / "set.zip").names == ["deep/photo.png"]


def test_a_hidden_folder_that_is_asked_for_is_searched(tmp_path):
    (tmp_path / ".secret").mkdir()
    (tmp_path / ".secret" / "a.png").touch()
    assert find_files(tmp_path / ".secret").names == ["a.png"]


def test_trailing_slash_makes_no_difference(images):
    plain, slashed = find_files(str(images)), find_files(f"{images}/")
    assert plain.names == slashed.names and plain.fingerprint == slashed.fingerprint


def test_tilde_is_the_home_folder(images, monkeypatch):
    monkeypatch.setenv("HOME", str(images.parent))
    assert find_files("~/images").names == find_files(images).names


@pytest.mark.parametrize("path", ["a" * 5000, "~nobody_of_this_name/images"])
def test_a_path_that_cannot_be_is_an_input_error(path):
    with pytest.raises(InputError) as error:
        find_files(path)
    assert "\n" not in str(error.value)


def test_missing_path_is_answered_with_the_bundled_sets():
    with pytest.raises(InputError) as error:
        find_files("no/such/folder")
    assert "no/such/folder" in str(error.value) and "\n" not in str(error.value)
    assert all(name in str(error.value) for name in BUNDLED)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half a zip"])
def test_bad_zip_is_an_input_error(tmp_path, content):
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.zip"):
        find_files(tmp_path / "bad.zip")


def test_a_folder_called_faces_goes_before_the_bundled_set(tmp_path, monkeypatch):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "mine.png").touch()
    monkeypatch.chdir(tmp_path)
    assert find_files("faces").names == ["mine.png"]


def test_fingerprint_changes_with_the_content_of_a_zip(tmp_path):
    prints = []
    for content in (b"abc", b"abd"):
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.writestr("a.png", content)
        prints.append(find_files(tmp_path / "set.zip").fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_first_bytes_of_a_file_can_be_read_alone(tmp_path, kind):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"0123456789")
    path = tmp_path / "set"
    if kind == "zip":
        path = shutil.make_archive(str(path), "zip", path)
    files = find_files(path)
    assert files.read("a", 4) == b"0123" and files.read("a") == b"0123456789"


def test_huge_archives_and_films_are_not_opened(tmp_path):
    for name in ("img_align_celeba.zip", "film.mp4", "scan.tif", "scan.dcm", "head.nii.gz"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**28 + 1)  # takes no room on the disk
    (tmp_path / "small").touch()
    assert find_files(tmp_path).names == ["head.nii.gz", "scan.dcm", "scan.tif", "small"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_passed_over(images):
    os.mkfifo(images / "pipe.png")
    assert "pipe.png" not in find_files(images).names


def test_link_that_leads_nowhere_does_not_stop_the_search(images):
    Path(images, "gone.png").symlink_to(images / "nothing")
    assert "gone.png" in find_files(images).names
