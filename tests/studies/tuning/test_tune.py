"""Tuning: what is chosen, how certain it is, and that an interrupted search goes on as if it had not been."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import synthetic_cache
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog
from fsmm.cli import app
from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError, UsageError
from fsmm.runs.job import Job, Place
from fsmm.runs.spec import RunSpec
from fsmm.studies.pairs import pair_of_outcomes
from fsmm.studies.tuning import judge, search
from fsmm.studies.tuning import tune as tuning
from fsmm.studies.tuning.data import Part, parts_of, tuning_data
from fsmm.studies.tuning.judge import Judged, certainty, judged, mean_of
from fsmm.studies.tuning.tune import Tuning, tune

pytest.importorskip("optuna")

TASK = Protocol(n_way=3, k_shot=1, n_query=4)
BRIEF = {"train.steps": "3", "train.evaluate_every": "3", "train.evaluate_episodes": "5", "train.tasks": "1"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), clips=8, noise=2.5)


def job_of(cache: Path, out: Path, method: str = "protonet", **given: Any) -> Job:
    spec = RunSpec(**{"method": method, "protocol": TASK, "modalities": ("frame",), **given})
    return Job(spec=spec, place=Place(cache=cache, dataset="toy", out=out), episodes=20)


def tuned(cache: Path, out: Path, trials: int = 12, **given: Any) -> Tuning:
    return tune(job_of(cache, out, **given), trials=trials, val_episodes=20)


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    return tuned(cache, tmp_path_factory.mktemp("out") / "whole")


def told(found: Tuning) -> list[tuple[int, dict[str, str], float | None]]:
    return sorted((t.number, dict(t.settings), t.value) for t in found.trials)


def test_the_best_trial_wins_and_the_first_is_the_default(whole: Tuning) -> None:
    values = [trial.value or 0 for trial in whole.trials]
    assert values == sorted(values, reverse=True)
    first = min(whole.trials, key=lambda trial: trial.number)
    assert dict(first.settings) == dict(whole.default)
    assert first.value == whole.default_accuracy
    assert whole.accuracy == max(values)
    assert all(f"--set {key}={value}" in whole.line for key, value in whole.best.items())
    assert (
        len({json.dumps(dict(trial.settings)) for trial in whole.trials}) == 12
    )  # No settings are tried twice.


def test_a_search_that_was_cut_goes_on_as_if_it_had_not_been(
    cache: Path, tmp_path: Path, whole: Tuning
) -> None:
    def cut(trial: search.Trial, done: int, best: object) -> None:
        if done == 6:
            raise KeyboardInterrupt

    job = job_of(cache, tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        tune(job, trials=12, val_episodes=20, tell=cut)
    assert told(tune(job, trials=9, val_episodes=20)) == told(whole)[:9]
    assert told(tune(job, trials=12, val_episodes=20)) == told(whole)


def test_labels_and_features_of_novel_clips_change_nothing(
    cache: Path, tmp_path: Path, whole: Tuning
) -> None:
    spoilt = synthetic_cache(tmp_path / "cache", clips=8, noise=2.5)
    catalog = Catalog.read(spoilt / "toy")
    labels = catalog.labels("event")
    novel = np.flatnonzero(labels.label >= 12)
    labels.label[novel] = np.random.default_rng(1).permutation(labels.label[novel])
    catalog.write(spoilt / "toy")
    assert told(tuned(spoilt, tmp_path / "out")) == told(whole)


def test_certainty_on_one_part_is_that_of_a_pair_and_parts_add_up(cache: Path) -> None:
    task = replace(TASK, k_shot=2)
    spec = RunSpec(method="protonet", protocol=task, modalities=("frame",))
    other = replace(spec, settings={"distance": "cosine"})
    data = tuning_data(spec, Place(cache=cache, dataset="toy"))
    parts = parts_of(data, task, 2)
    one, two = (judged(each, parts, 300) for each in (other, spec))
    tried = [one.accuracy, two.accuracy]
    widths = []
    for number, part in enumerate(parts):
        alone = certainty(
            [part],
            spec,
            judge.Judged(
                accuracy=one.accuracy[number : number + 1], right_bits=one.right_bits[number : number + 1]
            ),
            judge.Judged(
                accuracy=two.accuracy[number : number + 1], right_bits=two.right_bits[number : number + 1]
            ),
            tried=[[a[number]] for a in tried],
        )
        protocol = judge.judging_protocol(task, part.test)
        source = judge.Source.of(part.test, protocol)
        right = [judge.outcomes(each.right_bits[number], source.queries) for each in (one, two)]
        pair = pair_of_outcomes(("a", "b"), right[0], right[1], source.draws(0, 300), transductive=False)
        assert pair.clips is not None
        assert alone.ci95 == pytest.approx(pair.clips.ci95)
        assert alone.difference == pytest.approx(pair.difference)
        assert alone.held_out is None
        widths.append(alone.ci95 or 0.0)
    together = certainty(parts, spec, one, two, tried=tried)
    assert together.difference == pytest.approx(np.mean(np.subtract(one.accuracy, two.accuracy)))
    assert together.ci95 is not None
    assert (
        together.ci95 < np.sqrt(np.square(widths).sum()) / 3 * 1.05
    )  # Freedom is no less than that of a part.
    gains = []
    for number in range(3):
        rest = [i for i in range(3) if i != number]
        best = max(tried, key=lambda values: np.mean([values[i] for i in rest]))
        gains.append(best[number] - two.accuracy[number])
    assert together.held_out == pytest.approx(np.mean(gains))
    assert mean_of(parts, [0.0, 0.3, 0.6]) == pytest.approx(0.3)


def test_all_values_are_tried_where_there_are_few(cache: Path, tmp_path: Path) -> None:
    found = tuned(cache, tmp_path / "out", method="nearest")
    assert sorted(trial.settings["distance"] for trial in found.trials) == ["cosine", "euclidean"]


def test_a_head_that_learns_is_trained_on_each_part(cache: Path, tmp_path: Path) -> None:
    job = job_of(cache, tmp_path / "out", "relation", settings=BRIEF)
    found = tune(job, trials=2, search=["train.rate"], folds=2, val_episodes=10)
    assert len(found.parts) == 3
    assert all(1e-5 <= float(trial.settings["train.rate"]) <= 1 for trial in found.trials)


def test_failed_trials_are_told_and_stop_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: RunSpec, *rest: Any) -> judge.Judged:
        if spec.settings.get("distance") == "cosine":
            raise FsmmError("It diverged.")
        return judged(spec, *rest)

    monkeypatch.setattr(tuning, "judged", refuse)
    found = tuned(cache, tmp_path / "out", method="nearest")
    assert [trial.reason for trial in found.trials] == ["", "It diverged."]
    assert not found.best


def test_a_damaged_outcome_is_made_anew_and_another_request_is_refused(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = tuned(cache, out, trials=4)
    for path in (out / "default.npz", *(out / "trials").iterdir()):
        path.write_bytes(path.read_bytes()[:40])
    assert tuned(cache, out, trials=4).certainty == first.certainty
    with pytest.raises(UsageError, match="holds a tuning with other run and"):
        tuned(cache, out, trials=4, modalities=("audio",))
    (out / "optuna.db").write_bytes(b"no database")
    with pytest.raises(FsmmError, match="cannot be kept or read"):
        tuned(cache, out, trials=4)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").touch()
    with pytest.raises(UsageError, match="holds something else"):
        tuned(cache, tmp_path / "other", trials=4)


def test_without_optuna_one_sentence_names_the_extra(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    with pytest.raises(FsmmError, match=r'Optuna, which is not installed; .*"\.\[tune\]"'):
        tuned(cache, tmp_path / "out")


def test_the_command_writes_a_configuration_that_a_run_takes(cache: Path, tmp_path: Path) -> None:
    line = ["--cache", str(cache), "--dataset", "toy", "--n-way", "3", "--n-query", "4"]
    out = ["--out", str(tmp_path / "tuning")]
    given = [
        *line,
        *out,
        "--trials",
        "5",
        "--val-episodes",
        "20",
        "--search",
        "scale=1:50",
        "--search",
        "distance",
    ]
    found = CliRunner().invoke(app, ["-q", "tune", "protonet", "--modalities", "frame", *given])
    assert found.exit_code == 0, found.output
    assert "Best minus default" in found.output or "default, which is kept" in found.output
    again = CliRunner().invoke(app, ["-q", "tune", "protonet", "--modalities", "frame", *given, "--json"])
    document = json.loads(again.stdout)
    config = tmp_path / "tuning" / "config.json"
    assert document["config"] == str(config)
    assert json.loads(config.read_text())["settings"] == document["best"]
    run = [
        "-q",
        "episode-eval",
        "--config",
        str(config),
        "--episodes",
        "20",
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    figures = json.loads(CliRunner().invoke(app, run).stdout)
    assert figures["settings"] == document["best"]
    assert figures["split"] == "novel"
    stored = ["-q", "tune", "--config", str(tmp_path / "run" / "config.json"), "--search", "per_support"]
    few = ["--trials", "2", "--val-episodes", "20", "--out", str(tmp_path / "again"), "--json"]
    assert json.loads(CliRunner().invoke(app, [*stored, *few]).stdout)["method"] == "protonet"


def test_a_run_with_the_winning_settings_names_the_tuning(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_cosine(spec: RunSpec, parts: Sequence[Part], episodes: int) -> Judged:
        right = 0.9 if spec.settings.get("distance") == "cosine" else 0.5
        return Judged(accuracy=[right] * len(parts), right_bits=[None] * len(parts))

    monkeypatch.setattr(tuning, "judged", for_cosine)
    found = tune(job_of(cache, tmp_path / "tuning"), trials=2, search=["distance"], val_episodes=20)
    assert found.best == {"distance": "cosine"}
    given = ["-q", "episode-eval", "--config", str(found.config), "--episodes", "20", "--json", "--out"]
    figures = json.loads(CliRunner().invoke(app, [*given, str(tmp_path / "run")]).stdout)
    (choice,) = [each for each in figures["choices"] if each["what"] == "settings, tuned"]
    assert choice["value"]["distance"] == "cosine"
    assert choice["on"] == "base and val"
    assert choice["value"]["by"].startswith("fsmm tune on toy, ")
    assert all(part in choice["value"]["by"] for part in found.parts)
    assert not any(each["what"] == "settings, otherwise" for each in figures["choices"])
    # A run of the run's own configuration says the same.
    again = ["-q", "episode-eval", "--config", str(tmp_path / "run" / "config.json"), "--json", "--out"]
    assert choice in json.loads(CliRunner().invoke(app, [*again, str(tmp_path / "again")]).stdout)["choices"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--folds", "1"], "--folds is 1"),
        (["--folds", "many"], "it is a number, or auto"),
        (["--trials", "0"], "--trials is 0"),
        (["--set", "scale=2", "--search", "scale=1:3"], "leave one out"),
    ],
)
def test_a_wrong_option_is_one_sentence(cache: Path, given: list[str], sentence: str) -> None:
    found = CliRunner().invoke(app, ["tune", "protonet", "--cache", str(cache), *given])
    assert isinstance(found.exception, UsageError)
    assert sentence in str(found.exception)


def test_a_database_whose_figures_were_changed_is_refused(cache: Path, tmp_path: Path) -> None:
    tuned(cache, tmp_path / "out", trials=3)
    with closing(sqlite3.connect(tmp_path / "out" / search.DATABASE)) as file, file:
        file.execute("UPDATE trial_values SET value = 1.0 WHERE trial_id = 2")
    with pytest.raises(FsmmError, match=r"^Trial 1 in .* is not as it was written; name another folder"):
        tuned(cache, tmp_path / "out", trials=3)
