"""What docs/cache.md and docs/import.md show works as shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from fsmm.cache.bank import FeatureBank
from fsmm.cache.exchange.importing import import_features

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_example_for_h5py_reads_what_the_bank_reads(
    make_cache: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_cache(absent=0.2, unlabelled=4)
    monkeypatch.chdir(root.parent)
    (root.parent / "CACHE").symlink_to(root)
    code = re.search(r"```python\n(.*?)```", (DOCS / "cache.md").read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, object] = {}
    exec(code[1], names)  # the documentation's own words
    bank = FeatureBank.load(root, ["frame"], split="all")
    present = bank.tables["frame"].present
    examples = names["examples"]
    assert isinstance(examples, list)
    assert f"{int(present.sum())} labelled clips" in capsys.readouterr().out
    rows = present.nonzero().flatten()
    got = bank.tables["frame"].gather(rows)
    for (x, name), mine, label in zip(examples, got.x, bank.label[rows].tolist(), strict=True):
        assert np.array_equal(x, mine.numpy())
        assert name == bank.class_names[label]


def test_checks_can_be_computed_from_the_documentation_alone(make_cache: Callable[..., Path]) -> None:
    """An independent reading of what docs/cache.md says about seal, row check, provenance check and facts check."""
    path = make_cache(absent=0.3) / "toy/streams/frame/net/00000.h5"
    data = path.read_bytes()
    assert data[:512] == f"fsmm-shard 1 sha256={hashlib.sha256(data[512:]).hexdigest()}\n".encode().ljust(
        512, b"\0"
    )

    def blake(*parts: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "little")

    with h5py.File(path) as shard:
        x, offset = shard["features"][()], shard["offset"][()]
        for i, key in enumerate(shard["key"].asstr()[()]):
            rows = x[offset[i] : offset[i + 1]]
            said = json.dumps([key, bool(shard["present"][i]), *rows.shape, rows.dtype.str])
            assert blake(said.encode(), rows.tobytes()) == int(shard["check"][i])
        about = json.dumps([shard.attrs["dataset"], shard.attrs["provenance"]])
        assert blake(about.encode()) == int(shard.attrs["provenance_check"])
        facts = {name: values[()] for name, values in shard["facts"].items()}
        said_facts = [
            part
            for name in sorted(facts)
            for part in (
                json.dumps([name, facts[name].dtype.str, len(facts[name])]).encode(),
                facts[name].tobytes(),
            )
        ]
        assert blake(*said_facts) == int(shard.attrs["facts_check"])


def test_the_first_mapping_of_the_import_page_imports(tmp_path: Path) -> None:
    text = re.search(r"```json\n(.*?)```", (DOCS / "import.md").read_text(), re.DOTALL)
    assert text is not None
    (tmp_path / "mine.json").write_text(text[1])
    n = 56
    np.savez(
        tmp_path / "features.npz",
        video_id=[f"v{i}" for i in range(n)],
        rgb=np.ones((n, 2, 3)),
        sound=np.ones((n, 4)),
        y=np.arange(n) % 28,
        names=[f"class {i}" for i in range(28)],
    )
    report = import_features(tmp_path / "mine.json", tmp_path / "cache")
    assert report.added == {"frame/my-resnet": n, "audio/my-vggish": n}
    assert len(FeatureBank.load(tmp_path / "cache").class_names) == 12


def test_every_key_of_a_mapping_is_documented() -> None:
    from fsmm.cache.exchange import mapping

    text = (DOCS / "import.md").read_text()
    known = mapping._TOP | mapping._ARRAY | mapping._LABELS | mapping._WORDS | mapping._SPLIT
    assert [key for key in sorted(known) if f"`{key}`" not in text and f'"{key}"' not in text] == []
