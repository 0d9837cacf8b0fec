"""The release: what is in the distributions, what they say of themselves, and that the installed wheel works.

What PyPI, GitHub and citation tools read stands in several files; one version and one date are in all of them. The
distributions are built from a copy of what git knows, with strangers planted beside it. `nox -s wheel extras` installs
the wheel on each Python, and each extra alone.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

import embedrouter
from tests.smallest_use import USES

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
VERSION: str = PROJECT["version"]
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
DAY = "1735689600"
"""2025-01-01, in seconds since 1970."""

STRANGERS = (
    ".env",
    ".venv/lib/cassettes/stranger.yaml",
    "shared/cassettes/stranger.yaml",
    "shared/docs/stranger.md",
    "site/index.html",
    "dist/embedrouter-0.0.1.tar.gz",
    "src/embedrouter/__pycache__/router.cpython-311.pyc",
    "tests/__pycache__/conftest.cpython-311.pyc",
    "examples/.ipynb_checkpoints/notebook.ipynb",
)
"""What lies in a developer's folder and belongs into no distribution."""


# What they say


def test_the_version_is_the_same_everywhere() -> None:
    """It is written in ``pyproject.toml``; the package reads it from there, and the other files are compared."""
    entries = re.findall(r"^## \[(\d[^]]*)\] - (.+)$", CHANGELOG, re.MULTILINE)

    assert embedrouter.__version__ == VERSION
    assert CITATION["version"] == VERSION
    assert entries[0] == (VERSION, str(CITATION["date-released"])), "the newest entry has the day of the release"
    assert f"[{VERSION}]: {PROJECT['urls']['Source']}/releases/tag/v{VERSION}" in CHANGELOG
    assert not re.search(r"^__version__\s*=", (ROOT / "src/embedrouter/__init__.py").read_text("utf-8"), re.MULTILINE)


def test_the_citation_says_what_the_project_says() -> None:
    """The fields that the Citation File Format 1.2.0 requires, and the licence and addresses of ``pyproject.toml``."""
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["message"]
    assert CITATION["title"].startswith("embedrouter")
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["repository-code"] == PROJECT["urls"]["Source"]
    assert CITATION["url"] == PROJECT["urls"]["Documentation"]


def test_the_project_names_its_addresses() -> None:
    """PyPI shows them beside the page under icons that it chooses by these names."""
    urls = PROJECT["urls"]

    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} <= set(urls)
    assert urls["Documentation"] == yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), _Loader)["site_url"]
    assert all(url.startswith("https://") for url in urls.values())


def test_the_classifiers_name_the_pythons_that_may_install_it() -> None:
    names = {name.rpartition(" :: ")[2] for name in PROJECT["classifiers"] if re.search(r"3\.\d+$", name)}
    lowest = PROJECT["requires-python"].removeprefix(">=")

    assert min(names, key=lambda name: int(name.partition(".")[2])) == lowest
    assert "License" not in "".join(PROJECT["classifiers"]), "PEP 639: the expression of `license` says it"


def test_llamahub_finds_the_classes_that_are_named() -> None:
    """LlamaHub reads ``[tool.llamahub]``: where to import from, and which classes are there."""
    hub = PYPROJECT["tool"]["llamahub"]
    module = ROOT / "src" / hub["import_path"].replace(".", "/") / "__init__.py"
    exported = re.search(r"^__all__ = (\[.*?\])", module.read_text("utf-8"), re.DOTALL | re.MULTILINE)

    assert exported is not None
    assert {*hub["class_authors"], *hub["secondary_class_authors"]} <= set(ast.literal_eval(exported[1]))
    assert hub["contains_example"] is any((ROOT / "examples").glob("llama_index*"))


def test_every_extra_has_a_smallest_use() -> None:
    """So that ``nox -s extras`` leaves none out; ``all`` and ``dev`` are made of the others."""
    assert {*PROJECT["optional-dependencies"]} - {"all", "dev"} == {*USES} - {"core"}


def test_the_readme_needs_no_repository_around_it() -> None:
    """PyPI shows it alone: a relative link or picture is dead there."""
    readme = (ROOT / "README.md").read_text("utf-8")
    outside = re.sub(r"^```.*?^```$", "", readme, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)|\b(?:href|src|srcset)=\"([^\"]+)\"", outside)

    targets = [one or other for one, other in links]
    assert targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")))
def test_an_issue_form_asks_in_fields_that_github_knows(file: str) -> None:
    """A form with an error is not shown, and nobody is told."""
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / file).read_text("utf-8"))
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    names = [part["id"] for part in questions]

    assert {"name", "description", "body"} <= set(form) <= {"name", "description", "title", "labels", "body"}
    assert {part["type"] for part in questions} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(part["attributes"]["label"] for part in questions)
    assert all("options" in part["attributes"] for part in questions if part["type"] == "dropdown")
    assert len(names) == len(set(names)) > 0


