"""Values of pixels from every kind of file: scales, profiles, pages, and what is broken in part."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers import noise_image
from PIL import Image, ImageCms, PngImagePlugin

from diffusion_lib import load_image_set
from diffusion_lib.images import formats, tiffs
from diffusion_lib.images.files import read_square
from diffusion_lib.images.values import black_and_white

RAMP = np.tile(np.linspace(0, 1, 8), (8, 1))  # from left to right


def load(folder: Path, size: int = 8, **settings) -> tuple[np.ndarray, str]:
    """The pixels at a path, and the line of accounts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_image_set(folder, size, **settings)
    return found.pixels.numpy().astype(int), found.summary


def png(values: np.ndarray, more: bytes = b"", profile: bytes = b"") -> bytes:
    """A PNG of 16 bits: (H, W), or (H, W, 2 to 4). more: what is transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width = values.shape[:2]
    kind = {2: 0, 3: {2: 4, 3: 2, 4: 6}.get(values.shape[-1])}[values.ndim]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    extra = chunk(b"tRNS", more) if more else b""
    extra += chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)) if profile else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, **settings) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **settings)
    return buffer.getvalue()


def saved(image: Image.Image, format: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


# One scale for the whole set


@pytest.mark.parametrize("bits, expected", [(8, 255), (10, 1023), (12, 4095), (16, 65535)])
def test_white_is_that_of_the_brightest_image_of_the_set(tmp_path, bits, expected):
    top = 2**bits - 1
    for name, brightest in (("a.png", top), ("b.png", top // 3), ("c.tif", top // 5)):
        values = (RAMP * brightest).round().astype(np.uint16)
        content = png(values) if name.endswith("png") else tiff(values)
        (tmp_path / name).write_bytes(content)
    pixels, line = load(tmp_path)
    for image, part in zip(pixels, (1, 3, 5), strict=True):
        assert np.abs(image[0] - RAMP * 255 / part).max() <= 2
    assert line.endswith(
        f"; of whole numbers of more than 8 bits, 0 is black and {expected:g} is white"
    )


def test_images_of_8_bits_beside_deeper_ones_are_as_they_are(tmp_path):
    noise_image(0, grey=True).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png((RAMP * 4095).astype(np.uint16)))
    noise_image(2, grey=True).save(tmp_path / "c.png")
    pixels, _ = load(tmp_path)
    assert np.array_equal(pixels[0, 0], noise_image(0, grey=True))
    assert np.array_equal(pixels[2, 0], noise_image(2, grey=True))
    assert np.abs(pixels[1, 0] - RAMP * 255).max() <= 1


def test_fractions_share_a_scale_too(tmp_path):
    for i, high in enumerate((300, 900)):
        (tmp_path / f"{i}.tif").write_bytes(tiff((RAMP * high).astype(np.float32)))
    pixels, _ = load(tmp_path)
    assert np.abs(pixels[0, 0] - RAMP * 85).max() <= 1 and pixels[1].max() == 255


@pytest.mark.parametrize(
    "low, high, whole, scale",
    [(0, 9, True, (0, 255)), (5, 256, True, (0, 511)), (0, 65535, True, (0, 65535)),
     (0, 99_999, True, (0, 99_999)), (-5, 9, True, (-5, 9)), (0, 0.5, False, (0, 1)),
     (0, 200.0, False, (0, 255)), (0, 7.0, False, (0, 7)), (-1, 1, False, (-1, 1))],
)  # fmt: skip
def test_black_and_white_by_the_range_of_values(low, high, whole, scale):
    assert black_and_white(low, high, whole) == scale


def test_deep_images_survive_an_interruption(tmp_path, monkeypatch):
    from diffusion_lib.images import decode

    (tmp_path / "set").mkdir()
    for i in range(20):
        values = (RAMP * (i + 1) * 200).astype(np.uint16)
        (tmp_path / "set" / f"{i:02}.png").write_bytes(png(values))
    monkeypatch.setattr(decode, "CHUNK", 2)
    monkeypatch.setattr(decode, "SAVE_SECONDS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    count, read = [], decode.read_pictures

    def interrupt(*arguments):
        count.append(1)
        if len(count) == 11:
            raise KeyboardInterrupt
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(decode, "read_pictures", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path / "set", workers=1)
    pixels, _ = load(tmp_path / "set")
    expected = [RAMP * (i + 1) * 200 / 4095 * 255 for i in range(20)]
    assert np.abs(pixels[:, 0] - np.stack(expected)).max() <= 1


# Colour and opacity of more than 8 bits


def test_colours_of_12_bits_in_16_are_not_black(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, 3)).astype(np.uint16)
    values[0, 0] = 4095
    (tmp_path / "a.png").write_bytes(png(values))
    (tmp_path / "b.tif").write_bytes(tiff(values, photometric="rgb"))
    (tmp_path / "c.tif").write_bytes(
        tiff(np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate")
    )
    pixels, _ = load(tmp_path)
    assert len(pixels) == 3
    assert np.abs(pixels - np.moveaxis(values, 2, 0) / 4095 * 255).max() <= 1


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_12_bits_with_a_profile_are_not_black(tmp_path, kind, channels):
    values = np.zeros((8, 8, channels), np.uint16)
    values[..., 0], values[..., 3:] = RAMP * 4095, 65535  # a red ramp
    profiles = {"a": srgb_profile(), "b": swapped_profile(), "c": b"damaged"}
    extra = dict(extrasamples=["unassalpha"]) if channels == 4 else {}
    for name, profile in profiles.items():
        content = (
            png(values, profile=profile)
            if kind == "png"
            else tiff(values, photometric="rgb", iccprofile=profile, **extra)
        )
        (tmp_path / name).write_bytes(content)
    pixels, _ = load(tmp_path)
    for image, channel in zip(pixels, (0, 1, 0), strict=True):
        expected = np.zeros((3, 8, 8))
        expected[channel] = RAMP * 255
        assert np.abs(image - expected).max() <= 6


def test_a_transparent_grey_or_colour_of_16_bits_is_white(tmp_path):
    grey = np.full((8, 8), 40000, np.uint16)
    grey[:, :4] = 1000
    (tmp_path / "a.png").write_bytes(png(grey, struct.pack(">H", 1000)))
    colour = np.stack([grey, grey // 2, grey // 4], axis=2)
    (tmp_path / "b.png").write_bytes(png(colour, struct.pack(">HHH", 1000, 500, 250)))
    pixels, _ = load(tmp_path, channels=3)
    assert (pixels[:, :, :, :4] == 255).all()
    assert np.abs(pixels[1, :, 0, 6] - [156, 78, 39]).max() <= 1 and pixels[0, 0, 0, 6] == 156


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("alpha", [[0, 1], [0.25, 1]])
def test_16_bits_with_opacity_are_laid_on_white(colours, alpha):
    values = np.full((8, 8, colours + 1), 65535, np.uint16)
    values[..., :colours] = 32768
    values[:, :4, -1], values[:, 4:, -1] = (round(a * 65535) for a in alpha)
    pixels = read_square(png(values), 8, "crop")
    expected = [255 - 127 * a for a in alpha]
    assert np.abs(pixels[0, [0, 7], 0] - expected).max() <= 1


# TIFF


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8", "u8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_number_is_from_black_to_white(tmp_path, kind, order):
    top = {"u1": 255, "u2": 65535, "u4": 4e9, "i2": 32767, "f2": 1, "f4": 1, "f8": 1}.get(kind, 2e9)
    values = (RAMP * top).astype(kind)
    (tmp_path / "a.tif").write_bytes(tiff(values, byteorder=order))
    pixels, _ = load(tmp_path)
    assert np.abs(pixels[0, 0] - RAMP * 255).max() <= 1


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_where_0_is_white_it_is_white(tmp_path, kind, order):
    values = (RAMP * np.iinfo(kind).max).astype(kind)
    (tmp_path / "a.tif").write_bytes(tiff(values, byteorder=order, photometric="miniswhite"))
    assert np.abs(load(tmp_path)[0][0, 0] - (1 - RAMP) * 255).max() <= 1


def test_negative_numbers_have_the_scale_of_the_set(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff((RAMP * 2000 - 1000).astype(np.int16)))
    assert np.abs(load(tmp_path)[0][0, 0] - RAMP * 255).max() <= 1


def test_negative_numbers_of_8_bits_are_no_large_ones(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff((RAMP * 200 - 100).round().astype(np.int8)))
    assert np.abs(load(tmp_path)[0][0, 0] - RAMP * 255).max() <= 1


def test_opacity_is_no_picture(tmp_path):
    values = np.stack([RAMP * 65535, np.full((8, 8), 65535)], axis=2).astype(np.uint16)
    content = tiff(values, photometric="minisblack", extrasamples=["unassalpha"])
    (tmp_path / "a.tif").write_bytes(content)
    pixels, _ = load(tmp_path)
    assert len(pixels) == 1 and np.abs(pixels[0, 0] - RAMP * 255).max() <= 1


@pytest.mark.parametrize("kind, top", [(np.uint8, 255), (np.uint16, 65535)])
def test_no_data_in_colours_is_black(tmp_path, kind, top):
    values = np.full((8, 8, 3), top, kind)
    values[:, 4:] = (100, 200, top)
    gone = (42113, "s", 0, str(top), True)
    content = tiff(values, photometric="rgb", extratags=[gone])
    (tmp_path / "a.tif").write_bytes(content)
    pixels, _ = load(tmp_path)
    assert (pixels[0, :, :, :4] == 0).all() and (pixels[0, 2, :, 4:] == 255).all()


def test_pixels_that_are_declared_take_no_memory(tmp_path):
    content = bytearray(tiff(np.zeros((8, 8), np.float64)))
    pages = int.from_bytes(content[4:8], "little")
    for number in range(int.from_bytes(content[pages : pages + 2], "little")):
        entry = pages + 2 + 12 * number
        if int.from_bytes(content[entry : entry + 2], "little") in (256, 257):
            content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 100_000)
    (tmp_path / "a.tif").write_bytes(content)
    noise_image(0).save(tmp_path / "b.png")
    assert "a.tif: more than 2 billion pixels" in load(tmp_path)[1]


@pytest.mark.parametrize("missing", [-9999, -3.4028234663852886e38, np.nan, np.inf, 1e38])
def test_what_stands_for_no_data_does_not_set_the_scale(tmp_path, missing):
    values = np.tile(np.linspace(-50, 200, 8, dtype=np.float32), (8, 1))
    values[:3] = missing
    image = Image.fromarray(values)
    image.save(tmp_path / "a.tif", tiffinfo={42113: str(missing)})
    pixels = load(tmp_path)[0][0, 0]
    assert np.abs(pixels[4:] - RAMP[4:] * 255).max() <= 1 and (pixels[:2] == 0).all()


def test_every_page_is_an_image_but_previews_are_not(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for grey in (50, 100, 150):
            file.write(np.full((8, 8), grey, np.uint8), photometric="minisblack")
            file.write(np.full((4, 4), 7, np.uint8), subfiletype=1, photometric="minisblack")
    pixels, line = load(tmp_path)
    assert pixels[:, 0, 0, 0].tolist() == [50, 100, 150]
    assert "3 images from 1 file; left out: 3 previews inside TIFFs" in line


def test_a_stack_of_imagej_is_read(tmp_path):
    stack = np.stack([RAMP * top for top in (1000, 2000, 4095)]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True)
    pixels, _ = load(tmp_path)
    assert np.abs(pixels[:, 0] - stack / 4095 * 255).max() <= 1


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_of_16_bits_in_a_stack(tmp_path, compression):
    stack = np.stack([RAMP * top for top in (1000, 2000, 4095)]).astype(np.uint16)
    content = tiff(stack, photometric="minisblack", compression=compression, metadata=None)
    (tmp_path / "a.tif").write_bytes(content)
    assert np.abs(load(tmp_path)[0][:, 0] - stack / 4095 * 255).max() <= 1


def test_of_a_damaged_page_the_others_are_kept(tmp_path):
    pages = [noise_image(i, 64, grey=True) for i in range(3)]
    content = bytearray(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        entry = file.pages[2].tags["StripOffsets"]
        place = entry.valueoffset
    content[place : place + 4] = struct.pack("<I", 2**31)
    (tmp_path / "a.tif").write_bytes(content)
    pixels, line = load(tmp_path, 64)
    assert len(pixels) == 2 and "1 damaged (a.tif: " in line


def test_a_missing_reader_of_tiffs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tiffs, "find_spec", lambda name: None)
    (tmp_path / "a.tif").write_bytes(tiff(RAMP))
    noise_image(0).save(tmp_path / "b.png")
    assert "a.tif: a TIFF of this kind needs a reader: pip install tifffile" in load(tmp_path)[1]


def test_a_rotated_page_comes_out_upright():
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))
    content = saved(image, "TIFF", tiffinfo={274: 6})  # a quarter to the right
    assert (read_square(content, 8, "crop")[:, 4:] == 255).all()


# Colours


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """A profile in which red and green have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    table = {bytes(profile[p : p + 4]): p for p in range(132, 132 + 12 * count, 12)}
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    place = table[b"desc"]
    offset, size = struct.unpack(">II", profile[place + 4 : place + 12])
    text = profile[offset : offset + size].replace(b"s\0R\0G\0B", b"o\0t\0h\0r")
    profile[offset : offset + size] = text
    return bytes(profile)


