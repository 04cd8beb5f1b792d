"""Passports: made once at the begin of a stream, the same each time; a change has its likely cause."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extract_support import Letters, Tint, extracted, videos
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog
from fsmm.cache.schema import Provenance, StreamName
from fsmm.cache.shard import read_shard
from fsmm.cache.stream import stream_provenance
from fsmm.cache.upkeep.merge import merge
from fsmm.cache.upkeep.verify import verify
from fsmm.cli import app
from fsmm.extract import passport
from fsmm.extract.contract import Decoded, Encoder, Sampling
from fsmm.extract.encoders import build
from fsmm.extract.passport import Comparison, compare, made, passport_path
from fsmm.extract.pipeline.lane import provenance_of

SOUND = StreamName("audio", "logmel-mfcc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with the sound of a few videos."""
    root = tmp_path_factory.mktemp("passport")
    extracted(videos(root / "videos", 5), root / "cache", name="few")
    return root / "cache" / "few"


def test_extraction_writes_one_that_is_the_same_when_it_is_made_again(folder: Path) -> None:
    encoder = build("logmel-mfcc")
    held = stream_provenance(folder, SOUND)
    assert held is not None
    old, new = read_shard(passport_path(folder, SOUND)), made("few", encoder, held)
    assert old.key == new.key == [*passport.passport_clips()]
    assert np.array_equal(old.features, new.features)
    assert old.check.tolist() == new.check.tolist()
    assert old.written == new.written


def test_a_second_extraction_leaves_it_alone(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(folder.parent, cache)
    path = passport_path(cache / "few", SOUND)
    path.unlink()
    extracted(videos(tmp_path / "videos", 7), cache, into="few")
    # The stream was begun before: this machine cannot vouch for its rows.
    assert not path.exists()
    assert len(Catalog.read(cache / "few")) > 5


def compared(folder: Path, encoder: Encoder, **changes: Any) -> Comparison:
    """The comparison of a passport that an encoder has just made, as if its stream were of another origin."""
    here = provenance_of(
        encoder, Sampling(), "float32", axis="class" if encoder.modality == "word" else "clip"
    )
    return compare(folder, encoder, replace(here, **changes), here)


def with_passport(tmp_path: Path, encoder: Encoder) -> Path:
    folder = tmp_path / "set"
    passport_path(folder, StreamName(encoder.modality, encoder.name)).parent.mkdir(parents=True)
    passport.write_passport(folder, encoder, provenance_of(encoder, Sampling(), "float32"))
    return folder


@pytest.mark.parametrize("encoder", [Tint(), Letters()], ids=["frames", "words"])
def test_the_same_machine_gives_the_same(encoder: Any, tmp_path: Path) -> None:
    found = compared(with_passport(tmp_path, encoder), encoder)
    assert (found.same, found.largest, found.cause) == (True, 0.0, "")
    assert found.cosine == pytest.approx(1)


def decoder(change: str) -> Any:
    """A decoder that gives frames of other colours, other pictures, or other times."""
    real = passport.decode

    def decode(*given: Any) -> Decoded:
        decoded = real(*given)
        for need, frames in decoded.frames.items():
            if change == "colour":
                frames = (frames * 0.86 + 16).round().astype(np.uint8)
            elif change == "pictures":
                frames = np.concatenate([frames[:, :, :8], 255 - frames[:, :, 8:]], 2)
            elif change == "frames":
                frames = frames[:1]
            decoded.frames[need] = frames
        for sound, samples in decoded.audio.items():
            decoded.audio[sound] = samples[::2] if change == "rate" else samples * 0.9
        return decoded

    return decode


@pytest.mark.parametrize(
    ("encoder", "change", "cause"),
    [
        ("tint", "colour", "colour: the colours of"),
        ("tint", "pictures", "decoder: the pictures of"),
        ("tint", "frames", "gives other frames"),
        ("sound", "rate", "samples, not"),
        ("sound", "level", "resampling: the sound of"),
    ],
)
def test_a_difference_of_the_input_has_its_cause(
    encoder: str, change: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by: Any = Tint() if encoder == "tint" else build("logmel-mfcc")
    folder = with_passport(tmp_path, made_by)
    monkeypatch.setattr(passport, "decode", decoder(change))
    found = compared(folder, made_by)
    assert not found.same or found.largest > 0
    assert cause in found.cause


def test_weights_come_before_anything_else_and_a_network_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Tint()
    folder = with_passport(tmp_path, encoder)
    right = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda batch: [x[:, ::-1] * 2 for x in right(batch)])
    assert compared(folder, encoder).cause.startswith("arithmetic: the same input")
    assert compared(folder, encoder, weights_sha256="ab" * 32).cause.startswith("weights: abababababab")
    assert compared(folder, encoder, preprocessing="other").cause.startswith("version:")


def test_what_cannot_be_made_is_a_sentence_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsmm.cache.stream import StreamWriter
    from fsmm.extract.pipeline.passports import write_passport_of

    encoder = Tint(on_white="infinite")
    monkeypatch.setattr(encoder, "encode", lambda batch: [np.full((2, 3), np.inf, np.float32) for _ in batch])
    with StreamWriter(tmp_path / "set", Provenance("tint", "frame", 3)) as writer:
        says = write_passport_of(tmp_path / "set", encoder, writer)
    assert "frame/tint has no passport" in says
    assert not passport_path(tmp_path / "set", StreamName("frame", "tint")).exists()


def test_verify_finds_a_damaged_one_and_merge_takes_it_along(folder: Path, tmp_path: Path) -> None:
    merge([folder.parent], tmp_path / "merged")
    target = passport_path(tmp_path / "merged" / "few", SOUND)
    assert target.read_bytes() == passport_path(folder, SOUND).read_bytes()
    assert verify(tmp_path / "merged").ok
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    report = verify(tmp_path / "merged")
    assert [finding.kind for finding in report.findings] == ["passport"]
    assert not report.ok
    assert verify(tmp_path / "merged", repair=True).ok
    assert not target.exists()


def command(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["cache", "verify", "--passport", *arguments])
    return found.exit_code, found.output if found.exception is None or found.exit_code else str(
        found.exception
    )


def test_the_command_says_that_all_is_the_same(folder: Path) -> None:
    code, text = command("--cache", str(folder.parent), "--json")
    document = json.loads(text)
    assert code == 0
    assert document["ok"]
    (row,) = document["streams"]
    assert (row["stream"], row["state"], row["says"]) == (str(SOUND), "same", "")
    assert row["cosine"] == pytest.approx(1)


def test_the_command_fails_where_a_decoder_differs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passport, "decode", decoder("rate"))
    code, text = command("--cache", str(folder.parent))
    assert code == 1
    assert "decoder" in text


def test_an_old_cache_is_readable_and_is_not_tried(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder.parent, tmp_path / "cache")
    passport_path(tmp_path / "cache" / "few", SOUND).unlink()
    assert verify(tmp_path / "cache").ok
    code, text = command("--cache", str(tmp_path / "cache"))
    assert code == 0
    assert "not tried" in text
