"""The few-shot benchmarks: published lists in all spellings, official layouts, published class splits."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.groups import group_by_name
from fsmm.errors import UsageError
from fsmm.extract.datasets import DATASETS, load
from fsmm.extract.datasets.base import DatasetOptions, Listing
from fsmm.extract.datasets.class_facts import PARTS, class_facts, class_key
from fsmm.extract.datasets.video_lists import Listed, read_lists

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_lists = pytest.mark.skipif(
    not (SHARED / "splits.tar.xz").is_file(), reason="needs the published lists of ../shared"
)


def files(root: Path, *names: str) -> Path:
    """Files that are taken for videos, or hold the text that follows a ``=``."""
    for name in names:
        place, _, text = name.partition("=")
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text or "x")
    return root


def listing(name: str, data: Path, lists: Path | None = None) -> Listing:
    return load(name, data, replace(DatasetOptions(), lists=lists))


def labels_of(found: Listing) -> dict[str, str]:
    """The class of each clip."""
    labels = found.catalog.labels()
    return {clip: labels.class_names[i] for clip, i in zip(found.catalog.clip_id, labels.label)}


def split_of(found: Listing, class_name: str) -> int:
    labels = found.catalog.labels()
    return int(labels.splits["default"][labels.class_names.index(class_name)])


# ---- the lists themselves


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All published lists, unpacked."""
    root = tmp_path_factory.mktemp("published")
    for archive in (SHARED / "splits.tar.xz", SHARED / "splits_gzsl/TSL/episode_lists.tar.xz"):
        with tarfile.open(archive) as file:
            for member in file:  # Only plain files are taken, under names of our own.
                if member.isfile() and not member.name.startswith("/") and ".." not in member.name:
                    content = file.extractfile(member)
                    assert content is not None
                    (root / member.name).parent.mkdir(parents=True, exist_ok=True)
                    (root / member.name).write_bytes(content.read())
    return root


COUNTS = {
    ("kinetics-100", "splits/CMN/kinetics-100"): (6400, 1200, 2400, 64, 12, 24),
    ("kinetics-100", "splits/CLIP-FSAR/kinetics100"): (6400, 1200, 2400, 64, 12, 24),
    ("kinetics-100", "splits/AMeFu-Net/splits"): (6264, 1169, 2350, 64, 12, 24),
    ("kinetics-100", "kinetics100/data_splits"): (6400, 1200, 2400, 64, 12, 24),
    ("ssv2-100", "splits/CMN/smsm-100"): (6400, 1200, 2400, 64, 12, 24),
    ("ssv2-100", "splits/CLIP-FSAR/ssv2_small"): (6400, 1200, 2400, 64, 12, 24),
    ("ssv2-full", "splits/trx/ssv2_OTAM"): (67013, 1926, 2857, 64, 12, 24),
    ("ssv2-full", "splits/CLIP-FSAR/ssv2_full"): (67013, 1926, 2857, 64, 12, 24),
    ("ssv2-full", "somethingv2/data_splits"): (0, 1926, 2857, 0, 12, 24),
    ("hmdb51", "splits/trx/hmdb_ARN"): (4280, 1194, 1292, 31, 10, 10),
    ("hmdb51", "splits/CLIP-FSAR/hmdb51"): (4280, 1194, 1292, 31, 10, 10),
    ("hmdb51", "splits/AMeFu-Net/splits"): (31, 10, 10, 31, 10, 10),
    ("ucf101", "splits/trx/ucf_ARN"): (9154, 1421, 2745, 70, 10, 21),
    ("ucf101", "splits/CLIP-FSAR/ucf101"): (9154, 1421, 2745, 70, 10, 21),
    ("ucf101", "splits/AMeFu-Net/splits"): (8430, 1301, 2745, 64, 9, 21),
    ("ucf101", "ucf101/data_splits"): (5891, 443, 971, 64, 12, 24),
}


def class_of(name: str, line: Listed) -> str | None:
    """The class of a line by the facts that come with the package; None for one that they do not know."""
    return class_called(name, line.part, line.class_name, line.number)


