"""DICOM, NIfTI and Analyze: windows, orientation, which slices, and readers that are missing."""

import gzip
import shutil
import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from helpers import noise_image
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from diffusion_lib import InputError, load_image_set, load_images
from diffusion_lib.images import volumes
from diffusion_lib.images.medical import medical_format, read_medical
from diffusion_lib.images.values import PERCENTILES, Deep, as_bytes


def dicom(values: np.ndarray, kind: str = "MONOCHROME2", bits: int = 12, **header) -> bytes:
    """A DICOM file of these pixels, with more entries in its header."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.MRImageStorage, "1.2.3"
    if values.size:
        dataset.set_pixel_data(values, kind, bits)
    for name, value in header.items():
        setattr(dataset, name, value)
    buffer = pydicom.filebase.DicomBytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def pixels_of(name: str, content: bytes) -> list[np.ndarray]:
    pictures = read_medical(name, content, None)
    if any(isinstance(picture, Deep) for picture in pictures):  # a series of one file
        values = [picture.values[..., 0] for picture in pictures]
        scale = np.nanpercentile(np.stack(values), PERCENTILES)
        pictures = [as_bytes(each, *scale) for each in values]
    return [np.asarray(picture).astype(int) for picture in pictures]


def steps(*values: int) -> np.ndarray:
    """12-bit pixels, shape (4, n): a column for each value."""
    return np.tile(np.array(values, np.uint16), (4, 1))


def load_with_warnings(path: Path, size: int = 8, **settings) -> tuple[np.ndarray, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels = load_images(path, size, **settings).numpy()
    return pixels, [str(warning.message) for warning in caught]


# DICOM


def test_the_window_of_the_header_sets_black_and_white():
    content = dicom(steps(0, 100, 200, 300, 400, 4000), WindowCenter=200.5, WindowWidth=201)
    (pixels,) = pixels_of("a.dcm", content)
    assert np.abs(pixels[0] - [0, 0, 127.5, 255, 255, 255]).max() <= 1


def test_the_first_of_several_windows_counts():
    content = dicom(steps(0, 100, 200), WindowCenter=[100.5, 1000], WindowWidth=[201, 10])
    assert np.abs(pixels_of("a.dcm", content)[0][0] - [0, 127.5, 255]).max() <= 1


def test_a_narrow_slice_of_a_wide_window_is_not_stretched():
    content = dicom(steps(500, 550, 600), WindowCenter=500.5, WindowWidth=1001)
    assert np.abs(pixels_of("a.dcm", content)[0][0] - [127.5, 140, 153]).max() <= 1


def test_slope_and_intercept_come_before_the_window():
    content = dicom(
        steps(0, 10, 20),
        WindowCenter=0.5,
        WindowWidth=201,
        RescaleSlope=10,
        RescaleIntercept=-100,
    )
    assert np.abs(pixels_of("a.dcm", content)[0][0] - [0, 127.5, 255]).max() <= 1


def test_a_table_of_the_header_is_looked_up():
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 8], [0, 255, 100, 200]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    content = dicom(steps(0, 1, 2, 3, 9), VOILUTSequence=[table])
    assert pixels_of("a.dcm", content)[0][0].tolist() == [0, 255, 100, 200, 200]


@pytest.mark.parametrize("header", [{}, {"WindowCenter": 0, "WindowWidth": 0}])
def test_without_a_window_one_bright_pixel_does_not_darken_the_others(header):
    values = np.tile(np.arange(100, dtype=np.uint16), (100, 1))
    values[50, 50] = 4095
    (pixels,) = pixels_of("a.dcm", dicom(values, **header))
    assert np.abs(pixels[0] - np.linspace(0, 255, 100)).max() <= 3


def test_monochrome1_is_inverted():
    content = dicom(steps(0, 100, 200), "MONOCHROME1", WindowCenter=100.5, WindowWidth=201)
    assert np.abs(pixels_of("a.dcm", content)[0][0] - [255, 127.5, 0]).max() <= 1


def test_every_frame_is_a_picture():
    frames = np.stack([steps(100, 200), steps(200, 100)])
    first, second = pixels_of("a.dcm", dicom(frames, WindowCenter=100.5, WindowWidth=201))
    assert first.shape == (4, 2) and np.array_equal(first, second[:, ::-1])


@pytest.mark.parametrize("frames", [1, 2])
def test_colour_is_unchanged(frames):
    values = np.random.default_rng(0).integers(0, 256, (frames, 5, 6, 3), np.uint8)
    pixels = pixels_of("a.dcm", dicom(values if frames > 1 else values[0], "RGB", 8))
    assert np.array_equal(np.stack(pixels), values)


def test_a_palette_is_looked_up():
    content = dicom(steps(0, 1).astype(np.uint8), "MONOCHROME2", 8)
    header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    header.PhotometricInterpretation = "PALETTE COLOR"
    for colour, values in {"Red": (0, 255), "Green": (128, 64), "Blue": (255, 1)}.items():
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [2, 0, 8])
        header[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(header, f"{colour}PaletteColorLookupTableData", bytes(values))
    buffer = pydicom.filebase.DicomBytesIO()
    header.save_as(buffer)
    assert pixels_of("a", buffer.getvalue())[0][0].tolist() == [[0, 128, 255], [255, 64, 1]]


def test_nearly_empty_slices_are_left_out():
    noise = np.random.default_rng(0).integers(0, 40, (50, 50)).astype(np.uint16)
    small, large = noise.copy(), noise.copy()
    small[:5, :5], large[:10, :10] = 900, 900  # 1 % and 4 %
    window = dict(WindowCenter=500, WindowWidth=1000)
    assert pixels_of("a.dcm", dicom(small, **window)) == []
    assert len(pixels_of("a.dcm", dicom(large, **window))) == 1


def knee(i: int) -> bytes:
    """A slice of 8x8 pixels whose brightness is i, in steps of 10 from 50."""
    values = np.full((8, 8), 50 + 10 * i, np.uint16)
    return dicom(values, WindowCenter=128, WindowWidth=256)


@pytest.fixture
def knees(tmp_path) -> Path:
    """Six slices as the OAI gives them out, in folders, without extensions, and a directory."""
    folder = tmp_path / "knees"
    for i in range(6):
        (folder / f"series{i % 2}").mkdir(parents=True, exist_ok=True)
        (folder / f"series{i % 2}" / f"{i:03d}").write_bytes(knee(i))
    directory = pydicom.uid.MediaStorageDirectoryStorage
    (folder / "DICOMDIR").write_bytes(dicom(np.empty(0), SOPClassUID=directory))
    return folder


def test_a_folder_of_dicoms_without_extensions(knees):
    pixels, messages = load_with_warnings(knees)
    assert pixels.shape == (6, 1, 8, 8) and messages == []
    assert np.abs(pixels[:, 0, 0, 0] - [50.0, 70, 90, 60, 80, 100]).max() <= 1


def test_dicoms_in_a_zip_are_the_same(knees):
    archive = shutil.make_archive(str(knees.parent / "set"), "zip", knees)
    assert np.array_equal(load_images(archive, 8), load_images(knees, 8))


def test_dicoms_that_cannot_be_decoded_are_named_with_the_reason(knees):
    for name in ("x.dcm", "y.dcm"):
        header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(knee(0)))
        header.PixelData = pydicom.encaps.encapsulate([b"no JPEG-LS"])
        header["PixelData"].VR = "OB"
        header.file_meta.TransferSyntaxUID = JPEGLSLossless
        header.save_as(knees / name)
    (knees / "z.dcm").write_bytes(b"text")
    pixels, messages = load_with_warnings(knees)
    assert len(pixels) == 6 and len(messages) == 1 and "\n" not in messages[0]
    assert "3 damaged (" in messages[0] and "z.dcm: not a DICOM file" in messages[0]
    assert "x.dcm: Unable to deco" in messages[0]  # "decompress", or "decode" with more readers
    assert "y.dcm, " in messages[0]  # the same reason is not told twice


# DICOM without a window: one scale for a series


def write_series(folder: Path, series: str | None, *brightest: int, **header) -> None:
    """Slices of one series, each a ramp from 0 to its brightest value."""
    folder.mkdir(exist_ok=True)
    named = {"SeriesInstanceUID": series} if series else {}
    for i, value in enumerate(brightest):
        values = np.tile(np.linspace(0, value, 16).astype(np.uint16), (16, 1))
        (folder / f"{i:02}").write_bytes(dicom(values, **named, **header))


def test_slices_of_a_series_share_one_scale_and_each_series_has_its_own(tmp_path):
    write_series(tmp_path / "a", "1.2.3", 400, 800, 1600)
    write_series(tmp_path / "b", "1.2.4", 30, 60)
    pixels, _ = load_with_warnings(tmp_path, 16)
    brightest = pixels.max(axis=(1, 2, 3)).astype(int)
    assert np.abs(brightest - [64, 128, 255, 128, 255]).max() <= 2
    ramp = np.linspace(0, 1, 16) * brightest[:, None]
    assert np.abs(pixels[:, 0, 0] - ramp).max() <= 2
    expected = "; 2 DICOM series without a window, each on a scale of its own"
    assert load_image_set(tmp_path, 16).summary == f"{tmp_path}: 5 images from 5 files{expected}"


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_slices_that_name_no_series_go_with_those_of_their_folder(tmp_path, kind):
    write_series(tmp_path / "a", None, 400, 800, kind=kind)
    write_series(tmp_path / "b", None, 4000, kind=kind)
    pixels = load_with_warnings(tmp_path, 16)[0].astype(int)
    contrast = np.ptp(pixels, axis=(1, 2, 3))
    assert np.abs(contrast - [128, 255, 255]).max() <= 2
    rises = kind == "MONOCHROME2"
    assert ((pixels[:, 0, 0, -1] > pixels[:, 0, 0, 0]) == rises).all()


def test_slopes_of_slices_come_before_the_scale_of_their_series(tmp_path):
    """As in PET, where each slice is stored with a slope of its own."""
    for slope in (1, 2, 4):
        header = dict(RescaleSlope=slope, RescaleIntercept=0, SeriesInstanceUID="1.2.3")
        (tmp_path / f"{slope}").write_bytes(dicom(RAMP * (4 // slope), **header))
    pixels, _ = load_with_warnings(tmp_path, fit="squash")
    assert np.ptp(pixels.astype(int), axis=0).max() <= 1 and pixels.max() == 255


def test_files_of_many_frames_share_the_scale_of_their_series(tmp_path):
    for name, factor in (("a", 1), ("b", 2)):
        frames, header = np.stack([RAMP, RAMP]) * factor, dict(PixelSpacing=[2, 1])
        (tmp_path / name).write_bytes(dicom(frames, SeriesInstanceUID="1.2.3", **header))
    brightest = load_with_warnings(tmp_path)[0].max(axis=(1, 2, 3)).astype(int)
    assert brightest.shape == (4,) and np.abs(brightest - [128, 128, 255, 255]).max() <= 9


def test_noise_at_the_end_of_a_series_is_nearly_empty_and_left_out(tmp_path):
    write_series(tmp_path, "1.2.3", 9, 800, 9, 1600, 9)
    found = load_image_set(tmp_path, 16)
    assert found.files == ["01", "03"] and len(found.pixels) == 2
    assert "2 images from 2 files; left out: 3 nearly empty slices; " in found.summary
    assert np.abs(found.pixels.amax((1, 2, 3)).numpy() - [128.0, 255.0]).max() <= 2


def test_a_set_of_nothing_but_empty_slices_has_no_image(tmp_path):
    write_series(tmp_path, "1.2.3", 0, 0)
    with pytest.raises(InputError, match=r"has no image that can be read: .* 2 nearly empty"):
        load_images(tmp_path, 16)


def test_what_was_not_scanned_stays_black_where_pixels_are_made_square(tmp_path):
    values = np.tile(np.arange(100, 900, 50, dtype=np.uint16), (16, 1))
    values[:8] = 4000
    header = dict(PixelPaddingValue=4000, PixelSpacing=[1, 2], SeriesInstanceUID="1.2.3")
    (tmp_path / "a").write_bytes(dicom(values, **header))
    (pixels,) = load_with_warnings(tmp_path, 32, fit="squash")[0].astype(int)
    assert (pixels[0, :15] == 0).all() and np.ptp(pixels[0, 17:]) > 240


# DICOM headers that are odd, old, or of many frames


def changed(content: bytes, **header) -> pydicom.Dataset:
    """A file's header with other entries; ... takes one out."""
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    for name, value in header.items():
        delattr(dataset, name) if value is ... else setattr(dataset, name, value)
    return dataset


