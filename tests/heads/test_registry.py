"""The table of methods says the truth about the classes that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmm.errors import UsageError
from fsmm.heads.head import ClipTrainedHead, Head
from fsmm.heads.registry import FAMILIES, METHODS, find, page_of

NO_METHODS = ["conformal_lac", "tm_sampling"]
"""The official cases that belong to no method: sets over the probabilities of any, and draws of published episodes."""
MAPPINGS = Path(__file__).resolve().parents[1] / "reference" / "mappings"
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", METHODS)
def test_a_row_agrees_with_its_class(name: str) -> None:
    method = METHODS[name]
    cls = method.load()
    assert method.family in FAMILIES
    assert method.fits_base == (cls.fit_base is not Head.fit_base)
    assert (method.regime == "batch") == issubclass(cls, ClipTrainedHead)
    assert set(method.branches) <= set(METHODS)
    assert method.paper.url.startswith("https://")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_page(name: str) -> None:
    page = page_of(name)
    assert page is not None
    assert (ROOT / page).is_file()


def test_official_cases_and_rows_name_one_another() -> None:
    named = {case for method in METHODS.values() for case in method.reference}
    assert named.isdisjoint(NO_METHODS)
    assert sorted({*named, *NO_METHODS}) == sorted(
        p.stem for p in MAPPINGS.glob("*.py") if not p.stem.startswith("_")
    )


def test_rows_are_sorted_by_family_and_year() -> None:
    order = [(FAMILIES.index(m.family), m.paper.year) for m in METHODS.values()]
    assert order == sorted(order)


def test_a_name_may_carry_a_fusion() -> None:
    assert find("trx-lf") == (METHODS["trx"], "lf")
    assert find("common-space") == (METHODS["common-space"], None)
    with pytest.raises(UsageError, match="several modalities by itself"):
        find("amfar-lf")
    with pytest.raises(UsageError, match="protonet"):
        find("protonett")
