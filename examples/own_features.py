"""Features of your own, evaluated: arrays go into the cache, and every method reads them from there.

    python examples/own_features.py

No video is needed. Here the features are random vectors around a mean of their class; yours come from any network.
Everything is written below the current directory, in ``own-features/``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import fsmm
from fsmm.cache.exchange.importing import import_features
from fsmm.studies.compare import compare

HOME = Path("own-features")
CLASSES, CLIPS, STEPS = 20, 30, 4


def make_features(path: Path) -> None:
    """Write an .npz of two modalities for CLASSES x CLIPS clips; the sound knows less than the picture."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(CLASSES), CLIPS)
    picture = rng.normal(size=(CLASSES, 32))[label][:, None] + 4.0 * rng.normal(size=(len(label), STEPS, 32))
    sound = rng.normal(size=(CLASSES, 16))[label] + 2.0 * rng.normal(size=(len(label), 16))
    np.savez(
        path,
        video_id=[f"video{i:04d}" for i in range(len(label))],
        rgb=picture.astype(np.float32),  # [n, T, D]: a vector for each step in time
        sound=sound.astype(np.float32),  # [n, D]: one vector a clip
        y=label,
        names=[f"class {i}" for i in range(CLASSES)],
    )


def width(interval: float | None) -> str:
    """The text of a half width over clips; None where it has no value, as where every query is right."""
    return "(no interval)" if interval is None else f"± {100 * interval:.1f} over clips"


def main() -> None:
    """Run the steps one after another."""
    HOME.mkdir(exist_ok=True)
    make_features(HOME / "features.npz")

    # 1. A mapping says which array is what (docs/import.md). Its paths are relative to its own folder.
    mapping = {
        "dataset": "mine",
        "source": "features.npz",
        "ids": "video_id",
        "arrays": {"rgb": "frame/my-resnet", "sound": "audio/my-vggish"},
        "label_sets": {
            "action": {
                "label": "y",
                "class_names": "names",
                "splits": {"default": {"seed": 0, "base": 10, "val": 3, "novel": 7}},
            }
        },
    }
    (HOME / "mapping.json").write_text(json.dumps(mapping, indent=2))

    # 2. The import writes the cache; run again, it adds what is missing and refuses what has changed.
    report = import_features(HOME / "mapping.json", HOME / "cache")
    print(f"imported {report.clips} clips: {report.added}")

    # 3. What a method will read: the clips of the novel classes, as tensors.
    bank = fsmm.FeatureBank.load(HOME / "cache", split="novel")
    print(
        f"{len(bank)} clips of {len(bank.class_names)} novel classes, frames {tuple(bank.tables['frame'].x.shape)}"
    )

    # 4. Two methods on the very same 500 tasks.
    protocol = fsmm.Protocol(n_way=5, k_shot=1, n_query=10)
    runs = [
        fsmm.episode_eval(
            method,
            cache=HOME / "cache",
            protocol=protocol,
            episodes=500,
            modalities=["frame", "audio"],
            fusion="ec",
            out=HOME / method,
        )
        for method in ("protonet", "ridge")
    ]
    for run in runs:
        print(f"{run.metrics['method']}: {100 * run.mean:.1f} % {width(run.metrics['ci95_clips'])}")

    # 5. Tasks are shared, so the difference is paired: far fewer episodes settle it.
    (pair,) = compare([run.out for run in runs]).pairs
    found = None if pair.clips is None else pair.clips.ci95
    print(f"{pair.first} minus {pair.second}: {100 * pair.difference:.2f} points {width(found)}")


if __name__ == "__main__":
    main()
