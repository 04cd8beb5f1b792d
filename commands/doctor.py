"""``fsmm doctor``: what of an installation works, found out by doing it, and the remedy for what fails."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .._version import __version__
from ..errors import FsmmError, install_hint, listed, unknown
from ..runs.kinds import read_names
from . import completion, console

if TYPE_CHECKING:
    from ..extract.built_in.clips import Odd

OK, NOTE, FAILS = "ok", "note", "fails"
_LEAST_DISK = 2e9  # bytes; weights and the cache of a small data set need about as much
_LEAST_ACCURACY = (
    0.35  # of six classes, where chance has 0.17; the encoders that were measured have 0.5 and more
)
_LEAST_COSINE = 0.99  # the int8 networks of other processors differ by less


@dataclass(frozen=True)
class Check:
    """The outcome of trying one thing."""

    what: str
    """The thing that was tried."""
    state: str
    """How it went: "ok", "note" (it is not there and need not be) or "fails"."""
    says: str
    """What was found."""
    remedy: str = ""
    """What to do where it fails or is not there."""


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    encoders: Annotated[
        Optional[str],
        typer.Option(
            help="Try these encoders only, comma-separated; none tries no encoder [all that are ready].",
            autocompletion=completion.encoders,
        ),
    ] = None,
    cache: Annotated[
        Optional[Path], typer.Option(help="Cache folder (else FSMM_CACHE, else the user's).")
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="The device of the encoders: auto, cpu or cuda.",
            autocompletion=completion.one_of(("auto", "cpu", "cuda")),
        ),
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what of the installation works, by doing it; exit code 1 if something fails.

    Decoders and encoders are tried on clips that fsmm carries with it. Nothing is fetched."""
    names = None if encoders is None else read_names("--encoders", encoders)
    found = []
    for check in checks(names, cache, device):
        found.append(check)
        if not json:
            remedy = f" Remedy: {check.remedy}" if check.remedy else ""
            typer.echo(f"{check.state:5} {check.what}: {check.says}{remedy}")
    fails = [check.what for check in found if check.state == FAILS]
    if json:
        document = {"fsmm": __version__, "ok": not fails, "checks": [asdict(check) for check in found]}
        console.print_json(document)
    else:
        typer.echo(f"{len(fails)} of {len(found)} checks fail: {listed(fails)}." if fails else "All works.")
    if fails:
        raise typer.Exit(1)


def checks(encoders: tuple[str, ...] | None, cache: Path | None, device: str) -> Iterator[Check]:
    """Try everything, one after the other. Raises UsageError for an unknown encoder or device."""
    from ..extract.encoders import encoders as known

    for name in encoders or ():
        if name not in known() and name != "none":
            raise unknown("encoder", name, [*known(), "none"])
    yield Check(
        "fsmm", OK, f"version {__version__}, Python {platform.python_version()}, {platform.platform()}."
    )
    yield _tried("torch", _torch)
    yield _tried("GPU", _gpu)
    yield _tried("HDF5", _hdf5)
    yield _tried("disk", lambda: _disk(cache))
    yield from _weights()
    if missing := _missing_extra():
        says = f"not installed here ({listed(missing)}), so no video can be read; heads run on caches all the same."
        yield Check("decoders and encoders", NOTE, says, f"{install_hint('extract')}.")
        return
    from ..extract.built_in.clips import ODD

    for odd in ODD:
        yield _tried(f"decoder, {odd.name} clip", partial(_decoder, odd))
    yield from _encoders(encoders, device)


def _tried(what: str, attempt: Callable[[], tuple[str, str, str]]) -> Check:
    """The outcome of an attempt, which returns state, finding and remedy; whatever it raises is a failure."""
    try:
        state, says, remedy = attempt()
    except FsmmError as error:
        state, says, remedy = FAILS, str(error), ""
    except Exception as error:  # A broken library raises anything; the next thing is tried all the same.
        state = FAILS
        says = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}."
        remedy = "install the versions of constraints.txt again."
    return Check(what, state, says, remedy)


def _torch() -> tuple[str, str, str]:
    import numpy as np
    import torch

    left, right = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    product = (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()
    if np.abs(product - left.astype(np.float64) @ right).max() > 1e-3:
        return FAILS, "a product of matrices is wrong.", "install torch again."
    cores, threads = _cores(), torch.get_num_threads()
    return OK, f"{torch.__version__}, {threads} threads on {cores} cores.", ""


def _cores() -> int:
    from ..machine.cores import default_workers

    return default_workers()


def _gpu() -> tuple[str, str, str]:
    import torch

    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            remedy = "install the CUDA build of torch that fits the driver (`nvidia-smi` names its version)."
            return FAILS, "there is an NVIDIA GPU, and torch cannot use it.", remedy
        return NOTE, "none; everything runs on the CPU.", ""
    x = torch.arange(16.0, device="cuda").reshape(4, 4)
    if not torch.equal((x @ x).cpu(), x.cpu() @ x.cpu()):
        return FAILS, "a product of matrices is wrong on the GPU.", "use --device cpu, and update the driver."
    free, total = torch.cuda.mem_get_info()
    return OK, f"{torch.cuda.get_device_name()}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free.", ""


def _hdf5() -> tuple[str, str, str]:
    """Write a shard, read it back and check its checksum."""
    import tempfile

    import h5py
    import numpy as np

    from ..cache.schema import Provenance
    from ..cache.shard import build_shard, read_shard, write_shard

    features = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00000.h5"
        write_shard(path, build_shard("doctor", Provenance("try", "frame", 8), [("a", features, {})]))
        shard = read_shard(path)
    if not (shard.is_right(0) and np.array_equal(shard.clip(0), features)):
        return FAILS, "a shard comes back with other bytes.", "install h5py again, and check the disk."
    return (
        OK,
        f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}; a shard was written and read back.",
        "",
    )


