"""The names of a user's classes as vectors, by an encoder of words, for classifiers that read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..cache.catalog import readable
from ..cache.schema import StreamName
from ..errors import DecodeError, UsageError
from ..machine.device import pick_device
from .choose import build_encoders, choose_streams, references_of

_TOWER = "-text"  # It is what the name of a text tower adds to that of its encoder.


def text_tower(streams: Iterable[StreamName]) -> str | None:
    """The encoder of words in whose space the first of these streams lies that has one; None where none has.

    >>> text_tower([StreamName("audio", "yamnet"), StreamName("frame", "openclip-vit-b-32")])
    'openclip-vit-b-32-text'
    """
    from .encoders import encoders

    towers = (f"{stream.encoder}{_TOWER}" for stream in streams)
    return next((name for name in towers if name in encoders()), None)


def word_vectors(
    encoder: str, class_names: Sequence[str], *, device: str = "auto"
) -> tuple[StreamName, np.ndarray]:
    """The word stream of an encoder, and its vectors float32 [N, E] of the names of classes.

    Raises UsageError for an unknown encoder or one of another modality, and where it knows no word of a class;
    WeightsError where its weights cannot be had.
    """
    asked = {"word": encoder}
    (stream,) = choose_streams(None, asked)
    (made,) = build_encoders([stream], {}, str(pick_device(device)), references_of(asked))
    found = []
    for name in class_names:
        try:
            found.append(made.encode([readable(name)])[0].mean(0))
        except DecodeError:
            raise UsageError(
                f"{stream} knows no word of class {name!r}; name the class in words, or choose another encoder by "
                "--words."
            ) from None
    return stream, np.stack(found).astype(np.float32)