def as_file(dataset: pydicom.Dataset, **how) -> bytes:
    buffer = pydicom.filebase.DicomBytesIO()
    dataset.save_as(buffer, **how)
    return buffer.getvalue()


def item(**header) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    for name, value in header.items():
        setattr(dataset, name, value)
    return dataset


RAMP = steps(0, 100, 200, 300, 400, 500, 600, 700)
WINDOW = dict(WindowCenter=400.5, WindowWidth=801)
SHOWN = np.arange(8) * 100 / 800 * 255


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", ["a.dcm", "IM0001"])
def test_files_of_the_old_kind_have_no_preamble(tmp_path, implicit, name):
    dataset = changed(dicom(RAMP, **WINDOW))
    del dataset.file_meta
    (tmp_path / name).write_bytes(as_file(dataset, implicit_vr=implicit, little_endian=True))
    pixels, messages = load_with_warnings(tmp_path, fit="squash")
    assert np.abs(pixels[0, 0, 0] - SHOWN).max() <= 2 and messages == []


def of_fractions(kind: str) -> bytes:
    number = "<f4" if kind == "FloatPixelData" else "<f8"
    bits = 8 * np.dtype(number).itemsize
    gone = dict(PixelData=..., BitsStored=..., HighBit=..., PixelRepresentation=...)
    dataset = changed(dicom(RAMP), **gone, BitsAllocated=bits)
    setattr(dataset, kind, (RAMP / 800).astype(number).tobytes())
    return as_file(dataset)


