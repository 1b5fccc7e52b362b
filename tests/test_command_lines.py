"""What the command lines share: the list of commands, --help, the answer to a mistyped word."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import diffusion_lib
from diffusion_lib import __main__, cli, evaluate, predict, train
from diffusion_lib.config import TrainConfig
from diffusion_lib.errors import InputError, did_you_mean
from diffusion_lib.options import Config, option

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


@pytest.fixture
def call(monkeypatch, capsys):
    """call(argument, ...) -> exit status, output, message of `python -m diffusion_lib`."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["simple-diffusion", *arguments])
        try:
            status = __main__.main()
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


def test_without_a_command_all_are_listed_with_examples_that_can_be_typed(call):
    status, out, _ = call()
    assert (status, out) == call("--help")[:2] and status == 0
    for name, (purpose, example) in __main__.COMMANDS.items():
        assert name in out and purpose in out and f"simple-diffusion {example}" in out
        assert example.split()[0] == name


def test_the_console_command_is_the_module():
    assert '\nsimple-diffusion = "diffusion_lib.__main__:main"\n' in PYPROJECT.read_text()


def test_a_command_is_called_with_the_other_arguments(call):
    status, out, _ = call("train", "--help")
    assert status == 0 and "usage: train" in out
    status, out, _ = call("benchmark", "--help")
    assert status == 0 and "quality" in out


def test_the_version_is_that_of_the_package(call):
    assert call("--version") == (0, f"Simple Diffusion {diffusion_lib.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "there is no command 'trian': did you mean train?"),
        (["zzz"], "there is no command 'zzz' (see --help)"),
        (["train", "a", "faces", "--resme"], "no option --resme: did you mean --resume?"),
        (["train", "a", "faces", "--imge-size=8"], "--imge_size: did you mean --image_size?"),
        (["train", "a", "faces", "--qqq"], "there is no option --qqq (see --help)"),
        (["train", "a", "faces", "more"], "more arguments than there are names for: more"),
        (["train", "a", "faces", "-s", "cosin"], "not cosin: did you mean cosine?"),
        (["predict", "fases"], "there is no file fases: did you mean faces?"),
        (["predict", "faces", "--sampler", "ddmp"], "not ddmp: did you mean ddpm?"),
    ],
)  # fmt: skip
def test_a_mistyped_word_is_answered_with_the_nearest_that_exists(call, arguments, message):
    status, out, err = call(*arguments)
    assert status == 2 and out == "" and message in err and err.count("\n") == 1


def test_a_model_beside_the_one_that_is_missing_is_named(call, tmp_path):
    (tmp_path / "knees.pth").touch()
    *_, err = call("predict", str(tmp_path / "knee.pth"))
    assert f"did you mean {tmp_path / 'knees.pth'}?" in err


def test_nothing_is_suggested_where_nothing_is_near():
    assert did_you_mean("zebra", ["cosine", "linear"]) == ""


def test_a_choice_is_checked_in_a_program_too():
    with pytest.raises(InputError, match="not cosin: did you mean cosine"):
        TrainConfig(beta_schedule="cosin")


def test_options_are_listed_in_their_groups():
    @dataclass(frozen=True)
    class Options(Config):
        alone: int = option(1, "first")
        size: int = option(1, "second", group="images")
        rate: float = option(1.0, "third")
        name: str = option("a", "fourth", group="the run")

    parser = cli.Parser(prog="x")
    parser.add_options(Options).add_argument("--more", help="fifth")
    text = parser.format_help()
    order = ["first", "images:", "second", "third", "the run:", "fourth", "fifth"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)


@pytest.mark.parametrize("module", [train, predict, evaluate])
def test_help_ends_with_some_examples_whose_options_exist(module):
    parser = module.build_parser()
    _, examples = parser.format_help().split("examples:\n")
    lines = examples.splitlines()
    assert 3 <= len(lines) <= 4 and max(map(len, lines)) <= 100
    for line in lines:
        name, arguments = line.split()[2], line.split()[3:]
        assert name == module.__name__
        parser.parse_args(arguments)


def test_no_option_of_training_stands_outside_a_group():
    text = train.build_parser().format_help()
    assert text.split("\noptions:\n")[1].split("\n\n")[0].strip().startswith("-h, --help")
    groups = ("images", "diffusion", "network", "optimisation", "speed and memory", "the run")
    assert all(f"\n\n{group}:\n" in text for group in groups)


@pytest.mark.slow
def test_the_module_can_be_run():
    command = [sys.executable, "-m", "diffusion_lib", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.startswith("Simple")


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()], ids=str
)
def test_too_little_memory_is_one_line(command, error):
    def main():
        raise error

    outcome = command(main, "predict")
    assert outcome.status == 2
    assert len(outcome.messages) == 1 and "--batch_size" in outcome.messages[0]


def test_other_errors_are_not_taken_for_it(command):
    def main():
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        command(main, "predict")