RED, GREEN = (255, 0, 0), (0, 255, 0)


LOSSLESS = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("format, settings", [*LOSSLESS.items(), ("TIFF", {})])
def test_a_profile_is_followed(format, settings):
    image = Image.new("RGB", (8, 8), RED)
    content = saved(image, format, icc_profile=swapped_profile(), **settings)
    assert np.abs(read_square(content, 8, "crop")[4, 4].astype(int) - GREEN).max() <= 6


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_a_profile_is_followed_with_palettes_and_opacity(mode):
    image = Image.new("RGBA", (8, 8), (*RED, 255))
    image.paste((*RED, 0), (4, 0, 8, 8))
    image = image if mode == "RGBA" else image.convert("RGB").quantize(4)
    pixels = read_square(saved(image, "PNG", icc_profile=swapped_profile()), 8, "crop").astype(int)
    assert np.abs(pixels[0, 0] - GREEN).max() <= 6
    assert mode == "P" or (pixels[0, 7] == 255).all()


def test_the_profile_of_srgb_changes_no_bit():
    content = saved(noise_image(0), "PNG", icc_profile=srgb_profile())
    assert np.array_equal(read_square(content, 8, "crop"), np.asarray(noise_image(0)))


@pytest.mark.parametrize("profile", [b"damaged", b"x" * 200, None])
def test_a_damaged_profile_or_one_of_other_colours_is_passed_over(profile):
    if profile is None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    content = saved(noise_image(0), "PNG", icc_profile=profile)
    assert np.array_equal(read_square(content, 8, "crop"), np.asarray(noise_image(0)))


