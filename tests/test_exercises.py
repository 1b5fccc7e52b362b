"""The checks of the exercises: fed the wrong answers that learners give, they say what is wrong."""

import re
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
import wrong_answers

from diffusion_lib import exercises
from diffusion_lib.exercises.judge import Exercise

PAGES = [
    import_module(f"wrong_answers.{module.name}") for module in iter_modules(wrong_answers.__path__)
]
WRONG = {check: answers for page in PAGES for check, answers in page.WRONG.items()}
RIGHT = {check: answer for page in PAGES for check, answer in page.RIGHT.items()}


def said(capsys, check: str, function) -> str:
    getattr(exercises, check)(function)
    return capsys.readouterr().out.strip()


def test_every_check_has_answers_here():
    assert set(WRONG) == set(RIGHT) == set(exercises.__all__)
    assert set(exercises.__all__) == {name for name in dir(exercises) if name.startswith("check_")}


@pytest.mark.parametrize("check", WRONG)
def test_each_wrong_answer_is_told_apart(check, capsys):
    verdicts = [said(capsys, check, function) for function, _ in WRONG[check]]
    for verdict, (_, words) in zip(verdicts, WRONG[check], strict=True):
        assert words in verdict, (words, verdict)
    assert len(set(verdicts)) == len(verdicts)


@pytest.mark.parametrize("check", RIGHT)
def test_a_right_answer_is_right_however_it_is_computed(check, capsys):
    assert said(capsys, check, RIGHT[check]).startswith("Your answer: correct!")


def test_it_is_said_whose_answer_is_right_and_what_it_was_given(capsys):
    def difference_solution(a, b):
        return RIGHT["check_difference"](a, b)

    assert said(capsys, "check_difference", difference_solution) == "The solution: correct!"
    verdict = said(capsys, "check_difference", lambda one, other: (one * other).flatten(1).sum(1))
    assert re.search(r"It is given one = -?\d\.\d{3}, .*; other = ", verdict)


@pytest.mark.parametrize("check", WRONG)
def test_an_untouched_stub_has_not_been_tried(check, capsys):
    def stub(*_):
        raise NotImplementedError

    assert said(capsys, check, stub).startswith("Not tried yet")


def test_an_answer_that_stops_is_told_in_which_line():
    def answer(x):
        y = x
        return y + missing  # noqa: F821

    said = Exercise(lambda x: x, [], [(torch.ones(2),)]).judge(answer)
    assert "NameError" in said and "line" in said and "return y + missing" in said


def test_whole_numbers_are_told_without_decimals():
    exercise = Exercise(lambda x: x, [], [(torch.tensor([13, 10]),)])
    assert exercise.judge(lambda x: x - 1).endswith(
        "it gives 12, 9, not 13, 10. It is given x = 13, 10."
    )
