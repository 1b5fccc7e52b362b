"""From a folder to tensors: hostile folders, channels, the cache, and the stream of batches."""

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_images, noise_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_lib import InputError, load_images, locks
from diffusion_lib.batches import BatchStream, how_many_held_out
from diffusion_lib.images import cache as caching
from diffusion_lib.images import decode
from diffusion_lib.images.cache import cache_folder, load_image_set
from diffusion_lib.images.folders import FolderFiles
from diffusion_lib.images.pixels import to_images, to_pixels

CPU = torch.device("cpu")


def stack(*images: Image.Image) -> torch.Tensor:
    """What `load_images` should make of RGB images of the right size."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


def load_with_warnings(*arguments, **settings) -> tuple[torch.Tensor, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels = load_images(*arguments, **settings)
    return pixels, [str(warning.message) for warning in caught]


# Folders


def test_a_folder_becomes_bytes_in_order_of_names(images):
    pixels = load_images(images, 8)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, stack(*(noise_image(i) for i in range(6))))


def test_odd_names_are_images_like_others(tmp_path):
    names = ["UPPER.PNG", "deep/er/x.png", "no_extension", "with space.png", "ünïcödé 图.png"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(i).save(tmp_path / name, "PNG")
    assert torch.equal(load_images(tmp_path, 8), stack(*(noise_image(i) for i in range(5))))


def test_wrong_extension_is_no_hindrance(tmp_path):
    noise_image(0).save(tmp_path / "really_a_png.jpg", "PNG")
    assert torch.equal(load_images(tmp_path, 8), stack(noise_image(0)))


def test_files_that_are_no_images_are_passed_over_in_silence(images):
    expected = load_images(images, 8).clone()
    for name in ("notes.txt", "labels.csv", ".DS_Store", "._0000.png", "Makefile"):
        (images / name).write_bytes(b"a,b\n1,2\n")
    (images / "__MACOSX").mkdir()
    (images / "__MACOSX" / "0000.png").write_bytes(b"\x00\x05\x16\x07")
    pixels, messages = load_with_warnings(images, 8)
    assert torch.equal(pixels, expected) and messages == []


def spoil(folder: Path) -> list[str]:
    """Add broken images to a folder, and return their names."""
    noise_image(0, 64).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    (folder / "empty.jpg").touch()
    (folder / "garbage.png").write_bytes(bytes(range(256)) * 4)
    (folder / "half_garbage.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "nowhere.png").symlink_to(folder / "nothing")
    return ["cut.jpg", "empty.jpg", "garbage.png", "half_garbage.png", "nowhere.png"]


def test_broken_images_are_left_out_and_named_in_one_warning(images):
    expected = load_images(images, 8).clone()
    broken = spoil(images)
    pixels, messages = load_with_warnings(images, 8)
    assert torch.equal(pixels, expected)
    assert len(messages) == 1 and "\n" not in messages[0]
    assert [name for name in broken if name not in messages[0]] == []
    assert "6 images from 6 files; left out: 5 damaged (" in messages[0]
    assert "empty.jpg: not an image, garbage.png, " in messages[0]  # each reason once
    assert "nowhere.png: No such file or directory" in messages[0]


def test_many_broken_images_are_counted_and_only_some_of_them_named(images):
    for i in range(30):
        Path(images, f"x{i}.png").symlink_to(images / "nothing")
    _, messages = load_with_warnings(images, 8)
    assert len(messages) == 1 and "30" in messages[0] and len(messages[0]) < 500


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_the_system_cannot_read_is_tried_again_by_the_next_call(
    images, monkeypatch, number
):
    usual, failing, reads = FolderFiles.read, {"0002.png", "0004.png"}, []

    def read(files: FolderFiles, name: str, size: int = -1) -> bytes:
        reads.append(name)
        if name in failing:
            raise OSError(number, os.strerror(number))
        return usual(files, name, size)

    monkeypatch.setattr(FolderFiles, "read", read)
    for calls in (6, 2):  # the second call tries those two only
        reads.clear()
        pixels, messages = load_with_warnings(images, 8)
        assert len(pixels) == 4 and len(reads) == calls
        reason = f"0002.png: {os.strerror(number)}, 0004.png; tried again at the next start"
        assert len(messages) == 1 and f"2 files unreadable ({reason})" in messages[0]
    failing.remove("0002.png")
    pixels, (message,) = load_with_warnings(images, 8)
    assert len(pixels) == 5 and "1 file unreadable (0004.png: " in message
    failing.clear()
    assert len(load_images(images, 8)) == 6
    reads.clear()
    assert len(load_images(images, 8)) == 6 and reads == []


def test_what_could_not_be_read_before_a_kill_is_tried_again_after_it(images, monkeypatch):
    class Killed(BaseException):
        pass

    def read(files: FolderFiles, name: str, size: int = -1) -> bytes:
        if name == "0000.png":
            raise OSError(errno.EIO, "Input/output error")
        if name == "0003.png":
            raise Killed
        return usual(files, name, size)

    usual = FolderFiles.read
    monkeypatch.setattr(decode, "CHUNK", 1)
    monkeypatch.setattr(decode, "SAVE_SECONDS", 0)
    with monkeypatch.context() as patched:
        patched.setattr(FolderFiles, "read", read)
        with pytest.raises(Killed):
            load_images(images, 8, workers=1)
    assert len(load_with_warnings(images, 8)[0]) == 5  # it goes on where it was
    assert len(load_images(images, 8)) == 6


def test_after_ctrl_c_no_further_file_is_decoded(tmp_path, monkeypatch):
    folder, decoded, gate = make_images(tmp_path / "set", 40), [], threading.Event()
    usual, shutdown = decode.read_pictures, ThreadPoolExecutor.shutdown

    def read_pictures(content, image_size, name, left_out):
        decoded.append(name)
        if len(decoded) > 4:  # the second chunk
            gate.wait()
        return usual(content, image_size, name, left_out)

    def save_file(*_):
        raise KeyboardInterrupt

    def shutdown_of_one_at_work(threads, **how):
        gate.set()
        shutdown(threads, **how)

    monkeypatch.setattr(decode, "CHUNK", 4)
    monkeypatch.setattr(decode, "SAVE_SECONDS", 0)
    monkeypatch.setattr(decode, "read_pictures", read_pictures)
    monkeypatch.setattr(decode, "save_file", save_file)
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown_of_one_at_work)
    with pytest.raises(KeyboardInterrupt):
        load_images(folder, 8, workers=1)
    assert len(decoded) <= 5


@pytest.mark.parametrize("content", ["nothing", "text", "broken"])
def test_no_image_at_all_is_an_input_error_of_one_line(tmp_path, content):
    folder = tmp_path / "set"
    folder.mkdir()
    if content == "text":
        (folder / "readme.txt").write_text("hello")
    if content == "broken":
        spoil(folder)
    with pytest.raises(InputError) as error:
        load_with_warnings(folder, 8)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_trailing_slash_makes_no_difference(images):
    assert torch.equal(load_images(f"{images}/", 8), load_images(str(images), 8))


def test_a_zip_gives_the_same_pixels_as_its_folder(images):
    (images / "deep").mkdir()
    noise_image(9, 30).save(images / "deep" / "photo.jpg")
    archive = shutil.make_archive(str(images.parent / "set"), "zip", images)
    assert torch.equal(load_images(archive, 8), load_images(images, 8))


def test_a_damaged_image_in_a_zip_is_left_out(images, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(images / "0000.png", "good.png")
        archive.write(images / "0001.png", "bad.png")
    content = bytearray((tmp_path / "set.zip").read_bytes())
    content[content.rindex(b"IDAT", 0, content.index(b"PK\x01\x02")) + 20] ^= 255  # in bad.png
    (tmp_path / "set.zip").write_bytes(content)
    pixels, messages = load_with_warnings(tmp_path / "set.zip", 8)
    assert torch.equal(pixels, stack(noise_image(0)))
    assert len(messages) == 1 and "bad.png" in messages[0]


def test_the_folder_that_torchvision_downloads_celeba_to(tmp_path):
    folder = tmp_path / "celeba" / "img_align_celeba"
    for i in range(3):
        noise_image(i).save(make_images(folder, 0) / f"{i:06d}.png")
    archive = shutil.make_archive(str(folder), "zip", folder)
    (folder.parent / "list_attr_celeba.txt").write_text("202599\n5_o_Clock_Shadow\n")
    pixels, messages = load_with_warnings(folder.parent, 8)
    expected = stack(*(noise_image(i) for i in range(3)))
    assert torch.equal(pixels, expected) and messages == []
    assert torch.equal(load_images(archive, 8), expected)


def test_more_images_than_are_decoded_at_a_time(tmp_path):
    make_images(tmp_path / "set", 1100, 2)
    pixels = load_images(tmp_path / "set", 2)
    assert torch.equal(pixels, stack(*(noise_image(i, 2) for i in range(1100))))


@pytest.mark.parametrize("workers", [1, 3])
def test_number_of_threads_makes_no_difference(images, workers, monkeypatch, tmp_path):
    expected = load_images(images, 8).clone()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert torch.equal(load_images(images, 8, workers=workers), expected)


@pytest.mark.parametrize("wrong", [{"channels": 4}, {"channels": "rgb"}, {"fit": "pad"}])
def test_unknown_settings_are_input_errors(images, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        load_images(images, 8, **wrong)


def test_image_size_must_be_positive(images):
    with pytest.raises(InputError, match="size"):
        load_images(images, 0)


# Which file an image comes from


def test_each_image_has_the_name_of_its_file(images):
    (images / "deep").mkdir()
    noise_image(9).save(images / "deep" / "photo.png")
    (images / "0002.png").write_bytes(b"broken")
    (images / "notes.txt").write_text("hello")
    for path in (images, shutil.make_archive(str(images.parent / "set"), "zip", images)):
        with pytest.warns(match="1 damaged .0002.png"):
            found, again = (load_image_set(path, 8) for _ in range(2))
        names = ["0000.png", "0001.png", "0003.png", "0004.png", "0005.png", "deep/photo.png"]
        assert found.files == again.files == names
        assert torch.equal(found.pixels, again.pixels) and len(found.pixels) == 6


# Channels


def test_grey_images_get_one_channel(tmp_path):
    make_images(tmp_path / "set", grey=True)
    pixels = load_images(tmp_path / "set", 8)
    expected = np.stack([np.asarray(noise_image(i, grey=True)) for i in range(6)])[:, None]
    assert np.array_equal(pixels.numpy(), expected)


def test_grey_images_get_three_equal_channels_when_asked(tmp_path):
    make_images(tmp_path / "set", grey=True)
    grey, rgb = (load_images(tmp_path / "set", 8, channels) for channels in (1, 3))
    assert torch.equal(rgb, grey.expand(-1, 3, -1, -1))


def test_one_coloured_image_makes_the_set_coloured(tmp_path):
    make_images(tmp_path / "set", grey=True)
    noise_image(7).save(tmp_path / "set" / "colour.png")
    assert load_images(tmp_path / "set", 8).shape == (7, 3, 8, 8)


def test_one_coloured_pixel_counts(tmp_path):
    make_images(tmp_path / "set", grey=True)
    almost = noise_image(7, grey=True).convert("RGB")
    almost.putpixel((3, 3), (200, 100, 100))
    almost.save(tmp_path / "set" / "almost.png")
    assert load_images(tmp_path / "set", 8).shape[1] == 3


def test_grey_photos_saved_as_rgb_jpeg_count_as_grey(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(4):
        noise_image(i, 32, grey=True).convert("RGB").save(folder / f"{i}.jpg", quality=60)
    tinted = np.stack([np.asarray(noise_image(5, 32, grey=True)) // 2 + d for d in (0, 3, 6)], 2)
    Image.fromarray(tinted.astype(np.uint8)).save(folder / "tinted.png")
    assert load_images(folder, 16).shape == (5, 1, 16, 16)


def test_coloured_images_become_grey_when_asked(images):
    pixels = load_images(images, 8, channels="1")
    expected = np.stack([np.asarray(noise_image(i).convert("L")) for i in range(6)])[:, None]
    assert np.abs(pixels.numpy().astype(int) - expected).max() <= 1


# The cache


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, of which nothing exists yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    return cache_folder()


def entries(cache: Path) -> list[str]:
    """The sets in the cache, done or not; beside each lie an index and a lock."""
    names = sorted(path.name for path in cache.iterdir()) if cache.exists() else []
    return [name for name in names if not name.endswith((".json", ".lock"))]


def fail(*_):
    raise AssertionError("decoded again")


def test_cache_is_below_the_users_cache_folder(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/simple-diffusion")


def test_second_call_decodes_nothing(images, monkeypatch):
    first = load_images(images, 8).clone()
    monkeypatch.setattr(decode, "read_pictures", fail)
    assert torch.equal(load_images(images, 8), first)


def test_one_call_leaves_one_set_in_the_cache(images, cache):
    load_images(images, 8)
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("other", [{"image_size": 4}, {"fit": "squash"}, {"channels": 1}])
def test_other_settings_make_another_entry(images, cache, other):
    load_images(images, 8)
    load_images(images, **{"image_size": 8, **other})
    assert len(entries(cache)) == 2


def test_changed_file_is_decoded_again(images):
    load_images(images, 8)
    noise_image(100).save(images / "0000.png")
    os.utime(images / "0000.png", ns=(1, 1))  # some file systems count time in seconds
    assert torch.equal(load_images(images, 8)[:1], stack(noise_image(100)))


def test_added_and_removed_files_are_noticed(images):
    load_images(images, 8)
    noise_image(100).save(images / "zzz.png")
    assert torch.equal(load_images(images, 8)[6:], stack(noise_image(100)))
    (images / "0000.png").unlink()
    assert len(load_images(images, 8)) == 6


def test_changed_zip_is_decoded_again(tmp_path):
    for i in range(2):
        noise_image(i).save(tmp_path / "a.png")
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.write(tmp_path / "a.png", "a.png")
        assert torch.equal(load_images(tmp_path / "set.zip", 8), stack(noise_image(i)))


def test_folders_of_equal_names_do_not_share_an_entry(tmp_path):
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        Image.new("RGB", (8, 8), (i, 50, 99)).save(tmp_path / str(i) / "a.png")
        os.utime(tmp_path / str(i) / "a.png", ns=(1, 1))
    assert load_images(tmp_path / "0", 8)[0, 0, 0, 0] == 0
    assert load_images(tmp_path / "1", 8)[0, 0, 0, 0] == 1


@pytest.fixture
def small_steps(monkeypatch):
    """Decoding that goes forward, and notes how far it is, by four files at a time."""
    monkeypatch.setattr(decode, "CHUNK", 4)
    monkeypatch.setattr(decode, "SAVE_SECONDS", 0)


def test_interrupted_decoding_goes_on_where_it_was(tmp_path, cache, monkeypatch, small_steps):
    folder, decoded, read_pictures = make_images(tmp_path / "set", 40), [], decode.read_pictures
    spoil(folder)

    def interrupt(content: bytes, *settings) -> np.ndarray | None:
        if len(decoded) == 21:
            raise KeyboardInterrupt
        decoded.append(content)
        return read_pictures(content, *settings)

    with monkeypatch.context() as patch:
        patch.setattr(decode, "read_pictures", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_images(folder, 8, workers=1)
    monkeypatch.setattr(decode, "read_pictures", lambda *a: decoded.append(a) or read_pictures(*a))
    pixels, messages = load_with_warnings(folder, 8)
    assert torch.equal(pixels, stack(*(noise_image(i) for i in range(40))))
    assert len(messages) == 1 and "5 damaged" in messages[0]
    assert 44 <= len(decoded) < 44 + 12
    assert len(entries(cache)) == 1


def test_what_is_left_by_an_interruption_at_the_very_end_is_removed(images, cache, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_images(images, 8)
    assert len(entries(cache)) == 2
    monkeypatch.setattr(decode, "read_pictures", fail)
    assert len(load_images(images, 8)) == 6
    assert len(entries(cache)) == 1


def test_broken_images_are_named_even_if_an_earlier_call_met_them(
    tmp_path, cache, monkeypatch, small_steps
):
    folder = make_images(tmp_path / "set", 40)
    (folder / "0000.png").write_bytes(b"broken")
    with monkeypatch.context() as patch:
        patch.setattr(caching, "write_set", fail)
        with pytest.raises(AssertionError):
            load_with_warnings(folder, 8)
    monkeypatch.setattr(decode, "read_pictures", fail)
    pixels, messages = load_with_warnings(folder, 8)
    assert len(pixels) == 39 and len(messages) == 1 and "0000.png" in messages[0]


START = """
import os, random, signal, sys, time
from pathlib import Path
from diffusion_lib.images import decode
from diffusion_lib.images.cache import load_images
decode.CHUNK, decode.SAVE_SECONDS = 4, 0
folder = sys.argv[1]

