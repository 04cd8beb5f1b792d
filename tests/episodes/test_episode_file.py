"""Files of episodes: written and read again, drawn as published, imported from the published form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fsmm.cache.exchange.video_folders import read_tensor
from fsmm.episodes.episode_file import EpisodeFile
from fsmm.episodes.published import published_episodes
from fsmm.episodes.segment_sampler import draw_with_steps, segment_steps
from fsmm.errors import UsageError

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "samples" / "temporal_matching"
LENGTHS = {f"c{c}": {f"v{c}{i}": 3 + 4 * i + c for i in range(6)} for c in range(4)}


def drawn(**given: int) -> EpisodeFile:
    sizes = {"episodes": 5, "ways": 3, "shots": 2, "queries": 2, "steps": 4, "seed": 3, **given}
    return draw_with_steps(LENGTHS, **sizes)


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = drawn()
    file.write(tmp_path / "e.npz")
    back = EpisodeFile.read(tmp_path / "e.npz")
    for name in ("support", "query", "query_label", "support_steps", "query_steps"):
        assert np.array_equal(getattr(file, name), getattr(back, name))
    assert list(back.clips) == list(file.clips)
    assert (len(back), back.ways, back.shots, back.queries_a_class, back.steps) == (5, 3, 2, 2, 4)
    assert len(back.digest) == 64


def test_steps_lie_one_in_each_equal_part() -> None:
    generator = np.random.default_rng(0)
    for length in (9, 16, 23, 150):
        steps = segment_steps(generator, length, 8)
        borders = np.linspace(0, length, 9)
        assert ((steps >= borders[:-1]) & (steps < borders[1:])).all()
    assert segment_steps(generator, 3, 5).tolist() == [0, 1, 2, 2, 2]


def test_drawn_episodes_hold_different_clips_of_different_classes() -> None:
    file = drawn(episodes=40)
    names = np.array(file.clips)
    for support, query, label in zip(file.support, file.query, file.query_label):
        used = [*support.ravel(), *query]
        assert len(set(used)) == len(used)
        classes = [{name[1] for name in names[way]} for way in support]
        assert all(len(way) == 1 for way in classes)
        assert len({next(iter(way)) for way in classes}) == 3
        assert all(names[clip][1] in classes[way] for clip, way in zip(query, label))
    with pytest.raises(UsageError, match="needs 9"):
        drawn(shots=7)
    with pytest.raises(UsageError, match="5-way"):
        drawn(ways=5)


def test_queries_are_given_in_random_order() -> None:
    order = drawn(episodes=200, queries=4).order
    assert (np.sort(order, 1) == np.arange(12)).all()
    assert len({tuple(each) for each in order.tolist()}) > 190


Change = Callable[[dict[str, np.ndarray]], object]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("clips"), "lacks the array 'clips'"),
        (lambda a: a.update(support=a["support"] + 99), "does not have"),
        (lambda a: a.update(query=a["query"].astype(float)), "whole numbers"),
        (lambda a: a.update(query_label=a["query_label"] * 0), "as many queries"),
        (lambda a: a.update(query_label=a["query_label"] + 1), "must lie in"),
        (lambda a: a.update(support=a["support"][:2]), "must be"),
        (lambda a: a.pop("query_steps"), "'support_steps' and 'query_steps'"),
        (lambda a: a.update(clips=a["clips"][[0] * len(a["clips"])]), "each once"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(tmp_path: Path, change: Change, says: str) -> None:
    drawn().write(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UsageError, match=says):
        EpisodeFile.read(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        EpisodeFile.read(tmp_path / "e.npz")
    with pytest.raises(UsageError, match="fsmm episodes import"):
        EpisodeFile.read(tmp_path)


# ---- the published form


def frame_names(videos: list[tuple[str, list[int]]]) -> str:
    """Lines as published: 8-digit frames, 16 a clip, a space at the end of each line."""
    lines = []
    for video, starts in videos:
        clips = [",".join(f"{video}/{start + i:08d}.jpg" for i in range(16)) for start in starts]
        lines.append(";".join(clips) + " ")
    return "\n".join(lines) + "\n"


def write_episode(
    folder: Path, number: int, support: list[tuple[str, list[int]]], query: list[tuple[str, list[int]]]
) -> None:
    folder.mkdir(exist_ok=True)
    for name, videos in (("support", support), ("target", query)):
        (folder / f"{name}_frame_names_{number}.txt").write_text(frame_names(videos))
        torch.save(torch.arange(len(videos)).float(), folder / f"{name}_labels_{number}.pth")


def test_published_episodes_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "toy_w2_s1"
    write_episode(folder, 1, [("a", [1, 3]), ("b", [2, 9])], [("c", [1, 1]), ("b", [4, 5])])
    write_episode(folder, 2, [("c", [1, 2]), ("d", [7, 8])], [("a", [1, 2]), ("b", [1, 2])])
    file = published_episodes(folder)
    assert list(file.clips) == ["a", "b", "c", "d"]
    assert file.support.tolist() == [[[0], [1]], [[2], [3]]]
    assert file.query.tolist() == [[2, 1], [0, 1]]
    assert file.query_label.tolist() == [[0, 1], [0, 1]]
    assert file.support_steps is not None
    assert file.support_steps[0].tolist() == [[[0, 2]], [[1, 8]]]
    assert len(published_episodes(folder, 1)) == 1


@pytest.mark.parametrize(
    "text", ["a/x.jpg,a/2.jpg \n", "a/0000.jpg \n", "a/00000001.jpg;b/00000002.jpg \n", ""]
)
def test_frame_names_of_another_form_are_one_sentence(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "toy"
    write_episode(folder, 1, [("a", [1]), ("b", [2])], [("c", [1]), ("d", [4])])
    (folder / "target_frame_names_1.txt").write_text(text)
    with pytest.raises(UsageError, match="target_frame_names_1"):
        published_episodes(folder)
    with pytest.raises(UsageError, match="There is no episode"):
        published_episodes(tmp_path)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the samples of ../shared")
def test_the_samples_repeat_the_published_features() -> None:
    """The features that an episode stores are those of the steps that its frame names give, to the bit."""
    place = SAMPLES / "test_episodes/ucf101/ucf101_w3_s1"
    file = published_episodes(place)
    assert (len(file), file.ways, file.shots, file.queries_a_class, file.steps) == (2, 3, 1, 1, 8)
    videos = {p.parent.name: read_tensor(p) for p in (SAMPLES / "features").rglob("*.pth")}
    for number in (1, 2):
        for side, clips, steps in (
            ("support", file.support[number - 1].ravel(), file.support_steps),
            ("target", file.query[number - 1], file.query_steps),
        ):
            stored = read_tensor(place / f"{side}_set_{number}.pth")
            assert steps is not None
            taken = steps[number - 1].reshape(len(clips), -1)
            for row, (clip, at) in enumerate(zip(clips, taken)):
                x = videos[file.clips[clip]]
                assert np.array_equal(stored[row], (x[None] if x.ndim == 1 else x)[at])
