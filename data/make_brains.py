"""Make brains.zip: 1,000 axial slices of a brain, 64x64, grey, as a T1-weighted MRI shows them.

    pip install numpy pillow scipy
    python data/make_brains.py

All of them are cut from one average brain, the ICBM 152 template of the Montreal Neurological
Institute, which comes from the wheel of nilearn (downloaded, but not installed). Each slice has
its own level, angle, size, shape, contrast and noise, drawn with a fixed seed.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
from pack import read_wheel, to_csv, to_png, write_zip
from scipy.ndimage import map_coordinates, zoom

SOURCE = "nilearn==0.14.1"
VOLUME = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
TARGET = Path(__file__).parent / "brains.zip"
NOTICE = """\
The images of this set are slices of the ICBM 152 non-linear symmetric template (2009a), moved,
warped and given other contrasts. The template comes with this notice:

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute this software and
its documentation for any purpose and without fee is hereby granted, provided that the above
copyright notice appear in all copies. The authors and McGill University make no representations
about the suitability of this software for any purpose. It is provided "as is" without express or
implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""

COUNT = 1000
SEED = 0
SIDE = 64
FINER = 3  # slices are cut on a grid this much finer, then averaged: no jagged edges
WIDTH = 222.0  # millimetres from edge to edge of an image
CENTRE = np.array([0.0, -17.0])  # millimetres to the right and to the front: the brain's middle
COLUMNS = ["file", "level_mm", "rotation_degrees", "scale", "gray_matter", "fluid", "noise"]


def read_volume(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a NIfTI file of bytes, from 0 to 1, and where in millimetres the first one is.

    The voxels of the template are cubes of 1 mm, so that a step in the array is a millimetre.
    """
    data = gzip.decompress(data)
    shape = struct.unpack("<3h", data[42:48])
    corner = np.array(struct.unpack("<12f", data[280:328])[3::4])
    start = int(struct.unpack("<f", data[108:112])[0])
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape, order="F") / 255, corner


def smooth_field(random: np.random.Generator, knots: int) -> np.ndarray:
    """Random values that change smoothly over the fine grid: the fewer knots, the smoother."""
    return zoom(random.normal(size=(knots, knots)), SIDE * FINER / knots, order=3, mode="nearest")


def place_grid(random: np.random.Generator, level: float, rotation: float, scale: float):
    """Points in millimetres, (3, fine rows, fine columns), at which a slice is cut."""
    steps = (np.arange(SIDE * FINER) + 0.5) / (SIDE * FINER) - 0.5
    right, front = np.meshgrid(steps * WIDTH, -steps * WIDTH)
    plane = np.stack([right, front]) + random.normal(0, 2.5, size=(2, 1, 1))  # shift

    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, random.normal(0, 0.03)], [0, 1]])
    stretch = np.diag(1 / (scale * random.normal(1, 0.03, size=2)))
    plane = np.einsum("ij,jrc->irc", stretch @ shear @ turn, plane) + CENTRE[:, None, None]

    tilt_right, tilt_front = random.normal(0, 0.06, size=2)  # the slice is not quite level
    height = level + tilt_right * plane[0] + tilt_front * (plane[1] - CENTRE[1])
    wide = np.stack([smooth_field(random, 5) for _ in range(3)])
    narrow = np.stack([smooth_field(random, 14) for _ in range(3)])
    return np.stack([*plane, height]) + 3.5 * wide + 1.5 * narrow


def main() -> None:
    """Cut all the slices, and write them with what was drawn for each of them."""
    volumes = read_wheel(SOURCE, [VOLUME.format(kind) for kind in ("t1", "gm", "wm")])
    volumes, corners = zip(*map(read_volume, volumes), strict=True)
    corner = corners[0]
    area = (volumes[0] > 0).sum(axis=(0, 1))
    levels = corner[2] + np.flatnonzero(area > 0.8 * area.max())  # where the brain is large

    random = np.random.default_rng(SEED)
    files, rows = {"NOTICE.txt": NOTICE.encode()}, []
    for number in range(COUNT):
        level = random.uniform(levels.min(), levels.max())
        rotation, scale = random.normal(0, 4), random.uniform(0.94, 1.06)
        gray_matter, fluid = random.uniform(0.55, 0.75), random.uniform(0.1, 0.3)
        noise = random.uniform(0.005, 0.03)

        points = place_grid(random, level, rotation, scale) - corner[:, None, None]
        t1, gray, white = (map_coordinates(volume, points, order=1) for volume in volumes)
        brain = t1 > 0.2
        tissue = white + gray_matter * gray + fluid * np.clip(1 - white - gray, 0, 1)
        detail = np.clip((t1 - 0.4) / 0.5, 0, 1)
        slice_ = brain * (0.6 * tissue + 0.4 * detail)
        slice_ *= np.exp(0.08 * smooth_field(random, 3))  # the coil hears some places better
        slice_ = slice_.reshape(SIDE, FINER, SIDE, FINER).mean(axis=(1, 3))
        inside = brain.reshape(SIDE, FINER, SIDE, FINER).mean(axis=(1, 3))
        # The magnitude of a complex signal with noise in both parts, as a scanner measures it.
        real, imaginary = random.normal(0, noise, size=(2, SIDE, SIDE)) * inside
        slice_ = np.hypot(slice_ + real, imaginary)
        slice_ *= random.uniform(0.8, 1) / np.percentile(slice_, 99.5)

        name = f"{number:04}.png"
        files[name] = to_png((255 * np.clip(slice_, 0, 1)).round().astype(np.uint8))
        row = [f"{level:.1f}", f"{rotation:.1f}", f"{scale:.3f}"]
        rows.append([name, *row, f"{gray_matter:.3f}", f"{fluid:.3f}", f"{noise:.4f}"])
    write_zip(TARGET, {**files, "labels.csv": to_csv(COLUMNS, rows)})


if __name__ == "__main__":
    main()
