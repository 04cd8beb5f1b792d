"""The walls of docs/architecture.md: who may import whom, and that no circle exists anywhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = {"errors", "_version"}
ALLOWED = {
    "machine": {"machine"},
    "cache": {"machine", "cache"},
    "episodes": {"machine", "cache", "episodes"},
    "heads": {"machine", "cache", "episodes", "heads"},
    "runs": {"machine", "cache", "episodes", "heads", "runs"},
    "studies": {"machine", "cache", "episodes", "heads", "runs", "studies"},
    "extract": {"machine", "cache", "extract"},
    "commands": {"machine", "cache", "episodes", "heads", "runs", "studies", "commands", "extract"},
}
# The entrance for a user's own videos: it imports extraction when it is used.
EXCEPTIONS = {("runs/estimator.py", "extract")}
VIDEO = {"av", "cv2", "open_clip", "pytorchvideo", "torchvision", "timm", "ai_edge_litert", "decord"}


def sources() -> dict[str, Path]:
    """Our modules by dotted name."""
    found = {}
    for path in [*ROOT.glob("*.py"), *(p for package in ALLOWED for p in (ROOT / package).rglob("*.py"))]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("fsmm", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def imports(path: Path) -> set[str]:
    """Absolute dotted names that a module imports, inside functions too; our own begin with ``fsmm.``."""
    package = ("fsmm", *path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (stem, node.module or "") if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def circle_in(arrows: Mapping[str, Set[str]]) -> list[str]:
    """The nodes of one circle, in order; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> Iterator[list[str]]:
        if node in path:
            yield path[path.index(node) :]
        elif node not in done:
            for after in sorted(arrows.get(node, ())):
                yield from visit(after, [*path, node])
            done.add(node)

    return next((found for start in sorted(arrows) for found in visit(start, [])), [])


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_left_of_them(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        place = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "fsmm" and len(parts) > 1 and (place, parts[1]) not in EXCEPTIONS:
                assert parts[1] in ALLOWED[package] | ALWAYS, f"{place} imports {name}"
            if package not in ("extract", "commands"):
                assert parts[0] not in VIDEO, f"{place} imports {name}"


def test_no_circle_between_files() -> None:
    modules = sources()
    arrows = {name: imports(path) & modules.keys() - {name} for name, path in modules.items()}
    # a package's name is its __init__.py, which every import of a file inside it names without reading
    for name, path in modules.items():
        if path.name == "__init__.py" and not path.read_text().strip():
            for after in arrows.values():
                after.discard(name)
    assert circle_in(arrows) == []


def test_no_circle_between_packages() -> None:
    arrows = {
        package: {name.split(".")[1] for path in (ROOT / package).rglob("*.py") for name in imports(path)
                  if name.startswith("fsmm.")} & ALLOWED.keys() - {package}
        for package in ALLOWED
    }  # fmt: skip
    assert circle_in(arrows) == []


def test_circles_are_seen() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_rule_itself_sees_relative_imports() -> None:
    found = imports(ROOT / "episodes" / "sampler.py")
    assert "fsmm.cache.bank" in found
    assert "fsmm.episodes.counter" in found


@pytest.mark.parametrize("code", ["import fsmm", "import fsmm.cli"])
def test_start_up_imports_nothing_heavy(code: str) -> None:
    heavy = ("torch", "numpy", "h5py", "scipy", "sklearn", "av", "cv2")
    script = f"import sys; {code}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_method_imports_the_table_that_lists_it() -> None:
    for path in (ROOT / "heads").glob("*/*.py"):
        found = imports(path)
        assert not found & {"fsmm.heads.registry", "fsmm.heads.build"}, path.relative_to(ROOT)