def test_lab_colours_are_converted():
    lab = ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    image = to_lab.apply(Image.new("RGB", (8, 8), (200, 100, 50)))
    pixels = read_square(saved(image, "TIFF"), 8, "crop").astype(int)
    assert np.abs(pixels[0, 0] - [200, 100, 50]).max() <= 4


# Files with something odd in them


def test_a_fourth_byte_that_is_no_opacity():
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 8, 8, 32, 0b100000)
    content = header + bytes([0, 50, 200, 0]) * 64  # blue, green, red, unused
    assert read_square(content, 8, "crop")[4, 4].tolist() == [200, 50, 0]


def test_a_damaged_exif_block_does_no_harm():
    for format in ("PNG", "JPEG", "WEBP"):
        content = saved(Image.new("RGB", (8, 8), RED), format, exif=b"Exif\0\0this is none")
        assert np.abs(read_square(content, 8, "crop")[4, 4].astype(int) - RED).max() <= 3


def test_a_damaged_note_in_a_png_does_no_harm():
    note = PngImagePlugin.PngInfo()
    note.add_text("title", "a ramp")
    content = saved(noise_image(0), "PNG", pnginfo=note)
    damaged = content.replace(b"a ramp", b"a rump")
    assert np.array_equal(read_square(damaged, 8, "crop"), noise_image(0))
    with pytest.raises(ValueError, match="header is damaged"):
        read_square(content[:19] + b"\x09" + content[20:], 8, "crop")


def test_a_long_text_does_no_harm():
    text = PngImagePlugin.PngInfo()
    for i in range(5):
        text.add_text(f"workflow{i}", "a long story, " * 100_000, zip=True)
    assert np.array_equal(
        read_square(saved(noise_image(0), "PNG", pnginfo=text), 8, "crop"), noise_image(0)
    )


def test_later_frames_of_animations_are_counted(tmp_path):
    frames = [noise_image(i) for i in range(4)]
    for name in ("a.gif", "b.png", "c.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert load(tmp_path)[1].endswith(
        "3 images from 3 files; left out: 9 later frames of animations"
    )


def test_stubs_and_programs_are_never_opened():
    assert not {"EPS", "WMF", "HDF5", "MPEG"} & set(formats.readable_formats())
    assert {"PNG", "JPEG", "TIFF"} <= set(formats.readable_formats())


def test_pixels_are_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(png((RAMP * 4095).astype(np.uint16)))
    assert load_image_set(tmp_path, 8).pixels.dtype == torch.uint8
