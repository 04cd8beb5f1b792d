"""The ``fsmm episode-eval`` command that makes a run again, from its config.json."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

# The fields of config.json beside what `fsmm episode-eval` does without an option; None: always written.
RUN_DEFAULTS: dict[str, Any] = {
    "method": None,
    "dataset": None,
    "modalities": None,
    "fusion": None,
    "streams": None,
    "train_modalities": None,
    "train_missing": "auto",
    "when_missing": "auto",
    "settings": None,
    "words": "auto",
    "normalise": "l2",
    "dtype": "float32",
    "train_seed": 0,
    "seen_unseen": "auto",
    "episodes": None,
    "reliability": None,
    "train_dataset": None,
    "align": None,
}
# Where a run was made is not what it is: the command names the cache that `add` was told. What base classes chose in it
# follows from what it is.
NOT_GIVEN = {"cache", "device", "fingerprint", "clip_ids", "clip_files", "chosen"}
PROTOCOL_DEFAULTS: dict[str, Any] = {
    "n_way": 5,
    "k_shot": 1,
    "n_query": 15,
    "split": "novel",
    "label_set": None,
    "class_split": "default",
    "clip_split": None,
    "seed": 0,
    "support_modalities": None,
    "query_modalities": None,
    "missing": None,
    "noisy": None,
    "may_lose_all": None,
    "dirichlet": None,
    "query_classes": None,
    "small_classes": "refuse",
    "unlabelled": 0,
    "generalised": None,
    "retrieval": None,
    "shared_group": True,
    "support_groups": None,
    "query_groups": None,
    "support_group_share": None,
    "replay": None,
}
RANGES = ("n_way", "k_shot")
REPEATED = ("missing", "noisy", "train_missing", "settings")


def command_of(config: Mapping[str, Any], cache: str) -> str:
    """The ``fsmm episode-eval`` command that makes a run again, from its config.json.

    Exits with a sentence if the configuration has a field that no option is known for.
    """
    protocol = config["protocol"]
    words = ["fsmm", "episode-eval"]
    for values, defaults in ((config, RUN_DEFAULTS), (protocol, PROTOCOL_DEFAULTS)):
        unknown = [k for k, v in values.items() if k not in {*defaults, "protocol", *NOT_GIVEN} and v]
        if unknown:
            sys.exit(
                f"config.json has {', '.join(unknown)}, which this script knows no option for; use --command."
            )
    defaults = {**RUN_DEFAULTS, **PROTOCOL_DEFAULTS, "train_seed": protocol.get("seed", 0)}
    for name, value in {**{k: config.get(k) for k in RUN_DEFAULTS}, **protocol}.items():
        if name != "replay" and value != defaults[name]:  # The file of episodes is named by its path.
            words += option(name, value)
    return shlex.join([*words, "--cache", cache])


def option(name: str, value: Any) -> list[str]:
    """One field of a configuration as command-line words; none for False and for what is empty."""
    flag = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    if value is None and name == "words":
        return [flag, "none"]
    if value is False and PROTOCOL_DEFAULTS.get(name) is True:
        return [f"--no-{flag[2:]}"]
    if value is None or value is False or value in ([], {}):
        return []
    if name in REPEATED:
        return [word for text in repeated(value) for word in (flag, text)]
    if isinstance(value, list):
        return [flag, ("-" if name in RANGES else ",").join(map(str, value))]
    return [flag, str(value)]


def repeated(value: Any) -> list[str]:
    """Settings as ``key=value``, missing modalities as ``audio=0.5@query``."""
    if isinstance(value, dict):
        return [f"{key}={setting}" for key, setting in value.items()]
    return [f"{m['modality']}={m['rate']:g}@{m['side']}" for m in value]
