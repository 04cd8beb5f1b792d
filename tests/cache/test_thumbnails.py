"""Pictures of clips follow their clips, are never a reason to fail, and go when their clips go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import synthetic_cache

from fsmm.cache.thumbnails import (
    THUMBNAILS,
    add_thumbnails,
    forget_thumbnails,
    rename_thumbnails,
    thumbnails_of,
)
from fsmm.cache.upkeep.merge import merge
from fsmm.cache.upkeep.remove import plan_clips
from fsmm.errors import CacheError

HELD = {"clip0": b"first", "clip1": b"second", "clip2": b"third"}


def test_pictures_are_kept_replaced_renamed_and_forgotten(tmp_path: Path) -> None:
    assert thumbnails_of(tmp_path, HELD) == {}
    rename_thumbnails(tmp_path, {"clip0": "x"})
    forget_thumbnails(tmp_path, ["clip0"])
    add_thumbnails(tmp_path, {})
    assert not list(tmp_path.iterdir()), "a data set without pictures has no file of them"
    add_thumbnails(tmp_path, HELD)
    add_thumbnails(tmp_path, {"clip1": b"another"})
    assert thumbnails_of(tmp_path, ["clip1", "clip9"]) == {"clip1": b"another"}
    rename_thumbnails(tmp_path, {"clip0": "clip1", "clip1": "clip0", "clip9": "clip8"})
    assert thumbnails_of(tmp_path, ["clip0", "clip1", "clip8"]) == {"clip0": b"another", "clip1": b"first"}
    forget_thumbnails(tmp_path, ["clip2"])
    assert b"third" not in (tmp_path / THUMBNAILS).read_bytes(), "a removed clip leaves no picture behind"


def test_a_damaged_file_is_no_picture_when_read_and_one_sentence_when_written(tmp_path: Path) -> None:
    (tmp_path / THUMBNAILS).write_bytes(b"no table at all" * 100)
    assert thumbnails_of(tmp_path, HELD) == {}
    with pytest.raises(CacheError, match=r"cannot be written .*; make room, or delete"):
        add_thumbnails(tmp_path, HELD)


def test_a_killed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    add_thumbnails(tmp_path, HELD)
    script = (
        "import os, signal, sys; from pathlib import Path; from fsmm.cache.thumbnails import add_thumbnails\n"
        "class Pictures(dict):\n"
        "    def items(self):\n"
        "        yield 'clip0', b'torn'\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "add_thumbnails(Path(sys.argv[1]), Pictures(a=b''))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert thumbnails_of(tmp_path, HELD) == HELD


def test_pictures_go_with_removed_clips_and_come_with_merged_ones(tmp_path: Path) -> None:
    one, other = synthetic_cache(tmp_path / "one", clips=4), tmp_path / "other"
    add_thumbnails(one / "toy", HELD)
    plan_clips(one, "toy", ["clip1"]).act()
    left = {"clip0": b"first", "clip2": b"third"}
    assert thumbnails_of(one / "toy", HELD) == left
    merge([one], other)
    assert thumbnails_of(other / "toy", HELD) == left
