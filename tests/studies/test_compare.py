"""Runs that are compared in pairs."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.catalog import Catalog
from fsmm.cache.rewrite import rewrite_stream
from fsmm.cache.schema import StreamName
from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError, UsageError
from fsmm.machine.digests import SUMS
from fsmm.runs.evaluation import Evaluation
from fsmm.runs.job import Job, Place
from fsmm.runs.listing import short_names
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.runs.store import load_run, save_run
from fsmm.studies.compare import compare
from fsmm.studies.groups import compare_groups
from fsmm.studies.pairs import holm, paired
from fsmm.studies.report.data import read


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


def job_of(cache: Path, out: Path, **given: object) -> Job:
    """A job over the toy data set: ProtoNet on 60 2-shot episodes of 4 queries, with ``given`` of its spec changed."""
    spec = RunSpec(**{"method": "protonet", "protocol": Protocol(n_query=4, k_shot=2), **given})
    return Job(spec=spec, place=Place(cache=cache, dataset="toy", out=out), episodes=60)


def another(cache: Path, place: Path, *, ids: str = "", files: str = "") -> Path:
    """A copy of a cache whose clips have a beginning of their ids, or files, of its own."""
    shutil.copytree(cache, place)
    catalog = Catalog.read(place / "toy")
    if files:
        catalog.facts["sha256"] = np.full(len(catalog), files.encode() * 64, "S64")
    replace(catalog, clip_id=[f"{ids}{clip}" for clip in catalog.clip_id]).write(place / "toy")
    for stream in ("frame/net", "audio/net") if ids else ():
        rewrite_stream(place / "toy", StreamName.parse(stream), lambda clip, _: f"{ids}{clip}")
    return place


def test_runs_on_other_clips_of_a_data_set_of_the_same_name_and_size_are_not_paired(
    cache: Path, tmp_path: Path
) -> None:
    places = {
        "here": cache,
        "other": another(cache, tmp_path / "1", ids="b/"),
        "one": another(cache, tmp_path / "2", files="1"),
        "changed": another(cache, tmp_path / "3", files="2"),
    }
    out = {name: run(job_of(place, tmp_path / "runs" / name)).out for name, place in places.items()}
    with pytest.raises(UsageError, match="they are on other clips, of a data set of the same name"):
        compare([out["here"], out["other"]])
    found = compare_groups([out["other"], out["here"], out["one"], out["changed"]])
    assert [each.name for each in found.left_out] == ["other"]
    (note,) = compare([out["here"], out["one"]]).notes
    assert note.startswith("The runs were made on different caches, and not all know the files")
    (note,) = compare([out["one"], out["changed"]]).notes
    assert note.startswith("The clips of one and changed have the same ids and other files")
    titles = [task.title for task in read(tmp_path / "runs").tasks]
    assert len(set(titles)) == 2, "a report does not mix them, either"


def test_runs_on_the_same_episodes_are_paired_and_others_refused(cache: Path, tmp_path: Path) -> None:
    a = run(job_of(cache, tmp_path / "a", method="protonet", modalities=("frame",)))
    b = run(job_of(cache, tmp_path / "b", method="protonet", modalities=("audio",)))
    c = run(job_of(cache, tmp_path / "c", method="nearest", modalities=("frame",)))
    found = compare([a.out, b.out, c.out])
    assert len(found.pairs) == 3
    difference = a.accuracy.astype(float) - b.accuracy
    assert found.pairs[0].difference == pytest.approx(difference.mean())
    assert found.notes == []
    for pair in found.pairs:
        assert pair.draws is None
        for estimate in (pair.clips, pair.classes):
            assert estimate is not None
            assert estimate.ci95 > 0
            assert estimate.p <= estimate.p_holm <= min(3 * estimate.p, 1)
    d = run(job_of(cache, tmp_path / "d", protocol=Protocol(n_query=4, k_shot=2, seed=9)))
    with pytest.raises(UsageError, match="seed is 0 and 9"):
        compare([a.out, d.out])
    with pytest.raises(FsmmError, match="not a complete run"):
        compare([a.out, tmp_path])


def test_what_can_be_compared_is_and_the_rest_is_named(cache: Path, tmp_path: Path) -> None:
    made = {
        "frame": run(job_of(cache, tmp_path / "frame", modalities=("frame",))),
        "audio": run(job_of(cache, tmp_path / "audio", modalities=("audio",))),
        "both": run(job_of(cache, tmp_path / "both")),
        "few": run(job_of(cache, tmp_path / "few", protocol=Protocol(n_query=2, k_shot=2))),
        "few-audio": run(
            job_of(
                cache, tmp_path / "few-audio", protocol=Protocol(n_query=2, k_shot=2), modalities=("audio",)
            )
        ),
        "alone": run(job_of(cache, tmp_path / "alone", protocol=Protocol(n_query=4, k_shot=2, seed=9))),
    }
    (tmp_path / "damaged").mkdir()
    folders = [tmp_path / "damaged", *(found.out for found in made.values())]
    found = compare_groups(folders)
    names = [[entry["name"] for entry in comparison.runs] for comparison in found.comparisons]
    assert names == [["frame", "audio", "both"], ["few", "few-audio"]]
    reasons = {entry.name: entry.reason for entry in found.left_out}
    assert set(reasons) == {"damaged", "alone"}
    assert "not a complete run" in reasons["damaged"]
    assert reasons["alone"] == "Run alone is on other episodes than frame: protocol.seed is 9 and 0."
    for comparison in found.comparisons:
        same = compare([made[entry["name"]].out for entry in comparison.runs])
        assert comparison.pairs == same.pairs
        for entry in comparison.runs:
            assert entry["accuracy"] == pytest.approx(made[entry["name"]].mean)
            assert entry["task"] == "5-way 2-shot"
    assert [len(other["pairs"]) for other in found.to_dict()["others"]] == [1]
    assert len(found.to_dict()["pairs"]) == 3


@pytest.fixture(scope="module")
def seeded(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A free run, and a head that was trained with three seeds, on frames."""
    home, learned = tmp_path_factory.mktemp("seeded"), {"train.steps": "3"}
    jobs = [job_of(cache, home / "nearest", method="nearest", modalities=("frame",))]
    for seed in (0, 1, 2):
        given = {"settings": learned, "train_seed": seed, "modalities": ("frame",)}
        jobs.append(job_of(cache, home / f"seed-{seed}", method="relation", **given))
    return [run(job).out for job in jobs]


