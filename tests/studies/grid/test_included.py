"""A study includes others: their runs keep their keys, their files their meaning, and a mistake is one sentence."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests_support import synthetic_cache

from fsmm.errors import FsmmError, UsageError
from fsmm.studies.grid import included
from fsmm.studies.grid.included import parts_of
from fsmm.studies.grid.presets import find_study, presets
from fsmm.studies.grid.store import Row
from fsmm.studies.grid.sweep import Plan, plan_study, sweep
from fsmm.studies.report.data import of_sweep
from fsmm.studies.report.published import write_published

INNER = """\
name: inner
title: What is included
fixed: {n_query: 3, episodes: 20}
free_rows: true
blocks:
  - name: heads
    title: Two heads
    variants:
      - {label: plain, method: protonet}
      - {label: simple, method: simpleshot}
    grid: {k_shot: [1, 2]}
published:
  source: A paper
  rows:
    - {label: plain, k_shot: 1, values: {Kinetics: 80.1}}
"""
OUTER = """\
name: outer
fixed: {normalise: centre-l2, n_query: 2, episodes: 9}
studies:
  - {file: sub/inner.yaml, name: in}
blocks:
  - name: heads
    fixed: {method: nearest}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), clips=8)


def write(folder: Path, **texts: str) -> Path:
    """Write study files, whose names have ``__`` for a slash; the last one is returned."""
    path = folder
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def plan(path: Path, cache: Path, **given: Any) -> Plan:
    """The plan of a study, for which nothing is measured."""
    more = {"out": path.parent / "out", "overrides": {}, **given}
    return plan_study(path, cache, jobs=1, device="cpu", command="", measure=0.0, **more)


def keys(rows: Sequence[Row], block: str) -> list[str]:
    return [row.key for row in rows if row.block == block]


def test_the_runs_of_an_included_study_are_those_of_its_own_sweep(cache: Path, tmp_path: Path) -> None:
    outer = write(tmp_path, sub__inner=INNER, outer=OUTER)
    alone = plan(tmp_path / "sub" / "inner.yaml", cache).rows
    within = plan(outer, cache).rows
    assert keys(within, "in.heads") == keys(alone, "heads")
    assert keys(within, "free rows") == keys(alone, "free rows"), "free rows of the tasks that ask for them"
    assert len(keys(within, "free rows")) > 4
    (own,) = (row for row in within if row.block == "heads")
    assert (own.config["protocol"]["n_query"], own.config["normalise"]) == (2, "centre-l2")
    labels = [
        [row.label for row in rows if row.block == b] for rows, b in ((alone, "heads"), (within, "in.heads"))
    ]
    assert labels[0] == labels[1]


def test_options_of_an_entry_win_over_the_file_and_outer_ones_over_inner_ones(
    cache: Path, tmp_path: Path
) -> None:
    middle = "studies: [{file: inner.yaml, set: {k_shot: 1, n-query: 4, episodes: 30}}]"
    outer = "studies: [{file: middle.yaml, name: m, set: {episodes: 40}}]"
    path = write(tmp_path, inner=INNER, middle=middle, outer=outer)
    rows = [row for row in plan(path, cache).rows if row.block == "m.heads"]
    told = [(row.varies["variant"], row.config["protocol"]["k_shot"], row.config["episodes"]) for row in rows]
    assert told == [("plain", 1, 40), ("simple", 1, 40)]
    assert {row.config["protocol"]["n_query"] for row in rows} == {4}
    rows = plan(path, cache, overrides={"episodes": "50"}).rows
    assert {row.config["episodes"] for row in rows} == {50}, "--set wins over all"


def test_presets_are_included_by_their_names_and_once_for_each_data_set(cache: Path, tmp_path: Path) -> None:
    text = "studies: [quick, {file: quick, name: again, set: {n_query: 2, k_shot: 1}}]"
    path = write(tmp_path, outer=text)
    blocks = [block.name for block in find_study("quick").file.blocks]
    found = plan(path, cache, overrides={"k_shot": "1"})
    assert list(dict.fromkeys(row.block for row in found.rows)) == [*blocks, *(f"again.{b}" for b in blocks)]
    assert "quick" in presets()
    chosen = plan(path, cache, only=["again", "methods"], overrides={"k_shot": "1"})
    assert {row.block for row in chosen.chosen} == {"methods", *(f"again.{b}" for b in blocks)}
    with pytest.raises(UsageError, match=r"Unknown block 'agin'\. Did you mean 'again'"):
        plan(path, cache, only=["agin"], overrides={"k_shot": "1"})


