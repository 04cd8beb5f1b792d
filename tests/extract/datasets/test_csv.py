"""The rules of the dataset ``csv``: where files lie, what is no label, and parts of files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fsmm.errors import UsageError
from fsmm.extract.datasets import listed_paths, load
from fsmm.extract.datasets.base import DatasetOptions, Listing, Span
from fsmm.machine.texts import composed

PLAIN = DatasetOptions()


def listed(folder: Path, text: str, *files: str, options: DatasetOptions = PLAIN) -> Listing:
    """The listing of a CSV file in ``folder`` beside files that need not decode."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    folder.mkdir(exist_ok=True)
    (folder / "clips.csv").write_text(text, "utf-8")
    return load("csv", folder / "clips.csv", options)


def refused(folder: Path, text: str, *files: str, options: DatasetOptions = PLAIN) -> str:
    with pytest.raises(UsageError) as caught:
        listed(folder, text, *files, options=options)
    return str(caught.value)


def test_backslashes_divide_folders_unless_a_file_has_one(tmp_path: Path) -> None:
    listing = listed(tmp_path, "path,label\na\\1.mp4,x\nb\\c.mp4,y\n", "a/1.mp4", "b\\c.mp4", "b/c.mp4")
    assert listing.catalog.clip_id == ["a/1.mp4", "b\\\\c.mp4"]
    assert [source.video for source in listing.sources.values()] == [
        tmp_path / "a/1.mp4",
        tmp_path / "b\\c.mp4",
    ]


@pytest.mark.parametrize(("written", "stored"), [("e\u0301", "\u00e9"), ("\u00e9", "e\u0301")])
def test_either_spelling_of_an_accent_finds_its_file(tmp_path: Path, written: str, stored: str) -> None:
    listing = listed(tmp_path, f"path,label\n{written}/{written}.mp4,x\n", f"{stored}/{stored}.mp4")
    assert listing.catalog.clip_id == [f"{written}/{written}.mp4"]
    assert listing.catalog.path == [f"{stored}/{stored}.mp4"]


def test_files_that_are_not_there_say_why(tmp_path: Path) -> None:
    case = refused(tmp_path / "case", "path,label\nA/1.MP4,x\n", "a/1.mp4")
    assert "first is 'A/1.MP4', which is there as 'a/1.mp4': upper and lower case differ" in case
    ending = refused(tmp_path / "ending", "path,label\na/1,x\n", "a/1.mp4")
    assert "there as 'a/1.mp4': the ending differs" in ending
    assert "--root" in refused(tmp_path / "other", "path,label\na/1.mp4,x\n", "b/1.mp4")
    some = listed(tmp_path / "some", "path,label\na/1.mp4,x\nA/2.mp4,x\na/3.mp4,y\n", "a/1.mp4", "a/2.mp4")
    assert some.missing == ["A/2.mp4", "a/3.mp4"]
    assert [
        "1 or more lie there under other names: 'A/2.mp4' is there as 'a/2.mp4'" in w for w in some.warnings
    ] == [True]