@lru_cache
def class_called(name: str, part: str, class_name: str, number: int) -> str | None:
    facts = class_facts(name)
    return facts.by_key().get(class_key(class_name)) if class_name else facts.numbered(part, number)


@needs_lists
@pytest.mark.parametrize(("name", "place"), COUNTS, ids=lambda value: value.replace("/", "-"))
def test_published_lists_are_read_and_agree_with_the_class_split(
    published: Path, name: str, place: str
) -> None:
    """Lines and classes of each part are those that were counted in the files; no class is in another part."""
    lines = read_lists(
        published / place, import_module(f"fsmm.extract.datasets.{DATASETS[name].module}").BENCHMARK.hints
    )
    by_part = Counter(line.part for line in lines)
    spelt = {(line.part, line.class_name, line.number): line for line in lines}
    classes = {key: class_of(name, line) for key, line in spelt.items()}
    in_part = {part: {c for key, c in classes.items() if key[0] == part} for part in PARTS}
    assert COUNTS[name, place] == (*(by_part[p] for p in PARTS), *(len(in_part[p]) for p in PARTS))
    assert None not in classes.values()
    split = class_facts(name).splits["tsl" if place == "ucf101/data_splits" else "default"]
    for part in PARTS:
        assert in_part[part] <= set(split[part])


@needs_lists
def test_numbered_classes_are_those_that_cmn_names(published: Path) -> None:
    """CLIP-FSAR numbers the classes of the videos whose classes CMN names: 10,000 videos agree."""
    named = read_lists(published / "splits/CMN/smsm-100", ())
    numbered = read_lists(published / "splits/CLIP-FSAR/ssv2_small", ())
    assert {line.video: class_of("ssv2-100", line) for line in named} == {
        line.video: class_of("ssv2-100", line) for line in numbered
    }
    of_video = {line.video: class_of("ssv2-100", line) for line in named}
    full = [line for line in read_lists(published / "splits/trx/ssv2_OTAM", ()) if line.video in of_video]
    assert len(full) == 3192  # these videos are in both benchmarks
    assert all(class_of("ssv2-full", line) == of_video[line.video] for line in full)


@needs_lists
@pytest.mark.parametrize(("name", "place"), [("ucf101", "ucf_ARN"), ("hmdb51", "hmdb_ARN")])
def test_groups_of_all_listed_videos(published: Path, name: str, place: str) -> None:
    lines = read_lists(published / "splits/trx" / place, ())
    groups = {line.video: group_by_name(f"{line.class_name}/{line.video}.avi") for line in lines}
    assert all(groups.values())
    if name == "ucf101":
        assert len(set(groups.values())) == 2525  # 25 source videos in each of 101 classes


def test_class_splits_are_disjoint_and_of_the_published_sizes() -> None:
    sizes = {
        "kinetics-100": {"default": (64, 12, 24)},
        "ssv2-100": {"default": (64, 12, 24)},
        "ssv2-full": {"default": (64, 12, 24)},
        "hmdb51": {"default": (31, 10, 10)},
        "ucf101": {"default": (70, 10, 21), "tsl": (64, 12, 24)},
    }
    for name, splits in sizes.items():
        facts = class_facts(name)
        for split, counts in splits.items():
            parts = [facts.splits[split][part] for part in PARTS]
            assert tuple(map(len, parts)) == counts
            assert len({class_key(c) for part in parts for c in part}) == sum(counts)


# ---- official layouts