def fork(function):
    child = os.fork()
    if child:
        return child
    try:
        function()
    finally:
        os._exit(0)

def load():
    load_images(folder, 8, workers=2)
"""

KILLED_AT_RANDOM = """
randomly = random.Random(0)
for attempt in range(1000):
    child = fork(load)
    time.sleep(randomly.uniform(0, 0.03 * attempt))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        break
print(attempt)
"""

# Just before one of the next ten steps that matter.
KILLED_BEFORE_A_STEP = """
def die_after(count):
    def mortal(step):
        def before(*arguments, **settings):
            nonlocal count
            count -= 1
            if count < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **settings)
        return before
    os.fsync, os.replace, os.unlink = mortal(os.fsync), mortal(os.replace), mortal(os.unlink)
    load()

for attempt in range(1000):
    if os.waitpid(fork(lambda: die_after(attempt % 10)), 0)[1] == 0:
        break
print(attempt)
"""

AT_ONCE = """
read_pictures = decode.read_pictures

def noted(content, *settings):
    with open(sys.argv[2], "ab") as file:
        file.write(b"1")
    return read_pictures(content, *settings)

decode.read_pictures = noted
for child in [fork(load) for _ in range(4)]:
    os.waitpid(child, 0)
print(os.path.getsize(sys.argv[2]))
"""


def run(script: str, *arguments: Path) -> int:
    command = [sys.executable, "-c", START + script, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize(
    "script, attempts",
    [(KILLED_AT_RANDOM, 4), (KILLED_BEFORE_A_STEP, 8)],
    ids=["at random", "before a step"],
)
def test_killed_processes_end_in_the_same_bytes(tmp_path, cache, monkeypatch, script, attempts):
    folder = make_images(tmp_path / "set", 100)
    spoil(folder)
    assert run(script, folder) >= attempts
    assert len(entries(cache)) == 1
    killed = (cache / entries(cache)[0]).read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "undisturbed"))
    load_with_warnings(folder, 8)
    assert (cache_folder() / entries(cache_folder())[0]).read_bytes() == killed


@pytest.mark.slow
@pytest.mark.skipif(not locks.fcntl, reason="no locks here")
def test_of_processes_at_once_one_decodes_and_the_others_wait(tmp_path, cache):
    folder = make_images(tmp_path / "set", 200)
    assert run(AT_ONCE, folder, tmp_path / "decoded") == 200
    assert len(entries(cache)) == 1
    assert torch.equal(load_images(folder, 8), stack(*(noise_image(i) for i in range(200))))


def test_failed_decoding_leaves_nothing_behind(tmp_path, cache):
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError):
        load_images(tmp_path / "set", 8)
    assert entries(cache) == []


def test_cache_that_cannot_be_written_is_an_input_error(images, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="XDG_CACHE_HOME") as error:
        load_images(images, 8)
    assert "\n" not in str(error.value)


def test_full_disk_is_an_input_error_and_costs_no_work(images, cache, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", full)
        with pytest.raises(InputError, match="No space left"):
            load_images(images, 8)
    monkeypatch.setattr(decode, "read_pictures", fail)
    assert torch.equal(load_images(images, 8), stack(*(noise_image(i) for i in range(6))))
    assert len(entries(cache)) == 1


def test_images_are_mapped_from_the_cache_and_not_read_into_memory(images, monkeypatch):
    arrays, from_numpy = [], torch.from_numpy
    monkeypatch.setattr(
        torch, "from_numpy", lambda array: arrays.append(array) or from_numpy(array)
    )
    load_images(images, 8)
    assert isinstance(arrays[-1], np.memmap)


def test_writing_to_the_images_does_not_change_the_cache(images):
    pixels = load_images(images, 8)
    before = pixels.clone()
    pixels.zero_()
    assert torch.equal(load_images(images, 8), before)


# Damage


@pytest.mark.parametrize("place", ["header", "middle", "end", "cut", "empty", "index", "counts"])
def test_a_damaged_set_is_named_and_made_anew(images, cache, place):
    before, names = load_images(images, 8).clone(), load_image_set(images, 8).files
    (cached,) = cache.glob("*.npy")
    index = cached.with_suffix(".json")
    content = bytearray(cached.read_bytes())
    where = {"header": 8, "middle": len(content) // 2, "end": len(content) - 1}.get(place)
    if where:
        content[where] ^= 255
    cached.write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(place, content))
    if place == "index":
        index.write_bytes(b"{")
    if place == "counts":
        index.write_text(index.read_text().replace("[1, 1, ", "[2, 0, "))
    with pytest.warns(match=f"{re.escape(str(cached))} is damaged: all images are read again"):
        found = load_image_set(images, 8)
    assert torch.equal(found.pixels, before) and found.files == names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(load_images(images, 8), before)


@pytest.mark.parametrize("part", ["progress.pth", "rgb"])
def test_damage_to_unfinished_work_is_no_harm(images, cache, monkeypatch, part):
    with monkeypatch.context() as patch:
        patch.setattr(caching, "write_set", fail)
        with pytest.raises(AssertionError):
            load_images(images, 8)
    (unfinished,) = cache.glob("*.unfinished")
    (unfinished / part).write_bytes((unfinished / part).read_bytes()[:100])
    assert torch.equal(load_images(images, 8), stack(*(noise_image(i) for i in range(6))))


def test_a_large_set_is_compared_in_blocks(monkeypatch):
    from diffusion_lib.images import store

    array = np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), np.uint8)
    whole = store.fingerprint(array)
    monkeypatch.setattr(store, "CHECKED", 2048)
    monkeypatch.setattr(store, "BLOCKS", 8)
    first, other = store.fingerprint(array), array.copy()
    other[-1] += 1
    assert len({whole, first, store.fingerprint(other)}) == 3


def test_where_the_home_is_unknown_the_cache_is_temporary(images, tmp_path, monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.warns(match=f"kept in {re.escape(str(tmp_path))}.*XDG_CACHE_HOME"):
        assert len(load_images(images, 8)) == 6


# Values


def test_floats_are_images_already():
    floats = torch.tensor([-2.5, 0.25, 7.0])
    assert to_images(floats) is floats


def test_bytes_survive_the_way_to_images_and_back():
    every = torch.arange(256, dtype=torch.uint8)
    values = to_images(every)
    assert torch.equal(to_pixels(values), every)
    assert values[0] == -1 and values[255] == 1 and (values.diff() > 0).all()


def test_values_beyond_the_range_are_clipped():
    assert to_pixels(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


# Batches


def numbered(count: int) -> torch.Tensor:
    """Images of one pixel, which is their number."""
    return torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)


sizes = given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 2**32 - 1))


@sizes
def test_every_image_comes_exactly_once_an_epoch(count, batch_size, seed):
    stream = BatchStream(numbered(count), batch_size, seed, CPU)
    epochs = 4
    batches = [stream.indices(k) for k in range(-(-epochs * count // batch_size))]
    order = torch.cat(batches)[: epochs * count].view(epochs, count)
    assert torch.equal(order.sort(dim=1).values, torch.arange(count).expand(epochs, count))


@sizes
def test_all_batches_are_of_one_size(count, batch_size, seed):
    stream = BatchStream(numbered(count), batch_size, seed, CPU)
    assert {stream.batch(k).shape for k in range(5)} == {(batch_size, 1, 1, 1)}


@given(st.integers(0, 10**6))
def test_batch_k_is_the_same_whatever_was_asked_before(k):
    used, fresh = (BatchStream(numbered(50), 8, 3, CPU) for _ in range(2))
    for other in (0, k + 1, k // 2):
        used.batch(other)
    assert torch.equal(used.batch(k), fresh.batch(k))


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.data())
def test_images_that_are_held_out_come_in_no_batch_and_all_others_in_each_epoch(count, seed, data):
    held_out = data.draw(st.integers(0, count - 1))
    stream = BatchStream(numbered(count), 1, seed, CPU, held_out=held_out)
    assert len(stream.unseen) == held_out
    assert sorted([*stream.kept.tolist(), *stream.unseen.tolist()]) == list(range(count))
    for epoch in range(3):
        first = epoch * len(stream.kept)
        seen = [stream.indices(k).item() for k in range(first, first + len(stream.kept))]
        assert sorted(seen) == sorted(stream.kept.tolist())


def test_of_few_images_none_are_held_out_and_of_many_no_more_than_one_needs():
    found = [how_many_held_out(0.1, images) for images in (1, 49, 50, 200, 1000, 10**6)]
    assert found == [0, 0, 5, 20, 100, 100]
    assert how_many_held_out(0.0, 500) == 0


def test_a_batch_holds_the_images_of_its_indices():
    stream = BatchStream(numbered(50), 7, 0, CPU)
    assert torch.equal(to_pixels(stream.batch(3)).flatten(), stream.indices(3).to(torch.uint8))


def test_epochs_and_seeds_differ_in_their_order():
    orders = [
        BatchStream(numbered(50), 50, seed, CPU).indices(epoch).tolist()
        for seed in range(5)
        for epoch in range(20)
    ]
    assert len(set(map(tuple, orders))) == 100
    assert list(range(50)) not in orders


def test_batches_are_floats_from_minus_1_to_1():
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    batch = BatchStream(black_and_white, 2, 0, CPU).batch(0)
    assert batch.dtype == torch.float32 and sorted(batch.flatten().tolist()) == [-1, 1]


# Batches gathered ahead, as for a GPU whose memory does not hold the images


@pytest.fixture
def gathers_ahead(monkeypatch):
    """gathers_ahead(stream) lets it do on the CPU what it does for a GPU, but for pinning."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    with ThreadPoolExecutor(1) as thread:

        def change(stream: BatchStream) -> BatchStream:
            stream.ahead, stream.thread = True, thread
            return stream

        yield change


