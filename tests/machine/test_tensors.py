"""Tensors on disk come back as they were, or there is a sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fsmm.errors import FsmmError
from fsmm.machine.tensors import load_tensors, save_tensors, tensors_digest

TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "mask": torch.tensor([True, False]),
}
TEXTS = {"identity": '{"seed": 3}', "method": "relation"}


def test_tensors_and_texts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "head.safetensors"
    save_tensors(path, TENSORS, TEXTS)
    tensors, about = load_tensors(path)
    assert about == TEXTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_every_flipped_bit_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_tensors(path, TENSORS, TEXTS)
    whole = path.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    for byte in range(len(whole)):
        for bit in range(0, 8, 3):
            damaged = bytearray(whole)
            damaged[byte] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                tensors, about = load_tensors(path)
            except FsmmError:
                continue
            assert byte < start, "a flipped bit of a tensor is seen"
            assert (about, tensors_digest(tensors)) == (TEXTS, tensors_digest(TENSORS))


@pytest.mark.parametrize("keep", [0, 1, 7, 9, 60, -1])
def test_a_torn_file_is_one_sentence(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "head.safetensors"
    save_tensors(path, TENSORS, TEXTS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FsmmError, match="cannot be read"):
        load_tensors(path)


def test_a_file_without_a_digest_and_one_with_another_s_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file(TENSORS, path, TEXTS)
    with pytest.raises(FsmmError, match="carries no digest"):
        load_tensors(path)
    save_file(TENSORS, path, {**TEXTS, "sha256": tensors_digest({"weight": TENSORS["weight"]}, TEXTS)})
    with pytest.raises(FsmmError, match="is damaged"):
        load_tensors(path)


def test_the_digest_depends_on_names_types_shapes_values_and_texts() -> None:
    x = torch.zeros(2, 3)
    variants = [
        ({"a": x}, {}),
        ({"b": x}, {}),
        ({"a": x.reshape(3, 2)}, {}),
        ({"a": x.int()}, {}),
        ({"a": x + 1}, {}),
        ({"a": x, "b": x}, {}),
        ({"a": x}, {"note": "x"}),
        ({"a": x}, {"note": "y"}),
    ]
    assert len({tensors_digest(tensors, texts) for tensors, texts in variants}) == len(variants)
    assert tensors_digest({"a": x.T.contiguous().T}) == tensors_digest({"a": x}), "strides are no content"
    assert tensors_digest({"a": x, "b": x + 1}) == tensors_digest({"b": x + 1, "a": x})
    assert len(json.dumps(tensors_digest({}))) == 66