UCF = [
    "ucf/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    "ucf/HandstandPushups/v_HandStandPushups_g01_c02.avi",
    "ucf/BlowingCandles/v_BlowingCandles_g02_c01.avi",
]
TRX = [
    "trainlist03.txt=ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01\n",
    "vallist03.txt=HandstandPushups/v_HandStandPushups_g01_c02\n",
    "testlist03.txt=BlowingCandles/v_BlowingCandles_g02_c01\n",
]
CLIPFSAR = [
    "train_few_shot.txt=train0//videos/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n",
    "val_few_shot.txt=val3//videos/HandStandPushups/v_HandStandPushups_g01_c02.avi\n",
    "test_few_shot.txt=test0//videos/BlowingCandles/v_BlowingCandles_g02_c01.avi\n",
]
AMEFU = [
    "ucf_train.list=ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01\n",
    "ucf_val.list=HandstandPushups/v_HandStandPushups_g01_c02\n",
    "ucf_test.list=BlowingCandles/v_BlowingCandles_g02_c01\n",
    "kinetics_train.list=air drumming/-VtLx-mcPds_000012_000022\n",
]


@pytest.mark.parametrize("lists", [TRX, CLIPFSAR, AMEFU], ids=["trx", "clip-fsar", "amefu-net"])
def test_all_spellings_of_lists_give_the_same_clips(tmp_path: Path, lists: list[str]) -> None:
    data = files(tmp_path / "data", *UCF)
    found = listing("ucf101", data, files(tmp_path / "lists", *lists))
    assert labels_of(found) == {
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01": "ApplyEyeMakeup",
        "HandstandPushups/v_HandStandPushups_g01_c02": "HandstandPushups",
        "BlowingCandles/v_BlowingCandles_g02_c01": "BlowingCandles",
    }
    assert found.catalog.group == ["ApplyEyeMakeup_g01", "HandStandPushups_g01", "BlowingCandles_g02"]
    assert [split_of(found, c) for c in ("ApplyEyeMakeup", "HandstandPushups", "BlowingCandles")] == [1, 2, 3]
    assert not found.missing
    assert found.catalog.path == UCF
    everything = listing("ucf101", data)
    assert sorted(everything.catalog.clip_id) == sorted(found.catalog.clip_id)
    counts = np.bincount(everything.catalog.labels().splits["default"], minlength=4)
    assert counts.tolist() == [0, 70, 10, 21]


def test_missing_clips_are_counted_and_unlisted_ones_named(tmp_path: Path) -> None:
    data = files(tmp_path / "data", *UCF[1:], "ucf/YoYo/v_YoYo_g01_c01.avi", "ucf/Sleeping/1.avi")
    found = listing("ucf101", data, files(tmp_path / "lists", *TRX))
    assert found.missing == ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01"]
    (told,) = [w for w in found.warnings if "in no list" in w]
    assert "2 videos" in told
    assert "ucf/YoYo/v_YoYo_g01_c01.avi" in told
    (told,) = [w for w in listing("ucf101", data).warnings if "no list" in w]
    assert "ucf/Sleeping/1.avi" in told