@pytest.mark.parametrize("kind", ["FloatPixelData", "DoubleFloatPixelData"])
def test_pixels_may_be_fractions(kind):
    (pixels,) = pixels_of("a.dcm", of_fractions(kind))
    assert np.abs(pixels[0] - np.arange(8) * 255 / 7).max() <= 5


def test_a_map_of_fractions_has_another_scale_than_the_slices_beside_it(tmp_path):
    (tmp_path / "map.dcm").write_bytes(of_fractions("FloatPixelData"))
    (tmp_path / "slice.dcm").write_bytes(dicom(RAMP))
    pixels, _ = load_with_warnings(tmp_path, 8)
    assert len(pixels) == 2 and pixels.max(axis=(1, 2, 3)).min() >= 250


@pytest.mark.parametrize(
    "header",
    [dict(PixelSpacing=[2, 1]), dict(PixelAspectRatio=[2, 1]), dict(ImagerPixelSpacing=[1, 0.5])],
)
def test_pixels_that_are_not_square_are_made_so(header):
    (pixels,) = pixels_of("a.dcm", dicom(RAMP, **WINDOW, **header))
    assert pixels.shape == (8, 8)


@pytest.mark.parametrize(
    "header",
    [
        dict(WindowWidth=800),
        dict(WindowCenter=400),
        dict(WindowWidth=None, WindowCenter=None),
        dict(WindowWidth=0.5, WindowCenter=400),
        dict(RescaleSlope=None, RescaleIntercept=None),
        dict(RescaleSlope=2),
        dict(VOILUTSequence=[]),
        dict(PhotometricInterpretation=None),
        dict(PixelSpacing=None),
        dict(PixelSpacing=[0, 0]),
        dict(PixelSpacing=[1e-6, 10]),
        dict(RescaleSlope=0, RescaleIntercept=0),
        dict(BitsStored=None),
    ],
    ids=str,
)
def test_empty_entries_do_no_harm(header):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (pixels,) = pixels_of("a.dcm", as_file(changed(dicom(RAMP), **header)))
    assert np.abs(pixels[0] - np.arange(8) * 255 / 7).max() <= 5


