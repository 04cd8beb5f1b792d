"""The table of encoders: complete, light to list, honest about what can run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from fsmm.cache.schema import MODALITIES, StreamName
from fsmm.errors import UsageError, WeightsError
from fsmm.extract import encoders
from fsmm.extract.contract import AudioNeed, FrameNeed, SeriesNeed, TextNeed
from fsmm.extract.encoders import DEFAULTS, ENCODERS, build, rows
from fsmm.extract.encoders.base import BaseEncoder, Spec
from fsmm.extract.weights.store import Located
from fsmm.extract.weights.table import WEIGHTS

NEED = {"frame": FrameNeed, "flow": FrameNeed, "object": FrameNeed, "audio": AudioNeed, "word": TextNeed}
NEED |= {"sensor": SeriesNeed, "skeleton": SeriesNeed, "depth": SeriesNeed}
SPECIAL = {
    "picture-hash": FrameNeed,
    "efficientnet-lite0-int8-scores": FrameNeed,
    "i3d-rgb-scores": FrameNeed,
    "yamnet-scores": AudioNeed,
}


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_each_row_names_a_class_that_makes_what_the_row_says(name: str, tmp_path: Path) -> None:
    row = ENCODERS[name]
    StreamName(row.modality, name)  # the name may become a folder
    assert row.weights in {"", "local", *WEIGHTS}
    if row.weights == "local":
        return  # made from the user's file: see the word encoders
    module, _, cls = row.target.partition(":")
    made = getattr(importlib.import_module(f"fsmm.extract.encoders.{module}"), cls)(
        Spec(name, row.modality, row.dim, Located(tmp_path / "absent", row.weights, "0" * 64))
    )
    assert isinstance(made, BaseEncoder)
    assert (made.name, made.modality, made.dim) == (name, row.modality, row.dim)
    assert isinstance(made.need, SPECIAL.get(name) or NEED[row.modality])
    assert made.batch_clips > 0
    provenance = made.provenance()
    assert set(provenance) == {"weights", "weights_sha256", "preprocessing"}
    assert provenance["preprocessing"]
    assert made.encode([]) == []


def test_defaults_are_of_their_modality() -> None:
    assert set(DEFAULTS) == {*MODALITIES, "skeleton", "depth"}
    for modality, name in DEFAULTS.items():
        assert ENCODERS[name].modality == modality


def test_every_row_of_weights_belongs_to_an_encoder_of_that_name() -> None:
    read = {name for name, row in WEIGHTS.items() if not row.is_data}
    assert read <= set(ENCODERS)  # `fsmm encoders --fetch NAME` in the error's sentence must work


def test_rows_say_what_each_encoder_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))
    by_name = {row["name"]: row for row in rows()}
    assert set(by_name) == set(ENCODERS)
    assert by_name["logmel-mfcc"]["state"] == "ready"
    assert by_name["glove-file"]["state"] == "needs a local file"
    assert by_name["efficientnet-lite0"]["state"] == "to fetch (17 MB)"
    assert by_name["glove-file"]["dim"] is None
    (tmp_path / "efficientnet-lite0").mkdir()
    (tmp_path / "efficientnet-lite0" / WEIGHTS["efficientnet-lite0"].file).touch()
    assert encoders.state("flow-rgb-efficientnet-lite0") == "ready"  # shares them


def test_a_missing_package_is_said_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    assert encoders.state("dis-hof") == "needs cv2"
    with pytest.raises(UsageError, match=r"pip install .*\[extract\]"):
        build("dis-hof")


def test_unknown_and_unfit_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'yamnet'"):
        build("yamnett")
    with pytest.raises(UsageError, match="takes no weights file"):
        build("dis-hof", weights=tmp_path)
    with pytest.raises(WeightsError, match="give it the file, by `--weights glove-file=FILE`"):
        build("glove-file")
    with pytest.raises(WeightsError, match="give it the"):
        encoders.fetch("glove-file")
    assert encoders.fetch("dis-hof") is None


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fsmm.extract.encoders import rows; rows();"
        "heavy = {'torch', 'cv2', 'open_clip', 'pytorchvideo', 'torchvision', 'ai_edge_litert', 'h5py'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_preparing_in_a_worker_imports_no_torch() -> None:
    code = (
        "import sys; import numpy as np; from fsmm.extract.encoders import build;"
        "build('dis-hof').prepare(np.zeros((1, 3, 32, 32, 3), np.uint8));"
        "build('logmel-mfcc').prepare(np.zeros(16000, np.float32));"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
