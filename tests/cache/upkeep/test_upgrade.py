"""A cache of schema 1 is read as it is, changed by nothing, and brought forward without its features being touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import make_older

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.cache.upkeep.info import info
from fsmm.cache.upkeep.merge import merge
from fsmm.cache.upkeep.prune import prune
from fsmm.cache.upkeep.upgrade import upgrade
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import CacheError


@pytest.fixture
def older(make_cache: Callable[..., Path]) -> Path:
    root = make_cache()
    make_older(root / "toy" / "catalog.h5")
    return root


def test_an_older_cache_is_evaluated_with_a_sentence(older: Path) -> None:
    bank = FeatureBank.load(older)
    assert len(bank)
    (note,) = [note for note in bank.notes if "schema" in note]
    assert "can only be read" in note
    assert f"`fsmm cache upgrade --cache {older}`" in note
    assert info(older).datasets[0].schema == 1
    assert verify(older).ok


def test_an_older_cache_is_not_merged_into(older: Path, tmp_path: Path) -> None:
    before = (older / "toy" / "catalog.h5").read_bytes()
    merge([older], tmp_path / "new")
    assert Catalog.read(tmp_path / "new" / "toy").schema == 2
    with pytest.raises(CacheError, match="fsmm cache upgrade"):
        merge([tmp_path / "new"], older)
    assert (older / "toy" / "catalog.h5").read_bytes() == before


def test_an_upgrade_changes_the_catalog_alone(older: Path) -> None:
    bank = FeatureBank.load(older)
    shards = {path: path.read_bytes() for path in older.rglob("0*.h5")}
    assert upgrade(older).upgraded == {"toy": 1}
    assert upgrade(older).newest == ["toy"]
    assert {path: path.read_bytes() for path in older.rglob("0*.h5")} == shards
    again = FeatureBank.load(older)
    assert again.fingerprint() == bank.fingerprint()
    assert again.notes == []
    assert not Catalog.read(older / "toy").sources.origins[0].is_known
    assert verify(older).findings == []


@pytest.mark.parametrize("work", [upgrade, prune])
def test_a_cache_without_a_data_set_is_refused(work: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no dataset in the cache"):
        work(tmp_path / "nowhere")
