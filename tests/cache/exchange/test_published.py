"""Published feature files: one file a class, one folder a video, vectors named by texts, concatenated clips."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.cache.exchange.importing import ImportReport, import_features
from fsmm.cache.schema import StreamName, shard_paths
from fsmm.cache.shard import read_shard
from fsmm.errors import CacheError, FsmmError, UsageError

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT.parent / "shared" / "data" / "samples"
UTD = ROOT.parent / "shared" / "data" / "utd_mhad" / "utd_mhad.npz"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the samples of ../shared")


def run(root: Path, mapping: dict[str, Any]) -> ImportReport:
    root.mkdir(parents=True, exist_ok=True)
    (root / "map.json").write_text(json.dumps(mapping))
    return import_features(root / "map.json", root / "cache")


def rows(root: Path, dataset: str, stream: str) -> dict[str, np.ndarray | None]:
    found: dict[str, np.ndarray | None] = {}
    for path in shard_paths(root / "cache" / dataset, StreamName.parse(stream)):
        shard = read_shard(path)
        found |= {k: shard.clip(i) if shard.present[i] else None for i, k in enumerate(shard.key)}
    return found


# ---- one file a class


def hdf5(path: Path, names: list[str], x: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = x
        file["video_urls"] = np.array([n.encode() for n in names], "S80")


def pickled(path: Path, names: list[str], x: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"features": list(x), "video_names": [n.encode() for n in names], "fps": [25] * len(names)}
    path.write_bytes(pickle.dumps(content))


KINDS = {".h5": hdf5, ".pkl": pickled}
VIDEO = {
    f"v_{c}_g0{g}_c01": np.full(3, 10 * k + g, np.float32) for k, c in enumerate("AB") for g in (1, 2, 3)
}
MAPPING = {
    "dataset": "gzsl",
    "sources": {
        "video": {"path": "video", "format": "classes"},
        "audio": {"path": "audio", "format": "classes"},
        "text": "text.npy",
    },
    "arrays": {"video:features": "video/net", "audio:features": "audio/net"},
    "clip_split": "video:split",
    "label_sets": {
        "class": {
            "label": "video:class",
            "class_names": ["Bee Hive", "Ant"],
            "words": ["hive of bees", "the ant"],
        }
    },
    "words": {"word/net": {"vectors": "text:*", "by": "words"}},
}


def tree(root: Path, ending: str, write: Callable[[Path, list[str], np.ndarray], None]) -> None:
    """Two modalities whose files list the videos in different order; stage 2 repeats the videos of stage 1."""
    stages = {
        "stage_1_train": (1,),
        "stage_1_val_seen": (2,),
        "stage_2_train": (1, 2),
        "stage_2_test_seen": (3,),
    }
    for stage, groups in stages.items():
        for name, spelt in (("A", "Ant"), ("B", "BEE HIVE")):
            names = [f"v_{name}_g0{g}_c01" for g in groups]
            x = np.stack([VIDEO[n] for n in names])
            write(root / "video" / stage / f"{spelt}{ending}", names, x)
            write(root / "audio" / stage / f"{spelt}{ending}", names[::-1], -x[::-1])
    vectors = {"The Ant": np.array([1.0, 2.0]), "hive of bees": np.array([3.0, 4.0])}
    np.save(root / "text.npy", np.array(vectors, object), allow_pickle=True)


@pytest.mark.parametrize("ending", KINDS)
def test_files_of_classes_are_matched_by_name(tmp_path: Path, ending: str) -> None:
    tree(tmp_path, ending, KINDS[ending])
    report = run(tmp_path, MAPPING)
    assert report.clips == 6
    catalog = Catalog.read(tmp_path / "cache" / "gzsl")
    labels = catalog.labels()
    for clip, split, label in zip(catalog.clip_id, catalog.clip_split, labels.label):
        assert split == {"1": "train", "2": "val", "3": "test"}[clip[6]]
        assert labels.class_names[label] == {"A": "Ant", "B": "Bee Hive"}[clip[2]]
    video, audio = rows(tmp_path, "gzsl", "video/net"), rows(tmp_path, "gzsl", "audio/net")
    for clip, x in VIDEO.items():
        assert np.array_equal(video[clip], x[None])
        assert np.array_equal(audio[clip], -x[None])
    words = rows(tmp_path, "gzsl", "word/net")
    assert np.array_equal(words["class/Ant"], [[1, 2]])
    assert np.array_equal(words["class/Bee Hive"], [[3, 4]])


def test_by_position_most_classes_would_get_another_vector(tmp_path: Path) -> None:
    """The trap of published loaders: the order of readable names is not that of the classes' names."""
    tree(tmp_path, ".h5", hdf5)
    run(tmp_path, MAPPING)
    catalog = Catalog.read(tmp_path / "cache" / "gzsl")
    texts = catalog.labels().words
    assert sorted(texts) == texts  # as the file of vectors would be sorted
    assert sorted(catalog.labels().class_names) != catalog.labels().class_names


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda root: pickled(root / "video/stage_1_train/C.pkl", ["v_A_g01_c01"], np.ones((1, 3))),
            "in class",
        ),
        (
            lambda root: (root / "video/stage_1_train/C.pkl").write_bytes(pickle.dumps([1])),
            "must hold a dict",
        ),
        (lambda root: (root / "video/stage_1_train/C.h5").write_bytes(b"no HDF5"), "cannot be read"),
        (
            lambda root: (root / "video/stage_1_train/C.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR."),
            "not a pickle of numpy arrays",
        ),
    ],
)
def test_wrong_files_of_classes_are_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    tree(tmp_path, ".pkl", pickled)
    spoil(tmp_path)
    with pytest.raises(FsmmError, match=says):
        run(tmp_path, MAPPING)
    assert not (tmp_path / "cache" / "gzsl").exists()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"vectors": "video:features", "by": "words"}, CacheError, "No class has a vector"),
        ({"vectors": "text:*", "by": "place"}, UsageError, "by"),
        ({"vectors": "text:*", "by": "words", "keys": "x"}, UsageError, "either"),
    ],
)
def test_wrong_vectors_by_text_are_one_sentence(
    tmp_path: Path, change: dict[str, str], error: type[FsmmError], says: str
) -> None:
    tree(tmp_path, ".h5", hdf5)
    with pytest.raises(error, match=says):
        run(tmp_path, {**MAPPING, "words": {"word/net": change}})


