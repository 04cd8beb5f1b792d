"""A study's runs are the combinations that its file asks for, and a run's key changes exactly with its content."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import synthetic_cache

import fsmm.studies.grid.identity as identity
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.episodes.protocol import Missing
from fsmm.errors import UsageError
from fsmm.heads.metric.protonet import ProtoNet
from fsmm.runs.banks import Banks
from fsmm.runs.job import Job, Place
from fsmm.runs.measure import measure
from fsmm.runs.ready import ready_head
from fsmm.runs.spec import RunSpec
from fsmm.studies.grid.data import DataFacts
from fsmm.studies.grid.expand import PlannedRun, expand, job_of
from fsmm.studies.grid.identity import canonical, head_name, run_key
from fsmm.studies.grid.spec import checked
from fsmm.studies.grid.sweep import sweep

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), clips=8)


def runs(cache: Path, block: dict[str, Any], **overrides: Any) -> list[PlannedRun]:
    document = checked({"name": "toy", "blocks": [{"name": "b", **block}]}, where="toy.yaml")
    place = Place(cache=cache)
    return expand(document, lambda name: DataFacts(cache, name), place, overrides)


def told(found: list[PlannedRun], *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(run.varies.get(key) for key in keys) for run in found]


def test_a_grid_is_every_combination_less_the_excluded_and_with_the_included(cache: Path) -> None:
    block = {
        "grid": {"method": ["protonet", "ridge"], "k_shot": [1, 5]},
        "exclude": [{"method": "ridge", "k_shot": 1}],
        "include": [{"method": "nearest", "k_shot": 10}],
    }
    expected = [("protonet", 1), ("protonet", 5), ("ridge", 5), ("nearest", 10)]
    assert told(runs(cache, block), "method", "k_shot") == expected


def test_more_runs_than_a_study_may_have_are_refused_before_they_are_made(cache: Path) -> None:
    block = {"grid": {"method": ["protonet"], "seed": [*range(1000)], "train_seed": [*range(1000)]}}
    with pytest.raises(UsageError, match=r"asks for 1,000,000 runs or more, and may have 20,000"):
        runs(cache, block)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"split": "nvel"}, "Unknown split 'nvel'. Did you mean 'novel'?"),
        ({"class_split": "s7"}, "Unknown class split 's7'"),
        ({"label_set": "clas"}, "Unknown label set 'clas'"),
        ({"query_modalities": "adio"}, "Unknown modality 'adio'. Did you mean 'audio'?"),
        ({"modalities": "frame", "missing": "audio=0.5@query"}, "Unknown modality 'audio'"),
        ({"k_shot": 0}, "method 'protonet' needs supports"),
    ],
)
def test_a_name_that_the_data_set_does_not_have_is_told_before_anything_runs(
    cache: Path, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as found:
        runs(cache, {"fixed": {"method": "protonet", **given}})
    assert sentence in str(found.value)


def test_overrides_win_and_take_an_option_out_of_the_grid(cache: Path) -> None:
    found = runs(cache, {"grid": {"method": ["protonet", "ridge"], "k_shot": [1, 5]}}, k_shot=3)
    assert told(found, "method") == [("protonet",), ("ridge",)]
    assert {run.job.spec.protocol.k_shot for run in found} == {3}


def test_the_rate_of_training_is_chosen_none_or_given(cache: Path) -> None:
    block = {
        "fixed": {"method": "common-space", "missing": "audio=0.5@query"},
        "grid": {"train_missing": ["none", "auto", "each=0.5"]},
    }
    found = [run.job.spec.train_missing for run in runs(cache, block)]
    assert found == [(), "auto", (Missing("frame", 0.5),), (Missing("audio", 0.5),)]


def test_names_stand_for_the_modalities_of_the_data(cache: Path) -> None:
    found = runs(cache, {"fixed": {"method": "protonet"}, "grid": {"modalities": ["subsets"]}})
    assert told(found, "modalities") == [(("frame",),), (("audio",),), (("frame", "audio"),)]
    second = runs(cache, {"fixed": {"method": "protonet", "modalities": "second"}})
    assert second[0].job.spec.streams == ("audio/net",)
    gone = runs(cache, {"fixed": {"method": "protonet", "missing": "each=0.5@query"}})
    assert [str(run.job.spec.protocol.missing[0]) for run in gone] == [
        "frame=0.5@query",
        "audio=0.5@query",
    ]
    with pytest.raises(UsageError, match="has no third modality; it has frame, audio"):
        runs(cache, {"fixed": {"method": "protonet", "modalities": "third"}})


def test_every_method_that_can_run_is_run(cache: Path) -> None:
    names = {method for (method,) in told(runs(cache, {"fixed": {"method": "all"}}), "method")}
    assert {"protonet", "amfar", "ridge", "trx"} <= names
    alone = told(runs(cache, {"fixed": {"method": "all", "modalities": "first"}}), "method")
    assert ("amfar",) not in alone


def test_a_setting_that_the_head_does_not_have_is_named(cache: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown setting of protonet 'distanse'\. Did you mean 'distance'"):
        runs(cache, {"fixed": {"method": "protonet", "settings": {"distanse": "cosine"}}})
    with pytest.raises(UsageError, match=r"nothing to train; leave out train\.steps"):
        runs(cache, {"fixed": {"method": "protonet", "train.steps": 3}})


def test_a_setting_that_adds_weights_lets_a_recipe_be_set_and_heads_be_shared(cache: Path) -> None:
    fixed = {"method": "protonet", "settings": {"embed": 4, "train.steps": 3}, "train_seed": 0}
    found = runs(
        cache, {"fixed": fixed, "grid": {"n_query": [2, 3], "seed": [0, 1]}, "trained_as": {"n_query": 2}}
    )
    facts = DataFacts(cache, None)
    names = {head_name(run.trained_as, facts) for run in found}
    assert len(names) == 1
    assert None not in names


def key(cache: Path, **options: Any) -> str:
    job = job_of({"method": "protonet", **options}, Place(cache=cache))
    facts = DataFacts(cache, None)
    spec = canonical(job.spec, facts)
    return run_key(replace(job, spec=spec), spec, facts)


def test_spelling_does_not_change_the_key(cache: Path) -> None:
    usual = key(cache)
    assert key(cache, fusion="ec") == usual
    assert key(cache, method="protonet-ec") == usual
    assert key(cache, modalities=("frame", "audio")) == usual
    assert key(cache, streams=("frame/net", "audio/net"), label_set="event") == usual


@pytest.mark.parametrize(
    "change",
    [
        {"k_shot": 5},
        {"seed": 1},
        {"episodes": 500},
        {"normalise": "none"},
        {"modalities": ("frame",)},
        {"fusion": "lf"},
        {"settings.distance": "cosine"},
        {"reliability": True},
    ],
)
def test_the_content_changes_the_key(cache: Path, change: dict[str, Any]) -> None:
    assert key(cache, **change) != key(cache)


def test_a_changed_default_and_another_numeric_version_make_new_runs(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = key(cache)
    with monkeypatch.context() as patch:
        patch.setattr(identity, "NUMERIC_VERSION", identity.NUMERIC_VERSION + 1)
        assert key(cache) != usual
    lossy = {"missing": (Missing("audio", 0.5, "query"),)}
    chosen, told = key(cache, **lossy), key(cache, **lossy, when_missing="drop")
    with monkeypatch.context() as patch:
        patch.setattr(identity.filling_choice, "VERSION", identity.filling_choice.VERSION + 1)
        assert key(cache, **lossy) != chosen, "what clips lack is chosen in another way"
        assert (key(cache, **lossy, when_missing="drop"), key(cache)) == (told, usual)
    explicit = key(cache, **{"settings.distance": "euclidean"})
    assert explicit != key(cache, **{"settings.distance": "cosine"})
    with monkeypatch.context() as patch:
        make = ProtoNet.Settings
        patch.setattr(identity, "asdict", lambda value: {"new": 1} if isinstance(value, make) else {})
        assert key(cache) != usual
    assert key(cache) == usual


def test_a_stream_that_is_extracted_anew_makes_new_runs_of_those_that_read_it(make_cache: Make) -> None:
    cache = make_cache(clips=6, classes=9)
    both, frame, audio = (key(cache, modalities=m) for m in (None, ("frame",), ("audio",)))
    folder = cache / "toy" / "streams" / "audio" / "net"
    for path in folder.glob("*"):
        path.unlink()
    rng = np.random.default_rng(5)
    with StreamWriter(cache / "toy", Provenance("net", "audio", 12, dtype="float32")) as writer:
        for i in range(54):
            writer.add(f"clip{i}", rng.normal(size=(3, 12)).astype(np.float32))
    assert key(cache, modalities=("frame",)) == frame
    assert key(cache, modalities=("audio",)) != audio
    assert key(cache) != both


def test_heads_are_shared_by_tests_that_need_the_same_training(cache: Path) -> None:
    block = {
        "fixed": {"method": "relation", "train_seed": 0},
        "grid": {"n_query": [2, 3], "seed": [0, 1], "missing": ["none", "audio=0.5@query"]},
        "trained_as": {"missing": "none"},
    }
    found = runs(cache, block)
    facts = DataFacts(cache, None)
    assert len({run_key(run.job, run.trained_as, facts) for run in found}) == 8
    assert len({head_name(run.trained_as, facts) for run in found}) == 1
    other = replace(found[0].trained_as, train_seed=1)
    assert head_name(other, facts) != head_name(found[0].trained_as, facts)
    assert head_name(RunSpec(method="protonet"), facts) is None
    assert Job(spec=found[0].job.spec).spec.train_seed == 0


def test_each_data_set_trains_for_each_that_has_its_streams(tmp_path: Path) -> None:
    for name in ("one", "two"):
        synthetic_cache(tmp_path, dataset=name, classes=6, clips=4)
    synthetic_cache(tmp_path, dataset="odd", classes=6, clips=4, streams={"frame/other": (2, 8)})
    block = {"fixed": {"method": "relation"}, "grid": {"train_dataset": ["each"], "dataset": ["each"]}}
    found = runs(tmp_path, block)
    pairs = [("odd", "odd"), ("one", "one"), ("two", "one"), ("two", "two"), ("one", "two")]
    assert told(found, "train_dataset", "dataset") == pairs
    own = {
        run.job.place.dataset: run.job.spec.train_dataset for run in found if run.varies["dataset"] == "odd"
    }
    assert own == {"odd": None}  # It is the usual training, and has its name.
    keys = {run_key(run.job, run.trained_as, DataFacts(tmp_path, run.job.place.dataset)) for run in found}
    assert len(keys) == len(pairs)


def test_each_modality_that_may_be_lost_is_one_that_the_run_has(tmp_path: Path) -> None:
    streams = {f"{name}/net": (1, 4) for name in ("frame", "flow", "audio")}
    synthetic_cache(tmp_path, classes=6, clips=4, streams=streams)
    block = {"fixed": {"method": "protonet"}, "grid": {"missing": ["each=0.5@query"]}}
    for given, expected in ((None, ["audio", "flow", "frame"]), ("frame,audio", ["audio", "frame"])):
        fixed = block["fixed"] | ({} if given is None else {"modalities": given})
        found = runs(tmp_path, block | {"fixed": fixed})
        assert sorted(run.job.spec.protocol.missing[0].modality for run in found) == expected


def test_a_trained_head_is_read_with_the_settings_of_each_row(cache: Path, tmp_path: Path) -> None:
    block: dict[str, Any] = {
        "fixed": {"method": "amfar", "train.steps": 2, "episodes": 40, "n_query": 3}
        | {"noisy": "second=0.5@query"},
        "variants": [{"label": "weights"}, {"label": "equal", "settings": {"ami": False}}],
        "trained_as": {"settings": {"ami": True}},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(json.dumps({"name": "toy", "blocks": [{"name": "b", **block}]}))
    found = sweep(path, cache, out=tmp_path / "out", jobs=1)
    weights, equal = found.rows
    assert weights.head == equal.head, "the head is trained once"
    made = {row.label: found.metrics(row)["settings"] for row in found.done}
    assert made["equal"]["ami"] == "false"
    # The same head, trained by itself with AMI and read with equal weights.
    spec = runs(cache, block)[1].trained_as
    banks = Banks(spec, Place(cache=cache, dataset="toy"))
    head = ready_head(spec, banks, tmp_path / "alone").head
    head.settings = replace(head.settings, ami=False)
    measured = measure(head, banks.test, spec.protocol, 40, transductive=False)
    assert found.metrics(equal)["accuracy"] == pytest.approx(measured.summary()["accuracy"], abs=1e-6)
