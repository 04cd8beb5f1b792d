"""A table of docs/results from a real study: differences are those of compare, and what is not done is a dash."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import script, synthetic_cache

from fsmm.studies.compare import compare
from fsmm.studies.grid.store import Study
from fsmm.studies.grid.sweep import sweep

TABLE = script("study_table")
PAIRED = script("figures.paired")
Widths = script("figures.data").Widths
STUDY = """
name: small
fixed: {dataset: toy, n_query: 3, n_way: 3, episodes: 300, modalities: "frame,audio"}
blocks:
  - name: heads
    variants:
      - {label: protonet, method: protonet}
      - {label: ridge, method: ridge}
    grid: {k_shot: [1, 2]}
  - name: seeds
    variants:
      - {label: protonet, method: protonet}
      - {label: relation, method: relation, settings: {train.steps: 0, start: false}}
    grid: {train_seed: [0, 1]}
  - name: all classes
    fixed: {n_way: 6}
    variants:
      - {label: protonet, method: protonet}
      - {label: ridge, method: ridge}
  - name: later
    variants: [{label: protonet, method: protonet, seed: 1}]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    synthetic_cache(
        folder / "cache",
        dataset="toy",
        clips=12,
        streams={"frame/net": (1, 8), "audio/net": (1, 4)},
        noise=2.0,
    )
    (folder / "small.yaml").write_text(STUDY)
    blocks = ["heads", "seeds", "all classes"]
    return sweep(folder / "small.yaml", folder / "cache", out=folder / "out", jobs=1, only=blocks)


def folders(study: Study, block: str, label: str) -> list[Path]:
    return [
        study.run_folder(row) for row in study.done if (row.block, row.varies["variant"]) == (block, label)
    ]


def test_a_cell_is_the_mean_and_its_paired_difference_over_draws_clips_and_classes(study: Study) -> None:
    cells = {(label, shots): cell for label, shots, cell in TABLE.cells_of(study, "heads", "protonet")}
    assert list(cells) == [("protonet", 1), ("protonet", 2), ("ridge", 1), ("ridge", 2)]
    for number, shots in enumerate((1, 2)):
        base, ridge = cells["protonet", shots], cells["ridge", shots]
        assert (base.difference, base.widths) == (None, Widths())
        assert ridge.difference == pytest.approx(
            ridge.value - base.value, abs=1e-5
        )  # accuracies are stored in float32
        runs = [folders(study, "heads", label)[number] for label in ("ridge", "protonet")]
        (pair,) = compare(runs, draws=True).pairs
        for kind in ("draws", "clips", "classes"):
            assert ridge.widths.of(kind) == pytest.approx(100 * getattr(pair, kind).ci95)
        assert ridge.widths.draws < ridge.widths.clips


@pytest.mark.parametrize(("base", "other"), [("protonet", "relation"), ("relation", "protonet")])
def test_every_seed_of_either_head_counts(study: Study, base: str, other: str) -> None:
    cells = {label: cell for label, _, cell in TABLE.cells_of(study, "seeds", base)}
    cell = cells[other]
    assert cell.difference == pytest.approx(cell.value - cells[base].value, abs=1e-5)
    first = PAIRED.difference_of_runs(folders(study, "seeds", other)[:1], folders(study, "seeds", base)[:1])
    assert abs(cell.difference - first.points) > 0.1  # the seeds differ
    assert cell.widths.draws > first.widths.draws  # and their chance is more than that of the draws


def test_a_width_that_the_runs_do_not_give_is_unknown(study: Study) -> None:
    """Episodes that hold all classes say nothing of others, and equal heads have a bound on one side."""
    cells = {label: cell for label, _, cell in TABLE.cells_of(study, "all classes", "protonet")}
    widths = cells["ridge"].widths
    assert widths.classes is None
    assert widths.draws > 0
    assert widths.clips > 0
    (run, *_) = folders(study, "heads", "ridge")
    same = PAIRED.difference_of_runs([run], [run])
    assert (same.points, same.widths) == (0.0, Widths())


def test_over_class_splits_a_width_is_the_mean_of_theirs() -> None:
    one, two = (
        PAIRED.Difference(points=points, widths=Widths(draws=draws, clips=clips))
        for points, draws, clips in ((1.0, 0.2, 0.8), (3.0, 0.4, None))
    )
    mean = PAIRED.mean_difference([one, two])
    assert (mean.points, mean.widths) == (2.0, Widths(draws=pytest.approx(0.3)))
    alike = PAIRED.Difference(points=0.0, widths=Widths())
    assert PAIRED.mean_difference([one, alike, alike, alike]).widths == Widths(
        draws=pytest.approx(0.05), clips=pytest.approx(0.2)
    )
    assert PAIRED.mean_difference([alike, alike]).widths == Widths()


def test_a_cell_that_is_not_done_is_empty(study: Study) -> None:
    assert [cell for _, _, cell in TABLE.cells_of(study, "later", "protonet")] == [TABLE.UNDONE]
