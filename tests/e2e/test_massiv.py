"""3MASSIV from files of the official form to an accuracy, through the command line, on sixty real short videos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from extract_support import load_makers

from fsmm.cache.catalog import Catalog

SIZES = {"Topic": 34, "Emotion": 12, "AudioFormat": 8, "VideoFormat": 10, "Language": 13}
POSTS = {"train": range(1000, 1030), "val": range(40000, 40015), "test": range(60000, 60015)}
CLASSES = 6  # of Topic that occur, so that ten clips share one


def fsmm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fsmm", *map(str, words)], capture_output=True, text=True, timeout=300
    )


def official(root: Path) -> Path:
    """Annotation files (CRLF), and one video a post at two depths; post 60014 has none."""
    makers = load_makers()
    for split, posts in POSTS.items():
        rows = ["PostIndex," + ",".join(SIZES)]
        for post in posts:
            rows.append(
                ",".join([str(post), str(post % CLASSES), *(str(post % n) for n in list(SIZES.values())[1:])])
            )
            if post == 60014:
                continue
            path = root / ("videos" if post % 2 else "videos/deeper") / f"{post}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            makers.video(
                path,
                frames=10,
                picture=lambda k, w, h, post=post: makers.numbered(
                    (k * 9 + post % CLASSES * 777) % 0xFFFF, w, h
                ),
                sound=200.0 + 90 * (post % CLASSES),
            )
        (root / f"3massiv_{split}.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode())
    return root


def test_from_official_files_to_an_accuracy(tmp_path: Path) -> None:
    data, cache, split = official(tmp_path / "data"), tmp_path / "cache", tmp_path / "split.json"
    first = fsmm(
        "extract",
        "--dataset",
        "3massiv",
        "--data",
        data,
        "--cache",
        cache,
        "--encoder",
        "flow=dis-hof",
        "--encoder",
        "audio=logmel-mfcc",
        "--json",
    )
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert (report["done"], report["failed"], report["missing"]) == (59, 0, 1)
    catalog = Catalog.read(cache / "3massiv")
    assert {n: len(s.class_names) for n, s in catalog.label_sets.items()} == SIZES
    assert {s: catalog.clip_split.count(s) for s in POSTS}["val"] == 15

    names = catalog.labels("Topic").class_names
    split.write_text(json.dumps({"base": names[CLASSES:], "val": [], "novel": names[:CLASSES]}))
    again = fsmm(
        "extract",
        "--dataset",
        "3massiv",
        "--data",
        data,
        "--cache",
        cache,
        "--encoder",
        "flow=dis-hof",
        "--encoder",
        "audio=logmel-mfcc",
        "--class-split",
        split,
        "--json",
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["skipped"] == 59, "nothing is extracted twice"
    found = fsmm(
        "episode-eval",
        "--method",
        "protonet",
        "--cache",
        cache,
        "--n-query",
        "4",
        "--episodes",
        "100",
        "--modalities",
        "audio",
        "--json",
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["accuracy"] > 0.8  # each topic has a tone of its own