def _disk(cache: Path | None) -> tuple[str, str, str]:
    import shutil

    from ..cache.schema import default_cache

    folder = (default_cache() if cache is None else cache.expanduser()).absolute()
    place = next(place for place in (folder, *folder.parents) if place.is_dir())
    free = shutil.disk_usage(place).free
    says = f"{free / 1e9:.1f} GB free for the cache {str(folder)!r}."
    if free < _LEAST_DISK:
        return FAILS, says, "free some space, or name another disk's folder with --cache or FSMM_CACHE."
    return OK, says, ""


def _weights() -> Iterator[Check]:
    """The hashes of all weights that lie in the weight cache."""
    from ..extract.weights import store

    names = store.held()
    if not names:
        says = f"none yet in {str(store.weight_cache())!r}; an extraction fetches what it needs."
        yield Check("weights", NOTE, says, "`fsmm encoders --fetch NAME` gets them ahead of time.")
    for name in names:

        def attempt(name: str = name) -> tuple[str, str, str]:
            store.check(name)
            return OK, "their hashes are right.", ""

        yield _tried(f"weights of {name}", attempt)


def _missing_extra() -> list[str]:
    from importlib.util import find_spec

    return [package for package in ("av", "cv2") if find_spec(package) is None]


def _decoder(odd: Odd) -> tuple[str, str, str]:
    from ..extract.built_in.decoding import faults_of_decoding

    if faults := faults_of_decoding(odd):
        remedy = "install PyAV (package av) from its wheel, in the version of constraints.txt."
        return FAILS, f"{odd.codecs}: {'; '.join(faults)}.", remedy
    return OK, f"{odd.codecs}.", ""


def _encoders(wanted: tuple[str, ...] | None, device: str) -> Iterator[Check]:
    """The encoders that are ready here, or those that are named."""
    from ..extract import encoders as table
    from ..machine.device import pick_device
    from ..machine.memory import keep_freed_memory

    keep_freed_memory()
    place = str(pick_device(device))
    states = {row["name"]: str(row["state"]) for row in table.rows()}
    names = [name for name in states if name in wanted] if wanted is not None else list(states)
    for name in names:
        if states[name] == "ready":
            yield _tried(f"encoder {name}", partial(_encoder, name, place))
        elif wanted is not None:
            remedy = f"`fsmm encoders --fetch {name}`, or `fsmm encoders` for where its weights come from."
            yield Check(f"encoder {name}", FAILS, f"it {_is_not_ready(states[name])}.", remedy)
    if wanted is None and (left := [name for name in names if states[name] != "ready"]):
        remedy = "`fsmm encoders` says what each needs."
        yield Check("further encoders", NOTE, f"not ready, and not tried: {listed(left)}.", remedy)


def _is_not_ready(state: str) -> str:
    return state if state.startswith("needs") else f"has its weights still {state}"


def _encoder(name: str, device: str) -> tuple[str, str, str]:
    """An encoder on the labelled handful: its accuracy, and its features beside the known ones."""
    from ..extract import encoders as table
    from ..extract.built_in.encoding import cosine_to_reference, features_of_handful

    encoder = table.build(name, device=device)
    features = features_of_handful(encoder)
    accuracy, cosine = features.accuracy(), cosine_to_reference(encoder, features)
    says = f"accuracy {accuracy:.2f} on {len(features.label)} built-in examples of 6 classes"
    says += "" if cosine is None else f", features as measured when they were made (cosine {cosine:.4f})"
    # Features that are the known ones have the known accuracy, whatever it is.
    if accuracy >= _LEAST_ACCURACY if cosine is None else cosine >= _LEAST_COSINE:
        return OK, f"{says}.", ""
    if cosine is not None and cosine < _LEAST_COSINE:
        says = f"accuracy {accuracy:.2f} on built-in examples, and features that differ from the known ones "
        says += f"(cosine {cosine:.3f})"
    remedy = "install the versions of constraints.txt, and try --device cpu; features made here fit no other cache."
    return FAILS, f"{says}.", remedy
