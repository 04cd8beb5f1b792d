"""The cache follows the files: changed ones are made again, moved ones recognised, deleted ones left out."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from extract_support import SOUND, extracted, film, load_makers, rows, same_rows, spoil_pictures
from tests_support import make_older

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.cache.thumbnails import THUMBNAILS, thumbnails_of
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import CacheError
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.pipeline import changes as changes_module
from fsmm.extract.pipeline.extraction import Extraction

FLOW = "flow/dis-hof"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """cat/a.mp4, cat/b.mp4 and dog/c.mp4, all different."""
    for name, hertz in (("cat/a", 300), ("cat/b", 500), ("dog/c", 700)):
        film(tmp_path / "pets" / f"{name}.mp4", hertz)
    return tmp_path / "pets"


def labelled(folder: Path) -> dict[str, str]:
    """From clip to class name, of the clips that an evaluation would take."""
    bank = FeatureBank.load(folder.parent, split="all", dataset=folder.name, words=None)
    ids = Catalog.read(folder).clip_id
    return {ids[row]: bank.class_names[label] for row, label in zip(bank.clip_row, bank.label.tolist())}


def fresh(data: Path, tmp_path: Path, *streams: str, **given: Any) -> Path:
    """The data set's folder in a cache that knows nothing of earlier files."""
    return Path(extracted(data, tmp_path / "fresh", *streams, **given).folder)


def test_changed_moved_and_deleted_files(data: Path, tmp_path: Path) -> None:
    """The two moments of o06_replaced_and_moved_clips.py."""
    folder = Path(extracted(data, tmp_path / "cache", SOUND, FLOW).folder)
    before = rows(folder, SOUND)
    film(data / "cat" / "a.mp4", 900)
    shutil.move(data / "cat" / "b.mp4", data / "dog" / "b.mp4")
    (data / "dog" / "c.mp4").unlink()
    report = extracted(data, tmp_path / "cache", SOUND, FLOW)
    assert (report.done, report.skipped) == (1, 1)
    assert (report.changed, report.moved, report.gone) == (1, 1, 1)
    assert "1 changed, 1 moved, 1 listed no more" in report.summary()
    assert any(
        "1 clip is listed no more" in warning and "dog/c.mp4" in warning for warning in report.warnings
    )
    assert labelled(folder) == {"cat/a.mp4": "cat", "dog/b.mp4": "dog"}
    new = fresh(data, tmp_path, SOUND, FLOW)
    for stream in (SOUND, FLOW):
        now = rows(folder, stream)
        now.pop("dog/c.mp4")
        assert same_rows(now, rows(new, stream))
    assert not np.array_equal(rows(folder, SOUND)["cat/a.mp4"], before["cat/a.mp4"])
    catalog = Catalog.read(folder)
    at = catalog.rows()["cat/a.mp4"]
    assert (
        catalog.facts["sha256"][at].decode() == hashlib.sha256((data / "cat/a.mp4").read_bytes()).hexdigest()
    )
    assert verify(tmp_path / "cache").findings == []
    again = extracted(data, tmp_path / "cache", SOUND, FLOW)
    assert (again.done, again.changed, again.moved, again.gone) == (0, 0, 0, 1)


def test_a_changed_file_leaves_no_row_in_streams_of_other_runs(data: Path, tmp_path: Path) -> None:
    folder = Path(extracted(data, tmp_path / "cache", SOUND, FLOW).folder)
    film(data / "cat" / "a.mp4", 900)
    report = extracted(data, tmp_path / "cache", SOUND)
    assert any(FLOW in warning and "lost the rows of 1 changed" in warning for warning in report.warnings)
    assert set(rows(folder, FLOW)) == {"cat/b.mp4", "dog/c.mp4"}
    extracted(data, tmp_path / "cache", FLOW)
    assert same_rows(rows(folder, FLOW), rows(fresh(data, tmp_path, FLOW), FLOW))