@needs_samples
@pytest.mark.parametrize(
    ("tree_name", "arrays", "clips", "dims"),
    [
        ("avca/UCF/features/main_features", "h5", 9, (8, 6)),
        ("clipclap/UCF/features/cls_features_non_averaged", "pkl", 4, (4, 10)),
        ("tcaf_avdiff/UCF/features/1-shot", "pkl", 4, (7, 5)),
    ],
)
def test_the_samples_of_published_features(
    tmp_path: Path, tree_name: str, arrays: str, clips: int, dims: tuple[int, int]
) -> None:
    place = SAMPLES / tree_name
    mapping = {
        "dataset": "ucf",
        "sources": {m: {"path": str(place / m), "format": "classes"} for m in ("video", "audio")},
        "arrays": {"video:features": "video/net", "audio:features": "audio/net"},
        "label_sets": {"class": "video:class"},
    }
    report = run(tmp_path, mapping)
    assert report.added == {"video/net": clips, "audio/net": clips}
    for stream, dim in zip(("video/net", "audio/net"), dims):
        assert all(x is not None and x.shape[1] == dim for x in rows(tmp_path, "ucf", stream).values())
    if arrays == "pkl" and "tcaf" in tree_name:
        assert {len(x) for x in rows(tmp_path, "ucf", "video/net").values() if x is not None} == {3, 5}
    assert Catalog.read(tmp_path / "cache/ucf").group[0] == "Archery_g01"


@needs_samples
def test_the_mapping_of_ucf_gzsl_imports_the_published_form(tmp_path: Path) -> None:
    """The example's names and splits are those of the class split; vectors come from the readable names."""
    shared = SAMPLES.parent
    sources = {
        "video": SAMPLES / "avca/UCF/features/main_features/video",
        "audio": SAMPLES / "avca/UCF/features/main_features/audio",
        "text": SAMPLES / "avca/UCF/features/main_features/text/word_embeddings_ucf_normed.npy",
        "names": shared / "splits_gzsl/AVCA-GZSL/UCF/class-split/ucf_w2v_class_names.csv",
    }
    report = import_features(ROOT / "docs/examples/ucf-gzsl.json", tmp_path, sources=sources)
    labels = Catalog.read(tmp_path / "ucf-gzsl").labels()
    assert len(labels.class_names) == 101
    assert np.bincount(labels.splits["default"], minlength=4).tolist() == [50, 30, 12, 9]
    assert np.bincount(labels.splits["cls"], minlength=4).tolist() == [53, 30, 12, 6]
    assert report.added["word/published"] == 3


