"""The makers of small media files, as a fixture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def makers() -> ModuleType:
    """The module makers.py beside this file: ``makers.video``, ``makers.audio`` and so on."""
    spec = importlib.util.spec_from_file_location("fsmm_test_makers", Path(__file__).with_name("makers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
