"""Checkpoints that the model's own library finds; the choice of the file stays with that library."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from .torchvision_care import ensure_torchvision


def fetch_open_clip(model: str, tag: str, target: Path) -> None:
    """Write the checkpoint of an open_clip ``model`` with pretrained ``tag`` to ``target``.

    Errors of the hub are passed on.
    """
    ensure_torchvision()
    pretrained = importlib.import_module("open_clip.pretrained")
    found = pretrained.download_pretrained(pretrained.get_pretrained_cfg(model, tag), prefer_hf_hub=True)
    if not found:
        raise FileNotFoundError(f"open_clip knows no weights {tag!r} of {model!r}")
    if Path(found).suffix == target.suffix:
        shutil.copyfile(found, target)
        return
    from .checkpoint import read_checkpoint

    tensors = {key: value.clone().contiguous() for key, value in read_checkpoint(Path(found)).items()}
    # The library's own writing ends in errors of its own kinds where the disk is full.
    target.write_bytes(importlib.import_module("safetensors.torch").save(tensors))


def fetch_pytorchvideo(module: str, model: str, target: Path) -> None:
    """Write the checkpoint of a pytorchvideo hub ``model`` (in ``pytorchvideo.models.hub.<module>``) to
    ``target``.
    """
    ensure_torchvision()
    hub = importlib.import_module(f"pytorchvideo.models.hub.{module}")
    importlib.import_module("torch.hub").download_url_to_file(
        hub.checkpoint_paths[model], str(target), progress=False
    )


def fetch_torchvision(_model: str, weights: str, target: Path) -> None:
    """Write the checkpoint of torchvision's enumeration of ``weights`` of optical flow to ``target``."""
    ensure_torchvision()
    known = getattr(importlib.import_module("torchvision.models.optical_flow"), weights)
    importlib.import_module("torch.hub").download_url_to_file(known.DEFAULT.url, str(target), progress=False)


def fetch_folder(model: str, _tag: str, target: Path) -> None:
    """Write the files of a model of a hub, OWNER/NAME, beside ``target``: safetensors, configurations, vocabularies."""
    importlib.import_module("huggingface_hub").snapshot_download(
        model,
        local_dir=target.parent,
        allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"],
        ignore_patterns=["onnx/*", "openvino/*"],
    )
    shutil.rmtree(target.parent / ".cache", ignore_errors=True)
    if not target.is_file():
        raise FileNotFoundError(f"{model} has no {target.name}")


def fetch_timm(model: str, _tag: str, target: Path) -> None:
    """Write the checkpoint of a timm ``model``, without its classifier, to ``target``, a safetensors file."""
    ensure_torchvision()
    network = importlib.import_module("timm").create_model(model, pretrained=True, num_classes=0)
    tensors = {key: value.clone().contiguous() for key, value in network.state_dict().items()}
    target.write_bytes(importlib.import_module("safetensors.torch").save(tensors))
