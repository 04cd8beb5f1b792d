"""The text of a task: what is withheld in it, and what its clips carry."""

from __future__ import annotations

from dataclasses import replace

from ..episodes.protocol import Protocol


def described_task(protocol: Protocol) -> str:
    """A protocol in one line as ``describe`` has it, always with what clips carry, and without rates of 0.

    >>> described_task(Protocol(support_modalities=("audio",), query_modalities=("audio",)))
    '5-way 1-shot; 15 queries a class; support audio, query audio'
    """
    text = replace(protocol, missing=tuple(each for each in protocol.missing if each.rate > 0)).describe()
    named = protocol.support_modalities, protocol.query_modalities
    if protocol.cross_modal or named == (None, None):
        return text
    support, query = ("all" if names is None else "+".join(names) for names in named)
    return f"{text}; support {support}, query {query}"