POINTS = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
WAYS = [
    pytest.param(range(12), id="in order"),
    pytest.param([0, 1, 2, 9, 10, 11], id="forward"),  # to batch 9, as after `restore`
    pytest.param([6, 7, 3, 4, 4, 5], id="back"),
]


@pytest.mark.parametrize("ks", WAYS)
@pytest.mark.parametrize("pixels", [numbered(20), POINTS], ids=["bytes", "floats"])
@pytest.mark.parametrize("share", [slice(None), slice(2, 4)], ids=["all", "share"])
def test_batches_gathered_ahead_are_those_of_their_numbers(gathers_ahead, ks, pixels, share):
    plain, ahead = (BatchStream(pixels, 6, 3, CPU, share) for _ in range(2))
    gathers_ahead(ahead)
    for k in ks:
        assert torch.equal(ahead.batch(k), plain.batch(k))


def test_each_batch_is_gathered_once_and_before_it_is_asked_for(gathers_ahead):
    stream, gathered = gathers_ahead(BatchStream(numbered(20), 6, 3, CPU)), []
    gather = stream.gather
    stream.gather = lambda k: gathered.append(k) or gather(k)
    for k in (0, 1, 2, 9, 10):
        stream.batch(k)
        number, following = stream.next
        following.result()
        assert number == gathered[-1] == k + 1
    assert gathered == [0, 1, 2, 3, 9, 10, 11]
