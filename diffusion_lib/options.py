"""What an option is: a field with its range, its help, and its heading; and how it is checked."""

from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, get_args

from diffusion_lib.errors import InputError, did_you_mean


def option(
    default: Any,
    help: str,
    short: str = "",
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    group: str = "",
    metavar: str = "",
    alone: str | None = None,
) -> Any:
    """A field, with its range and what the command line says about it.

    group: under which heading --help lists it and those that follow, up to the next group.
    alone: the value that the flag stands for where none follows it.
    """
    rule = dict(
        help=help,
        short=short,
        choices=choices,
        at_least=at_least,
        above=above,
        below=below,
        at_most=at_most,
        group=group,
        metavar=metavar,
        alone=alone,
    )
    return field(default=default, metadata=rule)


def kind_of(option: Field) -> type:
    """The type of an option's values; of `int | None` it is int."""
    return next(iter(get_args(option.type)), option.type)


def flag_of(option: Field) -> str:
    """The name of an option on the command line: `from_` is --from."""
    return option.name.rstrip("_")


# What the values of a field may be, by its type, and how that is said.
KINDS = {int: Integral, float: Real, str: str, bool: bool}
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
LARGEST = 2**40


@dataclass(frozen=True)
class Config:
    """Options that are checked when they are put together.

    Raises:
        InputError: a value out of its range.
    """

    def __post_init__(self):
        for option in fields(self):
            value, rule = getattr(self, option.name), option.metadata
            if value is None and option.default is None:
                continue
            kind = kind_of(option)
            if isinstance(value, bool) != (kind is bool) or not isinstance(value, KINDS[kind]):
                wrong = f"must be {NAMES[kind]}"
                value = repr(value)
            elif kind in (int, float) and not -LARGEST < value < LARGEST:
                wrong = "must be a number of usual size"
            elif rule["choices"] and value not in rule["choices"]:
                wrong = f"must be one of {', '.join(rule['choices'])}"
                value = f"{value}{did_you_mean(value, rule['choices'])}"
            elif rule["at_least"] is not None and not value >= rule["at_least"]:
                wrong = f"must be at least {rule['at_least']}"
            elif rule["above"] is not None and not value > rule["above"]:
                wrong = f"must be more than {rule['above']}"
            elif rule["below"] is not None and not value < rule["below"]:
                wrong = f"must be less than {rule['below']}"
            elif rule["at_most"] is not None and not value <= rule["at_most"]:
                wrong = f"must be at most {rule['at_most']}"
            else:
                continue
            raise InputError(f"{flag_of(option)} {wrong}, not {value}")
