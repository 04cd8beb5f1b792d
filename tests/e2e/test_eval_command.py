"""The evaluation commands as a person runs them: in a subprocess, on a real cache."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_support import called
from tests_support import flip, synthetic_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


def fsmm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_one_json_document_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    done = fsmm(
        "episode-eval",
        "--method",
        "protonet",
        "--cache",
        cache,
        "--n-query",
        "4",
        "--episodes",
        "100",
        "--out",
        tmp_path / "run",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["method"] == "protonet"
    assert found["episodes"] == 100
    assert 0.2 < found["accuracy"] <= 1
    assert found["out"] == str(tmp_path / "run")


def test_the_table_says_what_a_person_needs(cache: Path, tmp_path: Path) -> None:
    done = fsmm(
        "--quiet",
        "episode-eval",
        "--method",
        "protonet-lf",
        "--cache",
        cache,
        "--n-query",
        "4",
        "--episodes",
        "50",
        "--out",
        tmp_path / "run",
        "--reliability",
    )
    assert done.returncode == 0, done.stderr
    for word in (
        "accuracy",
        "episode draws",
        "classes",
        "seed",
        "frame/net + audio/net",
        "certainty",
        str(tmp_path)[:20],
    ):
        assert word in done.stdout.replace("\n", ""), word
    assert done.stderr == ""


def test_runs_are_compared(cache: Path, tmp_path: Path) -> None:
    for m in ("frame", "audio"):
        done = fsmm(
            "episode-eval",
            "--method",
            "protonet",
            "--cache",
            cache,
            "--n-query",
            "4",
            "--episodes",
            "100",
            "--modalities",
            m,
            "--out",
            tmp_path / m,
            "--json",
        )
        assert done.returncode == 0, done.stderr
    found = json.loads(fsmm("compare", tmp_path / "frame", tmp_path / "audio", "--json").stdout)
    assert found["episodes"] == 100
    (pair,) = found["pairs"]
    assert pair["clips"]["ci95"] > 0
    assert pair["classes"]["p_holm"] == pair["classes"]["p"]
    assert pair["draws"] is None
    table = fsmm("compare", tmp_path / "frame", tmp_path / "audio", "--draws").stdout
    for word in ("± clips", "p classes", "± draws", "same 100 episodes"):
        assert word in table


def test_as_many_episodes_are_drawn_as_are_needed_and_the_run_can_be_made_again(
    cache: Path, tmp_path: Path
) -> None:
    words = [
        "episode-eval",
        "--method",
        "protonet",
        "--cache",
        cache,
        "--n-query",
        "4",
        "--out",
        tmp_path / "a",
    ]
    table = fsmm(*words, "--episodes", "auto:1.5")
    assert table.returncode == 0, table.stderr
    assert "is within the 1.5 points asked for" in " ".join(table.stdout.split())
    again = fsmm(
        "episode-eval", "--config", tmp_path / "a" / "config.json", "--out", tmp_path / "b", "--json"
    )
    found = json.loads(again.stdout)
    made = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert (found["episodes"], found["accuracy"]) == (made["episodes"], made["accuracy"])
    assert 100 * made["ci95"] <= 1.5


def test_methods_are_listed_as_json() -> None:
    rows = json.loads(fsmm("methods", "--json").stdout)
    assert {"name", "paper", "year", "regime", "transductive", "modalities"} <= set(rows[0])
    assert {"protonet", "eckpn", "linear-probe", "nearest", "common-space"} <= {row["name"] for row in rows}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["episode-eval", "--method", "protonett"], 2, "Did you mean 'protonet'"),
        (["episode-eval", "--method", "protonet", "--colour", "red"], 2, "No such option"),
        (["episode-eval"], 2, "Missing option"),
        (["episode-eval", "--method", "protonet", "--n-way", "many"], 2, "neither a number nor a range"),
        (["episode-eval", "--method", "protonet", "--seed", "-1"], 2, "must not be negative"),
        (["episode-eval", "--method", "protonet", "--episodes", "auto:none"], 2, "such as auto:0.5"),
        (["episode-eval", "--method", "protonet", "--episodes", "auto:0"], 2, "must be above 0"),
        (["episode-eval", "--method", "protonet", "--episodes", "many"], 2, "whole number"),
        (["episode-eval", "--method", "protonet", "--missing", "audio"], 2, "not of the form"),
        (["episode-eval", "--method", "protonet", "--missing", "audio=1.5"], 2, "must lie in [0, 1]"),
        (["episode-eval", "--method", "protonet", "--set", "speed"], 2, "key=value"),
        (["episode-eval", "--method", "protonet", "--n-query", "99"], 1, "lower --n-query to 23"),
        (["episode-eval", "--method", "protonet", "--dataset", "nowhere"], 1, "is not in the cache"),
        (["episode-eval", "--method", "protonet", "--modalities", "smell"], 2, "Unknown modality"),
        (["compare", "nowhere", "elsewhere"], 2, "Unknown folder or run 'nowhere'"),
    ],
)
def test_wrong_use_gets_one_sentence_and_a_code(
    cache: Path, words: list[str], code: int, sentence: str
) -> None:
    more = ["--cache", str(cache)] if words[0] in ("episode-eval", "compare") else []
    done = called(*words, *more)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_damaged_features_are_refused_and_repaired_by_what_the_sentence_says(tmp_path: Path) -> None:
    root = synthetic_cache(tmp_path / "cache", noise=1.5)
    (dataset,) = root.iterdir()
    evaluation = ("episode-eval", "--method", "protonet", "--episodes", 50, "--cache", root, "--out")
    assert fsmm(*evaluation, tmp_path / "whole").returncode == 0
    shards = sorted((dataset / "streams/frame").glob("*/*.h5"))
    flip(shards[-1], "features", -1)
    done = fsmm(*evaluation, tmp_path / "damaged")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is damaged (clip" in done.stderr
    assert "fsmm cache verify --repair" in done.stderr
    assert not (tmp_path / "damaged").exists()
    assert fsmm("cache", "verify", "--repair", "--cache", root).returncode == 0
    again = fsmm(*evaluation, tmp_path / "repaired", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["clips_without"] == {"frame": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_ends_an_evaluation_and_its_workers_with_one_sentence(cache: Path, tmp_path: Path) -> None:
    words = ["--method", "protonet", "--modalities", "frame", "--n-query", "4", "--episodes", "4000000"]
    command = [
        sys.executable,
        "-m",
        "fsmm",
        "episode-eval",
        *words,
        "--cache",
        str(cache),
        "--out",
        str(tmp_path),
    ]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    deadline = time.monotonic() + 60
    while running.poll() is None and len(children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children.read_text().split()
    assert len(workers) == 2, running.communicate()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.strip() == "fsmm: Interrupted; run the same command again to continue."
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_groups_decide_which_clips_an_episode_holds(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path / "cache", clips=24, groups=6)
    common = (
        "episode-eval",
        "--method",
        "protonet",
        "--cache",
        cache,
        "--episodes",
        "50",
        "--out",
        tmp_path / "run",
    )
    apart = fsmm(*common, "--no-shared-group", "--n-query", "4")
    assert apart.returncode == 0, apart.stderr
    assert "supports and queries share no group" in " ".join(apart.stdout.split())
    few = fsmm(*common, "--no-shared-group", "--n-query", "21")
    assert few.returncode == 1
    assert "has 24 clips in 6 groups of 4, 4, 4, 4, 4 and 4" in " ".join(few.stderr.split())
    assert "lower --n-query to 20" in " ".join(few.stderr.split())
    crossed = fsmm(*common, "--support-groups", "p0,p1", "--query-groups", "p4", "--n-query", "4", "--json")
    assert crossed.returncode == 0, crossed.stderr
    assert json.loads(crossed.stdout)["protocol"]["support_groups"] == ["p0", "p1"]
    unknown = fsmm(*common, "--support-groups", "p9")
    assert unknown.returncode == 2
    assert "'p9'" in unknown.stderr


@pytest.mark.parametrize("words", [("report", ""), ("episode-eval", "--method", "protonet", "--cache=")])
def test_an_empty_argument_is_refused(words: tuple[str, ...]) -> None:
    done = fsmm(*words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"after {words[-1].rstrip('=') or words[-2]} is empty" in done.stderr
