"""Tunes an encoder on the demo clips and measures frozen and tuned features on the same novel tasks, in one go.

    python scripts/tune_check.py                                  a tiny tower of timm with random weights
    python scripts/tune_check.py --model vit_small_patch16_224 --steps 200 --precision bfloat16 --device cuda
    python scripts/tune_check.py --encoder efficientnet-lite0     an encoder of the list, with its own weights

Nothing is fetched for a model of timm: its weights are random (seed 0), so that its figures are about the path and
the speed, not about features. For each objective it prints the loss in the beginning and in the end, the steps a
second, and the accuracy of ProtoNet over the tuned features with the difference to the frozen ones, paired over clips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import fsmm
from fsmm.cache.schema import list_streams
from fsmm.episodes.protocol import Protocol
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.tuning.report import TuneReport
from fsmm.extract.tuning.request import TuneRecipe
from fsmm.machine.device import pick_device

SMALL = DatasetOptions(small=True)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="test_vit", help="a model of timm, which gets random weights")
    options.add_argument(
        "--encoder", help="an encoder of the list, or a reference, in place of a model of timm"
    )
    options.add_argument("--objectives", default="simclr,supervised,joint")
    options.add_argument("--adapt", default="blocks", choices=("blocks", "lora"))
    options.add_argument("--blocks", type=int)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--encoder-rate", type=float)
    options.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    options.add_argument("--shots", type=int, default=1)
    options.add_argument("--episodes", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="auto")
    options.add_argument("--data", type=Path, help="where the demo clips are, or are made")
    options.add_argument("--json", type=Path, help="a file for the rows")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fsmm-tune-") as folder:
        rows = measured(given, Path(folder))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def measured(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of all objectives, printed as they are known; the first one is that of the frozen encoder."""
    frozen = given.encoder or random_tower(given.model, folder)
    recipe = TuneRecipe(
        steps=given.steps,
        adapt=given.adapt,
        blocks=given.blocks,
        encoder_rate=given.encoder_rate,
        precision=given.precision,
    )
    print(
        f"{frozen.partition('@')[0]} on {pick_device(given.device)}, {given.adapt}, {given.precision}",
        flush=True,
    )
    reports = {name: tuned(given, frozen, name, recipe, folder) for name in given.objectives.split(",")}
    began = time.perf_counter()
    encoders = [frozen, *(report.reference for report in reports.values())]
    cache = folder / "cache"
    fsmm.extract(
        "demo",
        given.data,
        cache,
        encoders={"frame": encoders},
        options=SMALL,
        device=given.device,
        thumbnails=False,
    )
    print(f"features of {len(encoders)} encoders in {time.perf_counter() - began:.1f} s", flush=True)
    names = {report.record["name"]: objective for objective, report in reports.items()}
    streams = {
        names.get(s.encoder, "frozen"): str(s) for s in list_streams(cache / "demo") if s.modality == "frame"
    }
    runs = {name: accuracy(given, cache, stream, folder / "runs" / name) for name, stream in streams.items()}
    rows = []
    for name in ("frozen", *reports):
        row = {"encoder": name, "accuracy": runs[name].mean}
        if name in reports:
            row |= beside(folder / "runs" / name, folder / "runs" / "frozen") | figures(reports[name])
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def random_tower(model: str, folder: Path) -> str:
    """A reference to a model of timm with random weights in a file of ``folder``."""
    import torch

    from fsmm.extract.weights.torchvision_care import ensure_torchvision
    from fsmm.machine.tensors import save_tensors

    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    file = folder / "random.safetensors"
    save_tensors(file, timm.create_model(model, pretrained=False, num_classes=0).state_dict())
    return f"timm:{model}@{file}"


def tuned(
    given: argparse.Namespace, encoder: str, objective: Any, recipe: TuneRecipe, folder: Path
) -> TuneReport:
    """One tuning, and its figures on a line."""
    labelled = objective in ("supervised", "joint")
    report = fsmm.encoder_tune(
        encoder,
        "demo",
        objective,
        given.data,
        folder / objective,
        use="auto" if labelled else "base",
        options=SMALL,
        recipe=recipe,
        seed=given.seed,
        device=given.device,
    )
    print(f"{objective}: {json.dumps(figures(report))}", flush=True)
    return report


def figures(report: TuneReport) -> dict[str, Any]:
    """The figures of a tuning itself."""
    loss = report.record["loss"]
    return {
        "loss_first": loss[0],
        "loss_last": loss[-1],
        "steps": report.record["steps"],
        "steps_per_second": round(report.record["steps"] / max(report.tuning_seconds, 1e-9), 2),
        "seconds": round(report.seconds, 1),
        "clips": report.record["clips"],
        "weights_sha256": report.record["weights_sha256"],
    }


def accuracy(given: argparse.Namespace, cache: Path, stream: str, out: Path) -> Any:
    """ProtoNet over one stream, on the same novel tasks for all streams."""
    protocol = Protocol(n_way=5, k_shot=given.shots, n_query=3)
    return fsmm.episode_eval(
        "protonet",
        "demo",
        cache,
        protocol=protocol,
        episodes=given.episodes,
        streams=[stream],
        out=out,
        device="cpu",
    )


def beside(run: Path, frozen: Path) -> dict[str, Any]:
    """The difference of a run to that of the frozen encoder, and its 95 % half widths over clips and over classes."""
    pair = fsmm.compare([run, frozen]).pairs[0]
    over = {"ci95_clips": pair.clips, "ci95_classes": pair.classes}
    return {"difference": pair.difference, **{key: found and found.ci95 for key, found in over.items()}}


if __name__ == "__main__":
    main()
