"""For tests of tuned encoders: two tiny networks that timm knows, clips of stripes, and decoding in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extract_support import load_makers
from torch import nn

from fsmm.extract.pipeline.worker import Job, Outcome, Setup, carry_out
from fsmm.extract.weights.torchvision_care import ensure_torchvision

TOWER, NET = "fsmm_tiny_vit", "fsmm_tiny_net"
SIDE = 32
SPLIT = {"base": [f"c{i}" for i in range(6)], "val": ["c6", "c7"], "novel": [f"c{i}" for i in range(8, 13)]}
CLASSES = [name for names in SPLIT.values() for name in names]
_CONFIG = {
    "input_size": (3, SIDE, SIDE),
    "crop_pct": 1.0,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": (0.5,) * 3,
    "std": (0.25,) * 3,
    "classifier": "head",
}


class TinyNet(nn.Module):
    """A convolutional network with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 16
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(x)).mean((-2, -1))


def _tower(**given: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    classes = given.get("num_classes", 10)
    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return VisionTransformer(**sizes, num_classes=classes)


def fsmm_tiny_vit(pretrained: bool = False, **given: Any) -> nn.Module:
    return _known_to_timm(_tower(**given))


def fsmm_tiny_net(pretrained: bool = False, **given: Any) -> nn.Module:
    return _known_to_timm(TinyNet())


def _known_to_timm(model: Any) -> nn.Module:
    model.pretrained_cfg = model.default_cfg = dict(_CONFIG)
    return model


def tiny_file(name: str, folder: Path) -> Path:
    """Random weights of one of the tiny networks, which timm knows from now on."""
    ensure_torchvision()
    import timm
    from safetensors.torch import save_file

    if not timm.is_model(name):
        timm.models.register_model({TOWER: fsmm_tiny_vit, NET: fsmm_tiny_net}[name])
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file(dict(timm.create_model(name, num_classes=0).state_dict()), path)
    return path


def striped(root: Path, classes: Sequence[str], each: int) -> list[Path]:
    """Short videos of stripes in class folders; the angle of the stripes is the class, all else is chance."""
    makers, chance, made = load_makers(), np.random.default_rng(0), []
    for name in classes:
        for i in range(each):
            angle = np.pi * CLASSES.index(name) / len(CLASSES) if name in CLASSES else 0.0
            ink, paper = chance.integers(0, 256, (2, 3))
            phase, wide = chance.random() * 6.28, 5 + 3 * chance.random()
            path = root / name / f"{name}-{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)

            def picture(k: int, w: int, h: int, *, at: Any = (angle, phase, wide, ink, paper)) -> np.ndarray:
                angle, phase, wide, ink, paper = at
                y, x = np.mgrid[:h, :w]
                wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 6.28 / wide + phase + 0.4 * k) > 0
                return np.where(wave[..., None], ink, paper).astype(np.uint8)

            made.append(makers.video(path, frames=6, width=40, height=40, picture=picture))
    return made


class InThisProcess:
    """Decoding without workers."""

    def __init__(self, setup: Setup, jobs: Sequence[Job], workers: int, timeout: float) -> None:
        self.setup, self.jobs = setup, jobs

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def outcomes(self) -> Iterator[tuple[Job, Outcome]]:
        return ((job, carry_out(job, self.setup)) for job in self.jobs)
