"""Labels by their names, as people type them."""

import pytest
import torch

from diffusion_lib import InputError
from diffusion_lib.labels import choose_labels, every_label, find_label, find_labels, shortened

PORTRAITS = {"hair": ["long", "none", "short"], "hat": ["none", "red+blue", "1,2"]}
DIGITS = {"digit": list("0123456789")}


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("long", [0, -1]),
        ("hat=none", [-1, 0]),
        ("long+hat=none", [0, 0]),
        ("hat=none+hair=short", [2, 0]),
        ("red+blue", [-1, 1]),
        ("1,2", [-1, 2]),
    ],
)
def test_a_label_is_found_by_its_name(text, numbers):
    assert find_label(text, PORTRAITS) == numbers


@pytest.mark.parametrize(
    "text, said",
    [
        ("none", "say hair=none or hat=none"),
        ("lnog", "did you mean long?"),
        ("green", "it has long, none, short, red\\+blue, 1,2"),
        ("hair=red", "has no label"),
        ("long+short", "two labels of hair"),
        ("", "has no label"),
    ],
)
def test_a_label_that_cannot_be_found_is_explained(text, said):
    with pytest.raises(InputError, match=said):
        find_label(text, PORTRAITS)


def test_labels_of_images_are_one_for_all_or_one_for_each():
    assert find_labels("7", 3, DIGITS).tolist() == [[7], [7], [7]]
    assert find_labels(["7", 1], 2, DIGITS).tolist() == [[7], [1]]
    assert find_labels(torch.tensor([3, -1]), 2, DIGITS).tolist() == [[3], [-1]]
    assert find_labels(torch.tensor([[0, 2]]), 1, PORTRAITS).tolist() == [[0, 2]]


def test_every_label_can_be_found_again():
    for classes in (DIGITS, PORTRAITS):
        found = [find_label(label, classes) for label in every_label(classes)]
        assert len({tuple(numbers) for numbers in found}) == sum(map(len, classes.values()))
    assert every_label(DIGITS) == DIGITS["digit"] and every_label({}) == []


@pytest.mark.parametrize(
    "text, chosen",
    [("", []), ("7", ["7"]), ("7, 3", ["7", "3"]), ("all", DIGITS["digit"]), ("7,7", ["7", "7"])],
)
def test_the_command_line_takes_one_several_or_all(text, chosen):
    assert choose_labels(text, DIGITS) == chosen


def test_a_name_with_a_comma_is_one_label_and_all_may_be_a_name():
    assert choose_labels("1,2", PORTRAITS | {"hair": ["long"]}) == ["1,2"]
    assert choose_labels("all", {"who": ["all", "some"]}) == ["all"]


@pytest.mark.parametrize("text", ["7,x", "all", "7"])
def test_a_model_without_labels_takes_none(text):
    with pytest.raises(InputError, match="without labels"):
        choose_labels(text, {})


def test_a_long_list_of_names_is_shortened():
    assert shortened(DIGITS["digit"], 3) == "0, 1, 2 and 7 more"
    assert shortened(["a", "b"]) == "a, b"
