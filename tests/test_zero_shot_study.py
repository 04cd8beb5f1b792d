"""The study of zero-shot on drawn class splits makes the figures of its page, and ridge-words is the stated map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t
from tests_support import script, synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.runs.job import Place
from fsmm.runs.run import episode_eval
from fsmm.studies.grid.data import DataFacts
from fsmm.studies.grid.expand import expand
from fsmm.studies.grid.spec import read_study_file
from fsmm.studies.grid.store import Row, Study

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = script("zero_shot_study")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of the study over a data set of this name and these modalities, with 30 classes."""
    cache = tmp_path_factory.mktemp("cache")
    streams = {"frame/net": (1, 4), "audio/net": (1, 4)}
    synthetic_cache(cache, dataset="ave28", classes=30, clips=2, streams=streams)
    facts = DataFacts(cache, "ave28")
    document = read_study_file(ROOT / "examples" / "zero_shot.yaml")
    planned = expand(document, lambda name: facts, Place(cache=cache), {})
    return [
        Row(key=str(place), block=run.block, label=run.label, varies=run.varies, config=run.job.to_dict())
        for place, run in enumerate(planned)
    ]


@pytest.fixture
def study(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study with all of its runs done, whose figures their keys seed."""
    monkeypatch.setattr(Study, "done", rows)
    monkeypatch.setattr(Study, "metrics", lambda self, row: figures_of_run(row))
    return Study(folder=Path("study"), about={"name": "zero-shot"}, rows=rows, failures={})


def figures_of_run(row: Row) -> dict[str, float]:
    values = np.random.default_rng(int(row.key)).random(3).tolist()
    return dict(zip(("accuracy", "seen_alone", "unseen_alone"), values))


def test_the_study_makes_every_figure_of_its_tables_and_no_other(study: Study) -> None:
    tables = {table.name for table in SCRIPT.TABLES.values()}
    recorded = [figure for figure in SCRIPT.read_file(SCRIPT.PAGE).figures if figure.table in tables]
    found = {figure.place: figure for figure in SCRIPT.figures_of(study)}
    assert {figure.place for figure in recorded} == found.keys()
    assert len(found) == 17 + 5 * 4 + 3 * 2 * 3
    assert all(figure.episodes == found[figure.place].episodes for figure in recorded)
    assert all(figure.command == found[figure.place].command for figure in recorded)


def test_a_figure_is_the_mean_over_draws_and_its_difference_is_paired_by_them(study: Study) -> None:
    found = {(figure.table, figure.row, figure.column): figure for figure in SCRIPT.figures_of(study)}

    def values(block: str, label: str, key: str, **also: str) -> np.ndarray:
        mine = [row for row in study.rows if row.block == block and row.varies["variant"] == label]
        mine = [row for row in mine if all(row.varies[f"settings.{k}"] == v for k, v in also.items())]
        return np.array([100 * figures_of_run(row)[key] for row in mine])

    def width(of: np.ndarray) -> float:
        return float(t.ppf(0.975, len(of) - 1) * of.std(ddof=1) / np.sqrt(len(of)))

    mine, base = (values("splits", label, "accuracy") for label in ("avca", "ridge-words"))
    figure = found["zero-shot-splits", "avca", "accuracy"]
    assert len(mine) == 20
    assert figure.value == pytest.approx(mine.mean(), abs=0.01)
    assert figure.interval == pytest.approx(width(mine), abs=0.01)
    assert figure.difference == pytest.approx((mine - base).mean(), abs=0.01)
    assert figure.difference_widths.classes == pytest.approx(width(mine - base), abs=0.01)
    assert found["zero-shot-splits", "ridge-words", "accuracy"].difference is None
    held = values("steps", "cjme", "seen_alone", **{"train.steps": "100"})
    assert len(held) == 3
    row = "cjme; held-out clips of base classes"
    assert found["zero-shot-learning", row, "100 steps"].value == pytest.approx(held.mean(), abs=0.01)


def test_figures_whose_runs_are_not_all_done_stay_as_they_were(
    study: Study, rows: list[Row], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = SCRIPT.figures_of(study)
    page = tmp_path / "page.json"
    SCRIPT.write_file(page, SCRIPT.Data(dict(SCRIPT.TABLES), whole))
    lost = next(row for row in rows if row.block == "splits" and row.varies["variant"] == "ridge-words")
    monkeypatch.setattr(Study, "done", [row for row in rows if row is not lost])
    fewer = SCRIPT.figures_of(study)
    assert {figure.row for figure in whole if figure.table == "zero-shot-splits"} - {
        figure.row for figure in fewer if figure.table == "zero-shot-splits"
    } == {row.varies["variant"] for row in rows if row.block == "splits"}
    SCRIPT.replace_figures(page, [*SCRIPT.TABLES.values()], fewer)
    assert SCRIPT.read_file(page).figures == whole


@pytest.mark.parametrize("modalities", [("audio",), ("frame", "audio")])
def test_ridge_words_is_the_least_squares_map_on_drawn_splits(
    tmp_path: Path, modalities: tuple[str, ...]
) -> None:
    """W = (X'X + lambda I)^-1 X'Y on centred features and words of length one, decided by cosine.

    lambda is the mean squared entry of X times the number of clips.
    """
    streams = {"frame/net": (1, 7), "audio/net": (1, 5)}
    cache = synthetic_cache(tmp_path, classes=12, clips=9, streams=streams, noise=0.5)
    bank = FeatureBank.load(cache, split="all").normalised("l2")
    assert bank.words is not None
    every = torch.arange(len(bank))
    x = np.concatenate([bank.tables[m].gather(every).x[:, 0].double().numpy() for m in modalities], 1)
    label, words = bank.label.numpy(), unit(bank.words.double().numpy())
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(12)
        unseen, base = np.sort(order[:4]), np.sort(order[4:])
        here, there = np.isin(label, base), np.isin(label, unseen)
        centre, middle = x[here].mean(0), words[base].mean(0)
        seen = x[here] - centre
        gram = seen.T @ seen + (seen**2).mean() * len(seen) * np.eye(seen.shape[1])
        weights = np.linalg.solve(gram, seen.T @ (words[label[here]] - middle))
        scores = unit((x[there] - centre) @ weights) @ unit(words[unseen] - middle).T
        right = unseen[scores.argmax(1)] == label[there]
        expected = np.mean([right[label[there] == c].mean() for c in unseen])
        found = episode_eval(
            "ridge-words",
            cache=cache,
            modalities=modalities,
            protocol=Protocol(n_way=0, k_shot=0, class_split=f"random:4:{seed}"),
            settings={"fusion.weights": "equal"} if len(modalities) > 1 else {},
        )
        assert found.mean == pytest.approx(expected)


def unit(x: np.ndarray) -> np.ndarray:
    """The rows of x at length one."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