def test_missing_files_are_not_each_compared_with_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work grows with the number of rows and files, not with their product."""
    count, calls = 300, 0

    def counted(name: str) -> str:
        nonlocal calls
        calls += 1
        return composed(name)

    monkeypatch.setattr(listed_paths, "composed", counted)
    files = [f"a/e\u0301{i}.mp4" for i in range(count)]
    rows = "".join(f"a/x\u00e9{i}.mp4,x\n" for i in range(count))
    listing = listed(tmp_path, f"path,label\n{rows}{files[0]},x\n", *files)
    assert len(listing.missing) == count
    assert calls < 10 * count


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("C:\\videos\\1.mp4", "Line 2 .*Windows drive"),
        ("https://example.org/1.mp4", "Line 2 .*is an address"),
        ("/elsewhere/1.mp4", "Line 2 .*not a file inside .*--root"),
        ("../1.mp4", "Line 2 .*not a file inside .*--root"),
    ],
)
def test_paths_of_another_kind_say_so(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        listed(tmp_path, f"path,label\n{path},x\n")


def test_a_root_holds_relative_and_absolute_paths(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("a/1.mp4", "a/2.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_bytes(b"x")
    text = f"path,label\na/1.mp4,x\n{videos}/a/2.mp4,y\n"
    inside = listed(tmp_path / "tables", text, options=replace(PLAIN, root=videos))
    assert inside.catalog.clip_id == inside.catalog.path == ["a/1.mp4", "a/2.mp4"]
    assert inside.root == videos
    link = tmp_path / "link"
    link.symlink_to(videos)
    linked = listed(
        tmp_path / "tables", text.replace(str(videos), str(link)), options=replace(PLAIN, root=link)
    )
    assert linked.catalog.clip_id == ["a/1.mp4", "a/2.mp4"]
    anywhere = listed(
        tmp_path / "tables", f"path,label\n{videos}/a/2.mp4,y\n", options=replace(PLAIN, root=Path("/"))
    )
    assert [source.video for source in anywhere.sources.values()] == [videos / "a/2.mp4"]
    assert "not a file inside" in refused(
        tmp_path / "tables",
        "path,label\n../secret.mp4,x\n",
        "../secret.mp4",
        options=replace(PLAIN, root=videos),
    )
    assert "--root" in refused(tmp_path / "tables", text, options=replace(PLAIN, root=tmp_path / "absent"))


def test_links_that_lead_out_are_followed_where_asked(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    text = "path,label\nlink.mp4,x\n"
    assert "--follow-links" in refused(tmp_path / "data", text)
    followed = listed(tmp_path / "data", text, options=replace(PLAIN, follow_links=True))
    assert followed.catalog.clip_id == ["link.mp4"]


def test_labels_that_mean_none_and_names_of_two_spellings(tmp_path: Path) -> None:
    cells = ["caf\u00e9", "cafe\u0301", "nan", "NaN", "None", "<NA>", "", " ", "Caf\u00e9"]
    rows = "".join(f"{i}.mp4,{cell}\n" for i, cell in enumerate(cells))
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"base": ["cafe\u0301"], "novel": ["Caf\u00e9"]}))
    files = [f"{i}.mp4" for i in range(len(cells))]
    listing = listed(tmp_path, "path,label\n" + rows, *files, options=replace(PLAIN, split_file=split))
    labels = listing.catalog.labels()
    assert labels.class_names == ["Caf\u00e9", "caf\u00e9"]
    assert labels.label.tolist() == [1, 1, -1, -1, -1, -1, -1, -1, 0]
    assert labels.splits["default"].tolist() == [3, 1]
    assert sum("upper and lower case" in warning for warning in listing.warnings) == 1


@pytest.mark.parametrize(
    "header",
    ["path,start,end", "Path , START,End", "path,start_seconds,end_seconds", "path,Start Time,End Time",
     "path,time_start,time_end", "path,start (s),end (s)"],
)  # fmt: skip
def test_parts_of_one_file_are_clips_of_their_own(tmp_path: Path, header: str) -> None:
    rows = "a.mp4,0,2.5,x\na.mp4,2.5,00:00:04,x\na.mp4,5,,y\na.mp4,,3,y\na.mp4,,,z\nb.mp4,nan,nan,z\n"
    listing = listed(tmp_path, f"{header},label\n{rows}", "a.mp4", "b.mp4")
    assert listing.catalog.clip_id == [
        "a.mp4#t=0,2.5", "a.mp4#t=2.5,4", "a.mp4#t=5", "a.mp4#t=0,3", "a.mp4", "b.mp4",
    ]  # fmt: skip
    assert listing.catalog.path == ["a.mp4"] * 5 + ["b.mp4"]
    spans = [source.span for source in listing.sources.values()]
    assert spans[:2] == [Span(0, 2.5, "line 2 of 'clips.csv'"), Span(2.5, 4, "line 3 of 'clips.csv'")]
    assert spans[4:] == [None, None]
    assert list(listing.catalog.label_sets) == ["label"]


def test_parts_of_one_file_are_one_group_unless_a_column_says_otherwise(tmp_path: Path) -> None:
    rows = "a.mp4,0,1,x,{}\na.mp4,1,2,x,{}\nb.mp4,,,x,{}\n"
    header = "path,start,end,label,group\n"
    alone = listed(tmp_path / "alone", header + rows.format("", "nan", ""), "a.mp4", "b.mp4")
    assert alone.catalog.group == ["a.mp4", "a.mp4", "b.mp4"]
    told = listed(tmp_path / "told", header + rows.format("p1", "p2", "<NA>"), "a.mp4", "b.mp4")
    assert told.catalog.group == ["p1", "p2", ""]
    known = listed(tmp_path / "known", "path,start,end,label\nv_Run_g01_c02.avi,1,2,x\n", "v_Run_g01_c02.avi")
    assert known.catalog.group == ["Run_g01"]


def test_parts_may_have_ids(tmp_path: Path) -> None:
    text = "id,path,start,end,label\none,a.mp4,0,1,x\ntwo,a.mp4,1,2,x\n"
    assert listed(tmp_path, text, "a.mp4").catalog.clip_id == ["one", "two"]
    twice = refused(tmp_path, "path,start,end,label\na.mp4,1,2,x\na.mp4,1.0,2,y\n", "a.mp4")
    assert "Lines 2 and 3" in twice


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ("2,1", "Line 3 .*ends at 1 s and starts at 2 s"),
        ("1,1", "Line 3 .*ends at 1 s and starts at 1 s"),
        ("-1,1", "Line 3 .*'start' is '-1', which is negative"),
        ("1,soon", "Line 3 .*'end' is 'soon', which is no time"),
        ("1,0:99", "Line 3 .*'end' is '0:99'"),
    ],
)
def test_wrong_times_name_their_line(tmp_path: Path, times: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        listed(tmp_path, f"path,start,end,label\na.mp4,0,1,x\na.mp4,{times},x\n", "a.mp4")


@pytest.mark.parametrize(
    "columns", ["start,duration", "Duration (s),start", "offset,dur", "onset,length_seconds"]
)
def test_a_length_beside_a_start_says_where_a_part_ends(tmp_path: Path, columns: str) -> None:
    """An offset begins a part in manifests of speech, where a duration stands beside it, and else ends one."""
    cells = "2,1.5" if columns.startswith("Duration") else "1.5,2"
    listing = listed(tmp_path, f"path,{columns},label\na.mp4,{cells},x\na.mp4,,,y\n", "a.mp4")
    assert listing.catalog.clip_id == ["a.mp4#t=1.5,3.5", "a.mp4"]
    assert list(listing.catalog.label_sets) == ["label"]


def test_a_length_that_says_nothing_new_or_no_seconds(tmp_path: Path) -> None:
    both = listed(tmp_path / "both", "path,start,end,duration,label\na.mp4,1,2,9,x\n", "a.mp4")
    assert (both.catalog.clip_id, list(both.catalog.label_sets)) == (["a.mp4#t=1,2"], ["label"])
    onset = listed(tmp_path / "onset", "path,onset,offset,label\na.mp4,1,2,x\n", "a.mp4")
    assert onset.catalog.clip_id == ["a.mp4#t=1,2"]
    alone = listed(tmp_path / "alone", "path,duration,label\na.mp4,9,x\n", "a.mp4")
    assert (alone.catalog.clip_id, list(alone.catalog.label_sets)) == (["a.mp4"], ["duration", "label"])
    for column in ("num_frames", "duration_ms"):
        message = refused(tmp_path, f"path,start,{column},label\na.mp4,1,50,x\n", "a.mp4")
        assert f"The columns {column} of the CSV file are no seconds" in message


@pytest.mark.parametrize("columns", ["start_frame,end_frame", "start_ms,end_ms", "Frame Start,Frame End"])
def test_times_in_other_units_are_refused_or_passed_over(tmp_path: Path, columns: str) -> None:
    message = refused(tmp_path, f"path,{columns},label\na.mp4,25,50,x\n", "a.mp4")
    assert "are no seconds" in message
    both = listed(tmp_path, f"path,{columns},start,end,label\na.mp4,25,50,1,2,x\n", "a.mp4")
    assert list(both.catalog.label_sets) == ["label"]
    assert both.catalog.clip_id == ["a.mp4#t=1,2"]
