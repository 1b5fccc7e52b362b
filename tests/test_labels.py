"""Labels of images: from folders, and from tables of all kinds."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from helpers import noise_image

from diffusion_lib import InputError, load_image_set, read_labels

PETS = ["cat/a.png", "cat/b.png", "dog/a.png", "dog/c.png"]


def make(folder: Path, names: list[str], tables: dict[str, str | bytes] | None = None) -> Path:
    """A folder of images with these names, and of tables with these contents."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(i).save(folder / name)
    for name, text in (tables or {}).items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def labels(path: Path | str, columns: str) -> dict[str, list[str]]:
    """The label of each image of each column; nothing may be left out, and nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = load_image_set(path, 8).files
        values, names = read_labels(path, files, columns)
    assert values.dtype == torch.int64 and values.shape == (len(files), len(names))
    return {c: [names[c][i] for i in values[:, k]] for k, c in enumerate(names)}


def refusal(path: Path | str, columns: str) -> str:
    """The line of the InputError."""
    files = load_image_set(path, 8).files
    with pytest.raises(InputError) as error:
        read_labels(path, files, columns)
    assert "\n" not in str(error.value)
    return str(error.value)


# Folders


@pytest.mark.parametrize("prefix", ["", "pets/"])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_first_folder_is_the_label(tmp_path, prefix, zipped):
    path = make(tmp_path / "set", [prefix + name for name in [*PETS, "dog/deep/er/d.png"]])
    if zipped:
        path = shutil.make_archive(str(path), "zip", path)
    assert labels(path, "folder") == {"folder": ["cat", "cat", "dog", "dog", "dog"]}


def test_a_table_beside_the_folders_does_no_harm(tmp_path):
    make(tmp_path, PETS, {"labels.csv": "file,age\ncat/a.png,3\n"})
    assert labels(tmp_path, "folder") == {"folder": ["cat", "cat", "dog", "dog"]}


def test_images_outside_of_the_folders_have_no_label(tmp_path):
    make(tmp_path, [*PETS, "x.png"])
    assert refusal(tmp_path, "folder") == f"1 image file of {tmp_path} without a label: x.png"


def test_images_without_folders_are_told_of_tables(images):
    assert "name a column of a table" in refusal(images, "folder")


@pytest.mark.parametrize("prefix", ["", "pets/"])
def test_one_class_is_no_label(tmp_path, prefix):
    make(tmp_path, [f"{prefix}cat/a.png", f"{prefix}cat/b.png"])
    assert refusal(tmp_path, "folder") == f"all images of {tmp_path} have the same 'folder': cat"


@pytest.mark.parametrize("prefix", ["", "pets/"])
def test_folders_without_an_image_are_left_out_with_a_warning(tmp_path, prefix):
    make(tmp_path, [prefix + name for name in PETS])
    for name in ("bird", "fish", ".git"):
        (tmp_path / prefix / name).mkdir()
    (tmp_path / prefix / "bird" / "a.png").write_bytes(b"broken")
    with pytest.warns(match="1 damaged"):
        files = load_image_set(tmp_path, 8).files
    with pytest.warns(match="2 classes of 'folder' .* left out.*: bird, fish$"):
        found = read_labels(tmp_path, files, "folder")
    assert found.names == {"folder": ["cat", "dog"]}
    assert found.values.tolist() == [[0], [0], [1], [1]]


# Tables

ROWS = [("a", "cat", 3), ("b", "dog", 12), ("c", "cat", 12)]
NAMES = [f"{name}.png" for name, *_ in ROWS]
EXPECTED = {"kind": ["cat", "dog", "cat"], "age": ["3", "12", "12"]}


def table(key="file_name", form="{}.png", mark=",", end="\n") -> str:
    rows = [(form.format(name), kind, age) for name, kind, age in ROWS]
    return "".join(mark.join(map(str, row)) + end for row in [(key, "kind", "age"), *rows])


@pytest.mark.parametrize(
    "name, content",
    [
        ("metadata.csv", table()),
        ("anything.csv", table()),
        ("LABELS.CSV", table("image")),
        ("labels.tsv", table(mark="\t")),
        ("labels.csv", table(mark=";")),
        ("labels.csv", table(mark="\t")),
        ("labels.csv", table(end="\r\n")),
        ("labels.csv", table(mark=" , ")),
        ("labels.csv", table() + "\n\n"),
        ("labels.csv", table().encode("utf-8-sig")),
        ("labels.csv", table().encode("utf-16")),
        ("labels.csv", table("some other column")),
        ("labels.csv", table(form="{}")),
        ("labels.csv", table(form="./{}.jpg")),
        ("labels.csv", table(form="train\\{}.png")),
        ("labels.csv", table(form="/home/someone/pictures/{}.png")),
        ("labels.csv", '"file_name","kind","age"\n' + table().partition("\n")[2]),
        ("labels.csv", table() + "a.png,cat,3\n"),
    ],
)
def test_a_table_is_read_in_many_forms(tmp_path, name, content):
    make(tmp_path, NAMES, {name: content})
    assert labels(tmp_path, "kind,age") == EXPECTED
    assert labels(tmp_path, "age") == {"age": EXPECTED["age"]}


def test_lines_of_json_are_a_table(tmp_path):
    lines = [f'{{"file_name": "{n}.png", "kind": "{k}", "age": {a}}}\n' for n, k, a in ROWS]
    make(tmp_path, NAMES, {"metadata.jsonl": "".join(lines)})
    assert labels(tmp_path, "age, kind") == {"age": EXPECTED["age"], "kind": EXPECTED["kind"]}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("where", ["", "set/"])
def test_a_table_lies_at_the_top_or_in_the_only_folder(tmp_path, zipped, where):
    names = [f"set/{name}" for name in NAMES]
    path = make(tmp_path / "path", names, {f"{where}labels.csv": table()})
    if zipped:
        path = shutil.make_archive(str(path), "zip", path)
    assert labels(path, "kind,age") == EXPECTED


def test_equal_names_in_two_folders_are_told_apart(tmp_path):
    text = "path,age\n" + "".join(f"{name},{i % 3}\n" for i, name in enumerate(PETS))
    make(tmp_path, PETS, {"labels.csv": text})
    assert labels(tmp_path, "age") == {"age": ["0", "1", "2", "0"]}


def test_metadata_goes_before_other_tables(tmp_path):
    make(tmp_path, NAMES, {"metadata.csv": table(), "splits.csv": "file,split\n"})
    assert labels(tmp_path, "kind,age") == EXPECTED


def test_numbers_are_names_of_classes_in_order_of_their_values(tmp_path):
    names = [f"{i}.png" for i in range(6)]
    values = [" 1", "-1", "10", "2.5", "-1", "10"]
    rows = "".join(f"{name},{value}\n" for name, value in zip(names, values, strict=True))
    make(tmp_path, names, {"a.csv": f"image_id,Smiling\n{rows}"})
    found = read_labels(tmp_path, names, "Smiling")
    assert found.names == {"Smiling": ["-1", "1", "2.5", "10"]}
    assert found.values.flatten().tolist() == [1, 0, 3, 2, 0, 3]


def test_every_slice_of_a_volume_has_its_label(tmp_path):
    make(tmp_path, [], {"a.csv": "volume,kind\na,cat\nb,dog\n"})
    files = ["a.nii.gz"] * 3 + ["b.nii.gz"]
    assert read_labels(tmp_path, files, "kind").values.tolist() == [[0], [0], [0], [1]]


def test_letters_of_an_old_encoding(tmp_path):
    text = "file,kind\na.png,Vögel\nb.png,cat\nc.png,cat\n"
    make(tmp_path, NAMES, {"a.csv": text.encode("latin-1")})
    assert labels(tmp_path, "kind") == {"kind": ["Vögel", "cat", "cat"]}


@pytest.mark.parametrize(
    "content, part",
    [
        ("file,kind\na.png,cat\nb.png,dog\n", "1 image file of {path} without a label: c.png"),
        ("file,kind\na.png,cat\nb.png,dog\nc.png,\n", "without a label: c.png"),
        ("file,kind\na.png,cat\nb.png,dog\nc.png\n", "without a label: c.png"),
        ("file,kind\na.png,cat\nb.png,cat\nc.png,cat\n", "have the same 'kind': cat"),
        ("file,kind\na.png,x\nb.png,y\nc.png,z\n", "3 different values for 3 images"),
        ("file,Kind\na.png,x\n", "no column 'kind', did you mean 'Kind'? It has file, Kind"),
        ("file,age\na.png,x\n", "no column 'kind': It has file, age"),
        ("file,kind,kind\na.png,x,y\n", "2 column 'kind'"),
        ("file,kind\nx1.png,cat\n", "'file' stand names such as x1.png, but files are called a"),
        ("file,kind\na.png,cat\nb.png,dog\na.png,dog\n",
         "a.png is cat in row 2, but dog in row 4"),
        ("file,kind\n", "no rows"),
        ("", "no rows"),
        ('file,kind\na.png,"cat\n', "damaged"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_in_one_line(tmp_path, content, part):
    make(tmp_path, NAMES, {"labels.csv": content})
    assert part.format(path=tmp_path) in refusal(tmp_path, "kind")


@pytest.mark.parametrize("line", ["{", "[1]", "3", '{"file_name": "a.png"}\n{}x'])
def test_damaged_json_is_said_in_one_line(tmp_path, line):
    make(tmp_path, NAMES, {"metadata.jsonl": line})
    assert "metadata.jsonl is damaged" in refusal(tmp_path, "kind")


def test_many_images_without_a_label_are_counted(tmp_path):
    make(tmp_path, [*NAMES, *(f"x{i}.png" for i in range(9))], {"labels.csv": table()})
    part = f"9 image files of {tmp_path} without a label: x0.png, x1.png, x2.png, ..."
    assert refusal(tmp_path, "kind") == part


def test_one_of_several_tables_is_not_guessed(tmp_path):
    make(tmp_path, NAMES, {"a.csv": table(), "b.csv": table()})
    assert "which of the tables" in refusal(tmp_path, "kind")


def test_no_table_at_all(images):
    assert "there is no table with labels" in refusal(images, "kind")


@pytest.mark.parametrize("columns", ["", " ", "kind,", "kind,kind"])
def test_columns_must_be_named(tmp_path, columns):
    make(tmp_path, NAMES, {"a.csv": table()})
    assert "different columns" in refusal(tmp_path, columns)


def test_classes_without_an_image_are_left_out_with_a_warning(tmp_path):
    make(tmp_path, NAMES, {"a.csv": table() + "gone.png,bird,12\n"})
    with pytest.warns(match="1 class of 'kind' .* left out.*: bird$") as caught:
        found = read_labels(tmp_path, NAMES, "kind,age")
    assert found.names["kind"] == ["cat", "dog"] and len(caught) == 1


def test_a_column_of_very_many_values_is_refused(tmp_path):
    files = [f"{i}.png" for i in range(1500)]
    rows = "".join(f"{name},{i % 1001}\n" for i, name in enumerate(files))
    make(tmp_path, [], {"a.csv": f"file,person\n{rows}"})
    with pytest.raises(InputError, match="1,001 different values for 1,500 images"):
        read_labels(tmp_path, files, "person")


# Bundled sets


@pytest.mark.parametrize(
    "name, columns, sizes",
    [("digits", "label", [10]), ("faces", "glasses, beard,background", [15, 9, 5])],
)
def test_bundled_sets_have_labels(name, columns, sizes):
    files = load_image_set(name, 16).files
    found = read_labels(name, files, columns)
    assert [len(names) for names in found.names.values()] == sizes
    assert (found.values.amax(0) + 1).tolist() == sizes
    if name == "digits":
        assert found.names["label"] == [str(i) for i in range(10)]
        assert found.values[:, 0].tolist() == [i % 10 for i in range(5000)]
