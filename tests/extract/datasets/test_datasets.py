"""The datasets 'folder' and 'csv', the table of datasets, and what all datasets share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.errors import UsageError
from fsmm.extract.contract import FrameNeed, Sampling
from fsmm.extract.datasets import DATASETS, load
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.datasets.common import draw_clips, draw_per_class, safe_name
from fsmm.extract.decoding.decode import decode
from fsmm.machine.texts import plain_text

PLAIN = DatasetOptions()


def touch(root: Path, *names: str) -> Path:
    """Files that need not decode: listing looks at names alone."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def classes(root: Path, sizes: dict[str, int]) -> Path:
    return touch(root, *(f"{name}/{i:03}.mp4" for name, count in sizes.items() for i in range(count)))


def label_counts(catalog: Catalog) -> dict[str, int]:
    labels = catalog.labels()
    return dict(zip(labels.class_names, labels.counts().tolist()))


def test_the_table_loads_nothing_heavy() -> None:
    code = (
        "import sys, fsmm.extract.datasets as d; assert set(d.DATASETS) >= {'demo', 'folder', 'csv', '3massiv'};"
        "print([m for m in ('torch', 'av', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_and_absent_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'folder'"):
        load("folders", tmp_path, PLAIN)
    for name in ("folder", "csv", "3massiv"):
        with pytest.raises(UsageError, match="needs --data"):
            load(name, None, PLAIN)
        with pytest.raises(UsageError, match="does not exist"):
            load(name, tmp_path / "absent", PLAIN)
        with pytest.raises(UsageError):
            load(name, tmp_path, PLAIN)
    assert not DATASETS["demo"].needs_data


