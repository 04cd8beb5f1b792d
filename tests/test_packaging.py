"""What pip installs is the whole program: every folder of the source tree, from the wheel and from the sdist."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

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


def test_every_folder_of_code_is_a_package() -> None:
    for name in folders() - {"fsmm"}:
        assert (ROOT.joinpath(*name.split(".")[1:]) / "__init__.py").is_file(), name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of what git knows, as a release would be."""
    copy, out = tmp_path_factory.mktemp("source") / "fsmm", tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
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
    with tarfile.open(sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
        assert modules <= held
        assert {"README.md", "LICENSE", "pyproject.toml", "docs/architecture.md"} <= held


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
