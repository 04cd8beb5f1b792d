"""The documentation site builds without a warning, loads nothing from elsewhere, and shows every page."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs", reason="needs mkdocs: pip install -e '.[docs]'")
pytest.importorskip("material", reason="needs mkdocs-material: pip install -e '.[docs]'")
pytest.importorskip("mkdocstrings", reason="needs mkdocstrings: pip install -e '.[docs]'")

ROOT = Path(__file__).resolve().parents[1]
LOADING = re.compile(r"<(?:script|img|iframe|link)\b[^>]*>")  # a link element loads style sheets and icons


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; warnings fail the build."""
    place = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.mark.slow
def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        for element in LOADING.findall(page.read_text()):
            assert not re.search(r"""(src|href)=["']?(https?:)?//""", element), f"{page.name}: {element}"


@pytest.mark.slow
def test_every_page_of_docs_is_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert f'href="{place}"' in index, place


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Catalog", "FeatureBank", "Protocol", "episode_eval", "extract"])
def test_every_public_name_has_an_entry(site: Path, name: str) -> None:
    assert any(f'id="fsmm.{name}"' in page.read_text() for page in (site / "api").glob("*.html"))


def test_links_to_files_outside_the_site_become_text() -> None:
    with_links = script("site").with_links
    assert with_links("see [the table](../heads/registry.py)", "methods.md") == (
        "see the table (`heads/registry.py`)"
    )
    assert with_links("[import](docs/import.md#sources)", "index.md") == "[import](import.md#sources)"
    assert with_links("[contributing](../../CONTRIBUTING.md)", "api/heads.md") == (
        "[contributing](../contributing.md)"
    )


def test_docstrings_become_markdown() -> None:
    text = "Adds.\n\na, b: numbers of :class:`~fsmm.some.Kind`.\n    Both whole.\n\n>>> 1 + 1\n2\n\nMore."
    assert script("site_docstrings").as_markdown(text) == (
        "Adds.\n\n\n- `a, b`: numbers of `Kind`.\n    Both whole.\n\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."
    )
