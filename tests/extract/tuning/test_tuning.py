"""Tuning encoders: losses fall, frozen parts stay, withheld clips stay closed, an interruption changes nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tuning_support import CLASSES, NET, SPLIT, TOWER, InThisProcess, striped, tiny_file

import fsmm
from fsmm.errors import FsmmError, UsageError, WeightsError
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets.base import DatasetOptions, Source
from fsmm.extract.decoding.decode import decode
from fsmm.extract.encoders.references import Reference
from fsmm.extract.encoders.tuned import NETWORK, PROJECTION, RECORD, TunedReference, parse_reference
from fsmm.extract.tuning import store
from fsmm.extract.tuning.report import TuneReport
from fsmm.extract.tuning.request import TuneRecipe
from fsmm.extract.tuning.run import WORK
from fsmm.extract.tuning.trainer import Trainer


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "Pool", InThisProcess)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture(scope="module")
def nets(root: Path) -> dict[str, str]:
    """The tiny networks by reference, with random weights in files."""
    return {name: f"timm:{name}@{tiny_file(name, root)}" for name in (TOWER, NET)}


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    """Five clips of each of thirteen classes, and six without a label beside them."""
    striped(root / "data", CLASSES, 5)
    striped(root / "more", ["x"], 6)
    (root / "split.json").write_text(json.dumps(SPLIT))
    return root / "data"


def tuned(encoder: str, data: Path, out: Path, objective: Any, **given: Any) -> TuneReport:
    """A tuning by base classes, or by their clips without labels."""
    recipe = TuneRecipe(**{"steps": 30, "batch": 16, "encoder_rate": 1e-3, **given.pop("recipe", {})})
    options = given.pop("options", DatasetOptions(split_file=data.parent / "split.json"))
    use = given.pop("use", "auto" if objective in ("supervised", "joint") else "base")
    settings: dict[str, Any] = {"segments": 3, "device": "cpu", "quiet": True, **given}
    return fsmm.encoder_tune(
        encoder, "folder", objective, data, out, use=use, options=options, recipe=recipe, **settings
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def prepared(encoder: Any, video: Path) -> np.ndarray:
    decoded = decode(Source(video=video), "clip", [encoder.need], Sampling(segments=3))
    return encoder.prepare(decoded.frames[encoder.need])


@pytest.mark.parametrize(
    ("net", "objective", "recipe"),
    [
        (TOWER, "simclr", {}),
        (TOWER, "simclrv2", {"adapt": "lora", "precision": "bfloat16"}),
        (TOWER, "mae", {"adapt": "lora", "precision": "bfloat16"}),
        (NET, "mae", {}),
        (NET, "supervised", {"adapt": "lora"}),
        (TOWER, "joint", {"precision": "bfloat16"}),
    ],
)
def test_the_loss_falls_and_the_result_is_an_encoder(
    net: str, objective: str, recipe: dict[str, Any], nets: dict[str, str], data: Path, tmp_path: Path
) -> None:
    report = tuned(nets[net], data, tmp_path / "out", objective, recipe=recipe)
    curve = report.record["loss"]
    assert np.mean(curve[-4:]) < np.mean(curve[:4]), curve
    assert report.record["clips"] == 30, "the clips of base classes"
    assert not (report.folder / WORK).exists()
    encoder = parse_reference("frame", report.reference).build()
    before = Reference.parse("frame", nets[net]).build()
    raw = prepared(encoder, data / "c0" / "c0-0.mp4")
    (features,), (frozen,) = encoder.encode([raw]), before.encode([raw])
    assert features.shape == frozen.shape == (3, encoder.dim)
    assert not np.allclose(features, frozen)
    stated = encoder.provenance()
    assert stated["tuned_from"] == before.name
    assert stated["objective"] == objective
    assert stated["weights_sha256"] != before.provenance()["weights_sha256"]
    assert encoder.name.startswith(f"tuned-timm-{net.replace('_', '-')}-{objective}-")


@pytest.mark.parametrize("adapt", ["blocks", "lora"])
@pytest.mark.parametrize("net", [TOWER, NET])
def test_without_a_step_features_are_those_of_the_frozen_encoder(
    net: str, adapt: str, nets: dict[str, str], data: Path, tmp_path: Path
) -> None:
    recipe = {"steps": 0, "adapt": adapt}
    report = tuned(nets[net], data, tmp_path / "out", "supervised", recipe=recipe)
    encoder, before = (
        parse_reference("frame", report.reference).build(),
        parse_reference("frame", nets[net]).build(),
    )
    raw = prepared(encoder, data / "c0" / "c0-0.mp4")
    np.testing.assert_array_equal(encoder.encode([raw])[0], before.encode([raw])[0])


def test_only_the_last_blocks_change(nets: dict[str, str], data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    report = tuned(nets[TOWER], data, tmp_path / "out", "supervised", recipe={"steps": 2, "blocks": 1})
    old, new = load_file(nets[TOWER].partition("@")[2]), load_file(report.folder / NETWORK)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert old.keys() == new.keys()
    assert changed
    assert all(name.startswith(("blocks.2.", "norm.")) for name in changed), changed


def test_simclrv2_keeps_layers_of_the_projection(nets: dict[str, str], data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    report = tuned(nets[TOWER], data, tmp_path / "out", "simclrv2", recipe={"steps": 2, "kept_layer": 2})
    layers, encoder = load_file(report.folder / PROJECTION), TunedReference(report.folder).build()
    assert sorted(layers) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    raw = prepared(encoder, data / "c1" / "c1-0.mp4")
    x = encoder.inner.encode([raw])[0]
    x = x / np.linalg.norm(x, axis=1, keepdims=True) * np.sqrt(x.shape[1])
    for i in range(2):
        x = np.maximum(x @ layers[f"{i}.weight"].T + layers[f"{i}.bias"], 0)
    np.testing.assert_allclose(encoder.encode([raw])[0], x, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="is not tuned further"):
        tuned(report.reference, data, tmp_path / "more", "supervised")


def test_a_tuned_encoder_is_tuned_further(nets: dict[str, str], data: Path, tmp_path: Path) -> None:
    first = tuned(nets[NET], data, tmp_path / "a", "mae", recipe={"steps": 1})
    second = tuned(first.reference, data, tmp_path / "b", "joint", recipe={"steps": 1})
    assert second.record["tuned_from"] == first.record["name"]
    assert second.record["encoder"] == first.record["encoder"] == f"timm:{NET}"


def test_an_interruption_and_a_repetition_change_no_byte(
    nets: dict[str, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"steps": 6, "adapt": "lora"}
    whole = tuned(nets[TOWER], data, tmp_path / "whole", "joint", recipe=recipe)
    step, taken = Trainer._step, []

    def interrupted(self: Trainer, number: int) -> float:
        if number == 4 and len(taken) == 4:
            raise KeyboardInterrupt
        taken.append(number)
        return step(self, number)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(nets[TOWER], data, tmp_path / "parts", "joint", recipe=recipe)
    assert not (tmp_path / "parts" / RECORD).exists()
    with pytest.raises(WeightsError, match="no tuned encoder"):
        _ = TunedReference(tmp_path / "parts").record
    taken.append(-1)
    frames = next((tmp_path / "parts").rglob("00000.npy"))
    kept = bytearray(frames.read_bytes())
    kept[-1] ^= 64  # A bit flips on the disk; these clips are decoded again.
    frames.write_bytes(kept)
    again = tuned(nets[TOWER], data, tmp_path / "parts", "joint", recipe=recipe)
    assert taken == [0, 1, 2, 3, -1, 4, 5], "no step was taken twice"
    assert bytes_of(again.folder) == bytes_of(whole.folder)
    assert tuned(nets[TOWER], data, tmp_path / "parts", "joint", recipe=recipe).was_there
    with pytest.raises(UsageError, match="tuned in another way"):
        tuned(nets[TOWER], data, tmp_path / "parts", "joint", recipe=recipe, seed=1)


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "id", "class", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("objective", ["simclr", "joint"])
def test_no_withheld_clip_is_opened_and_no_withheld_label_counts(
    objective: Any, nets: dict[str, str], data: Path, tmp_path: Path
) -> None:
    videos = sorted(data.rglob("*.mp4"))
    rows = [{"path": v.name, "id": v.stem, "class": v.parent.name, "split": ""} for v in videos]
    rows = [{**row, "split": "val" if row["id"].endswith("-4") else "train"} for row in rows]
    rows += [{"path": f"x-{i}.mp4", "id": f"x-{i}", "class": "", "split": ""} for i in range(6)]
    kept = [*SPLIT["base"], ""]
    withheld = [row for row in rows if row["class"] not in kept or row["split"] == "val"]
    swapped = dict(zip((row["id"] for row in withheld), [row["class"] for row in withheld][::-1]))
    found = []
    for case in ("whole", "spoilt"):
        folder = tmp_path / case
        folder.mkdir()
        for video in [*videos, *(data.parent / "more" / "x").iterdir()]:
            (folder / video.name).write_bytes(video.read_bytes())
        mine = [dict(row) for row in rows]
        if case == "spoilt":
            for row in withheld:
                (folder / row["path"]).write_bytes(b"This is no video.")
            for row in mine:
                if row["class"] in SPLIT["val"] + SPLIT["novel"]:
                    row["class"] = swapped[row["id"]] if swapped[row["id"]] not in kept else row["class"]
        report = fsmm.encoder_tune(
            nets[TOWER],
            "csv",
            objective,
            table(folder / "clips.csv", mine),
            folder / "out",
            use="both" if objective == "simclr" else "auto",
            segments=2,
            options=DatasetOptions(split_file=data.parent / "split.json", label_set="class"),
            recipe=TuneRecipe(steps=2, batch=8, k_shot=1, n_query=2),
            device="cpu",
            quiet=True,
        )
        assert not report.failed
        assert report.record["clips"] == (30 if objective == "simclr" else 24)
        written = b"".join(bytes_of(report.folder).values())
        assert not any(f'"{name}"'.encode() in written for name in SPLIT["val"] + SPLIT["novel"])
        found.append(report)
    whole, spoilt = (dict(report.record) for report in found)
    assert whole.pop("identity") != spoilt.pop("identity"), "files have times of their own"
    assert whole == spoilt
    assert (found[0].folder / NETWORK).read_bytes() == (found[1].folder / NETWORK).read_bytes()


def test_a_file_that_holds_a_withheld_clip_is_not_opened_for_another(data: Path, tmp_path: Path) -> None:
    from fsmm.cache.catalog import Catalog, LabelSet
    from fsmm.extract.datasets.base import Listing, Span
    from fsmm.extract.tuning.clips import tuning_clips

    labels = LabelSet(["a", "b"], np.array([0, 1, 0, -1]), splits={"default": np.array([1, 3])})
    film, link = tmp_path / "film.mp4", tmp_path / "link.mp4"
    film.write_bytes(b"")
    link.symlink_to(film)
    sources = {
        "one": Source(video=film, span=Span(0, 1)),
        "two": Source(video=film, span=Span(1, 2)),
        "three": Source(video=tmp_path / "other.mp4"),
        "four": Source(video=link),
    }
    listing = Listing(Catalog("toy", list(sources), {"class": labels}, "class"), sources, tmp_path)
    assert list(tuning_clips(listing, use="base", labelled=False).sources) == ["three"]
    with pytest.raises(UsageError, match="no clip without a label"):
        tuning_clips(listing, use="unlabelled", labelled=False)


@pytest.fixture
def asked(nets: dict[str, str], data: Path, tmp_path: Path) -> Iterator[Any]:
    def ask(objective: str = "simclr", encoder: str = nets[TOWER], **given: Any) -> TuneReport:
        return tuned(encoder, data, tmp_path / "out", objective, **given)

    return ask


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"encoder": "yamnet"}, "makes 'audio' streams; only encoders of frames are tuned"),
        ({"encoder": "dis-hof"}, "makes 'flow' streams"),
        ({"encoder": "efficientnet-lite3"}, "Unknown encoder 'efficientnet-lite3'. Did you mean"),
        ({"encoder": "tuned:nowhere"}, "holds no tuned encoder"),
        ({"use": "unlabelled"}, "has no clip without a label; name a folder of such clips by --unlabelled"),
        ({"objective": "supervised", "use": "both"}, "'supervised' reads labels; leave out --use"),
        ({"objective": "simsiam"}, "Unknown value of --objective: 'simsiam'. Known: joint, mae"),
        ({"objective": "joint", "recipe": {"n_query": 5}}, "6 readable clips, and 0 have as many"),
        ({"objective": "joint", "method": "protonet"}, "cannot be learned together with an encoder"),
        ({"objective": "joint", "settings": {"decision": "words"}}, "leave out --set decision=words"),
        ({"settings": {"dim": "64"}}, "has no head that --set could change"),
        ({"objective": "simclrv2", "recipe": {"kept_layer": 3}}, "is not before the last of 3 --layers"),
        ({"recipe": {"rank": 0}}, "--rank must be at least 1"),
        ({"recipe": {"encoder_rate": -1.0}}, "--encoder-rate must be above 0 and at most 1"),
        ({"recipe": {"head_rate": 1e38}}, "--head-rate must be above 0 and at most 1"),
        ({"objective": "mae", "recipe": {"mask_share": 1.0}}, "--mask-share is a share between 0 and 1"),
        ({"device": "cuda:99"}, "does not see it on this machine"),
    ],
)
def test_a_wrong_request_is_told_in_a_sentence(asked: Any, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FsmmError) as caught:
        asked(**given)
    assert sentence in str(caught.value)


def test_a_split_without_base_classes_is_told(asked: Any, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"novel": CLASSES}))
    with pytest.raises(UsageError, match="has no base classes; give a class split"):
        asked("supervised", options=DatasetOptions(split_file=tmp_path / "split.json"))


def test_too_little_memory_and_a_loss_without_end_are_told(
    asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Trainer, number: int) -> float:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(FsmmError, match="is not finite; lower --encoder-rate"):
        asked(recipe={"temperature": 1e-40})
    monkeypatch.setattr(Trainer, "_taken", full)
    with pytest.raises(FsmmError, match="lower --batch or --frames"):
        asked()


def test_a_damaged_or_foreign_folder_is_told(nets: dict[str, str], data: Path, tmp_path: Path) -> None:
    report = tuned(nets[NET], data, tmp_path / "out", "supervised", recipe={"steps": 0})
    file = report.folder / NETWORK
    file.write_bytes(file.read_bytes()[:-1] + b"\0\1")
    with pytest.raises(WeightsError, match=r"damaged \(model.safetensors"):
        parse_reference("frame", report.reference).build()
    with pytest.raises(UsageError, match="holds something else"):
        tuned(nets[NET], data, data, "supervised")
    with pytest.raises(UsageError, match="make 'frame' streams"):
        parse_reference("audio", report.reference)


def test_clips_that_cannot_be_read_are_left_out(nets: dict[str, str], data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    for i, video in enumerate(sorted((data.parent / "more" / "x").iterdir())):
        (folder / video.name).write_bytes(video.read_bytes() if i else b"no video")
    options = DatasetOptions(split_file=data.parent / "split.json", unlabelled=folder)
    report = tuned(
        nets[NET], data, tmp_path / "out", "simclr", use="unlabelled", options=options, recipe={"steps": 1}
    )
    assert report.record["clips"] == 5
    assert list(report.failed) == ["unlabelled/x-0.mp4"]
    assert "1 clip could not be read" in report.summary()
