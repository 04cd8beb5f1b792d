"""Every stored reference case agrees with our heads; and the check itself fails when it should."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fsmm.errors import FsmmError

HERE = Path(__file__).resolve().parent
CASES = sorted((HERE / "cases").glob("*.npz"))


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reference_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check = _load("check")


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_official_numbers(path: Path) -> None:
    rows = check.check(path)
    assert rows
    wrong = [r for r in rows if not r.fine]
    assert not wrong, "\n" + check.table(wrong)


def test_every_mapping_has_a_case() -> None:
    mapped = {p.stem for p in (HERE / "mappings").glob("*.py") if p.stem != "__init__"}
    held = {p.stem.rpartition("_")[0] for p in CASES}
    assert mapped <= held


def test_relative_difference_is_relative_to_the_largest_entry() -> None:
    official = torch.tensor([0.0, 2.0, -4.0], dtype=torch.float64)
    assert check.relative_difference(official + torch.tensor([0.0, 0.0, 0.02]), official) == pytest.approx(
        0.005
    )
    assert check.relative_difference(official, official) == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_never_passes(bad: float) -> None:
    official = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert check.relative_difference(torch.tensor([1.0, bad], dtype=torch.float64), official) == float("inf")
    assert check.relative_difference(official, torch.tensor([1.0, bad], dtype=torch.float64)) == float("inf")


def test_missing_and_misshapen_arrays_fail() -> None:
    official = torch.zeros(2, 3)
    assert not check._compare("x", "y", None, official, 1e-6).fine
    assert not check._compare("x", "y", torch.zeros(3, 2), official, 1e-6).fine
    assert check._compare("x", "y", torch.zeros(2, 3), official, 1e-6).fine


def test_a_wrong_number_fails_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = next((p for p in CASES if p.stem.startswith("maml")), None)
    assert source is not None
    with np.load(source) as file:
        arrays = {k: file[k] for k in file.files}
    arrays["out.query_loss"] = arrays["out.query_loss"] * (1 + 1e-5)
    np.savez(tmp_path / "maml_7.npz", **arrays)
    assert check.main([str(source)]) == 0
    assert check.main([str(tmp_path / "maml_7.npz")]) == 1
    assert "query_loss" in capsys.readouterr().out


def test_no_mapping_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "nosuch_0.npz", **{"out.x": np.zeros(2), "meta": np.array(json.dumps({}))})
    assert check.main([str(tmp_path / "nosuch_0.npz")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_an_unreadable_file_is_one_sentence(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "maml_0.npz").write_bytes(content)
    assert check.main([str(tmp_path / "maml_0.npz"), str(tmp_path / "absent_1.npz")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_single_precision_cases_have_the_looser_tolerance(tmp_path: Path) -> None:
    for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-6)):
        np.savez(tmp_path / "a_b_12.npz", **{"out.x": np.zeros(2, dtype), "meta": np.array("{}")})
        case = _load("case").load_case(tmp_path / "a_b_12.npz")
        assert case.stem == "a_b"
        assert case.tolerance == tolerance


@pytest.mark.parametrize("stem", ["tsn_cos_1", "tsn_euclid_1"])
def test_queries_may_lack_a_class(stem: str, tmp_path: Path) -> None:
    """Two of the queries alone: their logits stay, and the loss is that of their classes."""
    kept = [4, 2]
    with np.load(next(p for p in CASES if p.stem == stem)) as file:
        arrays = {k: file[k] for k in file.files if not k.startswith("grad.")}
    for name in ("in.query", "in.query_labels", "out.logits"):
        arrays[name] = arrays[name][kept]
    place = np.searchsorted(np.unique(arrays["in.support_labels"]), arrays["in.query_labels"])
    logits = arrays["out.logits"]
    arrays["out.loss"] = (np.log(np.exp(logits).sum(1)) - logits[[0, 1], place]).mean()
    np.savez(tmp_path / f"{stem}.npz", **arrays)
    wrong = [r for r in check.check(tmp_path / f"{stem}.npz") if not r.fine]
    assert not wrong, "\n" + check.table(wrong)


@pytest.mark.parametrize("stem", ["hyrsm_1shot_0", "molo_0", "clipfsar_0"])
def test_labels_may_be_integers_of_any_width(stem: str, tmp_path: Path) -> None:
    with np.load(next(p for p in CASES if p.stem == stem)) as file:
        arrays = {k: file[k].astype(np.int32) if file[k].dtype.kind == "i" else file[k] for k in file.files}
    np.savez(tmp_path / f"{stem}.npz", **arrays)
    wrong = [r for r in check.check(tmp_path / f"{stem}.npz") if not r.fine]
    assert not wrong, "\n" + check.table(wrong)


def test_a_case_without_outputs_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a_0.npz", **{"in.x": np.zeros(2), "meta": np.array("{}")})
    with pytest.raises(FsmmError, match="holds no"):
        _load("case").load_case(tmp_path / "a_0.npz")