def test_a_new_time_alone_makes_nothing_again(data: Path, tmp_path: Path) -> None:
    extracted(data, tmp_path / "cache")
    os.utime(data / "cat" / "a.mp4", (1, 1))
    report = extracted(data, tmp_path / "cache")
    assert (report.done, report.changed, report.skipped) == (0, 0, 3)
    assert Catalog.read(Path(report.folder)).sources.mtime_ns[0] == 10**9


def test_files_that_change_places_take_their_rows_along(data: Path, tmp_path: Path) -> None:
    folder = Path(extracted(data, tmp_path / "cache").folder)
    before = rows(folder, SOUND)
    a, c = data / "cat" / "a.mp4", data / "dog" / "c.mp4"
    a.rename(tmp_path / "aside.mp4")
    c.rename(a)
    (tmp_path / "aside.mp4").rename(c)
    report = extracted(data, tmp_path / "cache")
    assert (report.done, report.changed) == (0, 2)
    after = rows(folder, SOUND)
    assert np.array_equal(after["cat/a.mp4"], before["dog/c.mp4"])
    assert np.array_equal(after["dog/c.mp4"], before["cat/a.mp4"])


def test_a_file_that_moved_and_was_replaced(data: Path, tmp_path: Path) -> None:
    folder = Path(extracted(data, tmp_path / "cache").folder)
    before = rows(folder, SOUND)
    (data / "cat" / "a.mp4").rename(data / "dog" / "new.mp4")
    film(data / "cat" / "a.mp4", 900)
    report = extracted(data, tmp_path / "cache")
    assert (report.done, report.changed, report.gone) == (1, 1, 0)
    assert np.array_equal(rows(folder, SOUND)["dog/new.mp4"], before["cat/a.mp4"])
    assert same_rows(rows(folder, SOUND), rows(fresh(data, tmp_path), SOUND))


def test_a_file_that_replaced_another(data: Path, tmp_path: Path) -> None:
    folder = Path(extracted(data, tmp_path / "cache").folder)
    before = rows(folder, SOUND)
    (data / "cat" / "b.mp4").rename(data / "cat" / "a.mp4")
    report = extracted(data, tmp_path / "cache")
    assert (report.done, report.changed, report.gone) == (0, 1, 1)
    assert np.array_equal(rows(folder, SOUND)["cat/a.mp4"], before["cat/b.mp4"])
    assert labelled(folder) == {"cat/a.mp4": "cat", "dog/c.mp4": "dog"}


def test_equal_files_are_clips_of_their_own_and_decoded_once(data: Path, tmp_path: Path) -> None:
    folder = Path(extracted(data, tmp_path / "cache").folder)
    shutil.copy(data / "cat" / "a.mp4", data / "dog" / "twin.mp4")
    (data / "dog" / "link.mp4").symlink_to(data / "cat" / "a.mp4")
    report = extracted(data, tmp_path / "cache")
    assert (report.done, report.moved, report.clips) == (0, 0, 5)
    assert report.streams[0].copied == 2
    assert "2 copied" in report.summary()
    held = rows(folder, SOUND)
    for twin in ("dog/twin.mp4", "dog/link.mp4"):
        assert np.array_equal(held[twin], held["cat/a.mp4"])
        assert labelled(folder)[twin] == "dog"
    assert verify(tmp_path / "cache").findings == []


def test_another_data_set_of_the_cache_is_not_decoded_again(data: Path, tmp_path: Path) -> None:
    extracted(data, tmp_path / "cache")
    table = data / "labels.csv"
    table.write_text("path,id,mood\ncat/a.mp4,one,calm\ndog/c.mp4,two,wild\ndog/c.mp4,three,calm\n")
    report = extracted(table, tmp_path / "cache", kind="csv")
    folder = Path(report.folder)
    assert (report.done, report.streams[0].copied) == (0, 3)
    assert labelled(folder) == {"one": "calm", "two": "wild", "three": "calm"}
    assert np.array_equal(rows(folder, SOUND)["three"], rows(tmp_path / "cache" / "pets", SOUND)["dog/c.mp4"])
    catalog = Catalog.read(folder)
    assert catalog.facts["has_audio"].tolist() == [True] * 3
    # Other features are not taken for these.
    assert extracted(table, tmp_path / "cache", FLOW, kind="csv").done == 3


