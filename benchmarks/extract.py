"""Clips and frames a second of each stage of extraction alone and of all together, beside a plain loop.

    python -m benchmarks.extract                                          the usual encoders
    python -m benchmarks.extract --encoder frame=efficientnet-lite0-int8 --encoder flow=dis-hof --encoder audio=yamnet
    python -m benchmarks.extract --random timm:vit_large_patch14_clip_224 --device cuda --clips 96 --copies 20

The plain loop (plain_loop.py) and the extraction take turns, ``--rounds`` times, and the ratios of the rounds give the
median. Everything of an extraction is counted: the start of the workers, the networks loaded in each, the passports.
Beside the figures stand the goals: at least 1.6 times the plain loop on two cores (with an int8 frame encoder, 3 times
the plain loop that has the float one; on a GPU, 5 times), a wall time of at most 1.15 times the core-seconds of all
stages over the cores, and a GPU that works 90 % of the time where decoding allows. Nothing is downloaded: encoders
whose weights are not here are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .extract_rows import Row, Turn, figure_row, is_int8, rate_row, rows_against_goals, with_floats

CLIPS = 48
_SAMPLE = 24  # clips on which the stages are measured alone
_WORTH = 1e-3  # seconds a clip from which on a stage has a row
_USUAL = ("frame=efficientnet-lite0", "flow=dis-hof", "audio=yamnet")
_WITHOUT_WEIGHTS = ("flow=dis-hof", "audio=logmel-mfcc")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    clips: int = CLIPS
    """Demo clips that are made."""
    copies: int = 1
    """Files that each of them becomes; at most so many where ``seconds`` is given."""
    seconds: float | None = None
    """How long the extraction is to take, by the rates of its stages alone, if ``copies`` suffice."""
    encoders: tuple[str, ...] = ()
    """Encoders as modality=name; none for the usual ones."""
    random: tuple[str, ...] = ()
    """Frame encoders that get random weights, such as timm:vit_base_patch32_clip_224."""
    device: str = "auto"
    """The device that encodes."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The arithmetic of the extraction; the plain loop has float32."""
    workers: int | None = None
    """The workers of the extraction; None for one a core."""
    rounds: int = 1
    """The turns of plain loop and extraction."""
    plain_clips: int | None = None
    """The clips of the plain loop; None for all."""


def run(plan: Plan | None = None) -> list[Row]:
    """Rows with stage, clips_per_second, frames_per_second, value, goal and note; None where it has none."""
    return list(rows_of(plan or Plan()))


def rows_of(plan: Plan) -> Iterator[Row]:
    """The same rows, each as soon as it is measured."""
    from fsmm.machine.cores import default_workers
    from fsmm.machine.device import pick_device
    from fsmm.machine.memory import keep_freed_memory

    device = str(pick_device(plan.device))
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        chosen, weights = _chosen(plan, place / "weights")
        sources = _clips(place, plan.clips)
        encoders = _built(chosen, weights, device, plan.precision)
        rates: dict[str, float] = {}
        yield from _stages(sources, encoders, device, rates)
        _copy(sources, _copies(plan, rates, default_workers()))
        for encoder in encoders:
            if hasattr(encoder, "spec"):
                encoder.spec = replace(encoder.spec, precision="float32")  # for the plain loop
        usual = _built(with_floats(chosen), weights, device, "float32") if is_int8(chosen) else encoders
        turns = []
        for number in range(plan.rounds):
            rate = _plain(sources, plan, usual, place / f"npy{number}")
            yield rate_row("plain loop" if usual is encoders else "plain loop with float frames", rate, usual)
            if usual is not encoders:
                own = _plain(sources, plan, encoders, place / f"npy-own{number}")
                yield rate_row("plain loop with int8 frames", own, encoders)
            turns.append(_turn(plan, place / f"cache{number}", chosen, weights, device, plain=rate))
            yield rate_row("together", turns[-1].rate, encoders, note=_told(turns[-1].report))
        yield from rows_against_goals(turns, chosen, device, rates)


