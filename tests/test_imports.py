"""The walls of docs/architecture.md: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "cache": {"cache", "errors", "_version"},
    "episodes": {"cache", "episodes", "errors", "_version"},
    "heads": {"cache", "episodes", "heads", "errors", "_version"},
    "studies": {"allocator", "cache", "episodes", "heads", "studies", "errors", "console", "_version"},
    "extract": {"allocator", "cache", "extract", "errors", "console", "_version"},
}
VIDEO = {"av", "cv2", "open_clip", "pytorchvideo", "torchvision", "timm", "ai_edge_litert", "decord"}


def imports(path: Path) -> set[str]:
    """Absolute dotted names that a module imports; our own begin with ``fsmm.``."""
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


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_left_of_them(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "fsmm" and len(parts) > 1:
                assert parts[1] in ALLOWED[package], f"{path.relative_to(ROOT)} imports {name}"
            if package != "extract":
                assert parts[0] not in VIDEO, f"{path.relative_to(ROOT)} imports {name}"


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
