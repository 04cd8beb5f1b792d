"""Pickles: every array and plain container comes back, nothing else is run."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fsmm.cache.exchange import pickles
from fsmm.cache.exchange.pickles import load_plain, load_untrusted
from fsmm.errors import CacheError

ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(t) for t in ("f2", "<f4", ">f8", "u1", "i8", "?", "U3", "S2")]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_content_comes_back(tmp_path: Path, value: Any, protocol: int) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert same(value, load_plain(path))


def test_fortran_order_and_scalars_come_back(tmp_path: Path) -> None:
    value = {"f": np.asfortranarray(np.arange(6).reshape(2, 3)), "s": np.float32(1.5)}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
        found = load_plain(tmp_path / "x.pkl")
        assert np.array_equal(found["f"], value["f"])
        assert found["s"] == np.float32(1.5)


class Runs:
    """Unpickled by an ordinary unpickler, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    sign = tmp_path / "was-run"
    hostile = pickle.dumps({"x": [Runs(sign)]})
    (tmp_path / "x.pkl").write_bytes(hostile)
    with pytest.raises(CacheError, match=r"asks for (posix|nt)\.mkdir"):
        load_plain(tmp_path / "x.pkl")
    assert not sign.exists()
    pickle.loads(hostile)  # the test's own check: elsewhere it does run
    assert sign.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps(np.arange(9))[:-20],
        pickle.dumps(np.array([object()], dtype=object).astype(object), 2),
        pickle.dumps(np.dtype("f8")),
        pickle.dumps(pickle.Pickler),
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nndarray\n(I2\ntR.",
        b"(cnumpy\nndarray\nl.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I9\ntcnumpy\ndtype\n(S'O8'\ntRI00\nS'12345678'\ntb.",
    ],
)
def test_hostile_and_damaged_pickles_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(CacheError, match="is not a pickle of numpy arrays in plain containers"):
        load_plain(tmp_path / "x.pkl")


def test_an_array_whose_size_lies_about_its_data_is_refused(tmp_path: Path) -> None:
    honest = pickle.dumps(np.arange(4, dtype="u1"), 2)
    assert b"K\x04\x85" in honest  # the shape (4,)
    (tmp_path / "x.pkl").write_bytes(honest.replace(b"K\x04\x85", b"K\xff\x85", 1))
    pickletools.dis(honest, out=(tmp_path / "dis").open("w"))
    with pytest.raises(CacheError, match="size of an array does not match"):
        load_plain(tmp_path / "x.pkl")


def nested_rows(depth: int) -> list[Any]:
    row: list[Any] = [0.0] * 10
    for _ in range(depth):
        row = [row] * 10
    return row


def itself() -> list[Any]:
    row: list[Any] = []
    row.append(row)
    return row


def slow_to_hash() -> bytes:
    """A dict whose key is a tuple of shared tuples; its hash visits all 2^200 leaves."""
    key: tuple[Any, ...] = ("a",)
    content = pickle.dumps(key, protocol=2)[:-1]  # The end is left out.
    return content[:2] + b"}" + content[2:] + b"2\x86" * 200 + b"K\x01s."


BOMBS = {
    "shared": pickle.dumps({"x": nested_rows(12)}, protocol=2),
    "itself": pickle.dumps(itself(), protocol=2),
    "memo": b"\x80\x02Nr\xff\xff\xff\xef.",
    "bytes": b"\x80\x04\x8e" + (1 << 45).to_bytes(8, "little") + b"abc.",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_a_few_bytes_that_stand_for_much_are_refused_at_once(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(CacheError, match=r"'x.pkl' is not a pickle of numpy arrays"):
        load_untrusted(tmp_path / "x.pkl")


def test_a_pickle_that_takes_for_ever_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "_SECONDS", 1.0)
    (tmp_path / "x.pkl").write_bytes(slow_to_hash())
    with pytest.raises(CacheError, match="does not come to an end"):
        load_untrusted(tmp_path / "x.pkl")


def test_shared_parts_come_back_shared(tmp_path: Path) -> None:
    absent = [0.0] * 50
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"x": [absent, [1.0] * 50, absent]}))
    found = load_untrusted(tmp_path / "x.pkl")["x"]
    assert found == [absent, [1.0] * 50, absent]
    assert found[0] is found[2]