def test_a_release_is_published_from_the_files_that_were_tried() -> None:
    """One job builds, the others take its files, and PyPI waits for all. No job has rights that it does not need."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    jobs: dict[str, Any] = workflow["jobs"]
    steps = {name: str(job["steps"]) for name, job in jobs.items()}

    assert [name for name in jobs if "python -m build" in steps[name]] == ["build"]
    assert [name for name in jobs if "download-artifact" in steps[name]] == ["try", "publish", "announce"]
    assert jobs["publish"]["needs"] == ["build", "checks", "try"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "password" not in steps["publish"]
    assert workflow["permissions"] == {"contents": "read"}


# What is in them


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what git knows, and plant strangers."""
    return _copy(tmp_path_factory.mktemp("tree") / "embedrouter")


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it."""
    return _build(tree, tmp_path_factory.mktemp("dist"))


@pytest.mark.slow
def test_the_source_distribution_holds_what_git_knows_and_nothing_else(built: tuple[Path, Path]) -> None:
    """With it one builds, tests, and writes the documentation."""
    with tarfile.open(built[0]) as archive:
        members = archive.getmembers()
    root = f"embedrouter-{VERSION}"

    assert {PurePosixPath(member.name).parts[0] for member in members} == {root}
    assert {member.name.removeprefix(f"{root}/") for member in members if member.isfile()} == {*_known(), "PKG-INFO"}
    assert all(member.isfile() or member.isdir() for member in members), "links lead out of it"
    assert all(not member.uname and not member.gname and member.uid == 0 for member in members)
    assert next(member.mode for member in members if member.name == f"{root}/.ci/run") & 0o111


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_licence(built: tuple[Path, Path]) -> None:
    """The catalogue, the page of comparisons and ``py.typed`` are there, the tests are not."""
    about = f"embedrouter-{VERSION}.dist-info"
    with zipfile.ZipFile(built[1]) as archive:
        names, metadata = set(archive.namelist()), archive.read(f"{about}/METADATA").decode()
    package = {name.removeprefix("src/") for name in _known() if name.startswith("src/")}
    extra = {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}

    assert names == package | extra
    assert {"embedrouter/py.typed", "embedrouter/models/catalogue.toml", "embedrouter/models/servers.toml"} <= names
    assert built[1].name == f"embedrouter-{VERSION}-py3-none-any.whl"
    assert "License-Expression: MIT" in metadata
    assert "Description-Content-Type: text/markdown" in metadata
    assert {*re.findall("^Provides-Extra: (.+)$", metadata, re.MULTILINE)} == {*PROJECT["optional-dependencies"]}


@pytest.mark.slow
def test_pypi_takes_them(built: tuple[Path, Path]) -> None:
    """The metadata are complete, and the README is shown: twine renders it as PyPI does."""
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built))


@pytest.mark.slow
def test_the_same_commit_gives_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In another folder, with other times and rights, under another name: anybody can build what was published."""
    other = _copy(tmp_path / "another name")
    for path in other.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode & ~0o077)
            os.utime(path, (1, 1))

    again = _build(other, tmp_path / "dist")

    assert [_digest(file) for file in again] == [_digest(file) for file in built]


@pytest.mark.slow
def test_the_installed_wheel_works(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment of its own, whose other packages are those of this one."""
    python = _installed(built[1], tmp_path / "venv")
    code = "import embedrouter, pathlib; print(pathlib.Path(embedrouter.__file__).parent, embedrouter.__version__)"
    where, _, version = _run(python, "-c", code, cwd=tmp_path).strip().rpartition(" ")

    assert Path(where).is_relative_to(tmp_path / "venv")
    assert version == VERSION
    assert "openai:text-embedding-3-small" in _run(python, "-m", "embedrouter", "models", cwd=tmp_path)
    assert "avoided" in _run(python, "-m", "embedrouter", "demo", str(ROOT / "docs"), cwd=tmp_path)
    _run(python, "-m", "tests.smallest_use", "core", "wordllama", "compare", cwd=ROOT)


class _Loader(yaml.SafeLoader):
    """Reads ``mkdocs.yml``, whose functions are named by tags."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)


def _known() -> set[str]:
    """Return the files that git knows, by their place."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout, and only git knows what belongs to it")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name}


def _copy(folder: Path) -> Path:
    for name in _known():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
        shutil.copymode(ROOT / name, folder / name)
    for name in STRANGERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a stranger", "utf-8")
    return folder


def _build(folder: Path, target: Path) -> tuple[Path, Path]:
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), cwd=folder)
    (source,), (wheel,) = target.glob("*.tar.gz"), target.glob("*.whl")
    return source, wheel


def _installed(wheel: Path, folder: Path) -> str:
    """Install the wheel alone into an environment that sees the packages of this one after its own."""
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = str(folder / "bin" / "python")
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    _run(sys.executable, "-m", "pip", "--python", python, *install)
    places = [path for path in sys.path if path.endswith("site-packages")]
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text("\n".join(places), "utf-8")
    return python


def _run(*command: str, cwd: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**environment, "SOURCE_DATE_EPOCH": DAY}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