def test_new_labels_and_ids_of_a_table_decode_nothing(data: Path, tmp_path: Path) -> None:
    table = data / "t.csv"
    table.write_text("path,label\ncat/a.mp4,x\ncat/b.mp4,x\ndog/c.mp4,y\n")
    folder = Path(extracted(table, tmp_path / "cache", kind="csv").folder)
    table.write_text("path,id,label\ncat/a.mp4,one,y\ncat/b.mp4,two,z\n")
    report = extracted(table, tmp_path / "cache", kind="csv")
    assert (report.done, report.moved, report.gone) == (0, 2, 1)
    assert labelled(folder) == {"one": "y", "two": "z"}
    # A clip whose row is gone though its file is there comes back with its row.
    table.write_text("path,id,label\ncat/a.mp4,one,y\ncat/b.mp4,two,z\ndog/c.mp4,,z\n")
    again = extracted(table, tmp_path / "cache", kind="csv")
    assert (again.done, again.gone) == (0, 0)
    assert labelled(folder) == {"one": "y", "two": "z", "dog/c.mp4": "z"}


@pytest.mark.parametrize(
    "options", [{"limit": 1}, {"per_class": 1}, {"clips": 2}, {"small": True, "limit": 2}]
)
def test_a_partial_listing_takes_nothing_away(data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    folder = Path(extracted(data, tmp_path / "cache").folder)
    (data / "dog" / "c.mp4").unlink()
    report = extracted(data, tmp_path / "cache", options=DatasetOptions(**options))
    assert report.gone == 0
    assert len(labelled(folder)) == 3
    assert extracted(data, tmp_path / "cache").gone == 1


def test_a_folder_that_cannot_be_read_takes_nothing_away(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(extracted(data, tmp_path / "cache").folder)
    scandir, stat = os.scandir, os.stat

    def refuse(call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(path: Any, *rest: Any, **more: Any) -> Any:
            if str(data / "cat") in os.fspath(path):
                raise PermissionError(13, "Permission denied", path)
            return call(path, *rest, **more)

        return guarded

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse(scandir))
        patch.setattr(os, "stat", refuse(stat))
        report = extracted(data, tmp_path / "cache")
    assert report.clips == 1
    assert report.gone == 0
    assert len(labelled(folder)) == 3
    shutil.rmtree(data / "cat")
    assert extracted(data, tmp_path / "cache").gone == 2


def test_clips_without_labels_are_only_missed_where_they_are_looked_for(data: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    film(more / "u.mp4", 1000)
    film(more / "v.mp4", 1100)
    with_more = DatasetOptions(unlabelled=more)
    extracted(data, tmp_path / "cache", options=with_more)
    assert extracted(data, tmp_path / "cache").gone == 0
    (more / "v.mp4").unlink()
    assert extracted(data, tmp_path / "cache").gone == 0
    assert extracted(data, tmp_path / "cache", options=with_more).gone == 1


def test_a_failed_clip_and_a_damaged_one_keep_their_lines(data: Path, tmp_path: Path) -> None:
    spoil_pictures(film(data / "cat" / "d.mp4", 800))
    (data / "dog" / "bad.mp4").write_text("no video")
    report = extracted(data, tmp_path / "cache")
    assert report.failed == 1
    before = Path(report.failures_file).read_text()
    (data / "cat" / "d.mp4").rename(data / "dog" / "d.mp4")
    report = extracted(data, tmp_path / "cache")
    assert (report.moved, report.left_alone, report.done) == (1, 1, 0)
    assert before.count("cat/d.mp4")
    assert Path(report.failures_file).read_text() == before.replace("cat/d.mp4", "dog/d.mp4")


def test_frames_that_an_id_chose_are_chosen_anew_for_a_new_id(data: Path, tmp_path: Path) -> None:
    sampling = Sampling(position="random", seed=3)
    folder = Path(extracted(data, tmp_path / "cache", FLOW, sampling=sampling).folder)
    shutil.move(data / "cat" / "b.mp4", data / "dog" / "b.mp4")
    shutil.copy(data / "cat" / "a.mp4", data / "dog" / "twin.mp4")
    report = extracted(data, tmp_path / "cache", FLOW, sampling=sampling)
    assert (report.moved, report.done, report.streams[0].copied) == (1, 2, 0)
    assert same_rows(rows(folder, FLOW), rows(fresh(data, tmp_path, FLOW, sampling=sampling), FLOW))


def test_a_run_that_was_cut_short_knows_its_files_all_the_same(data: Path, tmp_path: Path) -> None:
    """Until its end only the shards know the digests of the files that a run has decoded."""
    folder = Path(extracted(data, tmp_path / "cache").folder)
    catalog = Catalog.read(folder)
    catalog.facts["sha256"][:] = b""
    catalog.write(folder)
    film(data / "cat" / "a.mp4", 900)
    assert extracted(data, tmp_path / "cache").changed == 1
    assert same_rows(rows(folder, SOUND), rows(fresh(data, tmp_path), SOUND))


def test_files_are_read_only_where_they_may_have_changed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digests = changes_module.digests

    def counted(sources: dict[str, Any]) -> dict[str, str]:
        read.extend(sources)
        return digests(sources)

    monkeypatch.setattr(changes_module, "digests", counted)
    extracted(data, tmp_path / "cache")
    extracted(data, tmp_path / "cache")
    assert read == []
    film(data / "dog" / "d.mp4", 1300).write_bytes(b"other size")
    os.utime(data / "cat" / "a.mp4", (1, 1))
    extracted(data, tmp_path / "cache")
    assert read == ["cat/a.mp4"]


def test_a_data_set_whose_catalog_is_older_is_left_alone(data: Path, tmp_path: Path) -> None:
    folder = Path(extracted(data, tmp_path / "cache").folder)
    make_older(folder / "catalog.h5")
    before = {path: path.read_bytes() for path in folder.rglob("*.h5")}
    film(data / "cat" / "a.mp4", 900)
    with pytest.raises(CacheError, match=r"can only be read; `fsmm cache upgrade"):
        extracted(data, tmp_path / "cache")
    assert {path: path.read_bytes() for path in folder.rglob("*.h5")} == before


def test_another_part_of_a_file_is_another_clip(data: Path, tmp_path: Path) -> None:
    table = data / "t.csv"
    table.write_text("path,id,start,end,label\ncat/a.mp4,one,0,0.3,x\ncat/a.mp4,two,0.3,0.6,y\n")
    folder = Path(extracted(table, tmp_path / "cache", kind="csv").folder)
    before = rows(folder, SOUND)
    table.write_text("path,id,start,end,label\ncat/a.mp4,one,0.1,0.5,x\ncat/a.mp4,three,0.3,0.6,y\n")
    report = extracted(table, tmp_path / "cache", kind="csv")
    assert (report.done, report.changed, report.moved, report.gone) == (1, 1, 1, 0)
    after = rows(folder, SOUND)
    assert np.array_equal(after["three"], before["two"])
    assert same_rows(after, rows(fresh(table, tmp_path, kind="csv"), SOUND))


def test_an_id_that_names_another_file_is_another_clip(data: Path, tmp_path: Path) -> None:
    """Two files of one size and time, such as recordings of fixed length out of one archive."""
    load_makers().audio(data / "one.wav", hertz=300)
    load_makers().audio(data / "two.wav", hertz=900)
    for name in ("one.wav", "two.wav"):
        os.utime(data / name, (1, 1))
    table = data / "t.csv"
    table.write_text("path,id,label\none.wav,clip,x\n")
    folder = Path(extracted(table, tmp_path / "cache", kind="csv").folder)
    before = rows(folder, SOUND)["clip"]
    table.write_text("path,id,label\ntwo.wav,clip,x\n")
    assert extracted(table, tmp_path / "cache", kind="csv").changed == 1
    assert not np.array_equal(rows(folder, SOUND)["clip"], before)
    # The same names below another root.
    (data / "other").mkdir()
    shutil.copy2(data / "one.wav", data / "other" / "two.wav")
    options = DatasetOptions(root=data / "other")
    assert extracted(table, tmp_path / "cache", kind="csv", options=options).changed == 1
    assert np.array_equal(rows(folder, SOUND)["clip"], before)


def test_pictures_follow_their_clips_and_can_be_left_out(data: Path, tmp_path: Path) -> None:
    folder = Path(extracted(data, tmp_path / "cache", SOUND, FLOW).folder)
    clips = ["cat/a.mp4", "cat/b.mp4", "dog/c.mp4", "dog/b.mp4"]
    before = thumbnails_of(folder, clips)
    assert sorted(before) == sorted(clips[:3])
    picture = cv2.imdecode(np.frombuffer(before["cat/a.mp4"], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 64, 3)
    assert max(map(len, before.values())) < 6000
    shutil.move(data / "cat" / "b.mp4", data / "dog" / "b.mp4")
    extracted(data, tmp_path / "cache", SOUND, FLOW)
    assert thumbnails_of(folder, clips) == {
        "cat/a.mp4": before["cat/a.mp4"],
        "dog/b.mp4": before["cat/b.mp4"],
        "dog/c.mp4": before["dog/c.mp4"],
    }
    assert verify(folder.parent).ok
    without = Path(extracted(data, tmp_path / "without", SOUND, FLOW, thumbnails=False).folder)
    assert not (without / THUMBNAILS).exists()
    sound = Path(extracted(data, tmp_path / "sound", SOUND).folder)
    assert thumbnails_of(sound, clips) == {}, "no frame is decoded for a picture alone"


def exchanged(one: Path, other: Path) -> None:
    """Let two files change places; each keeps its time."""
    spare = one.with_suffix(".spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def test_a_file_that_was_another_one_while_it_was_read_is_read_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files change places after they were listed, and again after they were read: no state or digest tells."""
    one, other = data / "cat" / "a.mp4", data / "cat" / "b.mp4"
    extracted(data, tmp_path / "right")
    run, join = Extraction._run_clips, Extraction._join

    def joined_then_changed(extraction: Extraction, *given: Any) -> Catalog:
        catalog = join(extraction, *given)
        exchanged(one, other)
        return catalog

    def run_then_changed(extraction: Extraction, *given: Any) -> bool:
        interrupted = run(extraction, *given)
        exchanged(one, other)
        return interrupted

    monkeypatch.setattr(Extraction, "_join", joined_then_changed)
    monkeypatch.setattr(Extraction, "_run_clips", run_then_changed)
    extracted(data, tmp_path / "cache")
    monkeypatch.undo()
    again = extracted(data, tmp_path / "cache")
    assert again.changed == 2
    assert same_rows(rows(tmp_path / "cache" / data.name, SOUND), rows(tmp_path / "right" / data.name, SOUND))


def test_streams_of_one_clip_never_have_rows_of_two_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is replaced after the run that adds a stream has compared it with the cache."""
    extracted(data, tmp_path / "cache")
    join = Extraction._join

    def joined_then_changed(extraction: Extraction, *given: Any) -> Catalog:
        catalog = join(extraction, *given)
        film(data / "cat" / "a.mp4", 999)
        return catalog

    monkeypatch.setattr(Extraction, "_join", joined_then_changed)
    assert extracted(data, tmp_path / "cache", SOUND, "flow/dis-hof").failed == 1
    monkeypatch.undo()
    again = extracted(data, tmp_path / "cache", SOUND, "flow/dis-hof")
    assert (again.changed, again.failed, again.done) == (1, 0, 1)
    extracted(data, tmp_path / "right", SOUND, "flow/dis-hof")
    for stream in (SOUND, "flow/dis-hof"):
        found = rows(tmp_path / "cache" / data.name, stream)
        assert same_rows(found, rows(tmp_path / "right" / data.name, stream))