@pytest.mark.parametrize("width, center", [("abcd", "400"), ("nan", "400"), ("800", "inf")])
def test_a_window_that_is_no_number_does_no_harm(width, center):
    content = dicom(RAMP, WindowWidth="7777", WindowCenter="6666")
    content = content.replace(b"7777", width.ljust(4).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (pixels,) = pixels_of("a.dcm", content.replace(b"6666", center.ljust(4).encode()))
    assert np.abs(pixels[0] - np.arange(8) * 255 / 7).max() <= 5


def test_pixels_that_are_declared_take_no_memory(knees):
    huge = changed(knee(0), Rows=65535, Columns=65535)
    (knees / "x.dcm").write_bytes(as_file(huge))
    assert "1 damaged (x.dcm: more than 2 billion pixels)" in load_with_warnings(knees)[1][0]


def test_a_missing_entry_is_named(knees):
    (knees / "x.dcm").write_bytes(as_file(changed(knee(0), Rows=...)))
    _, messages = load_with_warnings(knees)
    assert "1 damaged (x.dcm: " in messages[0] and "Rows" in messages[0]


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, dict(WindowCenter=400, WindowWidth=1000)])
def test_what_was_not_scanned_is_black_and_sets_no_scale(kind, window):
    values = np.tile(np.arange(100, 900, 50, dtype=np.uint16), (16, 1))
    values[:4] = 4000
    (pixels,) = pixels_of("a.dcm", dicom(values, kind, PixelPaddingValue=4000, **window))
    assert (pixels[:4] == 0).all() and np.ptp(pixels[4:]) > 190


