"""Data of another origin never join a data set without a word, and their clips never take one another's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from extract_support import SOUND, extracted, film, rows
from tests_support import make_older

from fsmm.cache.catalog import Catalog
from fsmm.cache.exchange.importing import import_features
from fsmm.cache.upkeep.merge import merge
from fsmm.cache.upkeep.upgrade import upgrade
from fsmm.errors import CacheError, UsageError
from fsmm.extract.datasets import load
from fsmm.extract.datasets.base import DatasetOptions


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """p1/videos and p2/videos, whose a/0.mp4 differ."""
    for number in (1, 2):
        film(tmp_path / f"p{number}" / "videos" / "a" / "0.mp4", 300 * number)
        film(tmp_path / f"p{number}" / "videos" / "b" / f"only{number}.mp4", 300 * number + 100)
    return tmp_path / "p1" / "videos", tmp_path / "p2" / "videos"


def test_another_folder_of_the_same_name_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    folder = Path(extracted(one, tmp_path / "cache").folder)
    before = {path: path.read_bytes() for path in folder.rglob("*.h5")}
    with pytest.raises(CacheError) as refusal:
        extracted(other, tmp_path / "cache")
    for part in (str(one), str(other), "--name NAME", "--into videos"):
        assert part in str(refusal.value)
    assert {path: path.read_bytes() for path in folder.rglob("*.h5")} == before
    extracted(other, tmp_path / "cache", name="second")
    assert Catalog.read(tmp_path / "cache" / "second").clip_id == ["a/0.mp4", "b/only2.mp4"]
    # Another way to the same folder is no other folder.
    (tmp_path / "videos").symlink_to(one)
    assert extracted(tmp_path / "videos", tmp_path / "cache").skipped == 2


def test_clips_of_another_root_are_other_clips(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    folder = Path(extracted(one, tmp_path / "cache").folder)
    before = rows(folder, SOUND)
    report = extracted(other, tmp_path / "cache", into="videos")
    assert report.done == 2
    assert any("'a/0.mp4' is called 'a/0.mp4@2'" in warning for warning in report.warnings)
    catalog = Catalog.read(folder)
    assert catalog.clip_id == ["a/0.mp4", "b/only1.mp4", "a/0.mp4@2", "b/only2.mp4"]
    assert catalog.labels().label.tolist() == [0, 1, 0, 1]
    after = rows(folder, SOUND)
    assert np.array_equal(after["a/0.mp4"], before["a/0.mp4"])
    assert not np.array_equal(after["a/0.mp4"], after["a/0.mp4@2"])
    # Each origin goes on by itself, and takes away only what is its own.
    for data, more in ((one, {}), (other, {"into": "videos"}), (other, {"name": "videos"})):
        assert extracted(data, tmp_path / "cache", **more).skipped == 2
    (other / "a" / "0.mp4").unlink()
    assert extracted(other, tmp_path / "cache", into="videos").gone == 1
    assert extracted(one, tmp_path / "cache").skipped == 2
    catalog = Catalog.read(folder)
    assert [clip for clip, gone in zip(catalog.clip_id, catalog.sources.gone) if gone] == ["a/0.mp4@2"]


def test_into_names_a_data_set_that_is_there(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="'videos' is not in the cache"):
        extracted(two[0], tmp_path / "cache", into="videos")
    extracted(two[0], tmp_path / "cache")
    with pytest.raises(CacheError, match="'vidoes' is not in the cache"):
        extracted(two[1], tmp_path / "cache", into="vidoes")
    with pytest.raises(UsageError, match=r"--name .* --into"):
        extracted(two[1], tmp_path / "cache", into="videos", name="videos")


def test_two_tables_of_one_folder_name_the_same_clips(two: tuple[Path, Path], tmp_path: Path) -> None:
    root = two[0]
    (root / "one.csv").write_text("path,label\na/0.mp4,x\nb/only1.mp4,y\n")
    (root / "more.csv").write_text("path,mood\na/0.mp4,calm\n")
    extracted(root / "one.csv", tmp_path / "cache", kind="csv")
    with pytest.raises(CacheError, match=r"was made from csv .*one.csv.*, not from csv .*more.csv"):
        extracted(root / "more.csv", tmp_path / "cache", kind="csv", name="one")
    report = extracted(root / "more.csv", tmp_path / "cache", kind="csv", into="one")
    assert (report.done, report.skipped) == (0, 1)
    catalog = Catalog.read(Path(report.folder))
    assert catalog.clip_id == ["a/0.mp4", "b/only1.mp4"]
    assert set(catalog.label_sets) == {"label", "mood"}
    # What one table names no more, the other one still lists.
    (root / "one.csv").write_text("path,label\nb/only1.mp4,y\n")
    assert extracted(root / "one.csv", tmp_path / "cache", kind="csv").gone == 0


def test_the_forms_of_the_demo_are_different_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmm.extract.datasets.demo.reader._make", lambda clips, root: None)

    def origin(**options: object) -> object:
        return load("demo", tmp_path, DatasetOptions(**options)).origin

    small, full, other = origin(small=True), origin(), origin(seed=1)
    assert len({str(one) for one in (small, full, other)}) == 3
    assert small.text().startswith("demo (form small, seed 0")
    elsewhere = load("demo", tmp_path / "elsewhere", DatasetOptions(small=True)).origin
    assert small.is_same(elsewhere)


def test_data_that_moved_as_a_whole_are_found_again(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    extracted(one, tmp_path / "cache")
    shutil.rmtree(tmp_path / "p2")
    (tmp_path / "p1").rename(tmp_path / "p2")
    report = extracted(other, tmp_path / "cache")
    assert (report.skipped, report.gone) == (2, 0)
    assert any("which takes its place" in warning for warning in report.warnings)
    assert Catalog.read(Path(report.folder)).sources.origins[0].root == str(other)


def test_other_data_in_the_place_of_data_that_are_gone_are_refused(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    extracted(two[0], tmp_path / "cache")
    shutil.rmtree(two[0])
    with pytest.raises(CacheError, match="--into videos"):
        extracted(two[1], tmp_path / "cache")


def test_an_upgraded_data_set_learns_its_origin_from_the_same_files(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(extracted(two[0], tmp_path / "cache").folder)
    make_older(folder / "catalog.h5")
    upgrade(tmp_path / "cache")
    with pytest.raises(CacheError, match=r"holds other clips, not from folder"):
        extracted(two[1], tmp_path / "cache")
    report = extracted(two[0], tmp_path / "cache")
    assert (report.skipped, report.changed) == (2, 0)
    assert Catalog.read(folder).sources.origins[0].root == str(two[0])


def test_a_merge_respects_origins(two: tuple[Path, Path], tmp_path: Path) -> None:
    extracted(two[0], tmp_path / "one")
    extracted(two[1], tmp_path / "other")
    with pytest.raises(CacheError, match=r"'a/0.mp4' has (another source file|different features)"):
        merge([tmp_path / "other"], tmp_path / "one")
    (two[1] / "a" / "0.mp4").rename(two[1] / "a" / "1.mp4")
    extracted(two[1], tmp_path / "third")
    with pytest.raises(CacheError, match=r"shares no clip with .* --any-origin"):
        merge([tmp_path / "third"], tmp_path / "one")
    merge([tmp_path / "third"], tmp_path / "one", any_origin=True)
    sources = Catalog.read(tmp_path / "one" / "videos").sources
    assert [origin.root for origin in sources.origins] == [str(two[0]), str(two[1])]
    assert sources.origin.tolist() == [0, 0, 1, 1]
    # Both go on from there.
    for data in two:
        report = extracted(data, tmp_path / "one")
        assert report.done == 0
        assert report.gone == 0


def test_a_writer_that_comes_between_is_noticed(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two other origins at once would both be the second one, and call their clips by the same ids."""
    from fsmm.extract.pipeline import membership

    third = film(tmp_path / "p3" / "videos" / "a" / "0.mp4", 1500).parent.parent
    extracted(two[0], tmp_path / "cache")
    carry_over = membership.carry_over

    def meanwhile(*given: object) -> list[str]:
        monkeypatch.setattr(membership, "carry_over", carry_over)
        extracted(third, tmp_path / "cache", into="videos")
        return carry_over(*given)

    monkeypatch.setattr(membership, "carry_over", meanwhile)
    with pytest.raises(CacheError, match="Another process has added other data"):
        extracted(two[1], tmp_path / "cache", into="videos")
    assert extracted(two[1], tmp_path / "cache", into="videos").done == 2
    assert Catalog.read(tmp_path / "cache" / "videos").clip_id[2:] == [
        "a/0.mp4@2",
        "a/0.mp4@3",
        "b/only2.mp4",
    ]


