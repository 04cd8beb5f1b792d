"""What a sweep adds to a report: rows without training, published figures in columns of their own, bars, and maps."""

from __future__ import annotations

import csv
import json
import re
from typing import Any

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.thumbnails import add_thumbnails
from fsmm.errors import UsageError
from fsmm.studies.grid.free_rows import FREE_BLOCK
from fsmm.studies.grid.store import Study
from fsmm.studies.grid.sweep import sweep
from fsmm.studies.report.make import Report, report

STUDY = """\
name: parts
title: Parts of a head
description: What each part is worth.
fixed:
  {episodes: 30, n_query: 4, method: relation, modalities: first, train.steps: 1, train.evaluate_episodes: 2}
free_rows: true
blocks:
  - name: parts
    title: Parts (Figure 9)
    chart: bars
    variants:
      - {label: complete}
      - {label: narrow, settings: {hidden: 4}}
    grid: {k_shot: [1, 2]}
  - name: again
    title: The same, once more
    chart: bars
    fixed: {k_shot: 2}
    variants:
      - {label: as before}
      - {label: two seeds, train_seed: 1}
      - {label: two seeds, train_seed: 2}
published:
  source: Somebody et al., 2020, Table 9
  rows:
    - {label: complete, k_shot: 1, values: {Kinetics: 80.1}}
    - {label: elsewhere, k_shot: 5, values: {Kinetics: 92.6, SSv2: 79.5}}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Study:
    home = tmp_path_factory.mktemp("variants")
    cache = synthetic_cache(home / "cache", noise=1.5)
    add_thumbnails(cache / "toy", {f"clip{number}": b"a picture" for number in range(300, 310)})
    (home / "parts.yaml").write_text(STUDY)
    found = sweep(home / "parts.yaml", cache, out=home / "out", jobs=1)
    assert not found.failures
    return found


@pytest.fixture(scope="module")
def made(swept: Study) -> Report:
    return report(swept.folder, maps=("pca", "tsne"))


def test_each_task_has_rows_that_need_no_training(swept: Study) -> None:
    free = [row for row in swept.rows if row.block == FREE_BLOCK]
    heads = {(row.config["method"], row.config["protocol"]["k_shot"], *row.config["streams"]) for row in free}
    names = ("nearest", "protonet", "ridge", "ridge-words")
    assert heads == {(name, shots, "frame/net") for name in names for shots in (1, 2)}
    assert all(row.head is None for row in free)
    # Their episodes are those of the rows that they judge.
    of = {json.dumps(swept.metrics(row)["fingerprint"]) for row in swept.done}
    assert len(of) == 1


def test_published_figures_have_columns_of_their_own(swept: Study, made: Report) -> None:
    with open(swept.folder / "report" / "published.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "shots", "toy, this study", "Kinetics, published", "SSv2, published"]
    by_row = {(row["row"], row["shots"]): row for row in rows}
    assert by_row["complete", "1"]["Kinetics, published"] == "80.1"
    assert by_row["complete", "1"]["SSv2, published"] == "–"
    assert by_row["narrow", "2"]["Kinetics, published"] == "–"
    assert by_row["elsewhere", "5"]["toy, this study"] == "–"
    (row,) = (
        r for r in swept.rows if r.varies.get("variant") == "complete" and r.config["protocol"]["k_shot"] == 1
    )
    own = by_row["complete", "1"]["toy, this study"]
    assert own.startswith(f"{100 * swept.metrics(row)['accuracy']:.1f} ±")
    assert r"\toprule" in (swept.folder / "report" / "published.tex").read_text()
    assert "Somebody et al., 2020, Table 9" in made.page.read_text()


def plots(made: Report) -> dict[str, Any]:
    found = re.findall(r'data-plot="([^"]+)">(.*?)</script>', made.page.read_text(), re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def test_bars_are_the_rows_of_a_block_though_another_block_has_the_same_run(
    swept: Study, made: Report
) -> None:
    bars = {name: plot["data"][0] for name, plot in plots(made).items() if name.startswith("blocks-")}
    assert [bar["x"] for bar in bars.values()].count(["complete", "narrow"]) == 2
    (again,) = (bar for bar in bars.values() if "as before" in bar["x"])
    assert again["x"] == ["as before", "two seeds"]
    accuracies = [
        100 * swept.metrics(row)["accuracy"]
        for row in swept.rows
        if row.block == "again" and row.varies["variant"] == "two seeds"
    ]
    assert len(accuracies) == 2
    assert again["y"][1] == pytest.approx(np.mean(accuracies))
    assert again["error_y"]["array"][1] == pytest.approx(np.std(accuracies, ddof=1))


def test_the_headline_and_the_titles_of_blocks_are_shown(made: Report) -> None:
    text = made.page.read_text()
    assert "<h1>Parts of a head</h1>" in text
    assert "<p>What each part is worth.</p>" in text
    assert '<option value="block">block of the study</option>' in text
    assert 'data-block="Parts (Figure 9)"' in text


def test_maps_are_those_asked_for_and_show_pictures(made: Report) -> None:
    axes = [plot["layout"]["xaxis"]["title"]["text"] for name, plot in plots(made).items() if "map-" in name]
    assert [axis.startswith("t-SNE") for axis in axes] == [False, True]
    text = re.search(r'id="pictures">(.*?)</script>', made.page.read_text())
    assert text is not None
    pictures = json.loads(text[1])
    assert set(pictures) == {f"clip{number}" for number in range(300, 310)}
    assert "The pictures of 10 clips" in made.page.read_text()


def test_a_map_that_cannot_be_made_is_named(swept: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="There is no map 'isomap'; there are pca, tsne, umap"):
        report(swept.folder, maps=("isomap",))
    monkeypatch.setattr("fsmm.studies.report.embedding.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="A map by umap needs umap-learn"):
        report(swept.folder, maps=("umap",))
