"""Reference check: our heads, with official parameters, against official numbers.

    python tests/reference/check.py CASE.npz [CASE.npz ...]

For each case the mapping tests/reference/mappings/<stem>.py (the file's name without its trailing _<number>) builds our
head from the official parameters and returns every array that the file holds. Printed: the largest relative
difference of each, max|ours - official| / max|official|. Exit code 1 where one exceeds the case's tolerance (1e-6; 1e-4
for single-precision cases), an array is missing, or a case has no mapping or cannot be read.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # mappings import `case`, from whatever directory this was started

from case import Case, load_case  # noqa: E402

from fsmm.errors import FsmmError  # noqa: E402

# Arrays that vanish but for rounding (a gradient that cancels) are compared as if their largest entry were this.
TINY = 1e-6


@dataclass(frozen=True)
class Row:
    """One compared array; difference is infinite where ours is missing, misshapen or not finite."""

    case: str
    array: str
    shape: tuple[int, ...]
    difference: float
    tolerance: float
    note: str = ""

    @property
    def fine(self) -> bool:
        return self.difference <= self.tolerance


def check(path: Path) -> list[Row]:
    """A row for each array of the case. Raises FsmmError where the case is unreadable or has no mapping."""
    case = load_case(path)
    torch.manual_seed(0)
    ours = mapping(case.stem)(case)
    return [
        _compare(case=path.stem, name=name, ours=ours.get(name), official=value, tolerance=case.tolerance)
        for name, value in case.expected.items()
    ]


def mapping(stem: str) -> Callable[[Case], dict[str, Tensor]]:
    """The function ``outputs`` of the mapping for files called <stem>_<number>.npz."""
    path = HERE / "mappings" / f"{stem}.py"
    if not path.is_file():
        raise FsmmError(f"No mapping for {stem!r} cases; write tests/reference/mappings/{stem}.py.")
    spec = importlib.util.spec_from_file_location(f"mapping_{stem}", path)
    if spec is None or spec.loader is None:
        raise FsmmError(f"Mapping {path} cannot be imported; it must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs: Callable[[Case], dict[str, Tensor]] = module.outputs
    return outputs


def _compare(case: str, name: str, ours: Tensor | None, official: Tensor, tolerance: float) -> Row:
    shape = tuple(official.shape)
    if ours is None:
        return Row(
            case=case,
            array=name,
            shape=shape,
            difference=float("inf"),
            tolerance=tolerance,
            note="not given by the mapping",
        )
    ours = ours.detach().cpu().to(torch.float64)
    if tuple(ours.shape) != shape:
        return Row(
            case=case,
            array=name,
            shape=shape,
            difference=float("inf"),
            tolerance=tolerance,
            note=f"ours has shape {tuple(ours.shape)}",
        )
    return Row(
        case=case,
        array=name,
        shape=shape,
        difference=relative_difference(ours, official.to(torch.float64)),
        tolerance=tolerance,
    )


def relative_difference(ours: Tensor, official: Tensor) -> float:
    """max|ours - official| / max|official|; infinite where exactly one of a pair is finite, or signs of inf differ."""
    if official.numel() == 0:
        return 0.0
    same = (ours == official) | (ours.isnan() & official.isnan())  # infinities and NaN that agree
    gap = torch.where(same, 0.0, (ours - official).abs())
    if not bool(gap.isfinite().all()):
        return float("inf")
    scale = official[official.isfinite()].abs().max().item() if bool(official.isfinite().any()) else 0.0
    return gap.max().item() / max(scale, TINY)


def table(rows: Sequence[Row]) -> str:
    """Plain text, one line an array."""
    head = ("case", "array", "shape", "difference", "allowed", "")
    lines = [head] + [
        (r.case, r.array, "x".join(map(str, r.shape)) or "scalar", f"{r.difference:.2e}", f"{r.tolerance:.0e}",
         "ok" if r.fine else f"DIFFERS {r.note}".strip())
        for r in rows
    ]  # fmt: skip
    width = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, width)).rstrip() for line in lines)


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(
            "Give one or more reference cases: python tests/reference/check.py CASE.npz ...", file=sys.stderr
        )
        return 2
    rows: list[Row] = []
    failures: list[str] = []
    for name in arguments:
        try:
            rows += check(Path(name))
        except FsmmError as error:
            failures.append(str(error))
        except Exception as error:
            # A mapping that breaks on an unforeseen case must not hide the other cases.
            failures.append(f"{name}: our head failed on it ({type(error).__name__}: {error}).")
    if rows:
        print(table(rows))
    wrong = sum(not r.fine for r in rows)
    for failure in failures:
        print(failure, file=sys.stderr)
    if rows:
        print(f"{len(rows) - wrong} of {len(rows)} arrays agree.")
    return 1 if wrong or failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