def test_an_imported_clip_without_a_file_gets_the_file_of_its_id(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", id=["a/0.mp4", "other"], y=["a", "b"], x=np.ones((2, 3)))
    mapping = {"dataset": "mine", "source": "x.npz", "ids": "id", "arrays": {"x": "sensor/raw"}}
    (tmp_path / "m.json").write_text(json.dumps({**mapping, "label_sets": {"kind": {"label": "y"}}}))
    import_features(tmp_path / "m.json", tmp_path / "cache")
    with pytest.raises(CacheError, match=r"was made from import .*x.npz"):
        extracted(two[0], tmp_path / "cache", name="mine")
    report = extracted(two[0], tmp_path / "cache", into="mine")
    assert any("Imported clips without a file" in warning for warning in report.warnings)
    assert Catalog.read(Path(report.folder)).clip_id == ["a/0.mp4", "other", "b/only1.mp4"]
    assert set(rows(Path(report.folder), "sensor/raw")) == {"a/0.mp4", "other"}
    assert set(rows(Path(report.folder), SOUND)) == {"a/0.mp4", "b/only1.mp4"}
    # An import that would join a data set of videos with which it shares nothing is refused.
    extracted(two[1], tmp_path / "cache", name="videos")
    (tmp_path / "m.json").write_text(
        json.dumps({**mapping, "ids": "y", "label_sets": {"kind": {"label": "y"}}})
    )
    with pytest.raises(CacheError, match=r"shares no clip with mapping .* --dataset NAME, .* --any-origin"):
        import_features(tmp_path / "m.json", tmp_path / "cache", "videos")
    assert import_features(tmp_path / "m.json", tmp_path / "cache", "videos", any_origin=True).clips == 2