def test_folder(makers: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "my clips (new)"
    touch(
        root,
        "b/2.MKV",
        "b/deep/er/1.webm",
        "a/x.mp4",
        "a/note.txt",
        "loose.mp4",
        "a/.hidden.mp4",
        "c/alone.png",
    )
    listing = load("folder", root, PLAIN)
    catalog = listing.catalog
    assert catalog.dataset == "my-clips-new"
    assert catalog.clip_id == catalog.path == ["a/x.mp4", "b/2.MKV", "b/deep/er/1.webm"]
    assert catalog.labels().class_names == ["a", "b"]
    assert catalog.labels().label.tolist() == [0, 1, 1]
    assert [listing.sources[clip].video for clip in catalog.clip_id] == [
        listing.root / p for p in catalog.path
    ]
    for name in ("loose.mp4", "a/note.txt", "c/alone.png"):
        assert sum(name in warning for warning in listing.warnings) == 1
    assert replace(catalog, dataset="other").dataset == "other"


def test_folder_pairs_stills_and_videos_with_their_sound(makers: ModuleType, tmp_path: Path) -> None:
    touch(tmp_path, "a/x.JPG", "a/x.wav", "a/y.mp4", "a/y.wav", "a/y.jpg", "a/z.mp3")
    listing = load("folder", tmp_path, PLAIN)
    root = listing.root
    assert set(listing.sources) == {"a/x.JPG", "a/y.mp4", "a/z.mp3"}
    still, video, sound = (listing.sources[clip] for clip in ("a/x.JPG", "a/y.mp4", "a/z.mp3"))
    assert (still.video, still.images, still.audio) == (None, (root / "a/x.JPG",), root / "a/x.wav")
    assert (video.video, video.images, video.audio) == (root / "a/y.mp4", (), root / "a/y.wav")
    assert (sound.video, sound.images, sound.audio) == (None, (), root / "a/z.mp3")


def test_hostile_names_survive_the_catalog_and_lead_back_to_the_files(
    makers: ModuleType, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    good = makers.video(tmp_path / "good.mp4", frames=2).read_bytes()
    names = [
        "two\nlines.mp4",
        "日本 語.mp4",
        "back\\slash.mp4",
        r"\xff.mp4",
        "%d;'\"|.mp4",
        " .mp4",
        "e\u0301.mp4",
    ]
    made = [os.fsencode(name) for name in names] + [b"\xff\xfe.mp4"]
    folder = os.fsencode(root / "class \udce9\n")
    os.makedirs(folder)
    for name in made:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(good)
    listing = load("folder", root, PLAIN)
    assert len(set(listing.catalog.clip_id)) == len(made)
    listing.catalog.write(tmp_path / "cache")
    again = Catalog.read(tmp_path / "cache")
    assert again.clip_id == listing.catalog.clip_id
    assert again.labels().class_names == listing.catalog.labels().class_names
    for clip in again.clip_id:
        assert decode(listing.sources[clip], clip, [FrameNeed(size=8)], Sampling()).facts.has_video


@given(st.lists(st.binary(min_size=1, max_size=6), unique=True, max_size=20))
def test_plain_text_is_utf8_and_tells_names_apart(names: list[bytes]) -> None:
    texts = [plain_text(name.decode("utf-8", "surrogateescape")) for name in names]
    assert len({text.encode("utf-8") for text in texts}) == len(names)


@given(st.text(max_size=20))
def test_safe_names_are_folders_of_the_cache(text: str) -> None:
    Catalog(safe_name(text), [], {"class": LabelSet([], np.zeros(0))}, "class")


def test_links_stay_inside_and_loops_end(tmp_path: Path) -> None:
    outside = classes(tmp_path / "outside", {"secret": 2})
    root = classes(tmp_path / "data", {"a": 2, "b": 1})
    (root / "a" / "same.mp4").symlink_to(root / "b" / "000.mp4")
    (root / "a" / "out.mp4").symlink_to(outside / "secret" / "000.mp4")
    (root / "a" / "gone.mp4").symlink_to(root / "nowhere.mp4")
    (root / "a" / "self.mp4").symlink_to(root / "a" / "self.mp4")
    (root / "a" / "up").symlink_to(root)
    (root / "c").symlink_to(outside / "secret")
    listing = load("folder", root, PLAIN)
    assert listing.catalog.clip_id == ["a/000.mp4", "a/001.mp4", "a/same.mp4", "b/000.mp4"]
    (refused,) = [warning for warning in listing.warnings if "refused" in warning]
    assert all(name in refused for name in ("a/out.mp4", "'c'", "--follow-links"))
    (lost,) = [warning for warning in listing.warnings if "nowhere" in warning]
    assert all(name in lost for name in ("a/gone.mp4", "a/self.mp4"))
    assert any("a/up" in warning and "not followed" in warning for warning in listing.warnings)
    linked = tmp_path / "by-link"
    linked.symlink_to(root)
    assert load("folder", linked, PLAIN).catalog.clip_id == listing.catalog.clip_id


def test_links_are_followed_where_asked_and_loops_end_all_the_same(tmp_path: Path) -> None:
    outside = classes(tmp_path / "outside", {"secret": 2})
    (outside / "secret" / "back").symlink_to(outside)
    root = classes(tmp_path / "data", {"a": 1, "b": 1})
    (root / "a" / "out.mp4").symlink_to(outside / "secret" / "000.mp4")
    (root / "a" / "gone.mp4").symlink_to(root / "nowhere.mp4")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "a").symlink_to(root / "a")
    (root / "c").symlink_to(outside / "secret")
    listing = load("folder", root, replace(PLAIN, follow_links=True))
    assert listing.catalog.clip_id == [
        "a/000.mp4", "a/out.mp4", "b/000.mp4", "b/a/000.mp4", "b/a/out.mp4", "c/000.mp4", "c/001.mp4",
    ]  # fmt: skip
    assert listing.catalog.labels().class_names == ["a", "b", "c"]
    (looping,) = [warning for warning in listing.warnings if "not followed" in warning]
    assert all(name in looping for name in ("a/up", "b/a/up", "c/back"))
    assert any("gone.mp4" in warning and "nowhere" in warning for warning in listing.warnings)


def test_many_links_that_lead_round_end_in_a_sentence(tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(9)]
    root = touch(tmp_path / "data", *(f"{name}/a.mp4" for name in names))
    for name in names:
        for other in names:
            (root / name / other).symlink_to(root / other)
    assert len(load("folder", root, PLAIN).catalog) == 9
    with pytest.raises(UsageError, match=r"lead round; leave out --follow-links"):
        load("folder", root, replace(PLAIN, follow_links=True))


def test_a_folder_of_links_that_lead_out_says_what_to_do(tmp_path: Path) -> None:
    """A hub's download cache holds its snapshots so."""
    touch(tmp_path / "blobs", "0a1b")
    (tmp_path / "snapshot" / "dance").mkdir(parents=True)
    (tmp_path / "snapshot" / "dance" / "1.mp4").symlink_to("../../blobs/0a1b")
    with pytest.raises(UsageError, match=r"1 link refused for leading out .*dance/1\.mp4.*--follow-links"):
        load("folder", tmp_path / "snapshot", PLAIN)
    followed = load("folder", tmp_path / "snapshot", replace(PLAIN, follow_links=True))
    assert followed.catalog.clip_id == ["dance/1.mp4"]


def test_folders_of_two_spellings_are_one_class_and_folders_named_nan_none(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "caf\u00e9/1.mp4",
        "cafe\u0301/2.mp4",
        "nan/3.mp4",
        "None/4.mp4",
        "none/5.mp4",
        "Bar/6.mp4",
        "bar/7.mp4",
    )
    listing = load("folder", tmp_path, PLAIN)
    labels = dict(zip(listing.catalog.path, listing.catalog.labels().label.tolist()))
    assert listing.catalog.labels().class_names == ["Bar", "bar", "caf\u00e9", "none"]
    assert labels["caf\u00e9/1.mp4"] == labels["cafe\u0301/2.mp4"] == 2
    assert labels["nan/3.mp4"] == labels["None/4.mp4"] == -1
    assert labels["none/5.mp4"] == 3
    for told in ("2 clips of folders such as", "'Bar', 'bar'", "named 'none'"):
        assert sum(told in warning for warning in listing.warnings) == 1


@pytest.mark.parametrize("name", ["folder", "3massiv", "demo"])
def test_data_sets_without_listed_paths_refuse_a_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no use for --root"):
        load(name, tmp_path, replace(PLAIN, root=tmp_path))


def csv(root: Path, text: str, *files: str, name: str = "clips.csv", encoding: str = "utf-8") -> Path:
    touch(root, *files)
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def test_csv(tmp_path: Path) -> None:
    text = (
        "id, Path ,label,tags,split\r\n"
        "one,v/1.mp4, run ,fast|red,train\r\n"
        "two,v/2.mp4,walk,red,validation\r\n"
        '"thr,ee",v/3.mp4,,,\r\n'
        "four,v/4.mp4,jump,slow,test\r\n"
        ",v/gone.mp4,crawl,slow,test\r\n"
        "\r\n"
    )
    files = [f"v/{i}.mp4" for i in range(1, 5)]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        listing = load("csv", csv(tmp_path, text, *files, encoding=encoding), PLAIN)
        catalog = listing.catalog
        assert catalog.clip_id == ["one", "two", "thr,ee", "four"]
        assert catalog.path == files
        assert catalog.clip_split == ["train", "val", "", "test"]
        assert listing.missing == ["v/gone.mp4"]
        assert catalog.default_label_set == "label"
        # "crawl" has no clip at hand and is a class all the same
        assert catalog.labels().class_names == ["crawl", "jump", "run", "walk"]
        assert catalog.labels().label.tolist() == [2, 3, -1, 1]
        assert catalog.labels("tags").class_names == ["fast", "red", "slow"]
        assert catalog.labels("tags").label.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert load("csv", tmp_path, PLAIN).catalog.clip_id == catalog.clip_id
    assert load("csv", tmp_path, replace(PLAIN, label_set="tags")).catalog.default_label_set == "tags"
    with pytest.raises(UsageError, match="Unknown label set 'tag'"):
        load("csv", tmp_path, replace(PLAIN, label_set="tag"))


@pytest.mark.parametrize(
    "text", [",path,label\n0,a.mp4,x\n", "path,label,\na.mp4,x,\n", "path,label\na.mp4,x,\n"]
)
def test_csv_columns_without_a_name_are_passed_over(tmp_path: Path, text: str) -> None:
    catalog = load("csv", csv(tmp_path, text, "a.mp4"), PLAIN).catalog
    assert (catalog.clip_id, catalog.labels().class_names) == (["a.mp4"], ["x"])
    assert list(catalog.label_sets) == ["label"]


def test_csv_names_the_group_of_a_clip(tmp_path: Path) -> None:
    text = "path,label,Group\na.mp4,x,film\nb.mp4,x,\nc.mp4,y, film \n"
    catalog = load("csv", csv(tmp_path, text, "a.mp4", "b.mp4", "c.mp4"), PLAIN).catalog
    assert catalog.group == ["film", "", "film"]
    assert list(catalog.label_sets) == ["label"]


def test_known_file_names_give_the_groups(tmp_path: Path) -> None:
    touch(tmp_path, "Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c02.avi")
    touch(tmp_path, "Bowling/v_Bowling_g01_c01.avi", "Bowling/other.avi")
    catalog = load("folder", tmp_path, PLAIN).catalog
    assert catalog.group == ["Archery_g01", "Archery_g01", "", "Bowling_g01"]


@pytest.mark.parametrize("divider", [",", ";", "\t"])
def test_csv_dividers_and_tables_without_labels(tmp_path: Path, divider: str) -> None:
    path = csv(tmp_path, f"path{divider}split\na.mp4{divider}train\n", "a.mp4")
    catalog = load("csv", path, PLAIN).catalog
    assert catalog.clip_id == ["a.mp4"]
    assert catalog.labels().label.tolist() == [-1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must name its columns"),
        ("file,label\na.mp4,x\n", "'path'"),
        ("path,label,label\na.mp4,x,y\n", "different names"),
        ("path,label\na.mp4\n", "Line 2 .* has 1 cells"),
        ("path,label\na.mp4,x\n../b.mp4,x\n", "Line 3 .*not a file inside"),
        ("path,label\n/etc/passwd,x\n", "Line 2 .*not a file inside"),
        ("path,label\n,x\n", "Line 2 .*not a file inside"),
        ("path,label\n.,x\n", "Line 2 .*not a file inside"),
        ("path,label\na.mp4,x\na.mp4,y\n", "Lines 2 and 3"),
        ("path,split\na.mp4,trial\n", "Line 2 .*'trial'"),
        ("path,label\ngone.mp4,x\n", "None of the 1 files"),
        ('path,label\n"a.mp4,x\n', "is not CSV"),
    ],
)
def test_csv_faults_are_told_with_their_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load("csv", csv(tmp_path / "data", text, "a.mp4", "../b.mp4"), PLAIN)