def test_a_folder_that_one_has_filled_serves_the_other_and_remembers_what_was_swept(
    cache: Path, tmp_path: Path
) -> None:
    outer = write(tmp_path, sub__inner=INNER, outer=OUTER)
    out = tmp_path / "out"
    done = sweep(tmp_path / "sub" / "inner.yaml", cache, out=out, jobs=1)
    left = plan(outer, cache)
    assert [task.job.spec.method for task in left.runs] == ["nearest"]
    assert left.done == len(done.rows)
    found = sweep(outer, cache, out=out, jobs=1)
    with pytest.raises(UsageError, match="holds the study 'outer' and not 'inner'"):
        plan(tmp_path / "sub" / "inner.yaml", cache, out=out)
    (tmp_path / "sub" / "inner.yaml").write_text("blocks: []")
    about = json.loads((out / "study.json").read_text())
    assert [(b["name"], b.get("title")) for b in about["blocks"]] == [
        ("heads", None),
        ("in.heads", "in: Two heads"),
    ]
    (part,) = about["studies"]
    assert (part["file"], part["name"], part["blocks"]) == ("sub/inner.yaml", "in", ["in.heads"])
    assert (part["fixed"], part["free_rows"]) == ({"n_query": 3, "episodes": 20}, True)
    assert about["published"] is None
    # The figures of a paper stand beside the runs of the study that names them.
    write_published(tmp_path, of_sweep(found))
    with open(tmp_path / "published-in.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(row["row"], row["shots"]) for row in rows} == {
        ("plain", "1"),
        ("plain", "2"),
        ("simple", "1"),
        ("simple", "2"),
    }
    assert [row["Kinetics, published"] for row in rows if row["row"] == "plain"] == ["80.1", "–"]


def test_a_data_set_that_no_run_takes_is_refused(cache: Path, tmp_path: Path) -> None:
    named = "blocks: [{name: b, fixed: {dataset: toy, method: protonet}}]"
    path = write(tmp_path, named=named)
    with pytest.raises(UsageError, match="--dataset toy chooses nothing; use --set dataset=toy"):
        plan(path, cache, dataset="toy")
    assert len(plan(path, cache).rows) == 1
    open_ = write(tmp_path, open=named.replace("dataset: toy, ", ""))
    assert len(plan(open_, cache, dataset="toy").rows) == 1


