"""Image files of every kind: finding them, and turning one into a square of bytes."""

import io
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffusion_lib.errors import InputError

BUNDLED = ("faces", "digits", "brains")


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
            for name in files:
                file = Path(folder, name)
                if not is_hidden(name) and not is_device(file):
                    entries.append((file.relative_to(path).as_posix(), *size_and_time(file)))
        entries.sort()
        self.names = [name for name, *_ in entries]
        self.fingerprint = [str(path.resolve()), entries]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


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

    def read(self, name: str) -> bytes:
        if not hasattr(self.opened, "archive"):
            self.opened.archive = zipfile.ZipFile(self.path)
        return self.opened.archive.read(name)


def find_files(path: str | Path) -> FolderFiles | ZipFiles:
    """The files at a path: a folder, a .zip file, or a bundled set where nothing has that name.

    Raises:
        InputError: there is nothing there, or it is neither folder nor .zip.
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


def bundled_file(name: str) -> Path:
    """A file of `data/`: in a checkout there, in an installed package beside the code.

    Raises:
        InputError: this installation came without it.
    """
    package = Path(__file__).parent
    for folder in (package.parent / "data", package / "bundled"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"the bundled {name} did not come with this installation: clone the repository instead"
    )


def is_hidden(name: str) -> bool:
    """Whether this is a file such as .DS_Store, or the folder that macOS adds to a .zip."""
    return name.startswith(".") or name == "__MACOSX"


def is_device(file: Path) -> bool:
    """Whether this is a pipe, a socket or the like, which would keep a reader waiting."""
    return file.exists() and not file.is_file()


def is_called_image(name: str) -> bool:
    """Whether a name ends like that of a picture, such as .png or .JPG."""
    kind = Image.registered_extensions().get(Path(name).suffix.lower())
    return Image.MIME.get(kind, "").startswith("image/")


def size_and_time(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns, both -1 for a link that leads nowhere."""
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def read_square(content: bytes, image_size: int, fit: str) -> np.ndarray | None:
    """One file's content as an image.

    Args:
        content: of any file.
        image_size: side of the square, in pixels.
        fit: "crop" or "squash", see `load_images`.

    Returns:
        Uint8, shape (image_size, image_size, 3), or None if this is no image at all.

    Raises:
        OSError, ValueError, SyntaxError ...: a broken image (Pillow has many ways to say so).
    """
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        return None
    # A JPEG can be decoded at a fraction of its size; twice ours leaves the antialiasing to us.
    image.draft(None, (2 * image_size, 2 * image_size))
    image = as_rgb(ImageOps.exif_transpose(image))
    size = (image_size, image_size)
    if image.size == size:
        return np.asarray(image)
    resize = ImageOps.fit if fit == "crop" else Image.Image.resize
    return np.asarray(resize(image, size, Image.Resampling.LANCZOS))


def as_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, looking as it does in a viewer."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = as_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def as_8_bit(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits, or of floating-point numbers, as 8-bit grey.

    The range is that of the format where it has one (65535 for 16 bits, 1 for fractions, 255 for
    floating-point bytes); otherwise the image's own darkest and brightest value.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = values.min(), values.max()
    if image.mode == "F":
        usual = next((top for top in (1, 255) if low >= 0 and high <= top), None)
    else:
        usual = 65535 if low >= 0 and high <= 65535 else None
    if usual is not None:
        low, high = 0, usual
    return Image.fromarray((255 * (values - low) / max(high - low, 1e-12)).round().astype(np.uint8))
