"""A first attempt that stores nothing leaves no data set, and nothing that was there before is touched."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.attempt import first_attempt
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance, list_datasets
from fsmm.cache.stream import StreamWriter
from fsmm.errors import CacheError


def write_catalog(folder: Path) -> None:
    Catalog("toy", ["a", "b"], {"kind": LabelSet(["x"], np.array([0, 0]))}, "kind").write(folder)


def attempt(folder: Path, *, rows: bool, error: BaseException | None, whole: bool = False) -> None:
    with first_attempt(folder, is_worth_keeping=bool, whole=whole):
        write_catalog(folder)
        writer = StreamWriter(folder, Provenance("net", "frame", 2))
        if rows:
            writer.add("a", np.ones((1, 2)))
        writer.close()
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [None, CacheError("no"), KeyboardInterrupt()])
def test_without_a_row_nothing_is_left(tmp_path: Path, error: BaseException | None) -> None:
    folder = tmp_path / "deep" / "cache" / "toy"
    if error is None:
        attempt(folder, rows=False, error=None)
    else:
        with pytest.raises(type(error)):
            attempt(folder, rows=False, error=error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [None, CacheError("no"), KeyboardInterrupt()])
def test_rows_are_kept(tmp_path: Path, error: BaseException | None) -> None:
    if error is None:
        attempt(tmp_path / "toy", rows=True, error=None)
    else:
        with pytest.raises(type(error)):
            attempt(tmp_path / "toy", rows=True, error=error)
    assert list_datasets(tmp_path) == ["toy"]


def test_a_whole_attempt_keeps_rows_of_an_interruption_and_not_of_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path / "toy", rows=True, error=KeyboardInterrupt(), whole=True)
    assert list_datasets(tmp_path) == ["toy"]
    with pytest.raises(CacheError):
        attempt(tmp_path / "other", rows=True, error=CacheError("no"), whole=True)
    assert list_datasets(tmp_path) == ["toy"]
    assert not (tmp_path / "other").exists()


def test_a_data_set_that_was_there_is_left_alone(tmp_path: Path) -> None:
    write_catalog(tmp_path / "toy")
    with pytest.raises(CacheError):
        attempt(tmp_path / "toy", rows=True, error=CacheError("no"), whole=True)
    assert (tmp_path / "toy" / "catalog.h5").is_file()
    assert (tmp_path / "toy" / "streams" / "frame" / "net" / "00000.h5").is_file()


def test_lists_of_failures_and_other_peoples_files_stay(tmp_path: Path) -> None:
    with first_attempt(tmp_path / "toy", is_worth_keeping=bool):
        write_catalog(tmp_path / "toy")
        (tmp_path / "toy" / "failures.jsonl").write_text("{}\n")
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["failures.jsonl"]


def test_nothing_is_removed_while_another_process_writes(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from fsmm.cache.schema import Provenance
        from fsmm.cache.stream import StreamWriter
        writer = StreamWriter(Path(sys.argv[1]), Provenance("net", "frame", 2))
        print("ready", flush=True)
        sys.stdin.readline()
        writer.add("theirs", None)
        writer.close()
    """
    folder = tmp_path / "toy"
    with first_attempt(folder, is_worth_keeping=bool):
        write_catalog(folder)
        other = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    assert list_datasets(tmp_path) == ["toy"]
    other.communicate("go\n", timeout=60)
    assert other.returncode == 0
    assert (folder / "streams" / "frame" / "net" / "00000.h5").is_file()
