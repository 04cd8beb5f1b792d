"""The choice of a run's encoders from modalities and names, and the check that extraction can run at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.schema import MODALITIES, StreamName
from ..errors import UsageError, install_hint, listed, unknown

if TYPE_CHECKING:
    from .contract import Encoder, Sampling
    from .encoders.references import Reference
    from .encoders.tuned import TunedReference

USUAL = ("frame", "flow", "audio", "word")
Chosen = Mapping[str, str | Sequence[str]]  # modality: encoder name or names


def need_extra() -> None:
    """Raise UsageError if the packages that read videos are not installed."""
    if missing := [package for package in ("av", "cv2") if find_spec(package) is None]:
        raise UsageError(
            f"Extraction needs packages that are not installed ({', '.join(missing)}): {install_hint('extract')}."
        )


def choose_streams(streams: Sequence[str] | None, encoders: Chosen | None) -> list[StreamName]:
    """The streams of a run, each once, in the requested order.

    streams: modalities (their usual encoder, or those that ``encoders`` names for them) or ``modality/encoder``.
    None stands for the modalities of ``encoders``, or for frame, flow, audio and word if that is empty too.
    Raises UsageError for an unknown name, or for an encoder of another modality.
    """
    named = {modality: _names(names) for modality, names in (encoders or {}).items()}
    requested = list(streams) if streams is not None else list(named or USUAL)
    requested += [modality for modality in named if modality not in requested]
    chosen: dict[StreamName, None] = {}
    for one in requested:
        if ":" in one:
            raise UsageError(
                f"Stream {one!r} names a model; ask for it by --encoder, as {one.replace('/', '=', 1)}."
            )
        if "/" in one:
            chosen[_checked(StreamName.parse(one))] = None
        else:
            chosen.update((_stream(one, name), None) for name in named.get(one) or [_usual(one)])
    if not chosen:
        raise UsageError(f"No stream was asked for; name some with --streams, such as {','.join(USUAL)}.")
    return list(chosen)


def build_encoders(
    streams: Sequence[StreamName],
    weights: Mapping[str, Path],
    device: str,
    references: Mapping[StreamName, Reference | TunedReference] | None = None,
    *,
    precision: Mapping[StreamName, str] | None = None,
) -> list[Encoder]:
    """The encoders of these streams. Raises UsageError, or WeightsError if weights cannot be obtained.

    references: those of the streams whose encoder is named by its model or folder. precision: the arithmetic of the
    networks of streams where it is not float32.
    """
    from .encoders import build, encoders

    references, precision = references or {}, precision or {}

    for name in weights:
        if name not in encoders():
            raise unknown("encoder", name, encoders())
        if name not in [stream.encoder for stream in streams]:
            raise UsageError(
                f"Weights were given for encoder {name!r}, which this run does not use; add it with --encoder "
                f"{encoders()[name].modality}={name}."
            )
    return [
        references[s].build(device, precision.get(s, "float32"))
        if s in references
        else build(
            s.encoder,
            weights=weights.get(s.encoder),
            device=device,
            precision=precision.get(s, "float32"),
        )
        for s in streams
    ]


def references_of(encoders: Chosen) -> dict[StreamName, Reference | TunedReference]:
    """The encoders that are named by model or folder, by the stream of each. Raises UsageError and WeightsError."""
    from .encoders.references import is_reference
    from .encoders.tuned import parse_reference

    found = [
        parse_reference(modality, name)
        for modality, names in encoders.items()
        for name in _names(names)
        if is_reference(name)
    ]
    return {reference.stream: reference for reference in found}


def fit_to_series(encoders: Sequence[Encoder], axes: Mapping[str, int], dataset: str) -> None:
    """Let the encoders of time series take the number of axes that a data set's series have, by the series' names.

    Raises UsageError where the data set does not have a series that an encoder reads.
    """
    from .contract import SeriesNeed
    from .encoders.sensor import SeriesEncoder

    for encoder in encoders:
        if not isinstance(encoder.need, SeriesNeed):
            continue
        if not (count := axes.get(encoder.need.series, 0)):
            raise UsageError(
                f"Data set {dataset!r} has no {encoder.need.series!r} series for encoder {encoder.name!r}; leave out "
                f"{encoder.modality!r}, or bring features of it by `fsmm cache import`."
            )
        if isinstance(encoder, SeriesEncoder):
            encoder.fit_to(count)


def fit_to_sampling(encoders: Sequence[Encoder], sampling: Sampling) -> None:
    """Let the encoders of sound take the hop of a run's sampling, if it has one.

    Raises UsageError for a hop that is no length, or where no encoder of the run takes one.
    """
    from .encoders.sound_windows import SoundEncoder

    if sampling.sound_hop is None:
        return
    listening = [encoder for encoder in encoders if isinstance(encoder, SoundEncoder)]
    for encoder in listening:
        encoder.set_hop(sampling.sound_hop)
    if not listening:
        raise UsageError(
            "--sound-hop is for encoders of sound, and this run has none that takes it; leave it out."
        )


def compile_networks(encoders: Sequence[Encoder], device: str) -> None:
    """Let the torch networks among these encoders be compiled. Raises UsageError where that cannot be done here."""
    from .encoders.compiled import try_out
    from .encoders.torch_encoder import TorchEncoder
    from .encoders.tuned import TunedEncoder

    if device.startswith("cpu"):
        raise UsageError("--compile is for networks on a GPU, and here the processor encodes; leave it out.")
    try_out(device)
    for encoder in encoders:
        network = encoder.inner if isinstance(encoder, TunedEncoder) else encoder
        if isinstance(network, TorchEncoder):
            network.is_compiled = True


def _names(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _usual(modality: str) -> str:
    from .encoders import DEFAULTS, encoders

    if modality not in DEFAULTS:
        if modality in MODALITIES:
            raise UsageError(
                f"No encoder makes {modality!r} streams; bring such features by `fsmm cache import`."
            )
        if makers := [name for name, row in encoders().items() if row.modality == modality]:
            raise UsageError(f"Modality {modality!r} has no usual encoder; name one: {listed(makers)}.")
        raise unknown("stream", modality, DEFAULTS)
    return DEFAULTS[modality]


def _stream(modality: str, name: str) -> StreamName:
    """The stream of an encoder's name, or of its model's."""
    from .encoders.references import is_reference
    from .encoders.tuned import parse_reference

    if is_reference(name):
        return parse_reference(modality, name).stream
    return _checked(StreamName(modality, name))


def _checked(stream: StreamName) -> StreamName:
    from .encoders import encoders

    if stream.encoder not in encoders():
        raise unknown("encoder", stream.encoder, encoders())
    if (modality := encoders()[stream.encoder].modality) != stream.modality:
        raise UsageError(
            f"Encoder {stream.encoder!r} makes {modality!r} streams, not {stream.modality!r}; ask for "
            f"{modality}={stream.encoder}."
        )
    return stream
