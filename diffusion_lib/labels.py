"""Labels by their names: "7", or "long20+dark03" where images have several columns of labels.

`classes` is that of a model: column -> names of its classes, in order of their numbers.
"""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lib.errors import InputError

Classes = dict[str, list[str]]


def find_label(text: str, classes: Classes) -> list[int]:
    """The numbers of one label, one for each column, -1 for a column that is left open.

    text: a name; or "column=name", where several columns have that name; or several of these with
        a + between them.

    Raises:
        InputError: no such name, or more than one in a column, or a model without labels.
    """
    if not classes:
        raise InputError(f"this model was trained without labels: leave {text!r} out")
    numbers = dict.fromkeys(classes, -1)
    for part in [text] if is_single(text, classes) else text.split("+"):
        column, name = find_column(part, classes)
        if numbers[column] >= 0:
            raise InputError(f"{text!r} has two labels of {column}: an image has one")
        numbers[column] = classes[column].index(name)
    return list(numbers.values())


def is_single(text: str, classes: Classes) -> bool:
    """Whether a text is one name, or "column=name", whatever signs it contains."""
    return any(text in (name, f"{c}={name}") for c, names in classes.items() for name in names)


def find_column(text: str, classes: Classes) -> tuple[str, str]:
    """The column and the name of a single label, "name" or "column=name"."""
    known = [(column, name) for column, names in classes.items() for name in names]
    found = [pair for pair in known if text in (pair[1], "=".join(pair))]
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join("=".join(pair) for pair in found)
        raise InputError(f"{text!r} is a label of several columns: say {choices}")
    names = list(dict.fromkeys(name for _, name in known))
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {shortened(names)}"
    raise InputError(f"the model has no label {text!r}: {hint}")


def shortened(names: Sequence[str], most: int = 20) -> str:
    """The first names of a list."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" * (len(names) > most))


def find_labels(labels: str | Sequence[str] | Tensor, count: int, classes: Classes) -> Tensor:
    """The labels of `count` images, int64, (count, columns).

    labels: one for all images, or one for each; by their names or as such a tensor.

    Raises:
        InputError: not as many labels as images, or one that the model does not have.
    """
    if isinstance(labels, Tensor):
        numbers = labels.long().cpu().view(len(labels), -1)
        most = torch.tensor([len(names) for names in classes.values()])
        if numbers.shape[1] != len(most) or (numbers < -1).any() or (numbers >= most).any():
            raise InputError(
                f"labels must be numbers -1 to K-1, of shape ({count}, {len(most)}), for the "
                f"columns {', '.join(classes) or 'of a model with labels'}"
            )
    else:
        texts = [labels] * count if isinstance(labels, str) else [str(label) for label in labels]
        numbers = torch.tensor([find_label(text, classes) for text in texts])
    if len(numbers) != count:
        raise InputError(f"there are {len(numbers)} labels for {count} images: give one for each")
    return numbers


def every_label(classes: Classes) -> list[str]:
    """Every class alone, as `find_label` reads it."""
    if len(classes) == 1:
        return list(*classes.values())
    return [f"{column}={name}" for column, names in classes.items() for name in names]


def choose_labels(text: str, classes: Classes) -> list[str]:
    """What to draw, by the command line: "7", "7,3", or "all"; "" is nothing in particular.

    Raises:
        InputError: a label that the model does not have.
    """
    every = every_label(classes)
    if is_single(text, classes):
        return [text]
    parts = [part.strip() for part in text.split(",") if part]
    labels = every if text == "all" and every else parts
    for label in labels:
        find_label(label, classes)
    return labels