def _turn(
    plan: Plan,
    cache: Path,
    chosen: Mapping[str, Sequence[str]],
    weights: Mapping[str, Path],
    device: str,
    *,
    plain: float,
) -> Turn:
    import fsmm

    from .watch import Watch

    with Watch() as watch:
        report = fsmm.extract(
            "folder",
            cache.parent / "clips",
            cache,
            encoders=chosen,
            weights=weights,
            device=device,
            precision=plan.precision,
            workers=plan.workers,
            quiet=True,
        )
    return Turn(plain=plain, report=report, watch=watch)


def _chosen(plan: Plan, folder: Path) -> tuple[dict[str, list[str]], dict[str, Path]]:
    """The encoders by modality, and the random weights of those that are no references."""
    from fsmm.extract.encoders import state

    from .random_weights import save_random

    chosen: dict[str, list[str]] = {}
    weights: dict[str, Path] = {}
    for name in plan.random:
        path = save_random(name, folder)
        chosen.setdefault("frame", []).append(f"{name}@{path}" if ":" in name else name)
        weights |= {} if ":" in name else {name: path}
    given = plan.encoders
    if not given and not plan.random:
        ready = [name for name in _USUAL if state(name.partition("=")[2]) == "ready"]
        given = tuple(ready) if len(ready) > 1 else _WITHOUT_WEIGHTS
    for one in given:
        modality, _, name = one.partition("=")
        chosen.setdefault(modality, []).append(name)
    return chosen, weights


def _clips(place: Path, count: int) -> dict[str, Any]:
    """Demo clips as a data set of the kind "folder"; by id."""
    from fsmm.extract.datasets import load
    from fsmm.extract.datasets.base import DatasetOptions

    (place / "demo").mkdir()
    made = load("demo", place / "demo", DatasetOptions(small=True, limit=count)).sources
    for number, source in enumerate(made.values()):
        folder = place / "clips" / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        assert source.video is not None, "every clip of the demo set has a video"
        os.link(source.video, folder / f"{number:05d}{source.video.suffix}")
    return dict(load("folder", place / "clips", DatasetOptions()).sources)


