"""Banks that runs share hold the same clips and features as banks of one's own, and each feature once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests_support import synthetic_cache

from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.shared import SharedBanks
from fsmm.runs.spec import RunSpec


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), clips=6, absent=0.2)


@pytest.mark.parametrize("method", ["protonet", "otam", "ridge-words"])
@pytest.mark.parametrize("normalise", ["l2", "centre-l2", "none", "per-step", "auto"])
@pytest.mark.parametrize("names", [{}, {"modalities": ("audio",)}, {"streams": ("audio/net", "frame/net")}])
def test_shared_banks_are_the_banks(
    cache: Path, method: str, normalise: str, names: dict[str, tuple[str, ...]]
) -> None:
    spec = RunSpec(**{"method": method, "normalise": normalise, **names})
    place = Place(cache=cache)
    shared = SharedBanks()
    own, lent, again = Banks(spec, place), Banks(spec, place, shared), Banks(spec, place, shared)
    assert lent.normalise == own.normalise
    for mine, theirs in ((own.test, lent.test), (own.base, lent.base)):
        assert list(mine.tables) == list(theirs.tables)
        assert mine.streams == theirs.streams
        assert mine.notes == theirs.notes
        assert mine.fingerprint(groups=True) == theirs.fingerprint(groups=True)
        assert (mine.words is None) == (theirs.words is None)
        rows = torch.arange(len(mine))
        for key, table in mine.tables.items():
            assert torch.equal(table.gather(rows).x, theirs.tables[key].gather(rows).x)
    for key, table in lent.test.tables.items():
        assert again.test.tables[key] is table


def test_selections_of_streams_and_words_share_tables(cache: Path) -> None:
    shared, place = SharedBanks(), Place(cache=cache)
    both = Banks(RunSpec(method="protonet"), place, shared).test
    one = Banks(RunSpec(method="protonet", modalities=("audio",)), place, shared).test
    worded = Banks(RunSpec(method="ridge-words"), place, shared).test
    assert one.tables["audio"] is both.tables["audio"] is worded.tables["audio"]
    assert worded.words is not None
    assert both.words is None
