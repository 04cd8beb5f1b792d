"""The writer: whole or absent whatever happens, one writer a stream, one origin a stream."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.header import header_is_right
from fsmm.cache.schema import Provenance, StreamName, shard_paths
from fsmm.cache.shard import KIND, build_shard, clip_check, read_shard, write_shard
from fsmm.cache.stream import StreamWriter, stream_checks, stream_keys, stream_provenance
from fsmm.errors import CacheError

FRAME = Provenance("net", "frame", 4, dtype="float32", weights_sha256="ab")
STREAM = StreamName("frame", "net")


def fill(folder: Path, ids: list[str], provenance: Provenance = FRAME, **limits: int) -> None:
    with StreamWriter(folder, provenance, **limits) as writer:
        for clip in ids:
            writer.add(clip, np.full((2, provenance.dim), float(len(clip))))


def test_rows_are_cut_into_shards_by_count_and_by_size(tmp_path: Path) -> None:
    fill(tmp_path / "toy", [f"c{i}" for i in range(7)], max_clips=3)
    assert [len(read_shard(p)) for p in shard_paths(tmp_path / "toy", STREAM)] == [3, 3, 1]
    fill(tmp_path / "small", [f"c{i}" for i in range(4)], max_bytes=2 * 2 * 4 * 4)
    assert [len(read_shard(p)) for p in shard_paths(tmp_path / "small", STREAM)] == [2, 2]


def test_a_stream_is_continued_after_its_last_shard(tmp_path: Path) -> None:
    fill(tmp_path / "toy", ["a", "b"])
    fill(tmp_path / "toy", ["c"])
    assert [p.name for p in shard_paths(tmp_path / "toy", STREAM)] == ["00000.h5", "00001.h5"]
    assert stream_keys(tmp_path / "toy", STREAM) == {"a": True, "b": True, "c": True}


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "toy" / "streams" / "frame" / "net"
    folder.mkdir(parents=True)
    for number in (100000, 99999, 2):
        write_shard(folder / f"{number:05d}.h5", build_shard("toy", FRAME, [(str(number), None, {})]))
    (folder / "notes.h5").write_bytes(b"somebody else's")
    assert list(stream_keys(tmp_path / "toy", STREAM)) == ["2", "99999", "100000"]
    fill(tmp_path / "toy", ["new"])
    assert (folder / "100001.h5").is_file()


def test_the_callers_buffer_may_be_used_again(tmp_path: Path) -> None:
    buffer = np.zeros((1, 4), np.float32)
    with StreamWriter(tmp_path / "toy", FRAME) as writer:
        for i in range(3):
            buffer[:] = i
            writer.add(f"c{i}", buffer)
    assert read_shard(shard_paths(tmp_path / "toy", STREAM)[0]).features[:, 0].tolist() == [0, 1, 2]


def test_a_clip_is_held_once(tmp_path: Path) -> None:
    fill(tmp_path / "toy", ["a"])
    with StreamWriter(tmp_path / "toy", FRAME) as writer:
        writer.add("b", None)
        for clip in ("a", "b"):
            with pytest.raises(CacheError, match=f"'{clip}' is already in stream frame/net"):
                writer.add(clip, None)
        with pytest.raises(CacheError, match="'a' is already"):
            writer.add_shard(build_shard("toy", FRAME, [("a", None, {})]))
    assert stream_keys(tmp_path / "toy", STREAM) == {"a": True, "b": False}


def test_a_bad_row_leaves_the_others(tmp_path: Path) -> None:
    with StreamWriter(tmp_path / "toy", FRAME) as writer:
        writer.add("a", np.ones((1, 4)))
        with pytest.raises(CacheError, match="not finite"):
            writer.add("b", np.full((1, 4), np.inf))
        writer.add("c", np.ones((1, 4)))
    assert list(stream_keys(tmp_path / "toy", STREAM)) == ["a", "c"]


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "cd"},
        {"dim": 5},
        {"dtype": "float16"},
        {"sampling": "random"},
        {"extra": {"k": "v"}},
        {"schema": 2},
    ],
)
def test_another_provenance_is_refused_and_named(tmp_path: Path, change: dict) -> None:
    fill(tmp_path / "toy", ["a"])
    before = stream_checks(tmp_path / "toy", STREAM)
    with pytest.raises(CacheError, match=f"made differently: {next(iter(change))} is "):
        StreamWriter(tmp_path / "toy", replace(FRAME, **change))
    with StreamWriter(tmp_path / "toy", FRAME) as writer, pytest.raises(CacheError, match=next(iter(change))):
        writer.add_shard(build_shard("toy", replace(FRAME, **change), [("z", None, {})]))
    assert stream_checks(tmp_path / "toy", STREAM) == before


def test_a_later_release_may_continue_a_stream(tmp_path: Path) -> None:
    fill(tmp_path / "toy", ["a"], replace(FRAME, fsmm_version="0.0.1"))
    fill(tmp_path / "toy", ["b"])
    assert len(stream_keys(tmp_path / "toy", STREAM)) == 2


def test_a_mixture_made_by_hand_is_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "toy", ["a"])
    fill(tmp_path / "other", ["b"], replace(FRAME, weights_sha256="cd"))
    source, target = (shard_paths(tmp_path / d, STREAM)[0] for d in ("other", "toy"))
    source.rename(target.with_name("00001.h5"))
    with pytest.raises(CacheError, match=r"mixes features.*weights_sha256 is 'ab' here and 'cd' there"):
        stream_provenance(tmp_path / "toy", STREAM)


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    script = f"""
        from pathlib import Path
        from fsmm.cache.schema import Provenance
        from fsmm.cache.stream import StreamWriter
        StreamWriter(Path({str(tmp_path / "toy")!r}), Provenance.from_json({FRAME.to_json()!r})).close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with StreamWriter(tmp_path / "toy", FRAME):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Another process is writing stream frame/net" in done.stderr
    assert subprocess.run(command, check=False).returncode == 0


