"""The bank: which clips take part does not depend on which features are looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import flip

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.errors import CacheError, UsageError

Make = Callable[..., Path]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Eight clips: two label sets (one multi-hot), clip splits, unlabelled clips, one clip without any feature."""
    ids = [f"c{i}" for i in range(8)]
    single = LabelSet(
        ["w", "x", "y", "z"], np.array([0, 1, 2, 3, 2, -1, 3, 2]), splits={"default": [1, 2, 3, 3]}
    )
    hot = np.zeros((8, 3), np.uint8)
    hot[[0, 1, 2, 3, 3], [0, 1, 2, 0, 2]] = 1
    multi = LabelSet(["p", "q", "r"], hot, splits={"default": [1, 0, 3], "other": [3, 3, 1]})
    split = ["train", "train", "test", "test", "test", "", "train", "test"]
    Catalog("mixed", ids, {"one": single, "many": multi}, "one", clip_split=split).write(tmp_path / "mixed")
    for modality, gone in (("frame", {4}), ("audio", {2, 3})):
        with StreamWriter(tmp_path / "mixed", Provenance("net", modality, 2, dtype="float32")) as writer:
            for i in range(7):  # c7 is in no stream
                writer.add(ids[i], None if i in gone else np.full((1, 2), i))
    return tmp_path


def test_the_clips_do_not_depend_on_the_streams_chosen(mixed: Path) -> None:
    banks = [
        FeatureBank.load(mixed, streams) for streams in (None, ["frame"], ["audio"], ["audio/net", "frame"])
    ]
    for bank in banks:
        assert bank.clip_row.tolist() == [2, 3, 4, 6]  # novel classes y and z, c7 has no features
        assert bank.label.tolist() == [0, 1, 0, 1]
        assert bank.fingerprint() == banks[0].fingerprint()
    assert banks[0].tables["frame"].present.tolist() == [True, True, False, True]
    assert banks[0].tables["audio"].present.tolist() == [False, False, True, True]
    assert banks[0].tables["frame"].gather(torch.tensor([3])).x.flatten().tolist() == [6, 6]


def test_classes_are_renumbered_and_remembered(mixed: Path) -> None:
    bank = FeatureBank.load(mixed)
    assert bank.class_names == ["y", "z"]
    assert bank.class_id.tolist() == [2, 3]
    assert bank.counts().tolist() == [2, 2]
    everything = FeatureBank.load(mixed, split="all")
    assert everything.label.tolist() == [0, 1, 2, 3, 2, 3]


def test_a_clip_split_narrows_the_clips(mixed: Path) -> None:
    assert FeatureBank.load(mixed, split="all", clip_split="train").clip_row.tolist() == [0, 1, 6]
    with pytest.raises(UsageError, match=r"clip split 'dev'.*test, train"):
        FeatureBank.load(mixed, clip_split="dev")


def test_a_bank_gives_the_group_of_each_of_its_clips(mixed: Path) -> None:
    assert FeatureBank.load(mixed).groups.tolist() == [None] * 4
    catalog = Catalog.read(mixed / "mixed")
    catalog.group = ["a", "", "b", "b", "c", "a", "", "c"]
    catalog.write(mixed / "mixed")
    bank = FeatureBank.load(mixed)
    assert bank.groups.tolist() == ["b", "b", "c", None]
    assert bank.rows(np.array([2, 0])).groups.tolist() == ["c", "b"]
    assert bank.normalised("l2").groups.tolist() == bank.groups.tolist()


def test_unlabelled_clips_are_those_without_a_label(mixed: Path) -> None:
    bank = FeatureBank.load(mixed, unlabelled=True)
    assert bank.clip_row.tolist() == [5]
    assert bank.label.tolist() == [-1]
    many = FeatureBank.load(mixed, unlabelled=True, label_set="many")
    assert many.clip_row.tolist() == [4, 5, 6]
    assert not many.label.any()


def test_unlabelled_clips_need_no_class_split(tmp_path: Path) -> None:
    Catalog("plain", ["a", "b"], {"one": LabelSet(["x"], np.array([0, -1]))}, "one").write(tmp_path / "plain")
    with StreamWriter(tmp_path / "plain", Provenance("net", "frame", 2)) as writer:
        writer.add("a", np.ones((1, 2)))
        writer.add("b", np.ones((1, 2)))
    assert FeatureBank.load(tmp_path, unlabelled=True).clip_row.tolist() == [1]
    with pytest.raises(UsageError, match="no base/val/novel class split"):
        FeatureBank.load(tmp_path)


def test_multi_hot_labels_keep_the_columns_of_their_split(mixed: Path) -> None:
    bank = FeatureBank.load(mixed, label_set="many", class_split="other")
    assert bank.multi
    assert bank.class_names == ["p", "q"]
    assert bank.clip_row.tolist() == [0, 1, 3]
    assert bank.label.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert bank.counts().tolist() == [2, 1]


