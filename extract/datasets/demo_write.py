"""Demo clips as files: h264 and AAC in mp4, each whole or absent, made by all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import av
import cv2
import numpy as np

from ...errors import FsmmError
from .demo_plan import Clip, pictures
from .demo_render import render
from .demo_sound import sound_of

_BATCH = 16  # clips a task of a worker
# Starting a process costs about a second; so many frames are rendered in that time.
_FRAMES_WORTH_A_PROCESS = 4_000


def write_clips(
    clips: Sequence[Clip],
    folder: Path,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Make those of the clips that are not yet in ``folder``; returns how many were made.

    workers: processes; None for one a core, fewer where there is little to do. The files are the same for any number.
    progress: called with the count of clips newly finished, also at once with those that were there before.
    Raises FsmmError where the folder cannot be written or the codecs are missing.
    """
    missing = [clip for clip in clips if not (folder / clip.path).is_file()]
    tell = progress or (lambda done: None)
    tell(len(clips) - len(missing))
    if not missing:
        return 0
    handwriting = pictures()
    jobs = [(clip, handwriting[clip.sample]) for clip in missing]
    batches = [jobs[i : i + _BATCH] for i in range(0, len(jobs), _BATCH)]
    if workers is None:
        workers = _useful_workers(missing)
    try:
        if workers > 1:
            batches = _in_processes(batches, folder, workers, tell)
        for batch in batches:
            tell(_write_batch(batch, folder))
    except (OSError, ValueError) as error:  # av's errors are kinds of these
        raise FsmmError(
            f"The demo clips could not be written to {str(folder)!r} ({error}); check free space and permissions, "
            "or name another folder with --data."
        ) from None
    return len(missing)


_Job = tuple[Clip, np.ndarray]


def _in_processes(
    batches: list[list[_Job]], folder: Path, workers: int, tell: Callable[[int], None]
) -> list[list[_Job]]:
    """Make the batches in processes; returns those left over where the processes could not be kept alive."""
    # Processes are spawned, not forked: a fork of a process with threads (torch, OpenCV) may hang.
    context = multiprocessing.get_context("spawn")
    done = set()
    try:
        with ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool:
            tasks = {pool.submit(_write_batch, batch, folder): i for i, batch in enumerate(batches)}
            try:
                for task in as_completed(tasks):
                    tell(task.result())
                    done.add(tasks[task])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        # Spawning needs an importable main module, which scripts on standard input do not have.
        return [batch for i, batch in enumerate(batches) if i not in done]
    return []


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _useful_workers(clips: Iterable[Clip]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, sum(clip.frames for clip in clips) // _FRAMES_WORTH_A_PROCESS), 1)


def _write_batch(batch: Sequence[_Job], folder: Path) -> int:
    for clip, picture in batch:
        write_clip(clip, picture, folder / clip.path)
    return len(batch)


def write_clip(clip: Clip, picture: np.ndarray, path: Path) -> None:
    """Render one clip and write it as mp4 at ``path``, whole or not at all. picture: uint8 [8, 8], 0 to 16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _encode(clip, picture, beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _encode(clip: Clip, picture: np.ndarray, path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=clip.fps, options={"preset": "veryfast", "crf": "23"})
        video.width, video.height, video.pix_fmt = clip.width, clip.height, "yuv420p"
        video.codec_context.thread_count = 1  # the processes already use all cores
        sound = container.add_stream("aac", rate=clip.sound_rate, layout="mono") if clip.has_sound else None
        for image in render(clip, picture):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(sound_of(clip)[None], format="fltp", layout="mono")
            samples.sample_rate = clip.sound_rate
            container.mux(sound.encode(samples))
            container.mux(sound.encode())