KILLED = """
    import sys
    from pathlib import Path
    import numpy as np
    from fsmm.cache.schema import Provenance
    from fsmm.cache.stream import StreamWriter, stream_keys
    folder, provenance = Path(sys.argv[1]), Provenance.from_json(sys.argv[2])
    with StreamWriter(folder, provenance, max_clips=5) as writer:
        held = stream_keys(folder, writer.stream)
        print("ready", flush=True)
        for i in range(10**6):
            if f"c{i}" not in held:
                writer.add(f"c{i}", np.full((3, 4), float(i)))
"""


def test_killed_at_any_instant_shards_are_whole_or_absent(tmp_path: Path) -> None:
    """Eight kills of the same growing stream; after each, every shard is right and the next run goes on from there."""
    dice = random.Random(0)
    folder = tmp_path / "toy"
    held: list[str] = []
    for _ in range(8):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), FRAME.to_json()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(dice.random() * 0.06)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in shard_paths(folder, STREAM):
            assert header_is_right(path, KIND)
        now = list(stream_keys(folder, STREAM))
        assert now == [f"c{i}" for i in range(len(now))]  # nothing lost, nothing twice, in order
        assert now[: len(held)] == held
        assert len(now) % 5 == 0
        held = now
    assert held, "no shard was ever written: the kills came too early to mean anything"
    for path in shard_paths(folder, STREAM):
        shard = read_shard(path)
        for i, key in enumerate(shard.key):
            assert (shard.clip(i) == float(key[1:])).all()
            assert clip_check(key, True, shard.clip(i)) == int(shard.check[i])


FULL = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from fsmm.cache.schema import Provenance
    from fsmm.cache.stream import StreamWriter
    from fsmm.errors import CacheError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    writer = StreamWriter(Path(sys.argv[1]), Provenance.from_json(sys.argv[2]))
    writer.add("small", np.ones((3, 4)))
    writer.flush()
    writer.add("large", np.ones((20_000, 4)))
    try:
        writer.flush()
    except CacheError as error:
        print(error)
"""


def test_no_space_left_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write call fails in the same way."""
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "toy"), FRAME.to_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "could not be written" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
    assert list(stream_keys(tmp_path / "toy", STREAM)) == ["small"]
    assert {p.name for p in (tmp_path / "toy/streams/frame/net").iterdir()} == {".lock", "00000.h5"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_file_system_is_one_sentence(tmp_path: Path) -> None:
    mount = tmp_path / "tiny"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine does not let us mount a small file system")
    try:
        writer = StreamWriter(mount / "toy", FRAME)
        writer.add("small", np.ones((3, 4)))
        writer.flush()
        writer.add("large", np.ones((40_000, 4)))
        with pytest.raises(CacheError, match="could not be written"):
            writer.close()
        assert list(stream_keys(mount / "toy", STREAM)) == ["small"]
        assert not list((mount / "toy/streams/frame/net").glob("*.tmp"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_leftovers_of_a_killed_writer_are_cleared_by_the_next(tmp_path: Path) -> None:
    fill(tmp_path / "toy", ["a"])
    leftover = tmp_path / "toy/streams/frame/net/.00001.h5.123.tmp"
    leftover.write_bytes(b"half a shard")
    fill(tmp_path / "toy", ["b"])
    assert not leftover.exists()
    assert len(stream_keys(tmp_path / "toy", STREAM)) == 2


def test_memory_stays_bounded_while_many_clips_are_written(tmp_path: Path) -> None:
    """100 MB go through a writer of 4 MB shards; the process may grow by a fraction of that."""
    provenance = replace(FRAME, dim=1024)
    x = np.ones((64, 1024), np.float32)  # 256 kB
    with StreamWriter(tmp_path / "toy", provenance, max_bytes=4 << 20) as writer:
        for i in range(40):
            writer.add(f"warm{i}", x)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(400):
            writer.add(f"c{i}", x)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 40 << 20