def test_seeds_of_one_training_are_one_head_and_none_is_picked(seeded: list[Path]) -> None:
    found = compare(seeded)
    assert [head["name"] for head in found.runs] == ["nearest", "seed-0, 3 seeds"]
    every = [load_run(folder)[2]["accuracy"].astype(float) for folder in seeded]
    (pair,) = found.pairs
    assert found.runs[1]["accuracy"] == pytest.approx(np.mean(every[1:]))
    assert pair.difference == pytest.approx(every[0].mean() - np.mean(every[1:]))
    # The interval counts the spread of the trainings, so it is above that of the mean outcome over clips alone.
    alone = [compare([seeded[0], folder]).pairs[0].difference for folder in seeded[1:]]
    assert pair.difference == pytest.approx(np.mean(alone))
    groups = compare_groups(seeded)
    assert groups.comparisons[0].pairs == found.pairs
    head, metrics = groups.comparisons[0].runs[1], [load_run(folder)[1] for folder in seeded[1:]]
    assert head["ci95"] is None, "that of one seed is not that of the head"
    # The interval of the head counts its seeds; the mean over them varies less with clips than each of them may.
    assert np.std([each["accuracy"] for each in metrics], ddof=1) / np.sqrt(3) < head["ci95_clips"]
    among = compare(seeded[1:])
    assert len(among.pairs) == 3, "seeds of one head alone are compared with one another"


def test_a_trained_head_is_judged_by_the_best_free_one_on_its_modalities(
    cache: Path, seeded: list[Path], tmp_path: Path
) -> None:
    audio = run(job_of(cache, tmp_path / "audio", modalities=("audio",)))
    found = compare([*seeded[:2], audio.out])
    frame, relation, other = found.runs
    assert (frame["free"], relation["free"], other["free"]) == (True, False, True)
    assert relation["best_free"] == frame["name"], "the head of audio sees what this one does not have"
    pair = found.pairs[0]
    assert relation["above_free"] == pytest.approx(-pair.difference)
    assert relation["beats_free"] == (-pair.difference > pair.clips.ci95)
    assert "beats_free" not in frame
    # A copy of the free head's outcomes under the name of a trained one does not beat it, whatever they are.
    config, metrics, arrays = load_run(seeded[0])
    save_run(tmp_path / "copy", {**config, "method": "relation"}, {**metrics, "parameters": 9}, arrays)
    (copy,) = compare([seeded[0], tmp_path / "copy"]).runs[1:]
    assert copy["above_free"] == 0
    assert copy["beats_free"] is False


def test_the_names_of_many_runs_are_found_at_once() -> None:
    folders = [Path(f"studies/{i % 7}/deep/runs/{i}/seed-{i % 3}") for i in range(20_000)]
    began = time.process_time()
    names = short_names(folders)
    assert time.process_time() - began < 5, "a quadratic search takes minutes"
    assert len(set(names.values())) == len(folders)


