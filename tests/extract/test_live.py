"""Encoders that stay loaded make what the cache would hold, for one clip at a time and from several threads."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from extract_support import film

from fsmm.errors import FsmmError
from fsmm.extract.live import LiveReader
from fsmm.extract.own_clips import CachedReader, OwnClips
from fsmm.runs.estimator import FewShotClassifier

STREAMS = ["flow/dis-hof", "audio/logmel-mfcc"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("live")
    return [film(root / f"{i}.mp4", 200.0 + 150 * i) for i in range(4)]


def test_live_features_are_those_of_the_cache(clips: list[Path], tmp_path: Path) -> None:
    own = OwnClips.at(clips)
    stored = CachedReader(STREAMS, cache=tmp_path, workers=1, quiet=True).read(own)
    live = LiveReader(STREAMS, device="cpu").read(own)
    assert live.clips == stored.clips
    assert live.origins == stored.origins
    for name, stream in stored.streams.items():
        assert live.streams[name].length.tolist() == stream.length.tolist()
        torch.testing.assert_close(live.streams[name].x, stream.x, atol=2e-3, rtol=2e-3)


def test_a_service_decides_one_clip_at_a_time_in_several_threads(clips: list[Path]) -> None:
    names = ["low", "low", "high", "high"]
    fitted = FewShotClassifier("protonet", streams=STREAMS, live=True, device="cpu").fit(clips, names)
    alone = fitted.predict_proba(clips)
    found: dict[int, object] = {}

    def ask(i: int) -> None:
        found[i] = fitted.predict_proba([clips[i]])[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(4)] == [pytest.approx(row, abs=1e-3) for row in alone]


def test_a_model_keeps_passports_and_refuses_other_encoders(clips: list[Path], tmp_path: Path) -> None:
    features = CachedReader(STREAMS, cache=tmp_path / "cache", workers=1, quiet=True).read(OwnClips.at(clips))
    fitted = FewShotClassifier("protonet", streams=STREAMS)
    fitted.fit_clips(features, dict(zip(features.clips, ["low", "low", "high", "high"]))).save(tmp_path / "m")
    again = FewShotClassifier.open(tmp_path / "m")
    assert set(again.classifier_.streams["flow"]["passport"]) >= {"star-0"}
    assert len(again.clips_of(LiveReader(STREAMS, device="cpu").read(OwnClips.at(clips)))) == 4
    turned = {clip: [row[::-1] for row in rows] for clip, rows in features.passports["flow"].items()}
    with pytest.raises(FsmmError, match=r"flow/dis-hof gives other features here .* built-in clip"):
        again.clips_of(replace(features, passports={"flow": turned}))
    other = replace(features.origins["flow"], preprocessing="another way")
    with pytest.raises(FsmmError, match="The model's flow features were made otherwise"):
        again.clips_of(replace(features, origins={**features.origins, "flow": other}))


def test_a_clip_that_is_asked_about_twice_is_answered_twice(clips: list[Path], tmp_path: Path) -> None:
    fitted = FewShotClassifier("protonet", streams=STREAMS, cache=tmp_path, workers=1)
    fitted.fit(clips, ["low", "low", "high", "high"])
    assert fitted.predict([str(clips[3]), str(clips[0]), str(clips[3])]).tolist() == ["high", "low", "high"]
