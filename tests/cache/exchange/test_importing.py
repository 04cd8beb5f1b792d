"""Features from elsewhere arrive as they are, and every wrong mapping is one sentence."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from import_support import MAPPING, NAMES, WORDS, N, arrays, changed, import_with, rows, run, save

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.cache.exchange.importing import import_features
from fsmm.cache.schema import StreamName, list_streams, shard_paths
from fsmm.cache.shard import read_shard
from fsmm.cache.stream import stream_checks, stream_keys
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import FsmmError


def test_everything_arrives(tmp_path: Path) -> None:
    data = arrays()
    report = run(tmp_path, MAPPING)
    assert (report.clips, report.dropped) == (29, 1)
    catalog = Catalog.read(tmp_path / "cache" / "made")
    ids = ["v0", "v0-2", "v1", "v1-2"] + [f"v{i}" for i in range(4, N) if i != 10]
    assert catalog.clip_id == ids
    kept = np.arange(N) != 10
    assert catalog.label_sets["kind"].label.tolist() == data["label"][kept].tolist()
    assert catalog.clip_split == data["part"][kept].tolist()
    frames, sound = rows(tmp_path / "cache", "frame/net"), rows(tmp_path / "cache", "audio/ear")
    assert list(frames) == list(sound) == ids
    for clip, row in zip(ids, np.flatnonzero(kept)):
        x = frames[clip]
        if data["length"][row]:
            assert x is not None
            assert x.dtype == np.float16
            assert np.array_equal(x, data["frames"][row, : data["length"][row]])
        else:
            assert x is None
        y = sound[clip]
        if data["has_sound"][row]:
            assert y is not None
            assert np.array_equal(y, data["sound"][row][None] * np.float32(0.5) - 1)
        else:
            assert y is None
    assert report.absent == {"frame/net": 1, "audio/ear": 10, "word/vec": 0}
    assert verify(tmp_path / "cache").findings == []


@pytest.mark.parametrize(("name", "meant"), [("no", "False"), ("~", "None"), ("1.10", "1.1")])
def test_a_class_name_that_yaml_takes_for_something_else_is_one_sentence(
    tmp_path: Path, name: str, meant: str
) -> None:
    save(tmp_path, MAPPING)
    names = "a, b, c, d, e"
    head = "dataset: made\nsource: made.npz\nids: vid\nrepeated_ids: suffix\narrays: {sound: audio/ear}\n"
    labels = f"label_sets: {{kind: {{label: label, class_names: [{names}, {name}]}}}}\n"
    (tmp_path / "m.yaml").write_text(head + labels)
    with pytest.raises(FsmmError, match=f"^{meant} in a list of .* is no text; put what was meant in quotes"):
        import_features(tmp_path / "m.yaml", tmp_path / "cache")
    (tmp_path / "m.yaml").write_text(head + labels.replace(f" {name}]", f" '{name}']"))
    import_features(tmp_path / "m.yaml", tmp_path / "cache")
    assert Catalog.read(tmp_path / "cache" / "made").labels().class_names[-1] == name


def test_splits_are_as_told_or_drawn(tmp_path: Path) -> None:
    run(tmp_path, MAPPING)
    labels = Catalog.read(tmp_path / "cache" / "made").labels()
    assert set(labels.splits) == {"drawn", "told", "default"}
    assert labels.splits["default"].tolist() == labels.splits["told"].tolist() == [1, 1, 1, 3, 3, 3]
    assert np.bincount(labels.splits["drawn"], minlength=4).tolist() == [0, 2, 1, 3]


def test_class_words_are_the_mean_of_their_words(tmp_path: Path) -> None:
    report = run(tmp_path, MAPPING)
    vectors = dict(zip(WORDS, arrays()["vec"]))
    found = rows(tmp_path / "cache", "word/vec")
    expected = [
        ["apply", "lipstick"],
        ["church", "bell"],
        ["horse", "riding"],
        ["violin", "fiddle"],
        ["bus"],
        ["cat"],
    ]
    for name, words in zip(NAMES, expected):
        mean = sum(vectors[w].astype(np.float64) for w in words) / len(words)
        np.testing.assert_allclose(found[f"kind/{name}"], mean[None], rtol=1e-6)
    assert report.warnings == []


def test_words_without_a_vector_are_left_out_with_a_warning(tmp_path: Path) -> None:
    data = arrays()
    data["names"] = np.array([*NAMES[:5], "cat xyzzy"])
    report = run(tmp_path, changed(label_sets__kind__splits=None), data)
    assert report.warnings == ["Class 'cat xyzzy': no vector for xyzzy; left out."]


def test_again_adds_nothing_and_a_change_is_refused(tmp_path: Path) -> None:
    run(tmp_path, MAPPING)
    before = stream_checks(tmp_path / "cache" / "made", StreamName.parse("frame/net"))
    report = run(tmp_path, MAPPING)
    assert sum(report.added.values()) == 0
    assert report.held["frame/net"] == 29
    data = arrays()
    data["frames"][7, 0, 0] += 1
    with pytest.raises(FsmmError, match="'v7' is in stream frame/net with other features"):
        run(tmp_path, MAPPING, data)
    data = arrays()
    data["label"][8] = 0
    with pytest.raises(FsmmError, match="'v8' has another label of 'kind'"):
        run(tmp_path, MAPPING, data)
    assert stream_checks(tmp_path / "cache" / "made", StreamName.parse("frame/net")) == before


def test_a_second_import_may_bring_more_clips_and_streams(tmp_path: Path) -> None:
    data = arrays()
    first = {k: v[:20] if len(v) == N else v for k, v in data.items()}
    run(tmp_path, changed(arrays__sound=None), first)
    report = run(tmp_path, MAPPING)
    assert (report.added["frame/net"], report.held["frame/net"]) == (10, 19)
    assert report.added["audio/ear"] == 29
    (tmp_path / "whole").mkdir()
    run(tmp_path / "whole", MAPPING)
    for stream in ("frame/net", "audio/ear", "word/vec"):
        one, other = (
            stream_checks(p / "cache" / "made", StreamName.parse(stream))
            for p in (tmp_path, tmp_path / "whole")
        )
        assert one == other


def test_multi_hot_labels(tmp_path: Path) -> None:
    many = {"label": "many", "class_names": ["p", "q", "r"], "words": ["apply", "bell", "cat"]}
    run(tmp_path, changed(label_sets__many=many))
    labels = Catalog.read(tmp_path / "cache" / "made").labels("many")
    assert labels.multi
    assert np.array_equal(labels.label, arrays()["many"][np.arange(N) != 10])


def as_hdf5(folder: Path, data: dict[str, np.ndarray]) -> str:
    with h5py.File(folder / "made.h5", "w") as file:
        for name, values in data.items():
            text = values.dtype.kind == "U"
            file.create_dataset(
                name,
                data=values.astype(object) if text else values,
                dtype=h5py.string_dtype() if text else None,
            )
    return "made.h5"


def as_pickle(folder: Path, data: dict[str, np.ndarray]) -> str:
    ragged: dict[str, Any] = dict(data)
    ragged["names"] = data["names"].tolist()
    (folder / "made.pkl").write_bytes(pickle.dumps(ragged, protocol=2))
    return "made.pkl"


def as_folder_of_arrays(folder: Path, data: dict[str, np.ndarray]) -> dict[str, str]:
    (folder / "made").mkdir()
    for name, values in data.items():
        np.save(folder / "made" / f"{name}.npy", np.asfortranarray(values))
    return {"path": "made", "format": "arrays"}


def as_plain_npz(folder: Path, data: dict[str, np.ndarray]) -> str:
    np.savez(
        folder / "plain.npz", **{k: np.asfortranarray(v) if k == "frames" else v for k, v in data.items()}
    )
    return "plain.npz"


@pytest.mark.parametrize("form", [as_hdf5, as_pickle, as_folder_of_arrays, as_plain_npz])
def test_every_format_gives_the_same_cache(tmp_path: Path, form: Callable[..., Any]) -> None:
    run(tmp_path, MAPPING)
    mapping = changed(source=form(tmp_path, arrays()))
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(mapping))
    import_features(path, tmp_path / "second")
    for stream in ("frame/net", "audio/ear", "word/vec"):
        one, other = (
            stream_checks(tmp_path / c / "made", StreamName.parse(stream)) for c in ("cache", "second")
        )
        assert one == other


def test_a_folder_with_one_file_a_clip_and_a_csv_of_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = {f"sub/c{i}": rng.normal(size=(i, 3) if i > 1 else 3).astype(np.float32) for i in range(1, 5)}
    for clip, x in made.items():
        (tmp_path / "feats" / "sub").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "feats" / f"{clip}.npy", x)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["clip", "what"], *([c, "cat" if i else "dog"] for i, c in enumerate(made)), ["gone", ""]]
        )
    mapping = {
        "dataset": "made",
        "sources": {"table": "labels.csv", "feats": "feats"},
        "ids": "clip",
        "arrays": {"feats": {"stream": "frame/net", "dtype": "float32"}},
        "label_sets": {"what": "what"},
    }
    path = tmp_path / "m.json"
    path.write_text(json.dumps(mapping))
    import_features(path, tmp_path / "cache")
    labels = Catalog.read(tmp_path / "cache" / "made").labels()
    assert labels.class_names == ["cat", "dog"]
    assert labels.label.tolist() == [1, 0, 0, 0, -1]
    found = rows(tmp_path / "cache", "frame/net")
    assert found.pop("gone") is None
    for clip, x in made.items():
        assert np.array_equal(found[clip], np.atleast_2d(x))


def test_ragged_lists_in_a_pickle(tmp_path: Path) -> None:
    clips = [np.full((t, 2), t, np.float32) for t in (3, 1, 2)]
    content = {"x": clips, "y": ["a", "b", "a"]}
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(content))
    mapping = {"dataset": "made", "source": "d.pkl", "arrays": {"x": "frame/net"}, "label_sets": {"y": "y"}}
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    import_features(tmp_path / "m.json", tmp_path / "cache")
    found = rows(tmp_path / "cache", "frame/net")
    assert list(found) == ["000000", "000001", "000002"]
    assert [x.shape[0] for x in found.values() if x is not None] == [3, 1, 2]


def test_sources_may_be_given_from_outside(tmp_path: Path) -> None:
    path = save(tmp_path, changed(source="elsewhere.npz"))
    with pytest.raises(FsmmError, match=r"'.*elsewhere.npz' does not exist.*--source NAME=PATH"):
        import_features(path, tmp_path / "cache")
    report = import_features(path, tmp_path / "cache", "renamed", {"source": tmp_path / "made.npz"})
    assert report.dataset == "renamed"
    with pytest.raises(FsmmError, match="Unknown source 'made'"):
        import_features(path, tmp_path / "cache", None, {"made": tmp_path / "made.npz"})


def test_the_facts_of_each_clip_reach_every_stream(tmp_path: Path) -> None:
    """Each stream is told the facts of all clips (a generator shared by streams would be empty for the second)."""
    data = {**arrays(), "seconds": np.arange(N) + 0.5}
    run(tmp_path, changed(facts__duration="seconds"), data)
    for stream in ("frame/net", "audio/ear"):
        shard = read_shard(shard_paths(tmp_path / "cache" / "made", StreamName.parse(stream))[0])
        assert shard.facts["duration"].tolist() == data["seconds"][np.arange(N) != 10].tolist()
    assert len(stream_keys(tmp_path / "cache" / "made", StreamName.parse("audio/ear"))) == 29


def with_nan() -> dict[str, np.ndarray]:
    data = arrays()
    data["frames"][6, 0, 0] = np.nan
    return data


def without(name: str, **more: np.ndarray) -> dict[str, np.ndarray]:
    return {**{k: v for k, v in arrays().items() if k != name}, **more}


WRONG: list[tuple[dict[str, Any], dict[str, np.ndarray] | None, str]] = [
    (changed(dataset=None), None, "lacks the key 'dataset'"),
    (changed(dataset="a/b"), None, "not usable as a folder"),
    (changed(datset="x"), None, r"Unknown mapping key 'datset'. Did you mean 'dataset'"),
    (changed(source=None), None, "lacks the key 'source'"),
    (changed(sources={"a": "made.npz"}), None, "either 'source' or 'sources'"),
    (changed(source="made.zip"), None, "does not exist"),
    (changed(source={"path": "made.npz", "format": "zip"}), None, "Unknown format"),
    (changed(source={"path": "made.npz", "format": "hdf5"}), None, "cannot be read as hdf5"),
    (changed(source={"path": "made.npz", "format": "folder"}), None, "is no folder"),
    (changed(ids="vids"), None, r"Unknown array of source 'made.npz' 'vids'. Did you mean 'vid'"),
    (changed(repeated_ids=None), None, r"'v0' stands for several rows \(2 such ids\)"),
    (changed(repeated_ids="rename"), None, "'repeated_ids'"),
    (changed(ids="frames"), None, "one entry a row"),
    (changed(drop="label"), None, "must hold one true or false"),
    (changed(drop="bad", ids="vid"), {**arrays(), "bad": np.ones(N, bool)}, "No clip is left"),
    (changed(drop="words"), None, "10 rows where the clips are 30"),
    (changed(arrays__frame={"stream": "frame/x"}), None, "Did you mean 'frames'"),
    (changed(arrays__frames__stream=None), None, "lacks the key 'stream'"),
    (changed(arrays__frames__stream="a b/net"), None, "Modality name 'a b' is not usable"),
    (changed(arrays__frames__stream="net"), None, "not of the form modality/encoder"),
    (changed(arrays__frames__stream="word/net"), None, "under 'words'"),
    (changed(arrays__frames__dtype="int8"), None, "dtype of array 'frames'"),
    (changed(arrays__frames__scale="2"), None, "'scale' of array 'frames' must be a number"),
    (changed(arrays__frames__lenght="length"), None, "Did you mean 'length'"),
    (changed(arrays__frames__length="vec"), None, "10 rows where"),
    (changed(arrays__frames__length="names"), None, "6 rows where"),
    (changed(), {**arrays(), "length": np.full(N, 9)}, "Length 9 of clip 'v0'"),
    (changed(), {**arrays(), "length": np.full(N, -1)}, "whole number from 0"),
    (changed(), {**arrays(), "length": np.full(N, 1.5)}, "whole number from 0"),
    (
        changed(),
        {**arrays(), "frames": arrays()["frames"][:20]},
        "'frames' has 20 rows where the clips are 30",
    ),
    (changed(), {**arrays(), "frames": np.zeros((N, 2, 3, 4))}, r"shape \[2, 3, 4\] for the first clip"),
    (changed(), {**arrays(), "frames": np.full((N, 3), "x")}, "features must be numbers"),
    (changed(), {**arrays(), "frames": np.float32(1)}, "'frames' has 0 rows"),
    (changed(), {**arrays(), "frames": np.full((N, 5, 7), 1e6)}, "not finite as float16"),
    (changed(), with_nan(), "NaN or infinity for clip 'v6'"),
    (changed(arrays__sound__present="label"), None, "one true or false"),
    (changed(label_sets={}), None, "names no label set"),
    (changed(label_sets__kind__label=None), None, "lacks the key 'label'"),
    (changed(label_sets__kind__class_names=None), None, "give its 'class_names'"),
    (changed(label_sets__kind__class_names=["a", "b"]), None, "run from 0 to 5, but there are 2"),
    (changed(label_sets__kind__class_names=["a"] * 6), None, "same class twice"),
    (changed(label_sets__kind__label="sound"), None, "multi-hot"),
    (changed(label_sets__kind__label="frames"), None, "labels must be whole numbers"),
    (changed(label_sets__kind__label="part"), None, "'train' in 'part' is not among the class names"),
    (changed(label_sets__kind__words=["a"]), None, "1 words for 6 classes"),
    (changed(default_label_set="sort"), None, "Unknown label set 'sort'"),
    (
        changed(label_sets__kind__splits__x={"seed": 0, "base": 5, "novel": 2}),
        None,
        "needs 7 classes; there are 6",
    ),
    (changed(label_sets__kind__splits__x={"base": ["zebra"]}), None, "Unknown class 'zebra'"),
    (changed(label_sets__kind__splits__x={"base": ["bus"], "val": ["bus"]}), None, "two splits"),
    (changed(label_sets__kind__splits__x={"seed": 0, "base": "bus"}), None, "all whole numbers"),
    (changed(label_sets__kind__splits__x="nope"), None, "class split of label set 'kind' 'nope'"),
    (changed(words={"frame/x": {"words": "words", "vectors": "vec"}}), None, "not a word stream"),
    (changed(words={"word/x": {"vectors": "vec"}}), None, "needs either 'words'"),
    (changed(words={"word/x": {"words": "names", "vectors": "vec"}}), None, "6 rows where"),
    (
        changed(),
        {**arrays(), "words": np.array([w + "x" for w in WORDS])},
        "None of the words of class 'ApplyLipstick'",
    ),
    (changed(), {**arrays(), "vec": np.full((10, 2), np.inf)}, "must hold finite numbers"),
    (changed(facts={"size": "label"}), None, "Unknown fact 'size'"),
    (changed(facts={"duration": "part"}), None, "does not hold what it should"),
    (changed(label_sets={"a/b": "part"}), None, "not usable as a folder"),
    (changed(arrays=[1]), None, "'arrays' of the mapping must be a table"),
]


@pytest.mark.parametrize(("mapping", "data", "says"), WRONG)
def test_a_wrong_mapping_is_one_sentence(
    tmp_path: Path, mapping: dict[str, Any], data: dict[str, np.ndarray] | None, says: str
) -> None:
    with pytest.raises(FsmmError, match=says) as caught:
        run(tmp_path, mapping, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("m.json", "{", "not valid JSON"),
        ("m.yaml", "a: [", "not valid YAML"),
        ("m.json", "[1]", "must hold a table of keys"),
        ("none.json", None, "cannot be read"),
    ],
)
def test_a_mapping_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(FsmmError, match=says) as caught:
        import_features(tmp_path / name, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_pickled_objects_inside_npz_are_refused(tmp_path: Path) -> None:
    data = {**arrays(), "label": np.array([{"a": 1}] * N, dtype=object)}
    with pytest.raises(FsmmError, match="'label'"):
        run(tmp_path, MAPPING, data)


def test_an_imported_set_is_ready_for_episodes(tmp_path: Path) -> None:
    run(tmp_path, MAPPING)
    bank = FeatureBank.load(tmp_path / "cache")
    assert set(bank.class_names) == set(NAMES[3:])
    assert bank.words is not None
    assert bank.words.shape == (3, 9)


SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "ave28.json"


@pytest.mark.skipif(not (SHARED / "ave28").is_dir(), reason="needs ../shared/data/ave28, not part of a clone")
def test_the_example_imports_ave28(tmp_path: Path) -> None:
    sources = {
        "ave28": SHARED / "ave28" / "ave28_train3339.npz",
        "glove": SHARED / "wordvec" / "glove100_class_words.npz",
    }
    report = import_features(EXAMPLE, tmp_path, sources=sources)
    assert (report.clips, report.dropped) == (3285, 54)
    assert report.added == {"audio/vggish": 3285, "frame/resnet101-pca": 3285, "word/glove-100": 28}
    catalog = Catalog.read(tmp_path / "ave28")
    with np.load(sources["ave28"], allow_pickle=False) as raw:
        kept = np.flatnonzero(~raw["in_two_classes"])
        ids, label, video, audio = (raw[name][kept] for name in ("youtube_id", "label", "video", "audio"))
    assert sum(a != b for a, b in zip(catalog.clip_id, ids)) < 30  # ids that stood twice
    assert all(a.startswith(b) for a, b in zip(catalog.clip_id, ids))
    assert np.array_equal(catalog.labels().label, label)
    splits = catalog.labels().splits
    assert set(splits) == {"s0", "s1", "s2", "default"}
    assert np.array_equal(splits["default"], splits["s0"])
    assert len({codes.tobytes() for codes in splits.values()}) == 3
    for codes in splits.values():
        assert np.bincount(codes, minlength=4).tolist() == [0, 12, 4, 12]
    bank = FeatureBank.load(tmp_path, split="novel")
    for key, raw_x in (("frame", video), ("audio", audio)):
        got = bank.tables[key].gather(bank.label.new_tensor([0, len(bank) - 1]))
        assert np.array_equal(got.x.numpy(), raw_x[bank.clip_row[[0, -1]]].astype(np.float32))
    assert bank.words is not None
    assert bank.words.shape == (12, 100)


def scaled(rng: np.random.Generator, scale: float, offset: float = 0.0) -> dict[str, np.ndarray]:
    return {"x": (rng.normal(size=(40, 8)) * scale + offset).astype(np.float32), "y": np.arange(40) % 4}


def scaled_mapping(**spec: Any) -> dict[str, Any]:
    return {
        "dataset": "made",
        "source": "made.npz",
        "arrays": {"x": {"stream": "sensor/meg", **spec}},
        "label_sets": {"c": {"label": "y", "class_names": ["a", "b", "c", "d"]}},
    }


@pytest.mark.parametrize(("scale", "offset"), [(1e-10, 0.0), (1e-7, 0.0), (1e-3, 1000.0), (1e-5, 1.0)])
def test_values_that_float16_would_round_away_are_refused_with_the_remedy(
    tmp_path: Path, scale: float, offset: float
) -> None:
    data = scaled(np.random.default_rng(0), scale, offset)
    with pytest.raises(FsmmError, match="'dtype': 'float32'"):
        run(tmp_path, scaled_mapping(), data)
    assert not (tmp_path / "cache").exists()
    run(tmp_path, scaled_mapping(dtype="float32"), data)
    kept = rows(tmp_path / "cache", "sensor/meg")
    assert all(np.array_equal(kept[f"{i:06d}"], data["x"][i][None]) for i in range(40))


def test_scale_and_offset_bring_small_values_into_float16(tmp_path: Path) -> None:
    data = scaled(np.random.default_rng(0), 1e-13)
    with pytest.raises(FsmmError, match="'scale'"):
        run(tmp_path, scaled_mapping(dtype="float32"), data)
    run(tmp_path, scaled_mapping(scale=1e13), data)
    kept = rows(tmp_path / "cache", "sensor/meg")["000003"]
    assert kept is not None
    np.testing.assert_allclose(kept[0], data["x"][3].astype(np.float64) * 1e13, rtol=1e-3)


def test_a_clip_that_underflows_among_others_is_refused_by_name(tmp_path: Path) -> None:
    data = scaled(np.random.default_rng(0), 1.0)
    data["x"][7] *= 1e-9
    with pytest.raises(FsmmError, match="'000007' are too small for float16"):
        run(tmp_path, scaled_mapping(), data)


def test_small_numbers_beside_usual_ones_are_stored(tmp_path: Path) -> None:
    """Rectified features hold many zeros and traces; only a clip that is lost as a whole is refused."""
    data = scaled(np.random.default_rng(0), 1.0)
    data["x"][:, ::2] = np.float32(1e-9)
    data["x"][5] = 0
    assert run(tmp_path, scaled_mapping(), data).added == {"sensor/meg": 40}


def test_a_modality_like_a_built_in_one_is_pointed_out(tmp_path: Path) -> None:
    report = run(tmp_path, changed(arrays__frames__stream="frames/net"))
    assert report.warnings == [
        "Modality 'frames' is a name of your own; if you meant 'frame', import into another cache."
    ]


def test_modalities_may_have_any_name_and_one_may_have_two_streams(tmp_path: Path) -> None:
    names = ["view1/net", "depth.v2/net", "values/net", "sensor/left-1.5", "sensor/right"]
    data = {
        f"x{i}": np.random.default_rng(i).normal(size=(N, 2, 4)).astype(np.float16) for i in range(len(names))
    }
    run(tmp_path, changed(arrays={f"x{i}": name for i, name in enumerate(names)}), {**arrays(), **data})
    assert verify(tmp_path / "cache").findings == []
    bank = FeatureBank.load(tmp_path / "cache", names)
    assert bank.modalities == ["view1", "depth.v2", "values", "sensor/left-1.5", "sensor/right"]
    for key, x in zip(bank.modalities, data.values()):
        kept = np.flatnonzero(np.arange(N) != 10)[bank.clip_row]
        assert np.array_equal(
            bank.tables[key].gather(torch.arange(len(bank))).x.numpy(), x[kept].astype(np.float32)
        )


def test_a_class_without_word_vectors_is_a_warning(tmp_path: Path) -> None:
    data = {**arrays(), "names": np.array([*NAMES[:5], "xyzzy"])}
    report = run(tmp_path, changed(label_sets__kind__splits=None), data)
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("None of the words of class 'xyzzy' ('xyzzy') is in 'words'")
    assert report.added["word/vec"] == 5
    assert FeatureBank.load(tmp_path / "cache", split="all").words is None


def test_warnings_do_not_name_thousands_of_classes(tmp_path: Path) -> None:
    names = np.array([*NAMES[:5], *(f"zz{i}" for i in range(500)), *(f"cat zz{i}" for i in range(500))])
    report = run(tmp_path, changed(label_sets__kind__splits=None), {**arrays(), "names": names})
    assert len(report.warnings) == 12
    assert sum(map(len, report.warnings)) < 3000


def test_a_stream_is_added_to_clips_of_the_cache_without_labels(tmp_path: Path) -> None:
    run(tmp_path, changed(words=None))
    before = Catalog.read(tmp_path / "cache" / "made")
    some = {"dataset": "made", "source": "depth.npz", "ids": "id", "arrays": {"x": "depth/net"}}
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float16)
    np.savez(tmp_path / "depth.npz", id=np.array(["v7", "v0-2", "v5"]), x=x)
    (tmp_path / "depth.json").write_text(json.dumps(some))
    report = import_features(tmp_path / "depth.json", tmp_path / "cache")
    assert (report.clips, report.added) == (3, {"depth/net": 3})
    after = Catalog.read(tmp_path / "cache" / "made")
    assert after.clip_id == before.clip_id
    assert np.array_equal(after.labels().label, before.labels().label)
    found = rows(tmp_path / "cache", "depth/net")
    assert list(found) == ["v7", "v0-2", "v5"]
    assert np.array_equal(np.concatenate([row for row in found.values() if row is not None]), x)
    words = {"dataset": "made", "source": "made.npz", "words": MAPPING["words"]}
    (tmp_path / "words.json").write_text(json.dumps(words))
    assert import_features(tmp_path / "words.json", tmp_path / "cache").added == {"word/vec": 6}


@pytest.mark.parametrize(
    ("ids", "says"),
    [("id", "'nobody' is not in data set 'made'.*'label_sets'"), (None, "'000000'.*by 'ids'")],
)
def test_a_stream_of_unknown_clips_without_labels_is_refused(
    tmp_path: Path, ids: str | None, says: str
) -> None:
    run(tmp_path, MAPPING)
    mapping = {"dataset": "made", "source": "depth.npz", "arrays": {"x": "depth/net"}, "ids": ids}
    np.savez(tmp_path / "depth.npz", id=np.array(["v7", "nobody"]), x=np.ones((2, 4), np.float32))
    (tmp_path / "depth.json").write_text(json.dumps(mapping))
    with pytest.raises(FsmmError, match=says):
        import_features(tmp_path / "depth.json", tmp_path / "cache")
    assert list_streams(tmp_path / "cache" / "made") == [
        StreamName.parse(name) for name in ("audio/ear", "frame/net", "word/vec")
    ]


def test_groups_come_from_an_array_or_from_known_names(tmp_path: Path) -> None:
    """UTD-MHAD's subject is a number; its ids name it, too."""
    data = {
        "id": np.array(["a1_s1_t1", "a1_s2_t1"]),
        "subject": np.array([1, 2], np.int8),
        "x": np.ones((2, 3)),
    }
    np.savez(tmp_path / "utd.npz", **data)
    labels = {"s": {"label": "subject", "class_names": ["x", "y", "z"]}}
    mapping = {
        "source": str(tmp_path / "utd.npz"),
        "ids": "id",
        "arrays": {"x": "sensor/raw"},
        "label_sets": labels,
    }
    for name in ("names", "array"):
        (tmp_path / name).mkdir()
    assert import_with(tmp_path / "names", **mapping).group == ["s1", "s2"]
    assert import_with(tmp_path / "array", **mapping, groups="subject").group == ["1", "2"]
    assert import_with(tmp_path / "array", **mapping).group == ["1", "2"]


def test_clips_that_an_import_brings_no_more_are_left_out(tmp_path: Path) -> None:
    run(tmp_path, MAPPING)
    before = FeatureBank.load(tmp_path / "cache", split="all", words=None)
    data = {name: values[4:] if len(values) == N else values for name, values in arrays().items()}
    report = run(tmp_path, MAPPING, data)
    assert (report.clips, report.gone) == (25, 4)
    after = FeatureBank.load(tmp_path / "cache", split="all", words=None)
    assert after.clip_row.tolist() == [row for row in before.clip_row if row >= 4]
    assert Catalog.read(tmp_path / "cache" / "made").labels("kind").label[:4].tolist() == [-1] * 4
    # Another mapping lists its own clips; and all of them come back with their labels.
    (tmp_path / "mapping.json").rename(tmp_path / "first.json")
    assert run(tmp_path, changed(drop="bad"), data).gone == 4
    assert run(tmp_path, MAPPING).gone == 0
    assert (
        FeatureBank.load(tmp_path / "cache", split="all", words=None).label.tolist() == before.label.tolist()
    )
