"""`fsmm cache ...` as a user calls it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_support import called

from fsmm.cache.schema import StreamName, shard_paths
from fsmm.cache.stream import stream_checks
from fsmm.cache.upkeep.info import info


def fsmm(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = called("cache", *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def root(make_cache: Callable[..., Path]) -> Path:
    return make_cache(classes=6, clips=4, absent=0.25, unlabelled=3)


def test_info_counts_what_is_there(root: Path) -> None:
    (root / "toy/failures.jsonl").write_text('{"reason": "torn"}\n{"reason": "mute"}\n{"reason": "torn"}\n')
    found = json.loads(fsmm("info", "--cache", root, "--json").stdout)
    (toy,) = found["datasets"]
    assert (toy["dataset"], toy["clips"], toy["failures"]) == ("toy", 27, {"torn": 2, "mute": 1})
    (labels,) = toy["label_sets"]
    assert (labels["classes"], labels["labelled"], labels["unlabelled"]) == (6, 24, 3)
    assert labels["per_class"] == {"min": 4, "median": 4, "max": 4}
    assert labels["splits"] == {"default": {"base": 2, "val": 2, "novel": 2}}
    streams = {s["stream"]: s for s in toy["streams"]}
    assert set(streams) == {"audio/net", "frame/net", "word/toy"}
    for stream in ("audio/net", "frame/net"):
        assert streams[stream]["present"] + streams[stream]["absent"] == 27
        assert streams[stream]["missing"] == 0
    assert (streams["frame/net"]["dim"], streams["frame/net"]["steps"]) == (16, [4, 4])
    assert (
        found["bytes"]
        == toy["bytes"]
        == sum(p.stat().st_size for p in (root / "toy").rglob("*") if p.is_file())
    )
    shown = fsmm("info", "--cache", root).stdout
    assert all(word in shown for word in ("toy", "frame/net", "2/2/2", "torn"))


def test_an_empty_cache_is_no_error(tmp_path: Path) -> None:
    assert json.loads(fsmm("info", "--cache", tmp_path, "--json").stdout)["datasets"] == []
    assert "holds no dataset yet" in fsmm("info", "--cache", tmp_path).stderr
    assert info(tmp_path / "absent").bytes == 0


def test_verify_exits_with_1_until_the_damage_is_repaired(root: Path) -> None:
    assert "All is whole" in fsmm("verify", "--cache", root).stdout
    path = shard_paths(root / "toy", StreamName("frame", "net"))[0]
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    assert "all 27 clips are whole" in fsmm("verify", "--cache", root, code=1).stdout
    found = json.loads(fsmm("verify", "--cache", root, "--json", code=1).stdout)
    assert not found["ok"]
    assert found["findings"][0]["place"] == "toy/streams/frame/net/00000.h5"
    assert "repaired" in fsmm("verify", "--cache", root, "--repair").stdout
    assert json.loads(fsmm("verify", "--cache", root, "--json").stdout)["ok"]


def test_export_import_and_merge_go_round(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain.npz"
    report = json.loads(fsmm("export", out, "--cache", root, "--json").stdout)
    assert report["files"] == [str(out), str(out.with_suffix(".json"))]
    out.rename(tmp_path / "moved.npz")
    again = tmp_path / "again"
    fsmm("import", out.with_suffix(".json"), "--cache", again, code=1)
    fsmm("import", out.with_suffix(".json"), "--cache", again, "--source", f"export={tmp_path / 'moved.npz'}")
    merged = json.loads(fsmm("merge", root, again, "--cache", tmp_path / "all", "--json").stdout)
    assert (
        merged["copied"]
        == merged["duplicates"]
        == {"toy/audio/net": 27, "toy/frame/net": 27, "toy/word/toy": 6}
    )
    for stream in ("frame/net", "audio/net", "word/toy"):
        one, other = (stream_checks(r / "toy", StreamName.parse(stream)) for r in (root, tmp_path / "all"))
        assert one == other


def test_failures_are_one_sentence_and_a_code(root: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3)), y=np.array(["a", "b"]))
    mapping = {"dataset": "d", "source": "x.npz", "arrays": {"z": "frame/net"}, "label_sets": {"y": "y"}}
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    for words, code, says in (
        (("verify", "--cache", tmp_path / "none"), 1, "no dataset"),
        (("info", "--cache", root, "--dataset", "toi"), 1, "it holds: toy"),
        (("import", tmp_path / "m.json", "--cache", tmp_path / "c"), 2, "Known: x, y"),
        (("import", tmp_path / "m.json", "--source", "x.npz"), 2, "not of the form NAME=PATH"),
        (("export", tmp_path / "x.npz", "--cache", root), 2, "exists already"),
        (("merge", root, "--cache", root), 2, "both a source"),
    ):
        done = fsmm(*words, code=code)
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stdout == ""