def test_csv_refuses_links_that_lead_out(tmp_path: Path) -> None:
    touch(tmp_path, "secret.mp4")
    path = csv(tmp_path / "data", "path,label\na.mp4,x\nlink.mp4,x\n", "a.mp4")
    (tmp_path / "data" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    listing = load("csv", path, PLAIN)
    assert listing.catalog.clip_id == ["a.mp4"]
    assert any("link.mp4" in warning for warning in listing.warnings)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return classes(tmp_path / "many", {"a": 3, "b": 9, "c": 20, "d": 1, "e": 12})


@pytest.mark.parametrize("count", [1, 3, 10, 99])
def test_per_class_draws_up_to_so_many_of_each(many: Path, count: int) -> None:
    everything = label_counts(load("folder", many, PLAIN).catalog)
    drawn = load("folder", many, replace(PLAIN, per_class=count)).catalog
    assert label_counts(drawn) == {name: min(count, held) for name, held in everything.items()}


@pytest.mark.parametrize("count", [1, 4, 5, 12, 30, 45])
def test_clips_draws_exactly_so_many_as_evenly_as_it_goes(many: Path, count: int) -> None:
    everything = label_counts(load("folder", many, PLAIN).catalog)
    listing = load("folder", many, replace(PLAIN, clips=count))
    held = label_counts(listing.catalog)
    assert sum(held.values()) == len(listing.catalog) == count
    fullest = max(held.values())
    assert all(held[name] >= min(fullest - 1, everything[name]) for name in everything)
    assert set(listing.sources) == set(listing.catalog.clip_id)


def test_more_clips_than_there_are_is_a_warning(many: Path) -> None:
    listing = load("folder", many, replace(PLAIN, clips=1000))
    assert len(listing.catalog) == 45
    assert any("1000" in warning and "45" in warning for warning in listing.warnings)


@pytest.mark.parametrize("option", ["clips", "per_class"])
def test_draws_are_nested_repeatable_and_differ_by_seed(many: Path, option: str) -> None:
    def drawn(count: int, seed: int = 0) -> set[str]:
        return set(load("folder", many, replace(PLAIN, seed=seed, **{option: count})).catalog.clip_id)

    assert drawn(4) == drawn(4)
    assert drawn(4) < drawn(8)
    assert drawn(4) != drawn(4, seed=1)


def test_draws_keep_the_catalogs_order_and_fit_together(many: Path) -> None:
    order = load("folder", many, PLAIN).catalog.clip_id
    both = load("folder", many, replace(PLAIN, per_class=2, clips=6, limit=4)).catalog
    assert both.clip_id == [clip for clip in order if clip in set(both.clip_id)]
    assert len(both) == 4
    assert max(label_counts(both).values()) <= 2
    assert load("folder", many, replace(PLAIN, limit=7)).catalog.clip_id == order[:7]
    for option in ("clips", "per_class", "limit"):
        with pytest.raises(UsageError, match="at least 1"):
            load("folder", many, replace(PLAIN, **{option: 0}))


def test_draws_are_spread_over_clips(many: Path) -> None:
    """Each of class c's 20 clips is drawn about as often as the others."""
    counts: Counter[str] = Counter()
    for seed in range(300):
        counts.update(
            c
            for c in load("folder", many, replace(PLAIN, seed=seed, per_class=5)).catalog.clip_id
            if c[0] == "c"
        )
    # binomial(300, 1/4): mean 75, standard deviation 7.5
    assert len(counts) == 20
    assert all(abs(count - 75) < 5 * 7.5 for count in counts.values())


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_draws_over_several_labels_a_clip(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    labels = LabelSet(list("abcd"), (random.random((30, 4)) < 0.3).astype(np.uint8))
    ids = [str(i) for i in range(30)]
    rows = draw_per_class(ids, labels, count, seed)
    assert (labels.label[rows].sum(0) >= np.minimum(labels.label.sum(0), count)).all()
    assert labels.label[rows].any(1).all()
    labelled = int(labels.label.any(1).sum())
    chosen = draw_clips(ids, labels, count, seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, labelled)


def test_class_splits(many: Path, tmp_path: Path) -> None:
    def codes(**options: object) -> list[int]:
        return load("folder", many, replace(PLAIN, **options)).catalog.labels().splits["default"].tolist()

    drawn = codes(split_sizes=(2, 1, 2))
    assert sorted(drawn) == [1, 1, 2, 3, 3]
    assert drawn == codes(split_sizes=(2, 1, 2), per_class=1)  # whichever clips are at hand
    assert any(codes(split_sizes=(2, 1, 2), split_seed=seed) != drawn for seed in range(1, 5))
    with pytest.raises(UsageError, match="needs 6 classes; there are 5"):
        codes(split_sizes=(2, 2, 2))
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"base": ["c", "a"], "novel": ["e"]}))
    assert codes(split_file=file) == [1, 0, 1, 0, 3]
    for text in (
        "",
        "[]",
        "{}",
        '{"base": "a"}',
        '{"train": ["a"]}',
        '{"base": ["z"]}',
        '{"base": ["a"], "val": ["a"]}',
    ):
        file.write_text(text)
        with pytest.raises(UsageError):
            codes(split_file=file)
    with pytest.raises(UsageError, match="cannot be read"):
        codes(split_file=tmp_path / "absent.json")


def test_small_is_a_few_of_each_class(many: Path) -> None:
    small = load("folder", many, replace(PLAIN, small=True)).catalog
    assert label_counts(small) == {"a": 3, "b": 8, "c": 8, "d": 1, "e": 8}


def test_unlabelled_videos_join_without_labels(many: Path, tmp_path: Path) -> None:
    more = touch(tmp_path / "more", "deep/1.mp4", "2.webm", "text.txt")
    listing = load("folder", many, replace(PLAIN, unlabelled=more, per_class=1))
    assert listing.catalog.clip_id[-2:] == ["unlabelled/2.webm", "unlabelled/deep/1.mp4"]
    assert listing.catalog.labels().label.tolist() == [0, 1, 2, 3, 4, -1, -1]
    assert listing.sources["unlabelled/2.webm"].video == more.resolve() / "2.webm"
    with pytest.raises(UsageError, match="holds no video"):
        load("folder", many, replace(PLAIN, unlabelled=touch(tmp_path / "empty", "a.txt")))
