"""Which rows without training a study gets for its own."""

from __future__ import annotations

from typing import Any

import pytest
from tests_support import synthetic_cache

from fsmm.runs.job import Place
from fsmm.studies.grid.data import DataFacts
from fsmm.studies.grid.expand import PlannedRun, expand
from fsmm.studies.grid.free_rows import free_rows
from fsmm.studies.grid.spec import checked

HEADS = ("nearest", "protonet", "ridge")
FRAME, AUDIO = "frame/net", "audio/net"


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> DataFacts:
    return DataFacts(synthetic_cache(tmp_path_factory.mktemp("cache"), clips=8), "toy")


def rows_of(facts: DataFacts, **options: Any) -> list[PlannedRun]:
    """The free rows of a study whose own rows are one method with these options."""
    block = {"name": "b", "fixed": {"method": "relation", **options}}
    document = checked({"name": "toy", "blocks": [block]}, where="toy.yaml")
    place = Place(cache=facts.folder.parent, dataset="toy")
    return free_rows(expand(document, lambda name: facts, place, {}), lambda name: facts)


def told(rows: list[PlannedRun]) -> set[tuple[str, frozenset[str], int]]:
    return {
        (row.job.spec.method, frozenset(row.job.spec.streams or ()), len(row.job.spec.protocol.missing))
        for row in rows
    }


def test_each_modality_alone_and_all_fused_late_and_by_words(facts: DataFacts) -> None:
    rows = rows_of(facts, k_shot=2)
    choices = [frozenset([FRAME]), frozenset([AUDIO]), frozenset([FRAME, AUDIO])]
    assert told(rows) == {(head, choice, 0) for head in HEADS for choice in choices} | {
        ("ridge-words", choices[-1], 0)
    }
    assert {row.job.spec.fusion for row in rows if len(row.job.spec.streams or ()) > 1} == {"lf"}
    assert {row.job.spec.protocol.k_shot for row in rows} == {2}
    assert len({row.label for row in rows}) == len(rows)


def test_rows_lose_what_their_task_withholds_of_their_own_modalities(facts: DataFacts) -> None:
    found = told(rows_of(facts, missing="audio=0.5@query"))
    assert ("nearest", frozenset([AUDIO]), 1) in found
    assert ("nearest", frozenset([FRAME]), 0) in found, "frames alone lose nothing: that is the floor"
    assert ("nearest", frozenset([FRAME, AUDIO]), 1) in found


def test_protonet_has_a_row_for_each_way_to_fill_in_what_clips_lack(facts: DataFacts) -> None:
    rows = rows_of(facts, missing="audio=0.5@query")
    rules = [row.job.spec.when_missing for row in rows if row.job.spec.method == "protonet"]
    alone = ["auto", "auto"]  # Each modality by itself has nothing to be filled from.
    assert rules == [*alone, "auto", "drop", "match", "match-linear", "mean", "neighbours", "linear", "zero"]
    assert len({row.label for row in rows}) == len(rows)
    assert {row.job.spec.when_missing for row in rows_of(facts, modalities="audio", missing="audio=0.5")} == {
        "auto"
    }


def test_a_study_of_one_modality_is_judged_on_that_alone(facts: DataFacts) -> None:
    assert {streams for _, streams, _ in told(rows_of(facts, modalities="frame"))} == {frozenset([FRAME])}


def test_zero_shot_tasks_have_words_alone_and_strange_tasks_nothing(facts: DataFacts) -> None:
    zero = {"method": "common-space", "k_shot": 0}
    assert {method for method, _, _ in told(rows_of(facts, **zero))} == {"ridge-words"}
    crossed = {"support_modalities": "frame", "query_modalities": "audio", "method": "common-space"}
    assert rows_of(facts, **crossed) == []
    assert rows_of(facts, **zero, n_way=0, generalised=True) == []
