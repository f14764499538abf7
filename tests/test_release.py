"""Facts stated in several files that must agree before a release: versions, Pythons, and the workflows' permissions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.imports import script

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

pytestmark = pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="needs a clone of the repository")


def test_one_version_is_named_everywhere() -> None:
    """In CHANGELOG.md, the heading of a version in development leaves out the version's suffix."""
    version = found(r'^version = "(.+)"$', "pyproject.toml")
    assert found(r"^version: (.+)$", "CITATION.cff") == version
    assert found(r"^## (\S+)", "CHANGELOG.md") == version.partition(".dev")[0]


def test_the_workflows_exist() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "tests"]


def test_only_a_tag_of_the_version_is_released() -> None:
    checked = subprocess.run([ROOT / "tools/release.sh", "--check", "v0"], capture_output=True, text=True, check=False)
    assert checked.returncode == 1 and "expected " in checked.stderr


def test_every_python_has_wheels_and_is_tested() -> None:
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))
    assert supported and found(r'^requires-python = ">=(.+)"$', "pyproject.toml") == supported[0]
    wheels = [f"cp{version.replace('.', '')}" for version in supported]
    assert found(r'^build = "(.+)"$', "pyproject.toml").split() == [f"{x}-*" for x in (*wheels, f"{wheels[-1]}t")]
    tests = ".github/workflows/tests.yml"
    assert re.findall(r'"(.+?)"', found(r"^ +python: \[(.+)\]$", tests)) == supported
    assert re.findall(r'- \{python: "(.+?)", oldest: "2\.\d+"\}', read(tests)) == supported


def test_wheels_are_tested_with_the_same_files_everywhere() -> None:
    beside = re.findall(r'"(.+?)"', found(r"^test-sources = \[(.+)\]$", "pyproject.toml"))
    assert found(r"^git ls-files -z (.+) \|$", "tools/test_wheel.sh").split() == beside


def test_the_oldest_tested_torch_is_the_oldest_that_the_package_accepts() -> None:
    oldest = re.findall(r'oldest: "2\.(\d+)"', read(".github/workflows/tests.yml"))
    assert found(r'^torch = \["torch>=2\.(\d+)"\]$', "pyproject.toml") == min(oldest, key=int)


@pytest.mark.landing
def test_every_mutant_changes_the_code_as_it_stands() -> None:
    found = script("tools", "mutants").mutants()
    assert len(found) > 100
    for mutant in found:
        text = (ROOT / mutant.file).read_text()
        assert mutant.apply(text) != text, mutant


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_pinned_actions_with_few_permissions(workflow: Path) -> None:
    text = workflow.read_text()
    uses = re.findall(r"\buses: *(.*)", text)
    assert uses and not [use for use in uses if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)]
    assert "\npermissions: {}\n" in text
    jobs = re.split(r"^  (?=[\w-]+:$)", text.partition("\njobs:\n")[2], flags=re.MULTILINE)[1:]
    for job in jobs:
        assert "\n    permissions:\n" in job and "\n    timeout-minutes: " in job, job.splitlines()[0]
    written = {f"{workflow.stem}: {name}" for name in re.findall(r"^ +([\w-]+): write\b", text, re.MULTILINE)}
    assert written <= {"release: id-token", "docs: pages", "docs: id-token"}
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


def test_an_action_has_one_version() -> None:
    pins = {tuple(use.split("@")) for path in WORKFLOWS for use in re.findall(r"\buses: *(.*)", path.read_text())}
    assert len(pins) == len({name for name, _ in pins})


def read(path: str) -> str:
    return (ROOT / path).read_text()


def found(pattern: str, path: str) -> str:
    """The group of the first line that matches."""
    match = re.search(pattern, read(path), re.MULTILINE)
    assert match, f"{path}: {pattern}"
    return match.group(1)