@pytest.mark.parametrize(
    ("outer", "sentence"),
    [
        ("studies: [outer.yaml]", r"outer\.yaml, line 1: the study would include itself \(outer\.yaml -> outer"),
        ("studies:\n- back.yaml", r"back\.yaml, line 2: .* itself \(outer\.yaml -> back\.yaml -> outer\.yaml\)"),
        ("studies:\n- none.yaml", r"outer\.yaml, line 2: there is no study file 'none\.yaml' in the folder of out"),
        ("studies: [mising]", r"outer\.yaml, line 1: Unknown study file or preset 'mising'. Did you mean 'missing'"),
        ("studies: [../inner.yaml]", r"outer\.yaml, line 1: '\.\./inner\.yaml' leaves the folder of outer\.yaml"),
        ("studies: [/inner.yaml]", r"outer\.yaml, line 1: '/inner\.yaml' leaves the folder"),
        ("studies: [out/link.yaml]", r"outer\.yaml, line 1: 'out/link\.yaml' is a link that leaves the folder"),
        ("studies: [sub]", r"outer\.yaml, line 1: 'sub' is not a plain file"),
        ("studies: [pipe]", r"outer\.yaml, line 1: 'pipe' is not a plain file"),
        ("studies: [sub/wrong.yaml]", r"^sub/wrong\.yaml, line 2: Unknown key 'blcks'. Did you mean 'blocks'"),
        ("studies: [sub/idle.yaml]", r"^sub/idle\.yaml, line 3: Unknown setting|^sub/idle\.yaml, line 3: .*tempo"),
        ("studies:\n- inner.yaml\n- {file: inner.yaml}", r"outer\.yaml, line 3: inner\.yaml brings the name 'heads'"),
        ("studies:\n- {file: inner.yaml, name: a}\n- {file: quick, name: a}", r"line 3: quick\.yaml brings .* 'a'"),
        ("studies: [inner.yaml]\nblocks: [{name: heads}]", r"line 1: inner\.yaml brings .* which outer\.yaml has, too"),
        ("studies:\n- {file: inner.yaml, nam: a}", r"outer\.yaml, line 2: Unknown key 'nam'. Did you mean 'name'"),
        ("studies:\n- {file: inner.yaml, set: {k_shots: 1}}", r"line 2: Unknown option of a run 'k_shots'"),
        ("studies:\n- {name: a}", r"outer\.yaml, line 2: 'file' is missing"),
        ("studies:\n- 3", r"outer\.yaml, line 2: studies\.0: a table of keys and values is needed here"),
        ("studies: inner.yaml", r"outer\.yaml, line 1: studies: a list is needed here"),
        ("studies: []", r"outer\.yaml, line 1: a study has blocks, or names other studies under `studies`"),
        ("studies: [deep0.yaml]", r"deep4\.yaml, line 1: studies include one another more than 5 deep"),
        ("studies: [many.yaml]", r"many\.yaml, line 1: the study includes more than 7 others"),
    ],
)  # fmt: skip
def test_what_cannot_be_included_is_one_sentence(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: str, sentence: str
) -> None:
    folder = tmp_path / "here"
    path = write(
        folder,
        inner=INNER,
        back="name: back\nstudies: [outer.yaml]",
        sub__wrong="name: wrong\nblcks: []",
        sub__idle="blocks:\n- name: idle\n  fixed: {method: protonet, settings: {tempo: 3}}",
        many=f"studies: [{', '.join(f'{{file: inner.yaml, name: n{i}}}' for i in range(8))}]",
        **{f"deep{i}": f"studies: [deep{i + 1}.yaml]" for i in range(6)},
        outer=outer,
    )
    monkeypatch.setattr(included, "MOST_STUDIES", 7)
    os.mkfifo(folder / "pipe")
    (folder / "out").mkdir()
    write(tmp_path, elsewhere=INNER)
    (folder / "out" / "link.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(UsageError, match=sentence) as found:
        plan(path, cache, out=tmp_path / "study")
    assert "\n" not in str(found.value)


def test_the_parts_of_the_file_of_all_results_have_the_blocks_that_scripts_ask_for() -> None:
    path = Path(__file__).parents[3] / "examples" / "results.yaml"
    parts = parts_of(find_study(str(path)))
    blocks = {part.block(block.name) for part in parts for block in part.document.file.blocks}
    asked = {
        "utd-heads",
        "tutorial.late",
        "space.unlabelled",
        "frontier.utd-trained",
        "stress-demo.imbalance",
    }
    asked |= {
        "modality-table.train-test",
        "missing.dropout",
        "eckpn.ave28",
        "ablate-eckpn.parts",
        "reliability",
    }
    assert asked <= blocks
    assert len(blocks) > 60


OPTIONAL = """\
name: some
fixed: {n_query: 3, episodes: 20, method: protonet}
blocks:
  - name: held
    fixed: {modalities: frame}
  - name: elsewhere
    optional: true
    fixed: {dataset: other}
    grid: {k_shot: [1, 5]}
  - name: encoders
    optional: true
    variants:
      - {label: one, streams: frame/net}
      - {label: two, streams: frame/netto}
"""


def test_an_optional_block_is_left_out_where_the_cache_lacks_what_it_reads(
    cache: Path, tmp_path: Path
) -> None:
    some = write(tmp_path, some=OPTIONAL)
    found = plan(some, cache)
    assert [row.block for row in found.rows] == ["held"]
    assert list(found.left_out) == ["elsewhere", "encoders"]
    assert "'other'" in found.left_out["elsewhere"]
    assert "Did you mean 'frame/net'" in found.left_out["encoders"]
    with pytest.raises(UsageError, match=r"Block 'elsewhere' is left out: .*'other'"):
        plan(some, cache, only=["elsewhere"])
    inside = plan(write(tmp_path, outer="studies:\n  - {file: some.yaml, name: in}\n"), cache)
    assert list(inside.left_out) == ["in.elsewhere", "in.encoders"]
    write(tmp_path, some=OPTIONAL.replace("netto", "net").replace("dataset: other", "dataset: toy"))
    assert {row.block for row in plan(some, cache).rows} == {"held", "elsewhere", "encoders"}
    kept = OPTIONAL.replace("  - name: held\n    fixed: {modalities: frame}\n", "")
    write(tmp_path, some=kept)
    with pytest.raises(UsageError, match=r"No block of some\.yaml can be run: .*'other'"):
        plan(some, cache)
    write(tmp_path, some=OPTIONAL.replace("optional: true", "optional: false"))
    with pytest.raises(FsmmError, match="'other'"):
        plan(some, cache)


def test_a_run_that_two_blocks_share_is_told_for_the_chosen_one_alone(cache: Path, tmp_path: Path) -> None:
    block = "  - name: {}\n    fixed: {{method: protonet, n_query: 3, episodes: 20}}\n"
    path = write(tmp_path, twice="blocks:\n" + block.format("one") + block.format("two"))
    told: list[str] = []
    sweep(
        path,
        cache,
        out=tmp_path / "out",
        jobs=1,
        only=["two"],
        tell=lambda row, ended: told.append(row.block),
    )
    assert told == ["two"]
