"""What pip installs is the whole program: every folder of the source tree, from the wheel and from the sdist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from fsmm.extract.encoders import ENCODERS, extras_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
NOT_SHIPPED = {"tests", "scripts", "benchmarks", "docs", "examples", "build", "dist"}


def folders() -> set[str]:
    """The dotted names of all folders that hold code of the program."""
    files = (p.relative_to(ROOT) for p in ROOT.rglob("*.py"))
    inside = {p.parent for p in files if not (p.parts[0].startswith(".") or p.parts[0] in NOT_SHIPPED)}
    return {".".join(("fsmm", *folder.parts)) for folder in inside}


def test_the_list_of_packages_is_the_folders() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders())


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# What is imported under another name than its package has, and what is a program and is never imported.
IMPORTED_AS = {
    "opencv-python-headless": "cv2",
    "open-clip-torch": "open_clip",
    "ai-edge-litert": "ai_edge_litert",
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
}
PROGRAMS = {"pytest", "pytest-xdist", "pytest-timeout", "ruff", "mypy", "types-pyyaml", "build", "setuptools"}
PROGRAMS |= {"pre-commit", "mkdocs", "mkdocs-material", "mkdocstrings"}


def requirements() -> list[Requirement]:
    """Everything that fsmm and its extras ask for."""
    return [Requirement(text) for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts]


def module_of(requirement: str) -> str:
    """The module that a required package is imported as."""
    name = canonicalize_name(Requirement(requirement).name)
    return IMPORTED_AS.get(name, name.replace("-", "_"))


def pins() -> dict[str, str]:
    """The tested version of each package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in found}


@pytest.mark.parametrize("wanted", requirements(), ids=lambda wanted: wanted.name)
def test_an_installation_without_constraints_stays_near_the_tested_versions(wanted: Requirement) -> None:
    """The tested version lies in the range, and the range ends with its major version, or its minor one below 1."""
    if wanted.name == "setuptools":
        return  # It comes with the environment.
    tested = Version(pins()[canonicalize_name(wanted.name)])
    assert tested in wanted.specifier
    after = Version(f"{tested.major + 1}")
    assert after not in wanted.specifier, f"{wanted} has no upper bound at {after} or before"


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_the_code_imports(extra: str) -> None:
    """Nothing is installed for features that do not exist."""
    files = [path for path in ROOT.rglob("*.py") if ".venv" not in path.parts and path != Path(__file__)]
    code = "\n".join(path.read_text() for path in files)
    for text in EXTRAS[extra]:
        name = canonicalize_name(Requirement(text).name)
        if name not in PROGRAMS:
            module = module_of(text)
            used = rf"(import|from) {module}\b|[\"']{module}[\"'.]"
            assert re.search(used, code), f"nothing imports {module}, which the extra {extra} brings"


def test_an_encoder_without_its_packages_names_the_extra_that_brings_them() -> None:
    brought = {module_of(text): extra for extra in ("extract", "encoders", "hub") for text in EXTRAS[extra]}
    for row in ENCODERS.values():
        for module in row.needs:
            assert extras_of([module]) == [brought[module]], module


def test_nothing_asks_for_fsmm_from_an_index() -> None:
    """fsmm is installed from its sources; a package of that name on an index would be another program."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    code = [ROOT / "Makefile", *(ROOT.joinpath(*name.split(".")[1:]) for name in folders() - {"fsmm"})]
    files = [
        *pages,
        ROOT / "Makefile",
        *(path for folder in code if folder.is_dir() for path in folder.glob("*.py")),
    ]
    for path in files:
        assert not re.search(r"pip3? install (-\S+ )*[\"']?fsmm\b", path.read_text()), path


def test_every_folder_of_code_is_a_package() -> None:
    for name in folders() - {"fsmm"}:
        assert (ROOT.joinpath(*name.split(".")[1:]) / "__init__.py").is_file(), name


def known_to_git(folder: str) -> list[str]:
    """The files of a folder of the repository, the new ones included and the ignored ones not."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of what git knows, as a release would be."""
    copy, out = tmp_path_factory.mktemp("source") / "fsmm", tmp_path_factory.mktemp("dist")
    for name in known_to_git("."):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy))
    return out


@pytest.mark.slow
def test_the_wheel_and_the_sdist_hold_every_module(built: Path) -> None:
    modules = {
        f"{name.removeprefix('fsmm').replace('.', '/').lstrip('/')}/{path.name}".lstrip("/")
        for name in folders()
        for path in ROOT.joinpath(*name.split(".")[1:]).glob("*.py")
    }
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        assert {n.removeprefix("fsmm/") for n in file.namelist() if n.endswith(".py")} == modules
        assert "fsmm/py.typed" in file.namelist()
        carried = {f"fsmm/{name}" for name in known_to_git("extract/built_in")}
        assert any(name.endswith(".mp4") for name in carried)
        assert carried <= set(file.namelist()), "the built-in clips are not whole"
        facts = [p.relative_to(ROOT).as_posix() for p in ROOT.glob("extract/datasets/class_splits/*.json")]
        assert facts
        assert {f"fsmm/{name}" for name in facts} <= set(file.namelist())
    with tarfile.open(sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
        assert modules <= held
        assert {"README.md", "LICENSE", "pyproject.toml", "constraints.txt", "CONTRIBUTING.md"} <= held
        assert {"Makefile", "scripts/demo.py", "mkdocs.yml"} <= held  # README's first commands
        for folder in ("docs", "examples"):
            assert set(known_to_git(folder)) <= held, f"{folder} is not whole"
        assert not {name for name in held if name.split("/")[0] in ("tests", "benchmarks")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_an_installation_of_it_runs(built: Path, tmp_path: Path, kind: str) -> None:
    """Into a clean environment, beside the test environment's libraries: no second torch is installed."""
    (archive,) = built.glob(kind)
    run(sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(tmp_path / "env"))
    python = str(tmp_path / "env" / "bin" / "python")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    libraries = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    install = ["-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-build-isolation"]
    run(sys.executable, *install, "--ignore-installed", str(archive), PYTHONPATH=os.pathsep.join(libraries))
    # after our own, the libraries; the editable installation's hook is a .pth file, which PYTHONPATH does not read
    assert (Path(site) / "fsmm" / "heads" / "metric" / "protonet.py").is_file()
    command = str(tmp_path / "env" / "bin" / "fsmm")
    inside = {"PYTHONPATH": os.pathsep.join([site, *libraries]), "cwd": str(tmp_path)}
    where = run(python, "-c", "import fsmm; print(fsmm.__file__)", **inside)
    assert where.strip() == str(Path(site) / "fsmm" / "__init__.py")
    assert "episode-eval" in run(python, command, "--help", **inside)
    assert "protonet" in run(python, command, "methods", **inside)


def run(*command: str, cwd: str | None = None, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout
