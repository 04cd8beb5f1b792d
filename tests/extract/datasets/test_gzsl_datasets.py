"""The audio-visual generalised zero-shot benchmarks by their stage CSV files, whose columns differ."""

from __future__ import annotations

import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmm.errors import UsageError
from fsmm.extract.datasets import load
from fsmm.extract.datasets.base import DatasetOptions, Listing
from fsmm.extract.datasets.class_facts import PARTS, class_facts, class_key
from fsmm.extract.datasets.stage_lists import read_stages

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "splits_gzsl" / "AVCA-GZSL"
FOLDERS = {"ucf": "UCF", "activitynet": "ActivityNet", "vggsound": "VGGSound"}


def files(root: Path, *names: str) -> Path:
    for name in names:
        place, _, text = name.partition("=")
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text or "x")
    return root


def listing(name: str, data: Path, lists: Path | None) -> Listing:
    return load(name, data, replace(DatasetOptions(), lists=lists))


FORMS = {
    "ucf-gzsl": (
        "filename,label,label_code\n{},{},2\n",
        ("v_Archery_g01_c01", "Archery"),
        ("v_BandMarching_g01_c01", "BandMarching"),
    ),
    "activitynet-gzsl": (
        "filename,label_code,label\n{},23,{}\n",
        ("-IkL9Kq9zfQ_0", "Canoeing"),
        ("-5h2E52tl4Q_0", "Cleaningsink"),
    ),
    "vggsound-gzsl": (
        'youtube_id,start_seconds,label,split,filename,label_code,category\nid,30,"{1}",train,{0},302,nature\n',
        ("--Bu2xe4OSo_000430", "wind noise"),
        ("-0pJqpNjft4_000267", "cow lowing"),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_of_columns_is_read(tmp_path: Path, name: str) -> None:
    form, seen, unseen = FORMS[name]
    lists = files(
        tmp_path / "lists/class-split/main_split",
        f"stage_1_train.csv={form.format(*seen)}",
        f"stage_2_train.csv={form.format(*seen)}",
        f"stage_2_test_unseen.csv={form.format(*unseen)}",
    )
    data = files(tmp_path / "data", f"flat/{seen[0]}.mp4", f"{unseen[1]}/{unseen[0]}.mp4", "flat/other.mp4")
    found = listing(name, data, lists.parent.parent)
    labels = found.catalog.labels()
    assert dict(zip(found.catalog.clip_id, found.catalog.clip_split)) == {
        f"{seen[1]}/{seen[0]}": "train",
        f"{unseen[1]}/{unseen[0]}": "test",
    }
    codes = labels.splits["default"][labels.label]
    assert codes.tolist() == [1, 3]
    assert any("other.mp4" in warning for warning in found.warnings)
    groups = {"ucf-gzsl": "Archery_g01", "activitynet-gzsl": "-IkL9Kq9zfQ", "vggsound-gzsl": "--Bu2xe4OSo"}
    assert found.catalog.group[0] == groups[name]
    words = dict(zip(labels.class_names, labels.words))
    if name == "activitynet-gzsl":
        assert words["Cleaningsink"] == "Cleaning sink"


def test_classes_that_cls_split_leaves_out_are_in_no_part_of_it() -> None:
    for name, count in (("ucf-gzsl", 3), ("activitynet-gzsl", 2), ("vggsound-gzsl", 5)):
        splits = class_facts(name).splits
        assert splits["cls"]["base"] == splits["default"]["base"]
        assert len(set(splits["default"]["novel"]) - set(splits["cls"]["novel"])) == count


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["stage_1_train.csv=name,label\na,b\n"], "no column 'filename'"),
        (["train.csv=filename,label\na,b\n"], "stage_1_train.csv"),
        (
            ["a/stage_1_train.csv=filename,label\na,b\n", "b/stage_1_train.csv=filename,label\na,b\n"],
            "Several files",
        ),
    ],
)
def test_wrong_stage_files_are_one_sentence(tmp_path: Path, given: list[str], says: str) -> None:
    data = files(tmp_path / "data", "Archery/v_Archery_g01_c01.avi")
    with pytest.raises(UsageError, match=says):
        listing("ucf-gzsl", data, files(tmp_path / "lists", *given))


VIDEOS = {
    "ucf": {"train": 3174, "val": 353 + 1467, "test": 555 + 1267},
    "activitynet": {"train": 9204, "val": 1023 + 4307, "test": 1615 + 4199},
    "vggsound": {"val": 7817 + 3102, "test": 9032 + 3450},
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published lists of ../shared")
def test_published_stage_files(tmp_path: Path) -> None:
    """The videos of each split, and their classes, are those that were counted in the files."""
    with tarfile.open(SHARED / "main_split_csv.tar.xz") as archive:
        for member in archive:
            if member.isfile() and ".." not in member.name and not member.name.startswith("/"):
                content = archive.extractfile(member)
                assert content is not None
                (tmp_path / member.name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / member.name).write_bytes(content.read())
    for name, counts in VIDEOS.items():
        facts = class_facts(f"{name}-gzsl")
        lines = read_stages(tmp_path, (name,))
        assert Counter(line.clip_split for line in lines) == counts
        by_key = facts.by_key()
        label = {by_key.get(class_key(spelt)) for spelt in {line.class_name for line in lines}}
        assert None not in label
        parts = [set(facts.splits["default"][part]) for part in PARTS]
        assert label <= set.union(*parts)
        assert np.all([one.isdisjoint(other) for one, other in ((parts[0], parts[1]), (parts[0], parts[2]))])
