"""The checks of scripts/gpu_check.sh, each by its name; `table` joins their rows, `failed` is the row of one that died.

python scripts/gpu_check.py CHECK --out DIR [--limit SECONDS]
python scripts/gpu_check.py table --out DIR
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEADS = ("protonet", "simpleshot", "otam", "ptmap", "eckpn", "tim")
TRAINED = "feat"
STREAM = ["frame/net"]
COSINE = 0.995
"""The least cosine between the features of bfloat16 and of float32."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    check: str
    what: str
    value: float | None = None
    unit: str = ""
    goal: str = ""
    is_met: bool | None = None
    note: str = ""


class Checks:
    """The rows of one check, which are kept as soon as they are known."""

    def __init__(self, name: str, out: Path, limit: float) -> None:
        self.name, self.limit, self.began = name, limit, time.monotonic()
        self._path = out / "rows" / f"{name}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)

    def add(self, what: str, value: float | None = None, unit: str = "", **told: Any) -> None:
        """Keep a row, and print it."""
        row = Row(check=self.name, what=what, value=value, unit=unit, **told)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        print(line_of(row), flush=True)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.limit - (time.monotonic() - self.began)


def device() -> str:
    """The device that is checked: the GPU, or the processor in its place."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def machine(checks: Checks) -> None:
    """What there is: the GPU, the cores, the versions."""
    import torch

    from fsmm.machine.cores import default_workers

    name = torch.cuda.get_device_name() if device() == "cuda" else "no GPU"
    checks.add(f"GPU: {name}")
    checks.add("cores", default_workers(), note=platform.processor() or platform.machine())
    for package in ("torch", "numpy", "h5py", "opencv-python-headless", "av", "timm", "torchvision"):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "is not installed"
        checks.add(f"{package} {found}")


def arithmetic(checks: Checks) -> None:
    """The features of the GPU beside those of the processor, and of bfloat16 beside float32."""
    import numpy as np

    from benchmarks.random_weights import save_random
    from fsmm.extract.encoders import build

    place = Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    networks = (("efficientnet-lite0", 224, 8), ("i3d-rgb", 224, 32))
    for name, size, steps in networks if device() == "cuda" else networks[:1]:
        weights = save_random(name, place)
        clips = [smooth(rng, steps, size) for _ in range(3)]
        found = {}
        for where, precision in (("cpu", "float32"), (device(), "float32"), (device(), "bfloat16")):
            encoder = build(name, weights=weights, device=where, precision=precision)
            found[where, precision] = encoder.encode([encoder.prepare(clip) for clip in clips])
        here = found["cpu", "float32"]
        exact = least_cosine(here, found[device(), "float32"])
        checks.add(
            f"{name} (random): least cosine of the GPU's features to the CPU's, float32",
            exact,
            goal=">= 0.9999",
            is_met=exact >= 0.9999,
        )
        close = least_cosine(here, found[device(), "bfloat16"])
        checks.add(f"{name} (random): the same, bfloat16", close, goal=f">= {COSINE}", is_met=close >= COSINE)


def smooth(rng: Any, steps: int, size: int) -> Any:
    """Random frames uint8 [steps, 1, size, size, 3] with large patches of colour."""
    import numpy as np

    coarse = rng.integers(0, 256, (steps, 1, size // 16, size // 16, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 16, 2), 16, 3)


def least_cosine(one: Sequence[Any], other: Sequence[Any]) -> float:
    """The smallest cosine between steps of features [T, D]."""
    import numpy as np

    def of_steps(a: Any, b: Any) -> Any:
        return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)

    return float(min(of_steps(a.astype(np.float64), b.astype(np.float64)).min() for a, b in zip(one, other)))


def memory(checks: Checks) -> None:
    """A batch that does not fit into the GPU's memory is halved, and the features stay."""
    import numpy as np
    import torch

    from benchmarks.random_weights import save_random
    from fsmm.extract.encoders import build

    if device() == "cpu":
        checks.add("a batch that does not fit is halved", note="no GPU")
        return
    weights = save_random("efficientnet-lite0", Path(tempfile.mkdtemp()))
    rng = np.random.default_rng(0)
    clips = [smooth(rng, 8, 224) for _ in range(64)]
    roomy = build("efficientnet-lite0", weights=weights, device="cuda")
    narrow = build("efficientnet-lite0", weights=weights, device="cuda")
    prepared = [roomy.prepare(clip) for clip in clips]
    expected = roomy.encode(prepared)
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((600 << 20) / whole)
    found = narrow.encode(prepared)
    items = int(getattr(narrow, "gpu_items", 0))
    checks.add(
        "frames of a pass that fit into 600 MB of the GPU", items, goal="< 256", is_met=0 < items < 256
    )
    cosine = least_cosine(expected, found)
    checks.add(
        "least cosine to the features of whole batches", cosine, goal=">= 0.9999", is_met=cosine >= 0.9999
    )


