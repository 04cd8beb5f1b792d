"""Fixtures that many tests share: small caches with known truth."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # importlib mode: helpers of the tests are found by name

from tests_support import synthetic_cache  # noqa: E402

SHARED = ROOT.parent / "shared"


class RootIsNoPackage:
    """The repository root holds the package's own __init__.py; pytest must not import it under the clone's name."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RootIsNoPackage())


LONGEST = ("e2e/test_readme.py", "e2e/test_ray.py", "e2e/test_sweep_command.py", "e2e/test_sweep_faults.py")
"""The files whose tests take minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, beside which the others are done; at the end one process would wait for them."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, which is not part of a clone")
    return SHARED


@pytest.fixture
def make_cache(tmp_path: Path) -> Callable[..., Path]:
    """A maker of synthetic caches: Gaussian classes in every stream, with words that are the class means."""
    return lambda **given: synthetic_cache(tmp_path / "cache", **given)
