"""Clips a second of each stage of extraction alone, of the whole, and the whole's ratio to its bound.

The bound is decoding and preparing spread over all cores, or encoding in the one process, whichever takes longer;
without an accelerator, it is also all of their core-seconds over the cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

CLIPS = 48
_STREAMS = ("frame/efficientnet-lite0", "flow/dis-hof", "audio/yamnet")
_WITHOUT_WEIGHTS = ("flow/dis-hof", "audio/logmel-mfcc")
Row = dict[str, Any]


def run(clips: int = CLIPS, data: Path | None = None, device: str = "auto") -> list[Row]:
    """Rows with stage, clips_per_second, seconds and note; demo clips are made in ``data`` (else a temporary folder).

    Encoders whose weights are not on this machine are left out: nothing is downloaded.
    """
    import torch

    from fsmm.extract.choose import build_encoders, choose_streams
    from fsmm.extract.contract import Sampling
    from fsmm.extract.datasets import load
    from fsmm.extract.datasets.base import DatasetOptions
    from fsmm.extract.encoders import state
    from fsmm.machine.cores import default_workers, half_of_the_cores
    from fsmm.machine.device import pick_device
    from fsmm.machine.memory import keep_freed_memory

    ready = [name for name in _STREAMS if state(name.partition("/")[2]) == "ready"]
    chosen = choose_streams(ready if len(ready) > 1 else _WITHOUT_WEIGHTS, None)
    device = str(pick_device(device))
    keep_freed_memory()
    encoders = build_encoders(chosen, {}, device)
    with tempfile.TemporaryDirectory() as scratch:
        folder = data or Path(scratch) / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        options = DatasetOptions(small=True, limit=clips)
        sources = load("demo", folder, options).sources
        with half_of_the_cores(of=default_workers(), unless=device != "cpu"):
            stages = _stages(sources, encoders, Sampling())
            threads = torch.get_num_threads()
        whole = _whole(
            data=folder,
            cache=Path(scratch) / "cache",
            streams=[str(name) for name in chosen],
            options=options,
            device=device,
        )
    return [*stages, *_against_bound(stages, whole, device, threads)]


def _stages(sources: Any, encoders: Sequence[Any], sampling: Any) -> list[Row]:
    """The rows of each stage by itself in this process, with one thread for decoding and preparing."""
    import cv2

    from fsmm.extract.decoding.decode import decode
    from fsmm.extract.pipeline.worker import READY, prepare_part

    cv2.setNumThreads(1)
    needs = {encoder.need for encoder in encoders}
    decoded, seconds = _timed(lambda: [decode(s, c, needs, sampling) for c, s in sources.items()])
    rows = [_row("decode (1 core)", len(sources), seconds, f"{len(needs)} needs in one pass")]
    for encoder in encoders:
        name = f"{encoder.modality}/{encoder.name}"
        parts, seconds = _timed(partial(_each, partial(prepare_part, encoder), decoded))
        rows.append(_row(f"prepare {name} (1 core)", len(sources), seconds))
        ready = [part.value for part in parts if part.state == READY]
        encoder.encode(ready[:1])  # The first call loads the network.
        size = encoder.batch_clips
        batches = [ready[i : i + size] for i in range(0, len(ready), size)]
        _, seconds = _timed(partial(_each, encoder.encode, batches))
        rows.append(_row(f"encode {name}", len(ready), seconds, f"batches of {size}"))
    return rows


def _whole(data: Path, cache: Path, streams: list[str], options: Any, device: str) -> Any:
    import fsmm

    return fsmm.extract("demo", data, cache, streams, options=options, device=device, quiet=True)


def _against_bound(stages: Sequence[Row], whole: Any, device: str, threads: int) -> list[Row]:
    from fsmm.machine.cores import default_workers

    cores = default_workers()
    workers = sum(row["seconds"] for row in stages if not row["stage"].startswith("encode"))
    encoders = sum(row["seconds"] for row in stages if row["stage"].startswith("encode"))
    bound = max(workers / cores, encoders)
    if device == "cpu":
        bound = max(bound, (workers + encoders * threads) / cores)
    took = (whole.done + whole.failed) / whole.clips_per_second
    note = f"{whole.workers} workers, encoder busy {whole.encoder_busy:.0%}"
    return [
        _row("whole", whole.clips, took, note),
        _row("bound", whole.clips, bound, f"{bound / took:.0%} of it reached on {device} with {cores} cores"),
    ]


def _row(stage: str, clips: int, seconds: float, note: str = "") -> Row:
    rate = clips / seconds if seconds else float("inf")
    return {"stage": stage, "clips_per_second": rate, "seconds": seconds, "note": note}


def _each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [work(item) for item in items]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def main() -> None:
    """Print the table of extraction."""
    print(f"{'stage':42} {'clips/s':>9} {'seconds':>8}  note")
    for row in run():
        print(f"{row['stage']:42} {row['clips_per_second']:9.1f} {row['seconds']:8.2f}  {row['note']}")


if __name__ == "__main__":
    main()
