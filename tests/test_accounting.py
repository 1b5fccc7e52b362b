"""Whatever lies at a path is an image of the set or accounted for, in every call."""

import io
import os
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import make_images, noise_image
from PIL import Image

from diffusion_lib import InputError, load_image_set, load_images
from diffusion_lib.images import decode, folders
from diffusion_lib.images.account import KINDS, account, is_own, leave_out, merged
from diffusion_lib.plots import image_strip, save_grid, save_image

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")


def summary(path: Path | str) -> str:
    """The line of accounts, without the path; the same in the first call and in the next."""
    lines = []
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lines.append(load_image_set(path, 8).summary)
    assert lines[0] == lines[1] and "\n" not in lines[0] and lines[0].startswith(f"{path}: ")
    return lines[0].removeprefix(f"{path}: ")


def messages(path: Path, **settings) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_images(path, 8, **settings)
    return [str(warning.message) for warning in caught]


def test_nothing_is_said_of_a_sound_set(images, capsys):
    assert summary(images) == "6 images from 6 files"
    assert messages(images) == [] and capsys.readouterr().out == ""
    assert messages(images, progress=True) == []
    assert capsys.readouterr().out == f"{images}: 6 images from 6 files\n"


def test_a_damaged_image_is_a_warning_each_time(images):
    (images / "broken.png").write_bytes(b"broken")
    line = "6 images from 6 files; left out: 1 damaged (broken.png: not an image)"
    assert summary(images) == line
    assert messages(images) == messages(images) == [f"{images}: {line}"]
    assert messages(images, progress=True) == [f"{images}: {line}"]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