def test_runs_of_which_no_two_can_be_compared_are_refused(cache: Path, tmp_path: Path) -> None:
    outs = [
        run(job_of(cache, tmp_path / str(seed), protocol=Protocol(n_query=4, seed=seed))).out
        for seed in (0, 1, 2)
    ]
    with pytest.raises(UsageError, match=r"0 and 1 cannot be paired: .*seed is 0 and 1, and no other two"):
        compare_groups(outs)
    with pytest.raises(UsageError, match="at least two runs"):
        compare_groups(outs[:1])
    with pytest.raises(FsmmError, match="not a complete run"):
        compare_groups([outs[0], tmp_path / "nowhere"])


def test_results_are_paired_without_folders_as_their_runs_are(cache: Path, tmp_path: Path) -> None:
    a = run(job_of(cache, tmp_path / "a", modalities=("frame",)))
    b = run(job_of(cache, tmp_path / "b", modalities=("audio",)))
    c = run(job_of(cache, tmp_path / "c", protocol=Protocol(n_query=4, k_shot=2, seed=9)))
    assert isinstance(a.result, Evaluation)
    assert isinstance(b.result, Evaluation)
    assert isinstance(c.result, Evaluation)
    assert paired(a.result, b.result, names=("a", "b")) == compare([a.out, b.out]).pairs[0]
    with pytest.raises(UsageError, match="different episodes"):
        paired(a.result, c.result)


def test_draws_are_looked_at_where_they_are_asked_for(cache: Path, tmp_path: Path) -> None:
    from scipy.stats import ttest_rel

    a = run(job_of(cache, tmp_path / "a", modalities=("frame",)))
    b = run(job_of(cache, tmp_path / "b", modalities=("audio",)))
    (pair,) = compare([a.out, b.out], draws=True).pairs
    assert pair.clips is not None
    assert pair.draws is not None
    expected = ttest_rel(a.accuracy.astype(float), b.accuracy.astype(float)).pvalue
    assert pair.draws.p == pytest.approx(expected)
    assert pair.draws.ci95 < pair.clips.ci95


def test_a_run_is_compared_with_itself_by_a_bound(cache: Path, tmp_path: Path) -> None:
    a, b = (run(job_of(cache, tmp_path / name)) for name in "ab")
    (pair,) = compare([a.out, b.out]).pairs
    assert pair.difference == 0
    for estimate in (pair.clips, pair.classes):
        assert estimate is not None
        assert estimate.one_sided
        assert estimate.p == 1.0
        assert estimate.ci95 is not None
        assert estimate.ci95 > 0
    json.dumps(compare([a.out, b.out]).to_dict(), allow_nan=False)


def test_runs_of_other_lengths_are_compared_on_their_common_episodes(cache: Path, tmp_path: Path) -> None:
    a = run(job_of(cache, tmp_path / "a", modalities=("frame",)))
    b = run(job_of(cache, tmp_path / "b", modalities=("audio",)))
    short = run(replace(job_of(cache, tmp_path / "short", modalities=("audio",)), episodes=40))
    found = compare([a.out, short.out])
    assert found.episodes == 40
    assert "first 40" in found.notes[0]
    assert found.pairs[0].difference == pytest.approx(float((a.accuracy - b.accuracy)[:40].mean()))


def test_a_run_from_before_outcomes_were_stored_is_compared_over_draws(cache: Path, tmp_path: Path) -> None:
    a = run(job_of(cache, tmp_path / "a", modalities=("frame",)))
    b = run(job_of(cache, tmp_path / "b", modalities=("audio",)))
    with np.load(a.out / "episodes.npz") as file:
        kept = {name: file[name] for name in ("accuracy", "confusion", "class_names")}
    np.savez(a.out / "episodes.npz", **kept)
    (a.out / SUMS).unlink()  # Runs of that time have no digests.
    found = compare([a.out, b.out])
    assert "a does not hold the outcome" in found.notes[0]
    assert found.pairs[0].clips is None
    assert found.pairs[0].draws is not None


def test_episodes_of_several_sizes_are_compared_over_draws(cache: Path, tmp_path: Path) -> None:
    protocol = Protocol(n_way=(3, 5), n_query=4, k_shot=2)
    a, b = (run(job_of(cache, tmp_path / m, method=m, protocol=protocol)) for m in ("protonet", "nearest"))
    found = compare([a.out, b.out])
    assert "episodes differ in size" in found.notes[0]
    assert found.pairs[0].draws is not None


def test_holm_follows_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
