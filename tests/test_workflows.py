"""What surrounds the code: the workflows run what the Makefile runs, and all files agree."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

import diffusion_lib.environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FIRST, LAST = (int(n) for n in re.findall(r"3\.(\d+)", PROJECT["requires-python"]))  # 10, 14
VERSIONS = [f"3.{minor}" for minor in range(FIRST, LAST)]


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def commands(workflow: dict) -> list[str]:
    """All lines that the steps of a workflow run."""
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [line.strip() for step in steps for line in step.get("run", "").splitlines()]


def recipe(target: str) -> list[str]:
    """The commands of a target, as one would type them in an activated environment."""
    body = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    lint = re.search(r"^LINT = (.*)$", MAKEFILE, re.MULTILINE)[1]
    body = body.replace("$(LINT)", lint).replace(" && ", "\n")
    return [
        re.sub(r"OMP_NUM_THREADS=1 |\$\(BIN\)/", "", line.strip()) for line in body.splitlines()
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_runs_what_exists(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    more = {
        name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job
    }
    assert more in ({}, {"publish": {"pages": "write", "id-token": "write"}})
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    for line in commands(workflow):
        for target in re.findall(r"\bmake (\S+)", line):
            assert re.search(rf"^{target}:", MAKEFILE.replace("$(READY)", ".venv/ready"), re.M)


def test_every_push_is_checked_on_three_systems_with_the_oldest_and_the_newest_python():
    workflow = read(ROOT / ".github/workflows/check.yml")
    assert {"push", "pull_request"} <= workflow[True].keys()  # YAML reads `on` as true
    job = workflow["jobs"]["check"]
    assert job["strategy"]["matrix"] == {
        "os": ["ubuntu-latest", "macos-latest", "windows-latest"],
        "python": [VERSIONS[0], VERSIONS[-1]],
    }
    assert job["env"]["OMP_NUM_THREADS"] == "1"
    (windows,) = (step for step in job["steps"] if "'Windows'" in step.get("if", ""))
    assert windows["run"].splitlines()[1:] == recipe("check")
    with_make = [step["run"] for step in job["steps"] if step.get("run", "").startswith("make")]
    assert [line.split()[1] for line in with_make] == ["check", "check"]


def test_the_oldest_versions_of_the_weekly_run_are_the_lowest_that_are_allowed():
    matrix = read(ROOT / ".github/workflows/torch.yml")["jobs"]["torch"]["strategy"]["matrix"]
    lowest = diffusion_lib.environment.PACKAGES
    names = ("torch", "torchvision", "numpy", "pillow")
    oldest, newest = (each["versions"] for each in matrix["include"])
    assert oldest == " ".join(f"{name}=={lowest[name]}.*" for name in names)
    assert newest == f"--upgrade {' '.join(names)}"


def test_uv_takes_a_python_that_is_allowed_and_pip_comes_with_it():
    assert f"\nPYTHONS := {PROJECT['requires-python']}\n" in MAKEFILE
    uv = re.search(r"^ifdef UV\n(.*?)^else", MAKEFILE, re.MULTILINE | re.DOTALL)[1]
    assert "--seed" in uv and "--torch-backend cpu" in uv


def test_a_container_for_developers_sets_itself_up():
    container = json.loads((ROOT / ".devcontainer.json").read_text())
    assert container["image"].rpartition(":")[2] in VERSIONS
    assert container["postCreateCommand"].split()[:2] == ["make", ".venv/ready"]


def test_the_form_for_problems_asks_for_the_environment():
    form = read(ROOT / ".github/ISSUE_TEMPLATE/problem.yml")
    (field,) = (each for each in form["body"] if each.get("id") == "environment")
    assert "python -m diffusion_lib.environment" in field["attributes"]["description"]
    assert field["validations"]["required"]


def test_the_version_the_licence_and_the_authors_are_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest, day = re.search(r"^## (\S+) \((\S+)\)$", changes, re.MULTILINE).groups()
    assert citation["version"] == newest == diffusion_lib.__version__
    assert str(citation["date-released"]) == day
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    python = "Programming Language :: Python :: "
    assert [c.removeprefix(python) for c in PROJECT["classifiers"] if python in c] == VERSIONS