OTHERS = {
    "IMG_1.heic": (HEIC, "1 HEIC (IMG_1.heic; pip install pillow-heif)"),
    "IMG_2.jpg": (HEIC, "1 HEIC (IMG_2.jpg; pip install pillow-heif)"),
    "a.jxl": (b"\xff\x0a123", "1 JPEG XL (a.jxl; pip install pillow-jxl-plugin)"),
    "a.CR2": (b"II*\0", "1 raw photo (a.CR2; save as JPEG or TIFF)"),
    "a.eps": (EPS, "1 PostScript (a.eps; never run"),
    "a.png": (EPS, "1 PostScript (a.png; never run"),
    "a.svg": (b"<svg/>", "1 drawing (a.svg; save as PNG)"),
    "a.exr": (b"\x76\x2f\x31\x01", "1 OpenEXR or Radiance (a.exr; save as TIFF)"),
    "a.hdr": (b"#?RADIANCE\n", "1 OpenEXR or Radiance (a.hdr; save as TIFF)"),
    "a.nrrd": (b"NRRD0004", "1 other volume (a.nrrd; convert to NIfTI)"),
    "a.npy": (b"\x93NUMPY", "1 file of arrays (a.npy; save its images as PNG)"),
    "a.pdf": (b"%PDF-1.7", "1 document (a.pdf; save its pages as PNG)"),
    "a.mp4": (b"\0\0\0\x18ftypmp42", "1 film (a.mp4; save its frames)"),
    "a.zip": (b"PK", "1 archive (a.zip; unpack it, or give it as PATH)"),
    "notes.txt": (b"hello", "1 file that is no image"),
    "weights.h5": (b"\x89HDF\r\n\x1a\n", "1 file of arrays (weights.h5; "),
    "hdf": (b"\x89HDF\r\n\x1a\n", "1 file that is no image"),
    ".secret.png": (b"", "1 hidden"),
    "Thumbs.db": (b"", "1 hidden"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_read_is_told_with_what_to_do(images, name):
    content, part = OTHERS[name]
    (images / name).write_bytes(content)
    assert summary(images).startswith(f"6 images from 6 files; left out: {part}")


def test_the_most_important_comes_first_and_all_is_counted(images):
    for i in range(5):
        (images / f"{i}.heic").write_bytes(HEIC)
        (images / f"{i}.txt").write_text("hello")
    (images / "broken.png").write_bytes(b"")
    assert summary(images) == (
        "6 images from 6 files; left out: 1 damaged (broken.png: not an image), "
        "5 HEIC (0.heic, 1.heic, 2.heic, ...; pip install pillow-heif), 5 files that are no images"
    )


def test_ghostscript_is_never_asked(images, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: sys.exit("was run"))
    (images / "a.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )
    assert "PostScript" in summary(images)


@pytest.mark.skipif(sys.platform != "linux", reason="no such names there")
def test_names_that_no_terminal_shows_are_spelled_out(images):
    (images / "a\nb.png").write_bytes(b"broken")
    with open(os.fsencode(images) + b"/\xff.png", "wb") as file:
        file.write(b"broken")
    assert "2 damaged (a\\nb.png: not an image, \\udcff.png)" in summary(images)


# Folders


SYSTEM = ["@eaDir/a.jpg", "$RECYCLE.BIN/S-1", "System Volume Information", ".thumbnails"]


@pytest.mark.parametrize("folder", SYSTEM)
def test_thumbnails_and_deleted_files_are_no_images(images, folder):
    make_images(images / "deep" / folder)
    top = folder.split("/")[0]
    line = f"6 images from 6 files; left out: 1 folder with thumbnails or trash (deep/{top})"
    assert summary(images) == line
    assert messages(images) == []


@needs_links
def test_linked_folders_are_searched_each_once(images, tmp_path):
    make_images(tmp_path / "elsewhere", 2)
    (images / "a_link").symlink_to(tmp_path / "elsewhere")
    (images / "another").symlink_to(tmp_path / "elsewhere" / ".." / "elsewhere")
    (images / "around").symlink_to(images)
    (images / "deep").mkdir()
    (images / "deep" / "up").symlink_to(images)
    found = load_image_set(images, 8)
    assert found.files[6:] == ["a_link/0000.png", "a_link/0001.png"]
    links = "3 links to what is read already (another, around, deep/up)"
    assert summary(images) == f"8 images from 8 files; left out: {links}"


@needs_links
def test_a_link_does_not_take_the_place_of_the_real_folder(images):
    make_images(images / "z", 1)
    (images / "a").symlink_to(images / "z")
    assert load_image_set(images, 8).files[-1] == "z/0000.png"


@needs_links
def test_linked_files_are_images_once(images, tmp_path):
    noise_image(7).save(tmp_path / "outside.png")
    (images / "b.png").symlink_to(tmp_path / "outside.png")
    (images / "c.png").symlink_to(images / "0000.png")
    (images / "d.png").symlink_to(tmp_path / "outside.png")
    line = "7 images from 7 files; left out: 2 links to what is read already (c.png, d.png)"
    assert summary(images) == line


def test_a_folder_that_cannot_be_read_is_named(images, monkeypatch):
    make_images(images / "closed")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        part = "1 folder unreadable (closed: Permission denied; change its permissions)"
        assert summary(images) == f"6 images from 6 files; left out: {part}"
        assert len(messages(images)) == 1
    assert summary(images) == "12 images from 12 files"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_counted(images):
    os.mkfifo(images / "pipe.png")
    assert summary(images).endswith("left out: 1 pipe or device (pipe.png)")


@pytest.mark.parametrize("path", ["", Path("")])
def test_an_empty_path_is_refused(path, monkeypatch, images):
    monkeypatch.chdir(images)
    if path == "":
        with pytest.raises(InputError, match="empty"):
            load_images(path, 8)
    else:  # pathlib makes this of "."
        assert len(load_images(path, 8)) == 6


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_huge_files_are_not_read(images, monkeypatch, kind):
    monkeypatch.setattr(folders, "LARGEST_IMAGE", 10_000)
    monkeypatch.setattr(folders, "LARGEST_UNNAMED", 1_000)
    (images / "large.png").write_bytes(bytes(20_000))
    (images / "large").write_bytes(bytes(2_000))
    path = shutil.make_archive(str(images), "zip", images) if kind == "zip" else images
    line = "1 too large (large.png; over 2 GiB: cut them up), 1 file that is no image"
    assert summary(path) == f"6 images from 6 files; left out: {line}"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_large_files_are_read_whole_only_if_they_begin_like_images(images, monkeypatch, kind):
    monkeypatch.setattr(decode, "LARGE", 1_000)
    noise_image(7, 64).save(images / "sound.png")
    (images / "zeros.png").write_bytes(bytes(50_000))
    path = Path(shutil.make_archive(str(images), "zip", images)) if kind == "zip" else images
    sizes, Files = {}, folders.ZipFiles if kind == "zip" else folders.FolderFiles
    read = Files.read

    def noted(files, name: str, size: int = -1) -> bytes:
        sizes[name] = len(content := read(files, name, size))
        return content

    monkeypatch.setattr(Files, "read", noted)
    line = "7 images from 7 files; left out: 1 damaged (zeros.png: not an image)"
    assert summary(path) == line and sizes["zeros.png"] == 1_000 and sizes["sound.png"] > 1_000


# Our own pictures


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["png", "jpg", "webp", "bmp", "tif"])
def test_pictures_of_this_program_are_no_training_data(images, format, channels):
    save_image(random(channels, 8, 8), images / f"predict0.{format}")
    save_grid(random(4, channels, 8, 8), images / f"predict_grid.{format}")
    image_strip([random(3, 8, 8)], ["x"]).save(images / "predict_strip.png")
    line = "6 images from 6 files; left out: 3 of this program's own pictures"
    assert summary(images) == line and messages(images) == []


def test_pictures_of_this_program_alone_are_read(tmp_path):
    for i in range(2):
        save_image(random(3, 8, 8), tmp_path / f"predict{i}.png")
    assert summary(tmp_path) == "2 images from 2 files"


def test_pictures_of_other_programs_are_not_mistaken():
    for format in ("PNG", "JPEG", "BMP", "TIFF"):
        buffer = io.BytesIO()
        noise_image(0).save(buffer, format)
        assert not is_own(buffer.getvalue())


def test_unmarked_pictures_of_a_run_are_known_by_its_log(images):
    (images / "runs" / "mine").mkdir(parents=True)
    (images / "runs" / "mine" / "stats.jsonl").write_text("{}\n")
    for folder in ("out", "plot", "other"):
        (images / folder).mkdir()
        noise_image(0).save(images / folder / "mine_epoch_001.png")
    noise_image(1).save(images / "out" / "yours_epoch_001.png")
    found = load_image_set(images, 8)
    assert found.files[6:] == ["other/mine_epoch_001.png", "out/yours_epoch_001.png"]
    assert "2 of this program's own pictures" in found.summary


# Archives


def zipped(path: Path, members: dict[str, int]) -> Path:
    """A .zip of images of these greys."""
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there already
        for name, grey in members.items():
            buffer = io.BytesIO()
            Image.new("L", (8, 8), grey).save(buffer, "PNG")
            archive.writestr(name.rstrip("+"), buffer.getvalue())
    return path


def test_names_in_an_archive_are_made_plain(tmp_path):
    members = {"./a.png": 1, "./sub/./b.png": 2, "c\\d.png": 3, "/e.png": 4, "../f.png": 5,
               "./.hidden.png": 6, "__MACOSX/._a.png": 7, "x/@eaDir/y.png": 8}  # fmt: skip
    found = load_image_set(zipped(tmp_path / "a.zip", members), 8)
    assert found.files == ["a.png", "c/d.png", "e.png", "f.png", "sub/b.png"]
    assert found.pixels[:, 0, 0, 0].tolist() == [1, 3, 4, 5, 2]


def test_of_a_member_that_is_there_twice_the_last_counts(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": 50, "a.png+": 100, "./a.png": 150})
    assert load_images(path, 8)[:, 0, 0, 0].tolist() == [150]
    assert summary(path).endswith("left out: 2 older files of the same name (a.png, a.png)")


def test_a_zip_that_was_mended_is_read_again(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": 50, "b.png": 100})
    whole = path.read_bytes()
    place = whole.index(b"IDAT") + 8
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    assert "1 damaged (a.png" in summary(path)
    path.write_bytes(whole)
    assert summary(path) == "2 images from 2 files"


@pytest.mark.skipif(sys.platform == "win32", reason="no such time there")
def test_a_file_put_in_the_place_of_another_is_read_again(images):
    first = load_images(images, 8).clone()
    times, size = os.stat(images / "0000.png"), os.path.getsize(images / "0000.png")
    other = bytes(size)  # of the same size and date
    (images / "new").write_bytes(other)
    os.utime(images / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(images / "new", images / "0000.png")
    assert "1 damaged (0000.png" in summary(images) and len(first) == 6


# Counting


def test_accounts_add_up():
    first, second = {}, {}
    for i in range(4):
        leave_out(first, "damaged", f"{i}.png", "cut off")
        leave_out(second, "damaged", f"x{i}.png", "cut off")
        leave_out(second, "other", f"{i}.txt")
    both = merged(first, second)
    assert both["damaged"][0] == 8 and both["other"][0] == 4
    assert account(1, 1, both).startswith(
        "1 image from 1 file; left out: 8 damaged (0.png: cut off, 1.png, 2.png, 3.png, x0.png, "
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_told(kind):
    for count in (1, 5):
        left_out = {}
        leave_out(left_out, kind, "name", count=count)
        assert account(3, 2, left_out).startswith(f"3 images from 2 files; left out: {count} ")