def heads(checks: Checks) -> None:
    """The same episodes on the processor and on the GPU: accuracy, episode by episode, and episodes a second."""
    import numpy as np

    import fsmm

    cache = made_cache(Path(tempfile.mkdtemp()))
    for name in HEADS if device() == "cuda" else HEADS[:4]:
        if checks.left < 8:
            checks.add(f"{name}: the same accuracy", note="left out: the time was up")
            continue
        runs, rates = {}, {}
        for where in dict.fromkeys(("cpu", device())):
            began = time.perf_counter()
            settings = {"train.steps": "0"} if name == "eckpn" else None
            runs[where] = fsmm.episode_eval(
                name, cache=cache, episodes=100, streams=STREAM, device=where, settings=settings
            )
            rates[where] = 100 / (time.perf_counter() - began)
        one, other = runs["cpu"], runs[device()]
        gap = abs(float(np.mean(one.accuracy)) - float(np.mean(other.accuracy)))
        checks.add(
            f"{name}: accuracy of 100 episodes on the GPU minus on the CPU, points",
            100 * gap,
            goal="<= 0.05",
            is_met=100 * gap <= 0.05,
            note=f"{100 * float(np.mean(one.accuracy)):.2f} %; start included, "
            f"{rates['cpu']:.0f} and {rates[device()]:.0f} episodes/s",
        )
    began = time.perf_counter()
    fsmm.episode_eval("protonet", cache=cache, episodes=10_000, streams=STREAM, device=device())
    checks.add("protonet: episodes/s on the GPU, start included", 10_000 / (time.perf_counter() - began))


def training(checks: Checks) -> None:
    """A head trains on the GPU, and what it has learned gives the same accuracy on the processor."""
    import numpy as np

    import fsmm

    place = Path(tempfile.mkdtemp())
    cache = made_cache(place / "cache")
    settings = {"train.steps": "60", "train.evaluate_every": "30", "train.evaluate_episodes": "50"}
    began = time.perf_counter()
    given: dict[str, Any] = {"cache": cache, "episodes": 300, "settings": settings, "out": place / "run"}
    given["streams"] = STREAM
    there = fsmm.episode_eval(TRAINED, device=device(), **given)
    checks.add(
        f"{TRAINED}: seconds of 60 steps of training and 300 episodes", time.perf_counter() - began, "s"
    )
    here = fsmm.episode_eval(TRAINED, device="cpu", **given)
    gap = 100 * abs(float(np.mean(here.accuracy)) - float(np.mean(there.accuracy)))
    checks.add(
        f"{TRAINED}: accuracy of the head trained there, on the CPU minus on the GPU, points",
        gap,
        goal="<= 0.1",
        is_met=gap <= 0.1,
        note=f"{100 * float(np.mean(here.accuracy)):.2f} %",
    )


