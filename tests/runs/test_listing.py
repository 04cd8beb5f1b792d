"""Runs are found, named and described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Missing, Protocol
from fsmm.errors import CacheError, UsageError
from fsmm.machine.digests import SUMS
from fsmm.runs.job import Job, Place
from fsmm.runs.listing import changed_settings, chosen_runs, described, find_runs, list_runs, runs_of_cache
from fsmm.runs.spec import RunSpec
from fsmm.runs.store import save_run


def stored(folder: Path, accuracy: float = 0.5, episodes: int = 100, **given: object) -> Path:
    """A run's folder as ``finish`` writes it, of a job with ``given`` of its spec changed."""
    spec = RunSpec(**{"method": "protonet", "protocol": Protocol(label_set="event"), **given})
    config = {**Job(spec=spec, place=Place(dataset="toy"), episodes=episodes).to_dict(), "fingerprint": "0"}
    metrics = {
        "accuracy": accuracy,
        "ci95": 0.01,
        "ci95_clips": None,
        "ci95_classes": 0.1,
        "episodes": episodes,
        "streams": {"audio": "audio/net", "frame": "frame/net"},
    }
    save_run(folder, config, metrics, {"accuracy": np.full(episodes, accuracy)})
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of two data sets, with runs of one name in each, a study, and a training that was cut short."""
    root = tmp_path / "cache"
    for dataset in ("toy", "other"):
        synthetic_cache(root, dataset=dataset, clips=1)
        stored(root / dataset / "runs" / "protonet-0a1b2c3d4e")
    runs = root / "toy" / "runs"
    stored(runs / "protonet-lf-99ffee0011", method="protonet", fusion="lf")
    for seed in (0, 1):
        stored(runs / "relation-5566778899" / f"seed-{seed}", method="relation", train_seed=seed)
    (runs / "relation-5566778899" / "head.safetensors").touch()
    (runs / "trx-1234567890" / "training").mkdir(parents=True)
    return root


def test_every_run_below_a_folder_is_found_once(cache: Path) -> None:
    runs = cache / "toy" / "runs"
    names = [run.relative_to(runs).as_posix() for run in find_runs(runs)]
    assert names == [
        "protonet-0a1b2c3d4e",
        "protonet-lf-99ffee0011",
        "relation-5566778899/seed-0",
        "relation-5566778899/seed-1",
        "trx-1234567890",
    ]
    assert find_runs(runs / "protonet-0a1b2c3d4e") == [runs / "protonet-0a1b2c3d4e"]
    assert find_runs(cache / "nowhere") == []
    assert list(runs_of_cache(cache, "other")) == ["other/protonet-0a1b2c3d4e"]
    assert len(runs_of_cache(cache)) == 6
    with pytest.raises(CacheError, match="not in the cache"):
        runs_of_cache(cache, "nowhere")


def test_a_run_is_described_by_what_tells_it_from_others(tmp_path: Path) -> None:
    protocol = Protocol(n_way=(5, 10), k_shot=5, n_query=10, seed=3, label_set="event",
                        missing=(Missing("audio", 0.5, "query"),))  # fmt: skip
    given = {"fusion": "lf", "protocol": protocol, "normalise": "none", "settings": {"embed": "6"}}
    found = described(stored(tmp_path / "run", 0.75, train_seed=3, **given))
    assert (found.name, found.fault, found.digests) == ("run", "", True)
    assert (found.dataset, found.split, found.label_set) == ("toy", "novel", "event")
    assert (found.method, found.task) == ("protonet (LF)", "5-10-way 5-shot")
    assert found.modalities == ("audio", "frame")
    assert (found.accuracy, found.ci95_clips, found.ci95_classes) == (0.75, None, 0.1)
    assert found.settings == {
        "n_query": "10",
        "seed": "3",
        "missing": "audio=0.5@query",
        "normalise": "none",
        "embed": "6",
    }
    assert found.ended.endswith("+00:00")


def test_defaults_are_not_listed_whatever_form_they_have() -> None:
    assert changed_settings(Job(spec=RunSpec(method="protonet")).to_dict()) == {}
    assert changed_settings({"method": "protonet", "protocol": {}}) == {}
    other = RunSpec(method="relation", train_seed=2, train_modalities=("frame", "audio"), words=None)
    assert changed_settings(Job(spec=other).to_dict()) == {
        "train_modalities": "frame,audio",
        "words": "none",
        "train_seed": "2",
    }


def test_damaged_unfinished_and_older_runs_are_listed_as_such(cache: Path) -> None:
    runs = cache / "toy" / "runs"
    (runs / "relation-5566778899" / "seed-0" / "config.json").write_text("{}")
    (runs / "protonet-lf-99ffee0011" / SUMS).unlink()
    found = {run.name: run for run in list_runs(cache, "toy")}
    assert "config.json changed" in found["relation-5566778899/seed-0"].fault
    assert found["relation-5566778899/seed-0"].accuracy is None
    assert "has not ended" in found["trx-1234567890"].fault
    assert [name for name, run in found.items() if not run.fault and not run.digests] == [
        "protonet-lf-99ffee0011"
    ]


def test_runs_of_given_folders_are_listed_by_their_path_from_there(cache: Path, tmp_path: Path) -> None:
    stored(tmp_path / "own" / "deeper" / "a")
    assert [run.name for run in list_runs(cache, folders=[tmp_path / "own"])] == ["deeper/a"]
    assert [run.name for run in list_runs(cache, folders=[tmp_path / "own" / "deeper" / "a"])] == ["a"]
    assert list_runs(cache, "other", [tmp_path / "own"]) == []
    with pytest.raises(UsageError, match="no folder"):
        list_runs(cache, folders=[tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("toy/protonet-0a1b2c3d4e", ["protonet-0a1b2c3d4e"]),
        ("99ff", ["protonet-lf-99ffee0011"]),
        ("0011", ["protonet-lf-99ffee0011"]),
        ("protonet-lf", ["protonet-lf-99ffee0011"]),
        ("trx", ["trx-1234567890"]),
        ("seed-1", ["seed-1"]),
        ("relation-5566778899/seed-0", ["seed-0"]),
        ("relation", ["seed-0", "seed-1"]),
        ("relation-5566778899/", ["seed-0", "seed-1"]),
        ("5566", ["seed-0", "seed-1"]),
    ],
)
def test_a_beginning_or_an_end_names_a_run_or_a_study(cache: Path, text: str, names: list[str]) -> None:
    assert [run.name for run in chosen_runs([text], cache)] == names


@pytest.mark.parametrize("text", ["protonet-0a1b2c3d4e", "0a1b", "proto", "p", "toy"])
def test_an_ambiguous_name_is_answered_with_those_it_could_be(cache: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"write more of the name: .*toy/protonet-0a1b2c3d4e"):
        chosen_runs([text], cache)


@pytest.mark.parametrize("text", ["", "nothing", "../toy", "protonet-0a1b2c3d4e/inner", "\0"])
def test_an_unknown_name_is_answered_with_the_known_ones(cache: Path, text: str) -> None:
    with pytest.raises(UsageError, match="Unknown folder or run"):
        chosen_runs([text], cache)


def test_a_data_set_makes_a_name_unique_and_folders_come_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen_runs(["proto"], cache, "other") == [cache / "other" / "runs" / "protonet-0a1b2c3d4e"]
    stored(tmp_path / "trx")
    (tmp_path / "relation").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(chosen_runs(["relation"], cache)) == 2, "a folder without runs is none that could be meant"
    assert chosen_runs(["trx", "trx", str(tmp_path / "cache/toy/runs/trx-1234567890")], cache) == [
        Path("trx"),
        tmp_path / "cache/toy/runs/trx-1234567890",
    ]