def test_two_label_sets_together_are_both_at_once(mixed: Path) -> None:
    labels = Catalog.read(mixed / "mixed").labels("one+many")
    parts = Catalog.read(mixed / "mixed").label_sets
    assert labels.multi
    assert len(labels.class_names) == 7
    assert np.array_equal(labels.label[:, 4:], parts["many"].label)
    assert np.array_equal(labels.label[:, :4].sum(1), parts["one"].label >= 0)
    assert np.array_equal(labels.label[:, :4].argmax(1)[[0, 1, 2]], [0, 1, 2])
    assert list(labels.splits) == ["default"]


def test_the_splits_share_no_clip_and_no_class(make_cache: Make) -> None:
    root = make_cache(absent=0.3)
    banks = [FeatureBank.load(root, split=split) for split in ("base", "val", "novel")]
    rows = [row for bank in banks for row in bank.clip_row.tolist()]
    names = [name for bank in banks for name in bank.class_names]
    assert len(rows) == len(set(rows)) == len(FeatureBank.load(root, split="all"))
    assert len(names) == len(set(names))


def test_words_are_those_of_the_classes_in_order(make_cache: Make) -> None:
    root = make_cache()
    bank, everything = FeatureBank.load(root), FeatureBank.load(root, split="all")
    assert bank.words is not None
    assert everything.words is not None
    assert torch.equal(bank.words, everything.words[bank.class_id])
    assert FeatureBank.load(root, words=None).words is None


def test_classes_without_words_are_named(mixed: Path) -> None:
    with StreamWriter(mixed / "mixed", Provenance("vec", "word", 2, axis="class")) as writer:
        writer.add("one/y", np.ones((1, 2)))
    with pytest.raises(CacheError, match=r"no words for class 'z' of label set 'one'.*--words none"):
        FeatureBank.load(mixed, words="word/vec")


def test_a_class_without_words_is_a_note_where_no_stream_was_asked_for(mixed: Path) -> None:
    """No split has words then, so that a head that can do without them sees none in training either."""
    with StreamWriter(mixed / "mixed", Provenance("vec", "word", 2, axis="class")) as writer:
        for name in ("w", "x", "y"):
            writer.add(f"one/{name}", np.ones((1, 2)))
    for split in ("base", "novel", "all"):
        bank = FeatureBank.load(mixed, split=split)
        assert bank.words is None
        assert bank.word_stream is None
        assert bank.notes == [
            "Stream word/vec has no words for class 'z' of label set 'one'; class words are left out."
        ]


def test_a_damaged_word_is_refused(make_cache: Make) -> None:
    root = make_cache()
    (path,) = root.glob("*/streams/word/*/00000.h5")
    flip(path, "features", 1)
    with pytest.raises(CacheError, match=r"00000.h5' is damaged \(clip '.*--repair"):
        FeatureBank.load(root)
    FeatureBank.load(root, words=None)


def test_memory_mapped_and_in_memory_banks_are_the_same(make_cache: Make) -> None:
    root = make_cache(absent=0.2)
    held, mapped = FeatureBank.load(root), FeatureBank.load(root, memory=0)
    assert held.fingerprint() == mapped.fingerprint()
    rows = torch.arange(len(held)).flip(0)
    for key in held.tables:
        torch.testing.assert_close(held.tables[key].gather(rows).x, mapped.tables[key].gather(rows).x)
        torch.testing.assert_close(held.pooled().tables[key].x, mapped.pooled().tables[key].x)


def test_fewer_modalities_are_the_same_clips(mixed: Path) -> None:
    bank = FeatureBank.load(mixed)
    narrow = bank.select(["audio"])
    assert narrow.modalities == ["audio"]
    assert narrow.fingerprint() == bank.fingerprint()
    with pytest.raises(UsageError, match="'flow'"):
        bank.select(["flow"])


def test_a_modality_with_two_streams_must_be_named(mixed: Path) -> None:
    with StreamWriter(mixed / "mixed", Provenance("second", "frame", 2)) as writer:
        writer.add("c2", np.ones((1, 2)))
    with pytest.raises(UsageError, match=r"several streams; name one: frame/net, frame/second"):
        FeatureBank.load(mixed)
    bank = FeatureBank.load(mixed, ["frame/net", "frame/second", "audio"])
    assert set(bank.tables) == {"frame/net", "frame/second", "audio"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"split": "test"}, "split 'test'"),
        ({"streams": ["flow"]}, "modality of dataset 'mixed' 'flow'"),
        ({"streams": ["frame/nett"]}, "Did you mean 'frame/net'"),
        ({"label_set": "ones"}, "Did you mean 'one'"),
        ({"class_split": "none"}, "class split 'none'"),
        ({"dataset": "absent"}, "it holds: mixed"),
        ({"max_steps": 0}, "at least 1"),
    ],
)
def test_unknown_names_are_refused_with_the_known(mixed: Path, given: dict, says: str) -> None:
    with pytest.raises((UsageError, CacheError), match=says):
        FeatureBank.load(mixed, **given)