def made_cache(root: Path) -> Path:
    """A cache of 18 classes of 24 clips with features of two modalities, drawn at random; the same every time."""
    import numpy as np

    from fsmm.cache.catalog import Catalog, LabelSet
    from fsmm.cache.schema import Provenance
    from fsmm.cache.stream import StreamWriter

    rng, classes, clips = np.random.default_rng(0), 18, 24
    label = np.repeat(np.arange(classes), clips)
    names, ids = [f"class {i}" for i in range(classes)], [f"clip{i}" for i in range(len(label))]
    labels = LabelSet(names, label, splits={"default": np.repeat([1, 2, 3], classes // 3)})
    Catalog("made", ids, {"event": labels}, "event", attrs={"synthetic": "true"}).write(root / "made")
    for modality, steps, dim in (("frame", 8, 512), ("audio", 4, 128)):
        means = rng.normal(size=(classes, dim))
        with StreamWriter(root / "made", Provenance("net", modality, dim, dtype="float32")) as writer:
            for i, clip in enumerate(ids):
                x = 0.35 * means[label[i]] + rng.normal(size=(steps, dim)) + rng.normal(size=dim)
                writer.add(clip, x.astype(np.float32), {"duration": 1.0})
    with StreamWriter(root / "made", Provenance("net", "word", 64, axis="class", dtype="float32")) as writer:
        for name in names:
            writer.add(f"event/{name}", rng.normal(size=(1, 64)).astype(np.float32))
    return root


def usual(checks: Checks) -> None:
    """EfficientNet-Lite0 on the GPU; flow and sound in the workers."""
    sound = "audio=logmel-mfcc"
    extraction(checks, random=("efficientnet-lite0",), encoders=("flow=dis-hof", sound), seconds=6)


def large(checks: Checks) -> None:
    """A network that keeps a GPU busy."""
    timm_or_nothing(checks, ("timm:vit_large_patch14_clip_224",), seconds=18)


def video(checks: Checks) -> None:
    """I3D over 32 frames a clip."""
    if device() == "cpu":
        checks.add("extraction by i3d-rgb", note="no GPU: a clip takes seconds")
        return
    extraction(checks, random=("i3d-rgb",), seconds=6)


def shared(checks: Checks) -> None:
    """Two networks share one decoding."""
    timm_or_nothing(checks, ("timm:vit_base_patch32_clip_224", "i3d-rgb"), seconds=6)


def timm_or_nothing(checks: Checks, names: tuple[str, ...], seconds: float) -> None:
    """An extraction by random networks, of which some are timm's; a row says so where timm is missing."""
    if find_spec("timm") is None:
        checks.add(f"extraction by {', '.join(names)}", note="left out: timm is not installed")
        return
    if device() == "cpu":
        names = ("timm:vit_tiny_patch16_224", "efficientnet-lite0")[: len(names)]
    extraction(checks, random=names, seconds=seconds)


def extraction(
    checks: Checks, *, random: tuple[str, ...], seconds: float, encoders: tuple[str, ...] = ()
) -> None:
    """The rows of benchmarks/extract.py, with random weights.

    seconds: how long the extraction is to take, by the rates of its stages that are measured first.
    """
    from benchmarks.extract import Plan, rows_of

    is_gpu = device() == "cuda"
    plan = Plan(
        clips=48 if is_gpu else 4,
        copies=200 if is_gpu else 1,
        seconds=seconds if is_gpu else None,
        encoders=encoders,
        random=random,
        device=device(),
        plain_clips=16 if is_gpu else 2,
    )
    for row in rows_of(plan):
        rate, frames = row["clips_per_second"], row["frames_per_second"]
        if rate is None:
            met = {"met": True, "missed": False}.get(row["note"])
            goal = row["goal"] if is_gpu else ""
            checks.add(row["stage"], row["value"], goal=goal, is_met=met if is_gpu else None)
            continue
        told = "" if frames is None else f"{frames:,.0f} frames/s"
        checks.add(row["stage"], rate, "clips/s", note="; ".join(filter(None, (told, row["note"]))))


def tuning(checks: Checks) -> None:
    """An encoder is tuned on made clips, alone and with a head: its loss falls, and both devices run it alike."""
    import numpy as np

    import fsmm
    from benchmarks.random_weights import save_random
    from fsmm.extract.datasets.base import DatasetOptions
    from fsmm.extract.encoders import build
    from fsmm.extract.encoders.tuned import parse_reference
    from fsmm.extract.tuning.request import TuneRecipe

    is_gpu = device() == "cuda"
    place = Path(tempfile.mkdtemp())
    weights = save_random("efficientnet-lite0", place)
    raw = build("efficientnet-lite0", weights=weights).prepare(smooth(np.random.default_rng(0), 8, 224))
    recipes = (
        (
            "simclr",
            TuneRecipe(steps=40 if is_gpu else 1, batch=16 if is_gpu else 2, frames=1, encoder_rate=3e-4),
        ),
        ("joint", TuneRecipe(steps=40 if is_gpu else 1, n_way=3, n_query=2, frames=1, encoder_rate=3e-4)),
    )
    for objective, recipe in recipes[: 2 if is_gpu else 1]:
        report = fsmm.encoder_tune(
            "efficientnet-lite0",
            "demo",
            objective,
            place / "demo",
            place / objective,
            use="auto" if objective == "joint" else "both",
            weights=weights,
            options=DatasetOptions(small=True),
            recipe=recipe,
            segments=2,
            device=device(),
            quiet=True,
        )
        curve = report.record["loss"]
        first, last = float(np.mean(curve[:3])), float(np.mean(curve[-3:]))
        checks.add(
            f"{objective}: loss in the end over that in the beginning",
            last / first,
            goal="< 1" if is_gpu else "",
            is_met=last < first if is_gpu else None,
            note=f"{first:.3f}, then {last:.3f}; {recipe.steps / report.tuning_seconds:.1f} steps/s",
        )
        reference = parse_reference("frame", report.reference)
        here, there = (reference.build(where).encode([raw]) for where in ("cpu", device()))
        cosine = least_cosine(here, there)
        checks.add(
            f"{objective}: least cosine of the tuned features of the GPU to the CPU's",
            cosine,
            goal=">= 0.9999",
            is_met=cosine >= 0.9999,
        )


def compiled(checks: Checks) -> None:
    """A network that torch compiles first: what that takes, how many clips it makes, and the same features."""
    import numpy as np

    from benchmarks.extract import rate_on_gpu
    from benchmarks.random_weights import save_random
    from fsmm.extract.choose import compile_networks
    from fsmm.extract.encoders import build

    if device() == "cpu":
        checks.add("compiled networks", note="no GPU")
        return
    place, rng, name = Path(tempfile.mkdtemp()), np.random.default_rng(0), "efficientnet-lite0"
    weights = save_random(name, place)
    usual, quick = (build(name, weights=weights, device="cuda", precision="bfloat16") for _ in range(2))
    clips = [usual.prepare(smooth(rng, 8, 224)) for _ in range(32)]
    expected = usual.encode(clips)
    began = time.perf_counter()
    compile_networks([quick], "cuda")
    found = quick.encode(clips)
    checks.add(f"{name} (random): seconds until the first compiled batch", time.perf_counter() - began, "s")
    cosine = least_cosine(expected, found)
    what = f"{name} (random): least cosine of compiled to usual features, bfloat16"
    checks.add(what, cosine, goal=f">= {COSINE}", is_met=cosine >= COSINE)
    rates = [rate_on_gpu(encoder, clips, at_least=1.5) for encoder in (usual, quick)]
    checks.add(f"{name} (random) compiled", rates[1], "clips/s", note=f"{rates[0]:.0f} as usual")


CHECKS: Mapping[str, Callable[[Checks], None]] = {
    check.__name__: check
    for check in (machine, arithmetic, memory, heads, training, large, usual, video, shared, tuning, compiled)
}


def failed(out: Path, name: str, status: int) -> None:
    """Keep the row of a check that ended by an error or by its time limit, with the last line that it printed."""
    log = out / f"{name}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    why = "its time was up" if status in (124, 137) else f"it ended with status {status}"
    last = lines[-1][:300] if lines else "it printed nothing"
    row = Row(check=name, what="the check did not end well", is_met=False, note=f"{why}: {last}")
    path = out / "rows" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def table(out: Path) -> None:
    """Write table.md and table.json from the rows of all checks, in the order of the checks."""
    rows = []
    for name in CHECKS:
        path = out / "rows" / f"{name}.jsonl"
        if path.is_file():
            rows += [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    (out / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
    cells = ["| check | what | figure | goal | met | note |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        met = {None: "", True: "yes", False: "NO"}[row.is_met]
        figure = "" if row.value is None else f"{row.value:,.4g} {row.unit}".strip()
        texts = (row.check, row.what, figure, row.goal, met, row.note)
        cells.append("| " + " | ".join(text.replace("|", "/") for text in texts) + " |")
    (out / "table.md").write_text("\n".join(cells) + "\n", "utf-8")
    missed = [row for row in rows if row.is_met is False]
    print(f"{len(rows)} rows, {len(missed)} of them missed their goal: {out / 'table.md'}")
    for row in missed:
        print(f"  {line_of(row)}")


def line_of(row: Row) -> str:
    """A row as a line for people."""
    value = "" if row.value is None else f" {row.value:,.4g} {row.unit}".rstrip()
    goal = f" (goal {row.goal}: {'met' if row.is_met else 'MISSED'})" if row.is_met is not None else ""
    return f"{row.what}:{value}{goal} {row.note}".rstrip()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("step", choices=[*CHECKS, "table", "failed"])
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--limit", type=float, default=60.0)
    options.add_argument("--check", default="")
    options.add_argument("--status", type=int, default=1)
    given = options.parse_args()
    sys.path.append(str(ROOT))  # for benchmarks, which is no part of the installed package
    if given.step == "table":
        table(given.out)
    elif given.step == "failed":
        failed(given.out, given.check, given.status)
    else:
        CHECKS[given.step](Checks(given.step, given.out, given.limit))


if __name__ == "__main__":
    main()
