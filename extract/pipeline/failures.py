"""failures.jsonl lists every clip that could not be read or encoded as a whole, one JSON object a line.

A clip that failed is left alone by later runs until its file changes (size or time of change), or until
``--retry-failed``. When it succeeds after all, its line goes. A clip that was read in part, because its file is
damaged, has not failed; its line stays until its file changes. Listed clips without a file have one line together, and
missing.json beside the log names them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ...cache.locking import FAILURES, locked
from ...errors import CacheError
from ...machine.files import parsed_json, refuse_special, whole_or_absent
from ...machine.json_text import json_text
from ..clip_files import state_of
from ..datasets.base import Source

FILE = "failures.jsonl"
MISSING_LIST = "missing.json"
MISSING, NOTED_ABSENT, PARTIAL = "missing", "absent", "partial"
NO_FAILURE = (MISSING, NOTED_ABSENT, PARTIAL)  # the stages of lines that keep no clip from being read
Key = tuple[str, str]  # clip id, stream
FileState = tuple[int, int]
"""The size of a clip's files in bytes, all together, and their latest time of change in nanoseconds."""
UNSEEN: FileState = (-1, -1)


@dataclass(frozen=True)
class Failure:
    """One line of the log. stage: missing, decode, timeout, crash, prepare, encode, absent or partial.

    id: the clip; "" in the line about all listed clips without a file. stream: the stream that the line concerns; ""
    for the whole clip. An ``absent`` line explains a row that is recorded as absent though the clip has that modality,
    for instance because its sound is too short. A ``partial`` line tells what damage the decoding of a clip survived;
    what is left of the clip was used.
    size, mtime_ns: size and time of change of the clip's files when it failed; -1 if it has no file, or lacked one.
    """

    id: str
    stage: str
    reason: str
    path: str = ""
    stream: str = ""
    size: int = -1
    mtime_ns: int = -1

    @classmethod
    def of(
        cls,
        clip_id: str,
        source: Source | None,
        stage: str,
        reason: str,
        stream: str = "",
        *,
        state: FileState | None = None,
    ) -> Failure:
        """The line about a clip. state: that of its files before they were read; None for as they are now.

        A file that was whole only after it had been read in vain has then changed since, and is tried again.
        """
        path = main_file(source) if source is not None else None
        size, mtime_ns = file_state(source) if state is None else state
        return cls(
            id=clip_id,
            stage=stage,
            reason=reason,
            path=str(path or "") + _part(source),
            stream=stream,
            size=size,
            mtime_ns=mtime_ns,
        )

    def changed(self, source: Source) -> bool:
        """Whether a file of the clip, or the part of it that the clip is, has changed since it failed."""
        is_part = any(mark in self.path for mark in ("#t=", "#fps="))
        same_part = self.path.endswith(_part(source)) and is_part == bool(_part(source))
        return not same_part or (self.size, self.mtime_ns) != file_state(source)


def _part(source: Source | None) -> str:
    """The part of its file that a clip is, as it follows the path; "" for the whole file."""
    return source.part if source is not None else ""


def main_file(source: Source) -> Path | None:
    """The file that stands for a clip: its video, first image, sound or first time series; None if it has no file."""
    series = next((series.path for series in source.series), None)
    return source.video or (source.images[0] if source.images else source.audio or series)


def file_state(source: Source | None) -> FileState:
    """The size and time of change of a clip's files; UNSEEN where there are none, or one is lacking."""
    return UNSEEN if source is None else state_of(source)[:2]


class FailureLog:
    """The log of one dataset, in which the last line about a clip and stream counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> dict[Key, Failure]:
        """The failures by clip and stream. A line that cannot be read (torn by a full disk) is passed over."""
        found: dict[Key, Failure] = {}
        for line in self._lines():
            if (failure := _parse(line)) is not None:
                found[failure.id, failure.stream] = failure
        return found

    def append(self, failures: Iterable[Failure]) -> None:
        """Add whole lines in one write. Raises CacheError if the write fails."""
        text = "".join(json_text(asdict(failure)) + "\n" for failure in failures)
        if not text:
            return
        with self._lock():
            self._append(text)

    def _append(self, text: str) -> None:
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                lines, end = (_mend(handle) + text).encode(), os.fstat(handle).st_size
                if os.write(handle, lines) < len(lines):  # The disk filled up; no half of a line is left.
                    os.ftruncate(handle, end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def forget(self, keys: set[Key]) -> None:
        """Drop the lines about these keys, and all but the last about any other key.

        The file is replaced as a whole or not at all, under its lock, so that no other process loses a line.
        """
        if not self._lines():
            return
        with self._lock():
            self._replace({key: failure for key, failure in self.read().items() if key not in keys})

    def rename(self, moved: Mapping[str, tuple[str, Source]]) -> None:
        """Give the lines about clips that moved their new ids and files, (id, files) by old id."""
        known = self.read() if moved else {}
        if not any(clip in moved for clip, _ in known):
            return
        with self._lock():
            kept: dict[Key, Failure] = {}
            for (clip, stream), line in self.read().items():
                if clip in moved:
                    name, source = moved[clip]
                    line = Failure.of(name, source, line.stage, line.reason, stream=stream)
                kept[line.id, stream] = line
            self._replace(kept)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with locked(self.path.parent, FAILURES):
                yield
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _replace(self, kept: Mapping[Key, Failure]) -> None:
        if len(kept) == len(self._lines()) and kept == self.read():
            return
        text = "".join(json_text(asdict(failure)) + "\n" for failure in kept.values())
        try:
            with whole_or_absent(self.path) as temporary:
                temporary.write_text(text, "utf-8")
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def tell_missing(self, clips: Sequence[str]) -> None:
        """Make one line about all listed clips without a file, and name them in a JSON list beside the log.

        Without such clips there is neither. Raises CacheError if either cannot be written.
        """
        beside = self.path.with_name(MISSING_LIST)
        known = self.read().get(("", ""))
        if not clips:
            self.forget({("", "")} if known is not None else set())
            with suppress(OSError):
                beside.unlink()
            return
        try:
            with whole_or_absent(beside) as temporary:
                temporary.write_text(json_text(list(clips), indent=0) + "\n", "utf-8")
        except OSError as error:
            raise _unwritable(beside, error) from error
        reason = f"{len(clips)} listed clips have no file; {MISSING_LIST} names them"
        line = Failure(id="", stage=MISSING, reason=reason, path=str(beside))
        if line != known:
            self.append([line])

    def _lines(self) -> list[str]:
        try:
            refuse_special(self.path, "list of failures", error=CacheError)
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CacheError(f"{str(self.path)!r} cannot be read ({error.strerror}).") from error


def _parse(line: str) -> Failure | None:
    try:
        failure = Failure(**parsed_json(line))
    except (TypeError, ValueError):
        return None
    return failure if isinstance(failure.id, str) and isinstance(failure.stream, str) else None


def _mend(handle: int) -> str:
    """A line break if the file ends in a torn line, else nothing."""
    end = os.lseek(handle, 0, os.SEEK_END)
    return "\n" if end and os.pread(handle, 1, end - 1) != b"\n" else ""


def _unwritable(path: Path, error: OSError) -> CacheError:
    return CacheError(f"{str(path)!r} could not be written: {error.strerror or error}.")
