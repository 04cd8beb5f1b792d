"""Near-duplicates: copies with noise, parts and stills are found, different clips are not, and groups are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.duplicates import Likeness, grouped, near_duplicates, whitened, write_groups
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.cli import app
from fsmm.errors import CacheError, UsageError

N, STEPS, DIM = 60, 6, 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 clips that share a large mean, and copies of the first ones: noisy, shifted in time, still, other sound."""
    draws = np.random.default_rng(0)
    base = 20 + draws.normal(size=(N, 1, DIM)) + 0.7 * draws.normal(size=(N, STEPS, DIM))
    sound = draws.normal(size=(N, 4, 16)) + draws.normal(size=(N, 1, 16))
    clips = {f"c{i:02d}": (base[i], sound[i]) for i in range(N)}
    clips["noisy"] = (base[0] + 0.1 * draws.normal(size=base[0].shape), None)
    clips["shifted"] = (base[1][2:], sound[1][1:])
    clips["still"] = (np.repeat(base[2][3:4], STEPS, 0), None)
    clips["sound"] = (draws.normal(size=(STEPS, DIM)) + 20, sound[3])
    labels = LabelSet(["a", "b"], np.arange(len(clips)) % 2)
    Catalog("toy", list(clips), {"kind": labels}, "kind").write(tmp_path / "toy")
    for modality, place, dim in (("frame", 0, DIM), ("audio", 1, 16)):
        with StreamWriter(tmp_path / "toy", Provenance("net", modality, dim, dtype="float32")) as writer:
            for key, parts in clips.items():
                features = parts[place]
                writer.add(key, None if features is None else features.astype(np.float32))
    return tmp_path / "toy"


def test_copies_are_found_and_different_clips_are_not(folder: Path) -> None:
    pairs = {(p.first, p.second): p for p in near_duplicates(folder, Catalog.read(folder))}
    copies = [("c00", "noisy"), ("c01", "shifted"), ("c02", "still"), ("c03", "sound")]
    assert list(pairs) == copies
    assert all(pair.likeness > 0.8 for pair in pairs.values())
    assert [pairs[copy].by for copy in (copies[0], copies[2], copies[3])] == [
        "frame/net",
        "frame/net",
        "audio/net",
    ]


def test_whitened_steps_have_length_one_and_little_in_common() -> None:
    draws = np.random.default_rng(1)
    stream = whitened([100 + draws.normal(size=(3, 8)) for _ in range(40)] + [None])
    assert np.linalg.norm(stream.steps[:40], axis=-1) == pytest.approx(1, abs=1e-5)
    assert not stream.valid[40].any()
    cosine = stream.mean[:40] @ stream.mean[:40].T
    assert abs(cosine[~np.eye(40, dtype=bool)].mean()) < 0.1


def test_files_of_the_same_bytes_are_duplicates_whatever_their_features(folder: Path) -> None:
    catalog = Catalog.read(folder)
    catalog.facts["sha256"][[5, 9]] = b"ab" * 32
    pairs = near_duplicates(folder, catalog)
    assert Likeness("c05", "c09", "file", 1.0) in pairs


def test_groups_grow_together_and_keep_their_names(folder: Path) -> None:
    catalog = replace(Catalog.read(folder), group=["g1", "g1", "g2", *[""] * (N + 1)])
    pairs = [Likeness("c01", "c02", "frame/net", 0.9), Likeness("c04", "c05", "frame/net", 0.9)]
    groups = dict(zip(catalog.clip_id, grouped(catalog, pairs)))
    # The groups g1 and g2 share a source now; the other pair is named after its first clip; the rest stay alone.
    assert [groups[f"c{i:02d}"] for i in range(7)] == [
        "g1", "g1", "g1", "", "duplicates of c04", "duplicates of c04", ""
    ]  # fmt: skip


def test_writing_changes_the_catalog_once(folder: Path) -> None:
    pairs = near_duplicates(folder, Catalog.read(folder))
    assert write_groups(folder, pairs) == 8
    assert write_groups(folder, pairs) == 0
    catalog = Catalog.read(folder)
    groups = dict(zip(catalog.clip_id, catalog.group))
    assert groups["c00"] == groups["noisy"] == "duplicates of c00"
    assert sum(map(bool, catalog.group)) == 8


def test_wrong_thresholds_are_refused(folder: Path) -> None:
    catalog = Catalog.read(folder)
    with pytest.raises(UsageError, match=r"Unknown stream 'fram'\. Did you mean"):
        near_duplicates(folder, catalog, {"fram": 0.8})
    with pytest.raises(UsageError, match="must lie above 0"):
        near_duplicates(folder, catalog, {"frame": 1.2})


def test_a_data_set_without_frames_and_sound_says_what_to_name(tmp_path: Path) -> None:
    labels = LabelSet(["a"], np.zeros(2, int))
    Catalog("flow", ["x", "y"], {"kind": labels}, "kind").write(tmp_path / "flow")
    with StreamWriter(tmp_path / "flow", Provenance("net", "flow", 4)) as writer:
        writer.add("x", np.ones((1, 4)))
        writer.add("y", np.ones((1, 4)))
    with pytest.raises(CacheError, match="no frame or audio stream"):
        near_duplicates(tmp_path / "flow", Catalog.read(tmp_path / "flow"))
    with pytest.raises(CacheError, match="has features of 2 clips; near-duplicates can be told from 32"):
        near_duplicates(tmp_path / "flow", Catalog.read(tmp_path / "flow"), {"flow": 0.9})


def test_the_command_writes_groups_unless_it_is_only_to_say(folder: Path) -> None:
    place = ["cache", "duplicates", "--cache", str(folder.parent)]
    said = CliRunner().invoke(app, [*place, "--dry-run"])
    assert said.exit_code == 0, said.output
    assert "toy: 4 pairs" in said.output
    assert not any(Catalog.read(folder).group)
    document = json.loads(CliRunner().invoke(app, [*place, "--json"]).output)
    assert document["clips_grouped"] == 8
    assert len(document["pairs"]) == 4
    assert sum(map(bool, Catalog.read(folder).group)) == 8
    wrong = CliRunner().invoke(app, [*place, "--threshold", "frame=much"])
    assert "not of the form STREAM=0.8" in str(wrong.exception)
