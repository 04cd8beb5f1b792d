"""The study of docs/results makes every figure of the tables that its blocks are named for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests_support import script, synthetic_cache

from fsmm.cache.catalog import Catalog
from fsmm.runs.job import Place
from fsmm.studies.grid.data import DataFacts
from fsmm.studies.grid.expand import expand
from fsmm.studies.grid.spec import read_study_file
from fsmm.studies.grid.store import Row

ROOT = Path(__file__).resolve().parents[1]
RESULTS = script("study_results")
LABEL_SETS = ("content", "motion", "sound", "tags", "order")
ENCODERS = ("efficientnet-lite0", "efficientnet-lite0-int8")
STREAMS = {
    "ave28": ("frame/net", "audio/net"),
    "demo": ("frame/net", "flow/net", "audio/net"),
    "demo-int8": tuple(f"frame/{name}" for name in ENCODERS),
}
# Figures that are no accuracy of a run of the study, or of a setting that is gone.
WITHOUT_A_ROW = {
    ("ave28-heads", "protonet, s0 alone"),  # a part of the row protonet
    ("protocols-demo", "60 unlabelled clips, no mask"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of the study over data sets of these names and modalities."""
    cache = tmp_path_factory.mktemp("cache")
    for name, streams in STREAMS.items():
        synthetic_cache(cache, dataset=name, clips=2, streams=dict.fromkeys(streams, (1, 4)))
        catalog = Catalog.read(cache / name)
        events = catalog.label_sets["event"]
        events.splits.update(dict.fromkeys(("s0", "s1", "s2"), events.splits["default"]))
        catalog.label_sets.update(dict.fromkeys(LABEL_SETS, events))
        catalog.write(cache / name)
    known = {name: DataFacts(cache, name) for name in STREAMS}
    document = read_study_file(ROOT / "examples" / "results.yaml")
    planned = expand(document, lambda name: known[str(name)], Place(cache=cache), {})
    return [
        Row(key="", block=run.block, label=run.label, varies=run.varies, config=run.job.to_dict())
        for run in planned
    ]


def test_every_figure_of_a_blocks_table_has_its_row_and_every_row_a_figure(rows: list[Row]) -> None:
    figures = script("figures.data").read_all(ROOT).figures
    asked = [row for row in rows if row.block != "reliability"]
    tables = {table for row in asked for table in RESULTS.tables_of(row)}
    own = [
        figure
        for figure in figures
        if figure.table in tables and (figure.table, figure.row) not in WITHOUT_A_ROW and figure.unit == "%"
        if figure.value is not None or figure.difference is not None
    ]
    assert len(own) > 600
    made = {table: [row for row in asked if table in RESULTS.tables_of(row)] for table in tables}
    lacking = [f.place for f in own if not any(RESULTS.belongs(f, row) for row in made[f.table])]
    assert lacking == []
    idle = [
        (row.block, row.label)
        for row in asked
        if not any(f.table in RESULTS.tables_of(row) and RESULTS.belongs(f, row) for f in figures)
    ]  # A cell that was not measured is a figure without a value.
    assert idle == []


def test_differences_are_from_the_base_on_the_same_task(rows: list[Row]) -> None:
    """Each row has one base at most, of its block and task; AMFAR's certainty weights have their own equal ones."""
    keyed = [replace(row, key=str(place)) for place, row in enumerate(rows)]
    bases = {
        row.key: [base for base in keyed if base.block == row.block and RESULTS.is_base(base, row)]
        for row in keyed
    }
    assert max(map(len, bases.values())) == 1
    for row in keyed:
        if row.block == "ave28-heads":
            assert [base.varies["variant"] for base in bases[row.key]] == ["protonet"] * (
                row.varies["variant"] != "protonet"
            )
        if row.block == "demo-int8":
            told = [base.varies["variant"] for base in bases[row.key]]
            assert told == [ENCODERS[0]] * (row.varies["variant"] == ENCODERS[1])
        if row.block == "amfar-ave28":
            told = [(base.varies["variant"], base.varies["settings.ami"]) for base in bases[row.key]]
            assert told == (
                [(row.varies["variant"], "false")] if row.varies["settings.ami"] == "true" else []
            )
