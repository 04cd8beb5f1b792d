"""Mistakes in a study file are named with their line and the nearest right name, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmm.errors import UsageError
from fsmm.studies.grid.presets import find_study, presets
from fsmm.studies.grid.spec import StudyDocument, read_study_file


def read(folder: Path, text: str) -> StudyDocument:
    path = folder / "study.yaml"
    path.write_text(text)
    return read_study_file(path)


GOOD = """\
name: toy
fixed: {episodes: auto, k-shot: 5}
blocks:
  - name: one
    fixed:
      method: protonet
      settings: {train.steps: 3}
    grid:
      modalities: [frame, [frame, audio]]
      n_way: [5, 5-10]
"""


def test_values_are_read_as_the_command_line_reads_them(tmp_path: Path) -> None:
    file = read(tmp_path, GOOD).file
    assert file.fixed["k_shot"] == 5
    assert str(file.fixed["episodes"]) == "auto"
    assert file.blocks[0].grid["modalities"] == [("frame",), ("frame", "audio")]
    assert file.blocks[0].grid["n_way"] == [5, (5, 10)]
    assert file.blocks[0].fixed["settings.train.steps"] == "3"


@pytest.mark.parametrize(
    ("right", "wrong", "line", "sentence"),
    [
        ("blocks:", "block:", 3, "Unknown key 'block'. Did you mean 'blocks'?"),
        ("    grid:", "    gird:", 8, "Unknown key 'gird'. Did you mean 'grid'?"),
        ("k-shot: 5", "k-shots: 5", 2, "Unknown option of a run 'k_shots'. Did you mean 'k_shot'?"),
        ("episodes: auto", "episodes: lots", 2, "takes a whole number, not 'lots'"),
        ("method: protonet", "method: protonett", 6, "Unknown method 'protonett'. Did you mean 'protonet'?"),
        ("5-10", "5-x", 10, "n_way '5-x' is neither a number nor a range"),
        ("modalities: [frame, [frame, audio]]", "modalities: []", 9, "lists no value of modalities"),
        ("settings: {train.steps: 3}", "settings: 3", 7, "settings are a table of keys and values"),
        ("name: one", "name: one/two", 4, "a name has letters, digits"),
        ("k-shot: 5", "k-shot: 5, k_shot: 1", 2, "k_shot is named twice, in two spellings"),
        ("modalities: [", "n-way: 5\n      modalities: [", 11, "n_way is named twice, in two spellings"),
        ("settings: {", "train.steps: 3\n      settings: {", 8, "train.steps is named twice"),
        ("name: toy", "name: toy\ntitle: [a, b]", 2, "a text of one line is needed here, not ['a', 'b']"),
        ("name: one", 'name: one\n    title: "a\\eb"', 5, "a text of one line is needed here"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, right: str, wrong: str, line: int, sentence: str
) -> None:
    assert right in GOOD
    with pytest.raises(UsageError) as found:
        read(tmp_path, GOOD.replace(right, wrong))
    assert f"line {line}: " in str(found.value)
    assert sentence in str(found.value)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 2: Unknown option.*line 8: Unknown key"):
        read(tmp_path, GOOD.replace("k-shot", "k-shots").replace("    grid:", "    gird:"))


def test_a_label_is_a_text_of_one_line(tmp_path: Path) -> None:
    text = GOOD.replace("    grid:", "    variants: [{label: 5, n_query: 3}]\n    grid:")
    assert read(tmp_path, text).file.blocks[0].variants[0]["label"] == "5"
    with pytest.raises(UsageError, match=r"line 8: a text of one line is needed here, not nothing"):
        read(tmp_path, text.replace("label: 5", "label: null"))


def test_a_key_twice_in_one_table_is_refused(tmp_path: Path) -> None:
    """The reader of YAML would keep the last one, and the grid before it would be lost without a word."""
    with pytest.raises(UsageError, match="'grid' twice, in lines 8 and 11"):
        read(tmp_path, f"{GOOD}    grid: {{k_shot: [1]}}\n")
    merged = GOOD.replace("fixed: {", "fixed: &all {").replace(
        "      method:", "      <<: *all\n      k_shot: 1\n      method:"
    )
    with pytest.raises(UsageError, match="k_shot is named twice"):
        read(tmp_path, merged)  # a merged key is spelled k-shot
    assert read(tmp_path, merged.replace("k-shot", "k_shot")).file.blocks[0].fixed["k_shot"] == 1


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"study\.yaml.*larger than 1,048,576 bytes"):
        read(tmp_path, GOOD + "# " + "x" * (1 << 20))


def test_two_blocks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 11: two blocks have the name 'one'"):
        read(tmp_path, f"{GOOD}  - name: one\n")


@pytest.mark.parametrize(
    "text", ["", "- 1", "a: [", "blocks: []", "name: x\nblocks: 3", "name: x\0", "[" * 5000]
)
def test_a_file_that_is_no_study_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"study\.yaml"):
        read(tmp_path, text)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'quick'"):
        find_study("qick")
    with pytest.raises(UsageError, match="There is no study file"):
        find_study("nowhere.yaml")


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_right_and_says_what_it_shows(name: str) -> None:
    file = find_study(name).file
    assert file.name == name
    assert file.title
    assert file.description.endswith(".")
    labels = [variant.get("label") for block in file.blocks for variant in block.variants]
    assert file.published is None or {row.label for row in file.published.rows} <= set(labels)


def test_the_example_is_right() -> None:
    path = Path(__file__).parents[3] / "examples" / "study.yaml"
    assert [block.name for block in read_study_file(path).file.blocks] == ["alone", "joined", "missing"]
