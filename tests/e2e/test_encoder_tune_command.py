"""``fsmm encoder-tune``, and evaluation of what it made: frozen, tuned and joint encoders on the same tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_support import called
from tuning_support import CLASSES, SPLIT, TOWER, striped, tiny_file

from fsmm.extract.encoders.tuned import RECORD
from fsmm.extract.pipeline import division
from fsmm.extract.weights.torchvision_care import ensure_torchvision


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of each of thirteen classes of stripes, and a file with their class split."""
    root = tmp_path_factory.mktemp("striped")
    striped(root / "data", CLASSES, 5)
    (root / "split.json").write_text(json.dumps(SPLIT))
    return root / "data"


def document(*words: object) -> dict:
    done = called(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_frozen_tuned_and_joint_are_compared_in_pairs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny tower is known to the timm of this process alone, so that no worker could load it.
    monkeypatch.setattr(division, "ENCODE_FROM", 1000)
    frozen = f"timm:{TOWER}@{tiny_file(TOWER, tmp_path)}"
    where = ("--data", data, "--class-split", data.parent / "split.json", "--segments", 3, "--device", "cpu")
    made = {
        objective: document(
            *(
                "-q",
                "encoder-tune",
                "--from",
                "folder",
                *where,
                "--encoder",
                frozen,
                "--objective",
                objective,
            ),
            *("--steps", 40, "--encoder-rate", "1e-3", "--workers", 1, "--out", tmp_path / objective, *more),
        )
        for objective, more in {"simclr": ("--use", "base"), "joint": ()}.items()
    }
    assert all(found["loss"][-1] < found["loss"][0] for found in made.values())
    encoders = ",".join([frozen, *(found["reference"] for found in made.values())])
    cache = tmp_path / "cache"
    report = document(
        *("-q", "extract", "--dataset", "folder", *where, "--encoder", f"frame={encoders}"),
        *("--cache", cache, "--workers", 1, "--no-thumbnails"),
    )
    assert report["done"] == 65
    streams = {path.name for path in (cache / "data" / "streams" / "frame").iterdir()}
    tuned = {objective: found["name"] for objective, found in made.items()}
    (untouched,) = streams - set(tuned.values())
    for name, stream in {"frozen": untouched, **tuned}.items():
        document(
            *("-q", "episode-eval", "--method", "protonet", "--cache", cache, "--streams", f"frame/{stream}"),
            *("--n-query", 3, "--episodes", 300, "--out", tmp_path / "runs" / name),
        )
    compared = document("compare", *(tmp_path / "runs" / name for name in ("frozen", *tuned)))
    assert len(compared["pairs"]) == 3
    assert all(pair["clips"]["ci95"] > 0 for pair in compared["pairs"])
    info = document("cache", "info", "--cache", cache, "--dataset", "data")
    assert tuned["joint"] in json.dumps(info)


def test_the_command_as_a_process(data: Path, tmp_path: Path) -> None:
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "tower.pth")
    asked = (
        "--encoder",
        f"timm:test_vit@{tmp_path / 'tower.pth'}",
        "--out",
        tmp_path / "out",
        "--workers",
        1,
    )
    words = ("encoder-tune", "--from", "folder", "--data", data, *asked)
    few = ("--steps", 2, "--batch", 4, "--per-class", 1, "--segments", 1)
    command = [sys.executable, "-m", "fsmm", *map(str, (*words, "--objective", "supervised", *few))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / RECORD).is_file()
    assert "tuned-timm-test-vit-supervised-" in done.stdout
    wrong = called(*words, "--objective", "simclr")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("fsmm: Data set 'data' has no clip without a label; name a folder")
    assert "Traceback" not in wrong.stderr
