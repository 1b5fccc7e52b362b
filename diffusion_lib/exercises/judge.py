"""What an exercise is, and how an answer is judged.

An exercise knows the right answer and the mistakes that people make. A check runs the learner's
function and these on the same inputs, and says which of them it agrees with.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NOT_TRIED = "Not tried yet: put your answer in place of `raise NotImplementedError`."
CORRECT = "correct!"


@dataclass(frozen=True)
class Exercise:
    """A function to write, and how it goes wrong.

    answer: the right function.
    mistakes: wrong functions, and what to tell a learner whose function does the same.
    cases: the arguments to try.
    expects: what the function has to return, where the answer returns a tensor.
    if_nan: what to tell a learner whose function returns nan.
    """

    answer: Callable
    mistakes: list[tuple[Callable, str]]
    cases: list[tuple[Any, ...]]
    expects: str = "a tensor"
    if_nan: str = "some of it is nan: a root of a negative number, or a division of 0 by 0?"

    def judge(self, function: Callable) -> str:
        """One sentence on a learner's function: CORRECT, NOT_TRIED, or what is wrong."""
        right = [self.answer(*case) for case in self.cases]
        try:
            given = [function(*case) for case in self.cases]
        except NotImplementedError:
            return NOT_TRIED
        except Exception as error:  # whatever a first attempt does
            return f"It stops with {type(error).__name__}: {error}{line_of(error, function)}"
        if any(value is None for value in given):
            return "It returns None: is there a `return` at its end?"
        for value, wanted in zip(given, right, strict=True):
            if isinstance(wanted, Tensor):
                if not isinstance(value, Tensor):
                    return f"It returns {type(value).__name__}: return {self.expects}."
                if value.shape != wanted.shape:
                    return (
                        f"The shape is {tuple(value.shape)}, but should be {tuple(wanted.shape)}."
                    )
                if value.dtype != wanted.dtype and not wanted.is_floating_point():
                    return f"The numbers are {value.dtype}, but should be {wanted.dtype}."
        if any(is_nan(value) for value in given):
            return f"Not yet: {self.if_nan}"
        if agree(given, right):
            return CORRECT
        for mistake, explanation in self.mistakes:
            if agree(given, [mistake(*case) for case in self.cases]):
                return f"Not yet: {explanation}"
        return (
            f"Not yet: for the first case it gives {short(given[0])}, not {short(right[0])}."
            f"{arguments(function, self.cases[0])}"
        )


def say(verdict: str, function: Callable) -> None:
    """Print what is to be said of a learner's function, or of a page's, which is NAME_solution."""
    if getattr(function, "__name__", "").endswith("_solution"):
        print(f"The solution: {verdict}")
    elif verdict == CORRECT:
        print(f"Your answer: {verdict} Compare it with the solution below.")
    else:
        print(verdict)


def several(said: list[str]) -> str:
    """One sentence, or more, on mistakes that are made together."""
    numbers = ("", "", "two things: ", "three things: ")
    return f"{numbers[len(said)]}{'; and '.join(said)}."


def arguments(function: Callable, case: tuple[Any, ...]) -> str:
    """A sentence with the numbers that a function is given, by the names it has for them."""
    code = getattr(function, "__code__", None)
    named = [
        f"{name} = {short(value)}"
        for name, value in zip(code.co_varnames if code else (), case, strict=False)
        if isinstance(value, Tensor | int | float)
    ]
    return f" It is given {'; '.join(named)}." if named else ""


def line_of(error: BaseException, function: Callable) -> str:
    """Where in a cell an error arose, if that is known."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [(frame.lineno, frame.line) for frame in frames if frame.filename == file]
    return " (line {} of the cell: {})".format(*lines[-1]) if lines else ""


def is_nan(value: Any) -> bool:
    """Whether there is a nan in it, or a root of a negative number, which Python makes complex."""
    value = torch.as_tensor(value)
    return value.is_complex() or bool(value.isnan().any())


def agree(some: list, others: list) -> bool:
    """Whether all values are the same, up to rounding."""
    return all(
        torch.allclose(torch.as_tensor(a).double(), torch.as_tensor(b).double(), 1e-4, 1e-6)
        for a, b in zip(some, others, strict=True)
    )


def short(value: Any) -> str:
    """A value as a learner can read it: the first few numbers of a tensor."""
    if not isinstance(value, Tensor):
        return str(value)
    form = ".3f" if value.is_floating_point() else ""  # whole numbers as they are
    numbers = ", ".join(f"{number:{form}}" for number in value.flatten()[:3].tolist())
    return f"{numbers} ..." if value.numel() > 3 else numbers
