"""The docs say what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fsmm.heads.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_that_the_index_links(name: str) -> None:
    index = (ROOT / "docs" / "methods.md").read_text()
    found = re.search(rf"\| \[{re.escape(name)}\]\((methods/[a-z0-9-]+\.md)\)", index)
    assert found, f"docs/methods.md does not list {name}"
    assert Path(found[1]).stem in (ROOT / "docs" / found[1]).read_text().splitlines()[0].lower()


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links {target}"
