"""The tables that commands print after a run or a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import console


def show_run(metrics: Mapping[str, Any]) -> None:
    """Print the table of a run's figures."""
    rows = [(metrics.get("measure", "accuracy"), f"{100 * metrics['accuracy']:.2f} %")]
    for key, name in (
        ("unseen", "unseen U"),
        ("seen", "seen S"),
        ("harmonic", "harmonic mean HM"),
        ("micro_f1", "micro F1"),
        ("macro_f1", "macro F1"),
    ):
        if metrics.get(key) is not None:
            rows.append((name, f"{100 * metrics[key]:.2f} %"))
    for key, name in (
        ("ci95", "± over episode draws (95 %)"),
        ("ci95_clips", "± over clips of these classes"),
        ("ci95_classes", "± over classes"),
    ):
        if metrics[key] is not None or "measure" not in metrics:
            rows.append((name, _percent(metrics[key])))
    if metrics["excluded_classes"]:
        rows.append(("classes left out as too small", str(len(metrics["excluded_classes"]))))
    rows += [
        ("clips, classes", _clips(metrics)),
        ("episodes, seed", f"{metrics['episodes']:,}, {metrics['seed']}"),
        ("streams", " + ".join(metrics["streams"].values())),
        ("class words", metrics["words"] or "none"),
        ("training", f"{metrics['train_seconds']:.1f} s" if metrics["train_seconds"] else "none in this run"),
        ("evaluation", f"{metrics['eval_seconds']:.2f} s ({metrics['episodes_per_second']:,.0f} episodes/s)"),
        ("peak memory", f"{metrics['peak_memory_mb']:,.0f} MB"),
        *(("note", note) for note in metrics.get("notes", ())),
        ("run", metrics["out"]),
    ]
    fusion = f" ({metrics['fusion'].upper()})" if metrics["fusion"] else ""
    where = f"{metrics['dataset']}, {metrics['split']} classes of {metrics['label_set']}"
    title = f"{metrics['method']}{fusion} on {where}: {metrics['protocol_text']}"
    console.print_table(title, ("", "value"), rows)
    if "reliability" in metrics:
        show_reliability(metrics["reliability"])


def _clips(metrics: Mapping[str, Any]) -> str:
    """A text with the numbers of clips and classes, and the number of clips without each modality."""
    lacking = [f"{count:,} without {m}" for m, count in metrics["clips_without"].items()]
    return "; ".join([f"{metrics['clips']:,}, {metrics['classes']}", *lacking])


def show_reliability(found: Mapping[str, Any]) -> None:
    """Print the certainty of each modality, and how often one is right where another is wrong."""
    rows = [
        (m, f"{100 * f['accuracy']:.1f} %", f"{f['certainty']:.3f}", f"{f['negative_entropy']:.3f}")
        for m, f in found["modalities"].items()
    ]
    console.print_table("Each modality alone", ("", "accuracy", "certainty", "negative entropy"), rows)
    pairs = found["right_where_other_is_wrong"]
    rows_pairs = [
        (f"{a} right where {b} is wrong", f"{100 * v:.1f} %") for a, o in pairs.items() for b, v in o.items()
    ]
    console.print_table("", ("", "share"), rows_pairs)


def show_sweep(what: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Print the accuracy at each rate at which ``what`` (modality@side) is missing."""
    rows = [
        (m["protocol_text"].rpartition("missing ")[2], f"{100 * m['accuracy']:.2f} %", _percent(m["ci95"]))
        for m in found
    ]
    console.print_table(f"{found[0]['method']}: missing {what}", ("rate", "accuracy", "± (draws)"), rows)


def show_seeds(found: Mapping[str, Any]) -> None:
    """Print the accuracy of each training seed, and the spread of the accuracies."""
    rows = [
        (f"seed {seed}", f"{100 * accuracy:.2f} %", _percent(interval))
        for seed, accuracy, interval in zip(found["seeds"], found["accuracy"], found["ci95_draws"])
    ]
    spread = f"{100 * found['sd_over_seeds']:.2f} %"
    rows.append(("mean, standard deviation over seeds", f"{100 * found['mean']:.2f} %", spread))
    title = f"{found['method']}: the same episodes, another training each"
    console.print_table(title, ("", "accuracy", "± (draws) / sd"), rows)


def _percent(value: float | None) -> str:
    return "no value (see docs/statistics.md)" if value is None else f"{100 * value:.2f} %"
