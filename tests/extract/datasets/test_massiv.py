"""Dataset '3massiv' from files of the official form."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fsmm.errors import UsageError
from fsmm.extract.contract import AudioNeed, FrameNeed, Sampling
from fsmm.extract.datasets import load
from fsmm.extract.datasets.base import DatasetOptions, Listing
from fsmm.extract.datasets.massiv_tables import LABEL_SETS
from fsmm.extract.decoding.decode import decode

PLAIN = DatasetOptions()
HEADER = "PostIndex,Topic,Emotion,AudioFormat,VideoFormat,Language"
IDS = {
    "train": list(range(1000, 1034)),
    "val": [*range(40000, 40012), 46768],
    "test": list(range(60000, 60013)),
}
TOPICS = [f"concept {chr(ord('a') + i % 26)}{i // 26}" for i in range(34)]
Cell = Callable[[str, int], str]


def by_number(label_set: str, post: int) -> str:
    return str(post % LABEL_SETS[label_set])


def by_name(label_set: str, post: int) -> str:
    number = post % LABEL_SETS[label_set]
    return TOPICS[number] if label_set == "Topic" else f"{label_set} of kind {number:02}"


def official(root: Path, cell: Cell = by_number, concepts: bool = True, bom: str = "") -> Path:
    """The annotation files: 60 posts, CRLF in the first kind, LF in the second, whose val lacks 46768."""
    root.mkdir(parents=True, exist_ok=True)
    for split, posts in IDS.items():
        rows = [
            HEADER,
            *(",".join([str(post), *(cell(name, post) for name in LABEL_SETS)]) for post in posts),
        ]
        (root / f"3massiv_{split}.csv").write_bytes((bom + "\r\n".join(rows) + "\r\n").encode())
        if concepts:
            rows = ["post_id,concept,concept_id"]
            rows += [f"{post},{TOPICS[post % 34]},{post % 34}" for post in posts if post != 46768]
            (root / f"3massiv_concept_{split}.csv").write_bytes(("\n".join(rows) + "\n").encode())
    return root


def with_videos(root: Path) -> Path:
    """Empty files in the places of videos: every container and depth."""
    kinds = ("mp4", "MP4", "webm", "mkv")
    for place, post in enumerate(post for posts in IDS.values() for post in posts):
        folder = root / ("videos", f"videos/{post % 7}/deep", "")[place % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{post}.{kinds[place % 4]}").write_bytes(b"x")
    return root


def load_from(root: Path, **options: object) -> Listing:
    return load("3massiv", root, replace(PLAIN, **options))


def warned(listing: Listing, *parts: str) -> bool:
    return any(all(part in warning for part in parts) for warning in listing.warnings)


@pytest.mark.parametrize(("cell", "bom"), [(by_number, ""), (by_name, ""), (by_number, "\ufeff")])
def test_official_form(tmp_path: Path, cell: Cell, bom: str) -> None:
    listing = load_from(with_videos(official(tmp_path / "data", cell, bom=bom)))
    catalog = listing.catalog
    posts = [post for posts in IDS.values() for post in posts]
    assert catalog.dataset == "3massiv"
    assert catalog.clip_id == [str(post) for post in posts]
    assert catalog.clip_split == [split for split, ids in IDS.items() for _ in ids]
    assert set(catalog.label_sets) == set(LABEL_SETS)
    assert catalog.default_label_set == "Topic"
    for name, count in LABEL_SETS.items():
        labels = catalog.labels(name)
        assert len(labels.class_names) == count
        assert labels.label.tolist() == [post % count for post in posts]
        assert set(labels.splits) == {"default"}
    assert catalog.labels().class_names == TOPICS
    assert catalog.labels("Emotion").class_names[3] == (
        "Emotion 3" if cell is by_number else "Emotion of kind 03"
    )
    assert not listing.missing
    assert [w for w in listing.warnings if "46768" in w] == [
        "3massiv_concept_val.csv lacks 1 post (46768) of 3massiv_val.csv; their other labels stand."
    ]
    assert len(listing.warnings) == 1
    assert all(
        listing.sources[clip].video == listing.root / path
        for clip, path in zip(catalog.clip_id, catalog.path)
    )


def test_without_concept_files(tmp_path: Path) -> None:
    numbers = load_from(with_videos(official(tmp_path / "numbers", by_number, concepts=False)))
    assert numbers.catalog.labels().class_names == [f"Topic {i}" for i in range(34)]
    names = load_from(with_videos(official(tmp_path / "names", by_name, concepts=False)))
    assert names.catalog.labels().class_names == sorted(TOPICS)
    assert not numbers.warnings
    assert not names.warnings


@pytest.mark.parametrize("cell", [by_number, by_name])
@pytest.mark.parametrize("blank", ["", "-1", " ", "NaN"])
def test_unlabelled_cells(tmp_path: Path, cell: Cell, blank: str) -> None:
    """Every post has lost its Language, and 46768 its Topic, for which there is no concept either."""

    def holes(name: str, post: int) -> str:
        if name == "Language" and post < 2000:
            return blank
        return blank if name == "Topic" and post in (1003, 46768) else f" {cell(name, post)} "

    listing = load_from(with_videos(official(tmp_path / "data", holes)))
    labels, row = listing.catalog.labels(), listing.catalog.rows()
    assert labels.label[row["46768"]] == -1
    assert labels.label[row["1003"]] == 1003 % 34  # the concept file says it
    assert warned(listing, "1 posts have their Topic from the concept files")
    language = listing.catalog.labels("Language").label
    assert set(language[:34].tolist()) == {-1}
    assert (language[34:] >= 0).all()
    assert len(labels.class_names) == 34


def test_disagreement_is_told_and_the_main_file_counts(tmp_path: Path) -> None:
    root = with_videos(
        official(tmp_path / "data", lambda name, post: "0" if post == 1005 else by_number(name, post))
    )
    listing = load_from(root)
    assert warned(listing, "differ for 1 posts")
    assert listing.catalog.labels().label[listing.catalog.rows()["1005"]] == 0


def test_other_faults_are_told(tmp_path: Path) -> None:
    root = with_videos(official(tmp_path / "data"))
    train = root / "3massiv_train.csv"
    train.write_bytes(
        train.read_bytes() + b"oops,1,1,1,1,1\r\n77\r\n1000,1,1,1,1,1\r\n1001,40,1,1,1,1\r\n\r\n"
    )
    val = root / "3massiv_val.csv"
    val.write_bytes(val.read_bytes() + b"1002,1,1,1,1,1\r\n40999,34,1,1,1,1\r\n")
    with (root / "3massiv_concept_test.csv").open("a") as file:
        file.write("69999,concept a0,0\n")
    listing = load_from(root)
    assert warned(listing, "3massiv_train.csv", "2 faulty rows", "line 36")
    assert warned(listing, "3massiv_train.csv repeats 2 post ids of train")
    assert warned(listing, "3massiv_val.csv repeats 1 post ids of train")
    assert warned(listing, "3massiv_concept_test.csv has 1 post (69999)")
    assert warned(listing, "Topic has 35 classes", "34 are expected")
    assert listing.missing == ["40999"]
    assert listing.catalog.clip_split[:34] == ["train"] * 34


def test_missing_videos_and_files(tmp_path: Path) -> None:
    root = official(tmp_path / "data")
    with pytest.raises(UsageError, match=r"No video of the 60 posts .* 1000\.mp4"):
        load_from(root)
    for name in ("1000.mp4", "1002.mp4", "again/1002.mp4", "46768.mov", "cover.mp4", "99.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    listing = load_from(root)
    assert listing.catalog.clip_id == ["1000", "1002", "46768"]
    assert len(listing.missing) == 57
    assert warned(listing, "1002.mp4", "more than once")
    assert len(listing.catalog.labels().class_names) == 34  # whichever videos are there
    (root / "3massiv_test.csv").unlink()
    assert warned(load_from(root), "no 3massiv_test.csv")
    (root / "3massiv_val.csv").write_text("PostIndex,Topic\n1,2\n")
    with pytest.raises(UsageError, match=r"3massiv_val\.csv lacks the column Emotion"):
        load_from(root)
    for file in root.glob("3massiv*"):
        file.unlink()
    with pytest.raises(UsageError, match=r"None of 3massiv_train\.csv"):
        load_from(root)


def test_files_may_lie_deeper(tmp_path: Path) -> None:
    official(tmp_path / "data" / "annotations")
    assert len(load_from(with_videos(tmp_path / "data")).catalog) == 60


def test_splits_over_any_label_set(tmp_path: Path) -> None:
    root = with_videos(official(tmp_path / "data"))
    for name, count in LABEL_SETS.items():
        catalog = load_from(root, label_set=name, split_sizes=(count - 5, 2, 3), split_seed=1).catalog
        assert catalog.default_label_set == name
        counts = np.bincount(catalog.labels().splits["default"], minlength=4)
        assert counts.tolist() == [0, count - 5, 2, 3]


def test_smaller_benchmarks(tmp_path: Path) -> None:
    root = with_videos(official(tmp_path / "data"))
    whole = load_from(root, label_set="AudioFormat")
    counts = whole.catalog.labels().counts()
    small = load_from(root, label_set="AudioFormat", per_class=3)
    assert small.catalog.labels().counts().tolist() == np.minimum(counts, 3).tolist()
    few = load_from(root, label_set="AudioFormat", clips=20, seed=5).catalog
    assert sorted(few.labels().counts().tolist()) == [2, 2, 2, 2, 3, 3, 3, 3]
    assert few.clip_id == load_from(root, label_set="AudioFormat", clips=20, seed=5).catalog.clip_id
    assert load_from(root, limit=3).catalog.clip_id == ["1000", "1001", "1002"]


def test_unlabelled_folder(tmp_path: Path) -> None:
    root = with_videos(official(tmp_path / "data"))
    more = tmp_path / "unlabelled"
    more.mkdir()
    (more / "7.mp4").write_bytes(b"x")
    catalog = load_from(root, unlabelled=more).catalog
    assert catalog.clip_id[-1] == "unlabelled/7.mp4"
    assert all(labels.label[-1] == -1 for labels in catalog.label_sets.values())


def test_sixty_short_videos_decode(makers: ModuleType, tmp_path: Path) -> None:
    root = official(tmp_path / "data")
    for posts in IDS.values():
        for post in posts:
            makers.video(root / f"{post}.mp4", frames=4, width=32, height=32, sound=440.0, seconds=0.2)
    listing = load_from(root)
    needs = FrameNeed(size=32, segments=2), AudioNeed()
    for clip in listing.catalog.clip_id:
        decoded = decode(listing.sources[clip], clip, needs, Sampling())
        assert set(decoded.frames) | set(decoded.audio) == set(needs)
    assert len(listing.catalog) == 60


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    """53,865 posts with their files: the real number, in one walk."""
    root = tmp_path / "data"
    root.mkdir()
    starts = {"train": (1000, 32168), "val": (40000, 10853), "test": (60000, 10844)}
    for split, (start, count) in starts.items():
        rows = [HEADER]
        for post in range(start, start + count):
            folder = root / str(post % 50)
            folder.mkdir(exist_ok=True)
            (folder / f"{post}.mp4").touch()
            rows.append(",".join([str(post), *(by_number(name, post) for name in LABEL_SETS)]))
        (root / f"3massiv_{split}.csv").write_text("\r\n".join(rows))
    began = time.perf_counter()
    listing = load_from(root)
    print(f"listed {len(listing.catalog)} clips in {time.perf_counter() - began:.2f} s")
    assert len(listing.catalog) == 53_865
    assert len(load_from(root, per_class=10).catalog) == 340


def test_a_share_of_videos_gone_is_told_by_the_published_split(tmp_path: Path) -> None:
    """Three train posts and one test post lose their video; clips keep their part of the published split."""
    root = with_videos(official(tmp_path / "data"))
    gone = [*IDS["train"][:3], IDS["test"][0]]
    for path in root.rglob("*"):
        if path.stem in map(str, gone):
            path.unlink()
    listing = load_from(root)
    assert listing.missing == [str(post) for post in gone]
    assert warned(listing, "6.7% of the posts", "train 31 of 34, val 13 of 13, test 12 of 13")
    left = dict(zip(listing.catalog.clip_id, listing.catalog.clip_split))
    assert {s: sum(split == s for split in left.values()) for s in IDS} == {
        "train": 31,
        "val": 13,
        "test": 12,
    }
    assert not warned(load_from(with_videos(official(tmp_path / "whole"))), "of the posts have no video")


@pytest.mark.parametrize("name", LABEL_SETS)
def test_any_label_set_can_be_split(tmp_path: Path, name: str) -> None:
    listing = load_from(
        with_videos(official(tmp_path / "data")), label_set=name, split_sizes=(4, 1, 3), split_seed=3
    )
    labels = listing.catalog.labels()
    assert len(labels.class_names) == LABEL_SETS[name]
    assert np.bincount(labels.splits["default"], minlength=4)[1:].tolist() == [4, 1, 3]


def test_unlabelled_clips_can_be_capped(tmp_path: Path) -> None:
    root = with_videos(official(tmp_path / "data"))
    more = tmp_path / "unlabelled"
    more.mkdir()
    for number in range(40):
        (more / f"{number}.mp4").write_bytes(b"x")
    few, some, every = (
        {
            c
            for c in load_from(root, unlabelled=more, unlabelled_clips=n).catalog.clip_id
            if c.startswith("unl")
        }
        for n in (5, 12, 100)
    )
    assert (len(few), len(some), len(every)) == (5, 12, 40)
    assert few < some < every
    other = load_from(root, unlabelled=more, unlabelled_clips=5, seed=1).catalog.clip_id
    assert few != {clip for clip in other if clip.startswith("unl")}
    with pytest.raises(UsageError, match="name that folder"):
        load_from(root, unlabelled_clips=5)


def test_a_post_may_be_a_folder_of_frames(tmp_path: Path) -> None:
    root = official(tmp_path)
    (root / "videos" / "1000").mkdir(parents=True)
    for number in (2, 10):
        (root / "videos" / "1000" / f"{number}.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="give --frame-rate"):
        load("3massiv", root, PLAIN)
    found = load("3massiv", root, replace(PLAIN, frame_rate=25.0))
    assert [path.name for path in found.sources["1000"].images] == ["2.jpg", "10.jpg"]
