"""Image files of every kind: finding them, and turning one into a square of bytes."""

import io
import os
import stat
import threading
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffusion_lib.config import BUNDLED
from diffusion_lib.errors import InputError
from diffusion_lib.files import bundled_file
from diffusion_lib.images.medical import has_medical_extension

LARGEST_UNNAMED = 2**28  # bytes: a larger file without an image's extension is not opened


class FolderFiles:
    """The files of a folder and its subfolders.

    names: paths below the folder, sorted.
    fingerprint: changes whenever a file is added, removed or changed.
    """

    def __init__(self, path: Path):
        self.path = path
        entries = []
        for folder, subfolders, files in os.walk(path):
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            below = Path(folder).relative_to(path)
            prefix = "" if below == Path() else f"{below.as_posix()}/"
            for name in files:  # of which there may be hundreds of thousands
                if not is_hidden(name) and (found := size_and_time(os.path.join(folder, name))):
                    entries.append((prefix + name, *found))
        entries.sort()
        self.names = [name for name, *_ in entries]
        self.fingerprint = [str(path.resolve()), entries]

    def read(self, name: str, size: int = -1) -> bytes:
        """The content of a file, or only its first bytes."""
        with open(self.path / name, "rb") as file:
            return file.read(size)


class ZipFiles:
    """The same for the files in a .zip, which is never unpacked to disk."""

    def __init__(self, path: Path):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = sorted(
                    (entry.filename, entry.file_size, entry.CRC)
                    for entry in archive.infolist()
                    if not entry.is_dir() and not any(map(is_hidden, entry.filename.split("/")))
                )
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be read as a .zip file: {error}") from error
        self.path = path
        self.names = [name for name, *_ in entries]
        self.fingerprint = entries
        self.opened = threading.local()  # an archive has one position: a thread needs its own

    def read(self, name: str, size: int = -1) -> bytes:
        """The content of a file, or only its first bytes."""
        if not hasattr(self.opened, "archive"):
            self.opened.archive = zipfile.ZipFile(self.path)
        with self.opened.archive.open(name) as file:
            return file.read(size)


def find_files(path: str | Path) -> FolderFiles | ZipFiles:
    """The files at a path: of a folder, a .zip file, or a bundled set if no file has that name.

    Raises:
        InputError: no such path, or neither a folder nor a .zip.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return FolderFiles(path)
    if path.is_file():
        return ZipFiles(path)
    if str(path) in BUNDLED:
        return ZipFiles(bundled_file(f"{path}.zip"))
    raise InputError(
        f"there is no folder or .zip file {path}, and no bundled set of that name "
        f"({', '.join(BUNDLED)})"
    )


def is_hidden(name: str) -> bool:
    """Whether this is a file such as .DS_Store, or the folder that macOS adds to a .zip."""
    return name.startswith(".") or name == "__MACOSX"


def has_image_extension(name: str) -> bool:
    """Whether a name ends like that of a picture, such as .png or .JPG."""
    kind = Image.registered_extensions().get(Path(name).suffix.lower())
    return Image.MIME.get(kind, "").startswith("image/")


def size_and_time(file: str) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in ns, both -1 for a link that leads nowhere.

    None for what must not be opened: a very large file of another kind, such as an archive or a
    film, and a pipe or a socket, which would block.
    """
    try:
        status = os.stat(file)
    except OSError:
        return -1, -1
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size > LARGEST_UNNAMED and not (
        has_image_extension(file) or has_medical_extension(file)
    ):
        return None
    return status.st_size, status.st_mtime_ns


def read_square(content: bytes, image_size: int, fit: str) -> np.ndarray | None:
    """One file's content as an image.

    Args:
        content: of any file.
        image_size: side of the square, in pixels.
        fit: "crop" or "squash", see `load_images`.

    Returns:
        Uint8, shape (image_size, image_size, 3), or None if this is not an image.

    Raises:
        OSError, ValueError, SyntaxError ...: a broken image.
    """
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        return None
    # A JPEG decodes faster at a fraction of its size; twice ours is enough for antialiasing.
    image.draft(None, (2 * image_size, 2 * image_size))
    return make_square(ImageOps.exif_transpose(image), image_size, fit)


def make_square(image: Image.Image, image_size: int, fit: str) -> np.ndarray:
    """Any image as bytes of shape (image_size, image_size, 3)."""
    image = as_rgb(image)
    size = (image_size, image_size)
    if image.size == size:
        return np.asarray(image)
    resize = ImageOps.fit if fit == "crop" else Image.Image.resize
    return np.asarray(resize(image, size, Image.Resampling.LANCZOS))


def as_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, as viewers show it."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = as_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def as_8_bit(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits, or of floating-point numbers, as 8-bit grey.

    White is the largest value of the smallest usual format that holds all values: 4095 (12 bits,
    as scanners and cameras store in files of 16) or 65535 (16 bits); for floating-point numbers 1
    or 255. If none does, black and white are the image's own darkest and brightest values.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = values.min(), values.max()
    tops = (1, 255) if image.mode == "F" else (4095, 65535)
    usual = next((top for top in tops if low >= 0 and high <= top), None)
    if usual is not None:
        low, high = 0, usual
    return Image.fromarray((255 * (values - low) / max(high - low, 1e-12)).round().astype(np.uint8))
