"""Near-duplicates: copies with noise, parts and stills are found, different clips are not, and groups are kept."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.duplicate_groups import grouped, write_groups
from fsmm.cache.duplicates import (
    VIEWS,
    Likeness,
    StreamSteps,
    alike,
    likeness_of,
    near_duplicates,
    unit,
    whitened,
)
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.cli import app
from fsmm.errors import CacheError, UsageError

N, STEPS, DIM = 96, 6, 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """96 clips that share a large mean, and copies of the first ones: noisy, shifted in time, still, other sound."""
    draws = np.random.default_rng(0)
    base = 20 + draws.normal(size=(N, 1, DIM)) + 0.7 * draws.normal(size=(N, STEPS, DIM))
    sound = draws.normal(size=(N, 4, DIM)) + draws.normal(size=(N, 1, DIM))
    clips = {f"c{i:02d}": (base[i], sound[i]) for i in range(N)}
    clips["noisy"] = (base[0] + 0.1 * draws.normal(size=base[0].shape), None)
    clips["shifted"] = (base[1][2:], sound[1][1:])
    clips["still"] = (np.repeat(base[2][3:4], STEPS, 0), None)
    clips["sound"] = (draws.normal(size=(STEPS, DIM)) + 20, sound[3])
    labels = LabelSet(["a", "b"], np.arange(len(clips)) % 2)
    Catalog("toy", list(clips), {"kind": labels}, "kind").write(tmp_path / "toy")
    for modality, place in (("frame", 0), ("audio", 1)):
        with StreamWriter(tmp_path / "toy", Provenance("net", modality, DIM, dtype="float32")) as writer:
            for key, parts in clips.items():
                features = parts[place]
                writer.add(key, None if features is None else features.astype(np.float32))
    return tmp_path / "toy"


def test_copies_are_found_and_different_clips_are_not(folder: Path) -> None:
    pairs = {(p.first, p.second): p for p in near_duplicates(folder, Catalog.read(folder))}
    copies = [("c00", "noisy"), ("c01", "shifted"), ("c02", "still"), ("c03", "sound")]
    assert list(pairs) == copies
    assert all(pair.likeness > 0.4 for pair in pairs.values())
    assert [pairs[copy].by for copy in (copies[0], copies[2], copies[3])] == [
        "frame/net",
        "frame/net",
        "audio/net",
    ]


def test_whitened_steps_have_length_one_and_little_in_common() -> None:
    draws = np.random.default_rng(1)
    stream = whitened([100 + draws.normal(size=(3, 8)) for _ in range(40)] + [None])
    assert np.linalg.norm(stream.steps[0][:40], axis=-1) == pytest.approx(1, abs=1e-5)
    assert not stream.valid[40].any()
    cosine = stream.mean[0][:40] @ stream.mean[0][:40].T
    assert abs(cosine[~np.eye(40, dtype=bool)].mean()) < 0.1


def test_clips_that_look_alike_without_being_copies_are_no_pairs() -> None:
    """Sixty clips of one scene are as alike as copies, yet not more alike than each is to the clips around it."""
    draws = np.random.default_rng(3)
    scene = unit(3 * np.eye(64)[0] + draws.normal(size=(60, 64)) / 8)
    others = unit(draws.normal(size=(60, 64)))
    copies = unit(others[:3] + 0.3 * draws.normal(size=(3, 64)) / 8)
    each = np.concatenate([scene, others, copies])[:, None]
    stream = StreamSteps(each[None], np.ones((len(each), 1), bool), each[None, :, 0])
    assert likeness_of(stream, 0, np.arange(1, 60)).min() > 0.85
    assert [(i, j) for i, j, _ in sorted(alike(stream, 0.3))] == [(60, 120), (61, 121), (62, 122)]


def test_a_cropped_copy_is_alike_to_a_part_of_its_original() -> None:
    """A hash describes the whole picture and two parts of it; the whole of the copy is a part of the original."""
    draws = np.random.default_rng(4)
    each = [draws.normal(size=(STEPS, 3, 20)) for _ in range(50)]
    copy = draws.normal(size=(STEPS, 3, 20))
    copy[:, 0] = each[7][:, 2] + 0.1 * draws.normal(size=(STEPS, 20))
    stream = whitened([x.reshape(STEPS, -1).astype(np.float32) for x in (*each, copy)], views=3)
    likeness = likeness_of(stream, 50, np.arange(50))
    assert likeness.argmax() == 7
    assert likeness[7] > 0.8 > np.sort(likeness)[-2]
    assert ("hash", 3) in VIEWS.items()


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


def test_a_chain_of_pairs_is_no_group(folder: Path) -> None:
    """Six clips, each alike to the next: groups of three, since half of the pairs of two groups must be there."""
    catalog = Catalog.read(folder)
    chain = [Likeness(f"c0{i}", f"c0{i + 1}", "frame/net", 0.9 - 0.01 * i) for i in range(5)]
    sizes = Counter(name for name in grouped(catalog, chain) if name)
    assert max(sizes.values()) <= 3
    # All pairs of six clips but one are a group of six.
    full = [Likeness(f"c0{i}", f"c0{j}", "frame/net", 0.8) for i in range(6) for j in range(i + 1, 6)]
    assert Counter(name for name in grouped(catalog, full[1:]) if name) == {"duplicates of c00": 6}


def test_groups_of_an_earlier_search_are_forgotten(folder: Path) -> None:
    loose = [Likeness("c01", "c02", "frame/net", 0.6), Likeness("c04", "c05", "frame/net", 0.9)]
    assert write_groups(folder, loose) == 4
    assert write_groups(folder, loose[1:]) == 2
    catalog = Catalog.read(folder)
    assert [clip for clip, group in zip(catalog.clip_id, catalog.group) if group] == ["c04", "c05"]


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
    with pytest.raises(CacheError, match="no frame or audio or hash stream"):
        near_duplicates(tmp_path / "flow", Catalog.read(tmp_path / "flow"))
    with pytest.raises(CacheError, match=r"told from 32 clips on, which flow/net \(2 clips\) does not have"):
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
    assert "not of the form STREAM=0.3" in str(wrong.exception)
