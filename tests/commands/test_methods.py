"""``fsmm methods``: the list, and a page about each method."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fsmm.commands.methods import page_of
from fsmm.errors import UsageError
from fsmm.heads.registry import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_page_says_what_a_user_must_know(name: str) -> None:
    page = page_of(name)
    assert page["paper"]["url"]
    assert len(page["idea"].split(". ")) >= 2
    assert page["transductive"] == ("ransductive" in page["idea"] and "nductive." not in page["idea"])
    for field in (*page["settings"], *page["recipe"]):
        assert field["values"]
        assert field["meaning"]
    assert json.loads(json.dumps(page)) is not None


def test_a_fusions_page_is_its_methods() -> None:
    assert page_of("trx-lf") == page_of("trx")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="hyrsm"):
        page_of("hyrms")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fsmm", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_prints_a_page_and_the_list() -> None:
    page = run("methods", "otam")
    assert page.returncode == 0
    for text in ("Cao et al., CVPR 2020", "https://arxiv.org/abs/", "gamma", "train.key", "reproduced"):
        assert text in page.stdout
    assert {row["name"] for row in json.loads(run("methods", "--json").stdout)} >= set(METHODS)
    unknown = run("methods", "otan")
    assert unknown.returncode == 2
    assert "otam" in unknown.stderr
    assert "Traceback" not in unknown.stderr