@needs_samples
@pytest.mark.parametrize(
    ("name", "classes"), [("ucf", "UCF"), ("activitynet", "ActivityNet"), ("vggsound", "VGGSound")]
)
def test_readable_names_of_the_mappings_are_the_published_ones(name: str, classes: str) -> None:
    mapping = json.loads((ROOT / f"docs/examples/{name}-gzsl.json").read_text())
    place = SAMPLES.parent / "splits_gzsl/AVCA-GZSL" / classes / "class-split"
    for split, folder in (("default", "main_split"), ("cls", "cls_split")):
        ours = mapping["label_sets"]["class"]["splits"][split]
        for part, stage in (
            ("base", "stage_1_train"),
            ("val", "stage_1_val_unseen"),
            ("novel", "stage_2_test_unseen"),
        ):
            published = (place / folder / f"{stage}.txt").read_text().split("\n")
            assert {c.lower() for c in ours[part]} == {c.strip().lower() for c in published if c.strip()}


# ---- one folder a video


def test_one_folder_a_video(tmp_path: Path) -> None:
    for split, name, video, x in (
        ("train", "Run", "v1", torch.arange(6.0).reshape(2, 3)),
        ("test", "Hop", "v2", torch.ones(3)),
        ("test", "Hop", "v3", torch.ones(4, 3, dtype=torch.float64)),
    ):
        place = tmp_path / "features" / split / name / video
        place.mkdir(parents=True)
        torch.save(x, place / "video_features.pth")
    (tmp_path / "features/test/readme.txt").write_text("no class")
    mapping = {
        "dataset": "tm",
        "sources": {"f": {"path": "features", "format": "videos"}},
        "arrays": {"features": {"stream": "video/net", "dtype": "float32"}},
        "clip_split": "split",
        "label_sets": {"class": "class"},
    }
    run(tmp_path, mapping)
    catalog = Catalog.read(tmp_path / "cache/tm")
    assert dict(zip(catalog.clip_id, catalog.clip_split)) == {"v1": "train", "v2": "test", "v3": "test"}
    found = rows(tmp_path, "tm", "video/net")
    assert np.array_equal(found["v1"], np.arange(6.0).reshape(2, 3))
    assert found["v2"] is not None
    assert found["v2"].shape == (1, 3)  # one clip of frames is stored as a plain vector


@pytest.mark.parametrize("content", [b"junk", pickle.dumps({"a": 1})])
def test_a_file_that_is_no_tensor_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "features" / "test" / "Run" / "v1"
    place.mkdir(parents=True)
    (place / "video_features.pth").write_bytes(content)
    mapping = {
        "dataset": "tm",
        "sources": {"f": {"path": "features", "format": "videos"}},
        "arrays": {"features": "video/net"},
        "label_sets": {"class": "class"},
    }
    with pytest.raises(CacheError, match=r"video_features\.pth"):
        run(tmp_path, mapping)


# ---- clips one after another


def test_concatenated_clips(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    np.savez(tmp_path / "a.npz", x=x, n=[2, 0, 4], y=[0, 1, 1])
    mapping = {
        "dataset": "made",
        "source": "a.npz",
        "arrays": {"x": {"stream": "sensor/raw", "length": "n", "concatenated": True, "flatten": True}},
        "label_sets": {"c": {"label": "y", "class_names": ["a", "b"]}},
    }
    run(tmp_path, mapping)
    found = rows(tmp_path, "made", "sensor/raw")
    assert np.array_equal(found["000000"], x[:2].reshape(2, 4))
    assert found["000001"] is None
    assert np.array_equal(found["000002"], x[2:].reshape(4, 4))
    np.savez(tmp_path / "a.npz", x=x, n=[2, 0, 5], y=[0, 1, 1])
    with pytest.raises(CacheError, match="add up to 7"):
        run(tmp_path, {**mapping, "dataset": "other"})
    with pytest.raises(UsageError, match="'length'"):
        run(tmp_path, {**mapping, "arrays": {"x": {"stream": "sensor/raw", "concatenated": True}}})


@pytest.mark.skipif(not UTD.is_file(), reason="needs ../shared/data/utd_mhad, not part of a clone")
def test_the_mapping_of_utd_mhad(tmp_path: Path) -> None:
    report = import_features(ROOT / "docs/examples/utd-mhad.json", tmp_path / "cache", sources={"utd": UTD})
    assert report.clips == 861
    catalog = Catalog.read(tmp_path / "cache/utd-mhad")
    assert set(catalog.group) == {f"s{person}" for person in range(1, 9)}
    assert len(catalog.labels().class_names) == 27
    with np.load(UTD, allow_pickle=False) as raw:
        lengths, x = raw["inertial_length"], raw["inertial"]
    found = rows(tmp_path, "utd-mhad", "sensor/inertial")
    ends = np.cumsum(lengths)
    for row in (0, 430, 860):
        assert np.array_equal(found[catalog.clip_id[row]], x[ends[row] - lengths[row] : ends[row]])
    bank = FeatureBank.load(tmp_path / "cache", split="novel")
    assert set(bank.tables) == {"sensor", "skeleton", "depth"}