def test_a_list_of_classes_takes_all_videos_of_each(tmp_path: Path) -> None:
    """AMeFu-Net's lists of HMDB51, whose classes are misspelt as published."""
    names = ["brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "wave/x_wave_u_cm_np1_ri_bad_1.avi"]
    data = files(tmp_path / "data", *names, "swing_baseball/a_swing_baseball_u_cm_np1_fr_med_10.avi")
    lists = files(
        tmp_path / "lists",
        "hmdb_train.list=brush hairs\n",
        "hmdb_val.list=swing baseketball\n",
        "hmdb_test.list=talk\n",
    )
    found = listing("hmdb51", data, lists)
    assert set(labels_of(found).values()) == {"brush_hair", "swing_baseball"}
    assert found.catalog.group == ["April_09", "a"]
    assert split_of(found, "brush_hair") == 1
    assert split_of(found, "wave") == 0  # the list of train does not have it


def test_kinetics_is_found_with_and_without_times(tmp_path: Path) -> None:
    data = files(
        tmp_path / "data",
        "val_256/baking_cookies/-514AQUrSow.mp4",
        "train_256/air drumming/-VtLx-mcPds_000012_000022.mp4",
        "train_256/busking/-VtLx-mcPds_000050_000060.mp4",
    )
    cmn = files(
        tmp_path / "cmn",
        "train.list=air drumming/-VtLx-mcPds_000012_000022\nair drumming/-VtLx-mcPds_000099_000109\n",
        "val.list=baking cookies/-514AQUrSow_000058_000068\n",
    )
    found = listing("kinetics-100", data, cmn)
    assert labels_of(found) == {
        "air drumming/-VtLx-mcPds_000012_000022": "air drumming",
        "baking cookies/-514AQUrSow": "baking cookies",
    }
    assert found.missing == [
        "air drumming/-VtLx-mcPds_000099_000109"
    ]  # another part of that source is another clip
    clipfsar = files(
        tmp_path / "clipfsar",
        "train_few_shot.txt=train0//train_256/air_drumming/-VtLx-mcPds.mp4\n",
        "val_few_shot.txt=val0//val_256/baking_cookies/-514AQUrSow.mp4\n",
    )
    assert labels_of(listing("kinetics-100", data, clipfsar)) == labels_of(found)


TEMPLATES = json.dumps(
    [
        {"id": "78687", "template": "Closing [something]", "label": "closing a door"},
        {"id": "88644", "template": "Scooping [something] up with [something]"},
        {"id": "5", "template": "Approaching [something] with your camera"},
        {"id": "6", "template": "Another class of the 174"},
    ]
)
NUMBERED = ["v/78687.webm", "v/88644.webm", "v/5.webm", "v/6.webm"]
OTAM = ["trainlist07.txt=train1/78687\n", "vallist07.txt=val8/88644\nval3/6\n", "testlist07.txt=test0/5\n"]


def test_numbered_videos_get_their_classes_from_lists_or_json(tmp_path: Path) -> None:
    bare = files(tmp_path / "bare", *NUMBERED)
    lists = files(tmp_path / "lists", *OTAM)
    anonymous = listing("ssv2-full", bare, lists)
    known = {
        "78687": "Closing something",
        "88644": "Scooping something up with something",
        "5": "Approaching something with your camera",
    }
    assert labels_of(anonymous) == {**known, "6": "val3"}
    with_json = files(
        tmp_path / "json", *NUMBERED, f"labels/train.json={TEMPLATES}", 'labels.json={"Closing": "0"}'
    )
    named = listing("ssv2-full", with_json, lists)
    assert labels_of(named) == {**known, "6": "Another class of the 174"}
    assert split_of(named, "Another class of the 174") == 2
    assert "val3" not in named.catalog.labels().class_names
    assert labels_of(listing("ssv2-full", with_json)) == known
    assert set(labels_of(listing("ssv2-100", with_json)).values()) < set(
        class_facts("ssv2-100").class_names()
    )


def test_a_class_that_no_split_knows_is_named(tmp_path: Path) -> None:
    data = files(tmp_path / "data", "a/one.avi")
    found = listing("ucf101", data, files(tmp_path / "lists", "train.txt=Flying/one\n"))
    assert labels_of(found) == {"Flying/one": "Flying"}
    assert any("'Flying'" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["notes.md=x"], "train, val or test"),
        (["a/train.txt=wave/1\n", "b/train.txt=wave/2\n"], "Several files"),
        (["train.txt=\n"], "No line"),
        (["train.txt=/only\n"], "names no class"),
        (["train.txt=wave/none\n"], "None of the 1 listed"),
    ],
)
def test_wrong_lists_are_one_sentence(tmp_path: Path, given: list[str], says: str) -> None:
    data = files(tmp_path / "data", "wave/1.avi")
    with pytest.raises(UsageError, match=says):
        listing("hmdb51", data, files(tmp_path / "lists", *given))


def test_lists_are_refused_where_they_are_of_no_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no use for --lists"):
        listing("folder", tmp_path, tmp_path)
    with pytest.raises(UsageError, match="do not exist"):
        listing("ucf101", files(tmp_path / "d", *UCF), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "says"), [("ucf101", "folders of their classes"), ("ssv2-100", "are not known")]
)
def test_a_folder_without_its_videos_is_one_sentence(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        listing(name, files(tmp_path / "data", "other/1.webm"))