def test_an_enhanced_file_has_windows_and_slopes_for_all_frames_and_for_each():
    slopes = (1, 2, 4)
    frames = np.stack([RAMP * (4 // slope) for slope in slopes])  # all are 4 RAMP in truth
    window = item(WindowCenter=1600.5, WindowWidth=3201)
    shared = item(FrameVOILUTSequence=[window], PixelMeasuresSequence=[item(PixelSpacing=[2, 1])])
    groups = [
        item(PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0)])
        for slope in slopes
    ]
    groups[2].FrameVOILUTSequence = [item(WindowCenter=3200.5, WindowWidth=6401)]
    dataset = changed(
        dicom(frames),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )
    first, second, third = pixels_of("a.dcm", as_file(dataset))
    assert first.shape == (8, 8) and np.array_equal(first, second)
    assert np.abs(first[0] - SHOWN).max() <= 2 and np.abs(third[0] - SHOWN / 2).max() <= 2


@pytest.mark.parametrize(
    "header", [{}, dict(SOPClassUID=pydicom.uid.EncapsulatedPDFStorage, Rows=8)]
)
def test_an_image_without_pixels_is_damaged(knees, header):
    (knees / "x.dcm").write_bytes(dicom(np.empty(0), **header))
    assert "1 damaged (x.dcm: the pixels are missing)" in load_with_warnings(knees)[1][0]


def test_colours_of_12_bits_are_not_dark():
    values = np.zeros((8, 8, 3), np.uint16)
    values[..., 0] = 4095
    (pixels,) = pixels_of("a.dcm", dicom(values, "RGB", 12))
    assert pixels[0, 0].tolist() == [255, 0, 0]


def test_what_is_left_out_of_medical_files_is_counted(knees):
    (knees / "empty").write_bytes(dicom(np.zeros((8, 8), np.uint16), **WINDOW))
    nibabel.save(nibabel.Nifti1Image(np.stack([head()] * 3, axis=3), np.eye(4)), knees / "a.nii")
    assert load_image_set(knees, 8).summary == (
        f"{knees}: 18 images from 7 files; left out: 2 later volumes of series, 12 outer slices of "
        "volumes, 1 nearly empty slice, 1 DICOM file without pixels"
    )


# Volumes


def head() -> np.ndarray:
    """A volume of 16x20x24 voxels, right, front, top: bright marks at the left and at the front."""
    values = np.full((16, 20, 24), 1000, np.int16)
    values += np.arange(24, dtype=np.int16) * 20
    values[:4, 8:12] = 3000  # the patient's left
    values[7:9, 16:] = 0  # the front
    return values


def slices(volume, name: str = "a.nii") -> np.ndarray:
    """The pictures of a volume, (n, H, W)."""
    return np.stack(pixels_of(name, volume.to_bytes()))


def test_slices_lie_as_radiologists_look_at_them():
    pixels = slices(nibabel.Nifti1Image(head(), np.eye(4)))
    assert pixels.shape == (12, 20, 16)
    assert (pixels[:, 8:12, 12:] == 255).all() and (pixels[:, 8:12, :12] < 255).all()
    assert (pixels[:, :4, 7:9] == 0).all() and (pixels[:, 4:] > 0).all()


@pytest.mark.parametrize("axes", ["LAS", "LPS", "PIL", "SAR", "ASR"])
def test_the_order_of_axes_in_the_file_makes_no_difference(axes):
    upright = nibabel.Nifti1Image(head(), np.eye(4))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(upright.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    turned = upright.as_reoriented(turn)
    assert nibabel.aff2axcodes(turned.affine) == tuple(axes)
    assert np.array_equal(slices(turned), slices(upright))


def test_the_central_half_is_taken_from_the_feet_up():
    values = np.tile(np.arange(100, 180, 10, dtype=np.int16), (5, 6, 1))
    levels = slices(nibabel.Nifti1Image(values, np.eye(4)))[:, 0, 0]
    assert np.abs(levels - 255 * np.array([2, 3, 4, 5]) / 7).max() <= 2


@pytest.mark.parametrize("count, taken", [(1, 1), (2, 2), (3, 3), (4, 2), (9, 5)])
def test_few_slices_still_give_some(count, taken):
    values = np.random.default_rng(0).integers(0, 99, (9, 9, count)).astype(np.int16)
    assert len(slices(nibabel.Nifti1Image(values, np.eye(4)))) == taken


def test_empty_slices_of_a_volume_are_left_out():
    values = head()
    values[..., 10] = 0
    assert len(slices(nibabel.Nifti1Image(values, np.eye(4)))) == 11


def test_voxels_that_are_not_cubes_give_square_pixels():
    pixels = slices(nibabel.Nifti1Image(head(), np.diag([2, 0.5, 3, 1])))
    assert pixels.shape[1:] == (20, 64)
    absurd = slices(nibabel.Nifti1Image(head(), np.diag([1e-6, 1, 1, 1])))
    assert absurd.shape[1:] == (20, 16)


def test_not_a_number_does_no_harm():
    values = head().astype(np.float32)
    values[0, 0] = np.nan
    assert slices(nibabel.Nifti1Image(values, np.eye(4))).max() == 255


def test_of_a_series_the_first_volume_counts():
    series = np.stack([head(), head()[::-1], 0 * head()], axis=3)
    expected = slices(nibabel.Nifti1Image(head(), np.eye(4)))
    assert np.array_equal(slices(nibabel.Nifti1Image(series, np.eye(4))), expected)


def test_of_a_series_an_empty_volume_does_not_count():
    series = np.stack([0 * head(), head(), head()[::-1]], axis=3)
    expected = slices(nibabel.Nifti1Image(head(), np.eye(4)))
    assert np.array_equal(slices(nibabel.Nifti1Image(series, np.eye(4))), expected)


def test_a_slice_alone_is_a_picture():
    upright = head()[:, :, 12]
    (pixels,) = slices(nibabel.Nifti1Image(upright, np.eye(4)))
    assert pixels.shape == (20, 16) and np.ptp(pixels) == 255


def test_infinite_voxels_do_not_set_the_scale():
    values = head().astype(np.float32)
    expected = slices(nibabel.Nifti1Image(values, np.eye(4)))
    values[0, :, :], values[1, :, :] = np.inf, -np.inf
    pixels = slices(nibabel.Nifti1Image(values, np.eye(4)))
    assert np.abs(pixels[:, :, :14] - expected[:, :, :14]).max() <= 6
    assert (pixels[:, :, 15] == 255).all() and (pixels[:, :, 14] == 0).all()


@pytest.mark.parametrize("parts", ["RGB", "RGBA"])
def test_colours_of_voxels(parts):
    colour = np.zeros(head().shape, [(part, "u1") for part in parts])
    colour["R"], colour["G"] = 200, 50
    colour["B"][:4] = 100  # the patient's left
    pixels = slices(nibabel.Nifti1Image(colour, np.eye(4)))
    assert pixels.shape == (12, 20, 16, 3)
    assert (pixels[..., :12, :] == [200, 50, 0]).all()
    assert (pixels[..., 12:, :] == [200, 50, 100]).all()


def test_complex_voxels_show_their_size():
    values = head() * np.exp(1j * np.arange(24))
    pixels = slices(nibabel.Nifti1Image(values.astype(np.complex64), np.eye(4)))
    expected = slices(nibabel.Nifti1Image(head(), np.eye(4)))
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("sform", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_without_a_usable_position_the_other_one_counts(sform):
    volume = nibabel.Nifti1Image(head(), np.eye(4))
    content = bytearray(volume.to_bytes())
    content[252:256] = np.array([1, 1], np.int16).tobytes()  # qform_code, sform_code
    content[280:328] = sform[:3].astype(np.float32).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = np.stack(pixels_of("a.nii", bytes(content)))
    assert np.array_equal(pixels, slices(volume))


def test_a_volume_of_one_dimension_is_damaged(images):
    nibabel.save(nibabel.Nifti1Image(np.arange(9.0), np.eye(4)), images / "a.nii")
    _, messages = load_with_warnings(images)
    assert "a.nii: a volume of one dimension" in messages[0]


@pytest.mark.parametrize("names", [("A.HDR", "A.IMG"), ("a.hdr", "a.IMG"), ("A.HDR", "A.img")])
@pytest.mark.parametrize("zipped", [False, True])
def test_pairs_are_found_in_capitals_too(tmp_path, names, zipped):
    save_as("Analyze", tmp_path / "set")
    for old, new in zip(("a.hdr", "a.img"), names, strict=True):
        (tmp_path / "set" / old).rename(tmp_path / "set" / new)
    path = tmp_path / "set"
    if zipped:
        path = shutil.make_archive(str(path), "zip", path)
    found = load_image_set(path, 8)
    assert found.files == [names[0]] * 12
    assert found.summary.endswith("12 images from 1 file; left out: 12 outer slices of volumes")


def test_a_change_of_the_voxels_alone_is_noticed(tmp_path):
    save_as("Analyze", tmp_path / "set")
    before = load_images(tmp_path / "set", 8).clone()
    content = (tmp_path / "set" / "a.img").read_bytes()
    (tmp_path / "set" / "a.img").write_bytes(content[::-1])
    assert not np.array_equal(load_images(tmp_path / "set", 8), before)


def save_as(form: str, folder: Path) -> None:
    """Write `head` as one of the kinds of volume."""
    folder.mkdir()
    if form == "Analyze":  # as OASIS-1: the patient's right first, and a fourth axis of length 1
        nibabel.save(nibabel.AnalyzeImage(head()[::-1, ..., None], None), folder / "a.img")
    elif form == "pair":
        nibabel.save(nibabel.Nifti1Pair(head(), np.eye(4)), folder / "a.img")
    elif form == "NIfTI-2":
        nibabel.save(nibabel.Nifti2Image(head(), np.eye(4)), folder / "a.nii")
    else:
        nibabel.save(nibabel.Nifti1Image(head(), np.eye(4)), folder / f"a{form}")


FORMS = [".nii", ".nii.gz", "NIfTI-2", "pair", "Analyze"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_kind_of_volume_gives_the_same_slices(tmp_path, form, zipped):
    save_as(form, tmp_path / "set")
    path = tmp_path / "set"
    if zipped:
        path = shutil.make_archive(str(path), "zip", path)
    pixels, messages = load_with_warnings(path, 20, fit="squash")
    expected = slices(nibabel.Nifti1Image(head(), np.eye(4))).astype(np.uint8)
    resized = [Image.fromarray(s).resize((20, 20), Image.Resampling.LANCZOS) for s in expected]
    assert messages == [] and pixels.shape == (12, 1, 20, 20)
    assert np.abs(pixels[:, 0].astype(int) - np.stack(resized)).max() <= 1


def test_volumes_and_pictures_come_in_order_of_names(tmp_path):
    save_as(".nii", tmp_path / "set")
    for i, name in enumerate(["0.png", "b.png"]):
        noise_image(i, grey=True).save(tmp_path / "set" / name)
    pixels, files, *_ = load_image_set(tmp_path / "set", 8)
    assert files == ["0.png", *["a.nii"] * 12, "b.png"]
    for i, place in enumerate([0, 13]):
        assert np.array_equal(pixels[place, 0], noise_image(i, grey=True))


def test_broken_volumes_are_named(tmp_path):
    save_as("Analyze", tmp_path / "set")
    save_as(".nii", tmp_path / "other")
    content = (tmp_path / "other" / "a.nii").read_bytes()
    shutil.copy(tmp_path / "set" / "a.hdr", tmp_path / "set" / "alone.hdr")
    (tmp_path / "set" / "cut.nii").write_bytes(content[:3000])
    (tmp_path / "set" / "cut.nii.gz").write_bytes(gzip.compress(content)[:-50])
    (tmp_path / "set" / "text.nii").write_text("text" * 100)
    pixels, messages = load_with_warnings(tmp_path / "set")
    assert len(pixels) == 12 and len(messages) == 1 and "4 damaged (" in messages[0]
    assert "alone.hdr: No such file" in messages[0]


@pytest.mark.parametrize("size", [2000, 32767])
def test_voxels_that_are_declared_take_no_memory(tmp_path, images, size):
    save_as(".nii", tmp_path / "set")
    content = bytearray((tmp_path / "set" / "a.nii").read_bytes())
    content[42:48] = np.array([size] * 3, "<i2").tobytes()
    (images / "a.nii").write_bytes(content)
    assert "a.nii: its voxels are cut off: " in load_with_warnings(images)[1][0]


def test_a_volume_is_unpacked_whatever_its_name_is(tmp_path):
    for name in (".nii", ".nii.gz"):
        save_as(name, tmp_path / name)
    plain, packed = tmp_path / ".nii" / "a.nii", tmp_path / ".nii.gz" / "a.nii.gz"
    expected, _ = load_with_warnings(tmp_path / ".nii")
    plain.rename(plain.with_suffix(".nii.gz"))
    packed.rename(packed.with_suffix(""))
    for folder in (".nii", ".nii.gz"):
        assert np.array_equal(load_with_warnings(tmp_path / folder)[0], expected)


def test_a_volume_that_swells_is_not_unpacked_whole(tmp_path, images, monkeypatch):
    monkeypatch.setattr(volumes, "LARGEST", 10_000)
    (images / "a.nii.gz").write_bytes(gzip.compress(bytes(20_000)))
    assert "a.nii.gz: more than 4 GiB when it is unpacked" in load_with_warnings(images)[1][0]


@pytest.mark.parametrize("content", [b"ENVI\nsamples = 3\n", b""])
def test_hdr_files_of_other_kinds_are_passed_over(images, content):
    (images / "a.hdr").write_bytes(content)
    (images / "a.img").write_bytes(bytes(100))
    pixels, messages = load_with_warnings(images)
    assert len(pixels) == 6 and messages == []


def test_a_picture_is_no_medical_file():
    assert medical_format("a.png", bytes(200)) is None and read_medical("a", b"", None) is None


# Readers that are missing


@pytest.mark.parametrize("zipped", [False, True])
def test_missing_pydicom_is_one_line_that_counts_the_files(knees, monkeypatch, zipped):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    path = shutil.make_archive(str(knees), "zip", knees) if zipped else knees
    with pytest.raises(InputError) as error:
        load_images(path, 8)
    assert str(error.value) == (
        f"7 DICOM files found in {path}, but pydicom is not installed: "
        "pip install 'simple-diffusion[medical]'"
    )


def test_missing_nibabel_is_one_line_that_counts_the_files(tmp_path, monkeypatch):
    save_as("Analyze", tmp_path / "set")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"^1 NIfTI or Analyze file found in .*\[medical\]'$"):
        load_images(tmp_path / "set", 8)


def test_other_folders_need_no_readers(images, monkeypatch):
    for reader in ("pydicom", "nibabel"):
        monkeypatch.setitem(sys.modules, reader, None)
    (images / "notes").write_text("text")
    assert len(load_images(images, 8)) == 6