def _copies(plan: Plan, rates: Mapping[str, float], cores: int) -> int:
    """The files that each clip becomes. rates: clips a second by stage; those of "cores" add up over the cores."""
    if plan.seconds is None:
        return plan.copies
    fastest = min(rates["encoders"], rates["one core"] * (plan.workers or cores))
    return int(min(max(plan.seconds * fastest // plan.clips, 1), plan.copies))


def _copy(sources: Mapping[str, Any], copies: int) -> None:
    """Links to the files of clips, so that each is there so many times."""
    for source in sources.values():
        for copy in range(1, copies):
            os.link(source.video, source.video.with_stem(f"{source.video.stem}-{copy:03d}"))


def _built(
    chosen: Mapping[str, Sequence[str]], weights: Mapping[str, Path], device: str, precision: str
) -> list[Any]:
    from fsmm.extract.choose import build_encoders, choose_streams, references_of

    streams = choose_streams(None, chosen)
    if precision == "auto":
        precision = "float32" if device == "cpu" else "bfloat16"
    return build_encoders(
        streams, weights, device, references_of(chosen), precision=dict.fromkeys(streams, precision)
    )


def _stages(
    sources: Mapping[str, Any], encoders: Sequence[Any], device: str, rates: dict[str, float]
) -> Iterator[Row]:
    """The rows of each stage by itself: decoding and preparing on one core, encoding on one core or on the GPU.

    rates: gets the clips a second of what one core does, and of the encoders on the GPU that share it.
    """
    import cv2
    import torch

    from fsmm.extract.contract import Sampling
    from fsmm.extract.decoding.decode import decode
    from fsmm.extract.pipeline.worker import READY, prepare_part

    from .watch import Watch

    threads, some = torch.get_num_threads(), dict(list(sources.items())[:_SAMPLE])
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    needs = {encoder.need for encoder in encoders}
    decoded, seconds = _timed(lambda: [decode(s, c, needs, Sampling()) for c, s in some.items()])
    yield rate_row("decode (1 core)", len(some) / seconds, encoders, note=f"{len(needs)} needs in one pass")
    of_core, of_gpu = seconds / len(some), 0.0
    for encoder in encoders:
        name = f"{encoder.modality}/{encoder.name}"
        parts, seconds = _timed(partial(_each, partial(prepare_part, encoder), decoded))
        of_core += seconds / len(some)
        if seconds > _WORTH * len(some):
            yield rate_row(f"prepare {name} (1 core)", len(some) / seconds, [encoder])
        ready = [part.value for part in parts if part.state == READY]
        if not ready:
            continue
        on_gpu = device != "cpu" and getattr(encoder, "on_gpu", True)
        with Watch() as watch:
            rate = rate_on_gpu(encoder, ready) if on_gpu else _rate_on_core(encoder, ready)
        if on_gpu:
            of_gpu += 1 / rate
        else:
            of_core += 1 / rate
        if rate < 1 / _WORTH:
            yield rate_row(f"encode {name} ({device if on_gpu else '1 core'})", rate, [encoder])
        if on_gpu and (busy := watch.steady_gpu_busy()) is not None:
            yield figure_row(f"GPU busy while {name} runs alone, % (nvidia-smi)", busy)
    torch.set_num_threads(threads)
    rates.update({"one core": 1 / of_core, "encoders": 1 / of_gpu if of_gpu else float("inf")})


def _rate_on_core(encoder: Any, ready: Sequence[Any]) -> float:
    encoder.encode(ready[:1])  # The first call loads the network.
    _, seconds = _timed(partial(_each, lambda value: encoder.encode([value]), ready))
    return len(ready) / seconds


def rate_on_gpu(encoder: Any, ready: Sequence[Any], at_least: float = 3.0) -> float:
    """Clips a second of the GPU, which two threads feed with full batches for some seconds."""
    size = encoder.batch_clips
    batch = (list(ready) * -(-size // len(ready)))[:size]
    encoder.encode(batch)
    began, done = time.perf_counter(), 0
    with ThreadPoolExecutor(2) as pool:
        while time.perf_counter() - began < at_least:
            done += sum(len(made) for made in pool.map(encoder.encode, [batch] * 4))
        return done / (time.perf_counter() - began)


def _plain(sources: Mapping[str, Any], plan: Plan, encoders: Sequence[Any], out: Path) -> float:
    """Clips a second of the plain loop, whose networks are loaded beforehand."""
    from .plain_loop import plain_loop

    some = dict(list(sources.items())[: plan.plain_clips])
    plain_loop(dict(list(some.items())[:1]), encoders, 8, out)
    _, seconds = _timed(lambda: plain_loop(some, encoders, 8, out))
    return len(some) / seconds


def _told(report: Any) -> str:
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items())
    return f"{report.done} clips, {report.workers} workers; {stages}"


def _each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [work(item) for item in items]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def line_of(row: Row) -> str:
    """A row as a line for people."""
    cells = [
        "" if row[key] is None else f"{row[key]:,.2f}"
        for key in ("clips_per_second", "frames_per_second", "value")
    ]
    return f"{row['stage']:58} {cells[0]:>9} {cells[1]:>9} {cells[2]:>9}  {row['goal']} {row['note']}"


def main() -> None:
    """Print the table of extraction."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--clips", type=int, default=CLIPS)
    options.add_argument("--copies", type=int, default=1)
    options.add_argument("--encoder", action="append", default=[], dest="encoders", metavar="MODALITY=NAME")
    options.add_argument("--random", action="append", default=[], metavar="NAME")
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    options.add_argument("--workers", type=int)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--plain-clips", type=int)
    options.add_argument("--json", type=Path, help="a file for the rows")
    given = vars(options.parse_args())
    path = given.pop("json")
    plan = Plan(encoders=tuple(given.pop("encoders")), random=tuple(given.pop("random")))
    print(f"{'stage':58} {'clips/s':>9} {'frames/s':>9} {'figure':>9}  goal, note")
    rows = []
    for row in rows_of(replace(plan, **given)):
        rows.append(row)
        print(line_of(row), flush=True)
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
