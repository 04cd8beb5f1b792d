"""The tables that commands print after a run or a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from ..studies.compare import Comparison
    from ..studies.pairs import Estimate

_OVER = ("clips", "classes", "draws")


def show_run(metrics: Mapping[str, Any]) -> None:
    """Print the table of a run's figures."""
    rows = [(metrics.get("measure", "accuracy"), f"{100 * metrics['accuracy']:.2f} %")]
    for key, name in (
        ("unseen", "unseen U"),
        ("seen", "seen S"),
        ("harmonic", "harmonic mean HM"),
        ("unseen_alone", "unseen classes alone"),
        ("seen_alone", "seen classes alone"),
        ("micro_f1", "micro F1"),
        ("macro_f1", "macro F1"),
    ):
        if metrics.get(key) is not None:
            rows.append((name, f"{100 * metrics[key]:.2f} %"))
    for name, found in metrics.get("retrieval", {}).items():
        figures = ", ".join(f"{key} {100 * found[key]:.1f} %" for key in ("R@1", "R@10", "mAP"))
        rows.append((name, f"{figures} of {found['queries']:,} queries"))
    for key, name in (
        ("ci95", "± over episode draws (95 %)"),
        ("ci95_clips", "± over clips of these classes"),
        ("ci95_classes", "± over classes"),
    ):
        if metrics[key] is not None or "measure" not in metrics:
            rows.append((name, _interval(metrics, key)))
    if metrics["excluded_classes"]:
        rows.append(("classes left out as too small", str(len(metrics["excluded_classes"]))))
    rows += [
        ("clips, classes", _clips(metrics)),
        ("episodes, seed", f"{metrics['episodes']:,}, {metrics['seed']}"),
        *([("effective classes", _effective(found))] if (found := metrics.get("effective_classes")) else []),
        *([("auto", metrics["why_so_many"])] if metrics.get("why_so_many") else []),
        *([("leakage", _leakage(found))] if (found := metrics.get("leakage")) else []),
        ("streams", " + ".join(metrics["streams"].values())),
        *_choices(metrics),
        ("class words", metrics["words"] or "none"),
        ("training", _training(metrics)),
        *([("seen or unseen", _rule(rule))] if (rule := metrics.get("seen_unseen")) else []),
        *[(f"frozen space of {f['stream']}", _frozen(f)) for f in metrics.get("frozen_space", ())],
        *(
            [(f"chosen on {_chosen_on(metrics)} classes", _chosen(metrics["chosen"]))]
            if metrics["chosen"]
            else []
        ),
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
    if "order_certificate" in metrics:
        show_order(metrics)


def _leakage(found: Mapping[str, Any]) -> str:
    """What shared groups are worth in points, with the interval over groups."""
    sure = (
        f"± {100 * found['ci95']:.2f} over {found['groups']:,} groups" if found["ci95"] else found["reason"]
    )
    return (
        f"{100 * found['difference']:+.2f} points {sure}: {100 * found['shared']:.2f} % where supports and queries may "
        f"share a group, {100 * found['apart']:.2f} % where they may not ({found['episodes']:,} episodes each)"
    )


def _effective(found: Mapping[str, float]) -> str:
    """The classes that an episode's queries come from: their number, or its mean, least and most."""
    if found["least"] == found["most"]:
        return f"{found['least']} in every episode"
    return f"{found['mean']:.2f} on average, {found['least']} to {found['most']}"


def _choices(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of what base classes chose: the normalisation, what is done about what clips lack, and the weights."""
    rows = []
    if choice := metrics.get("normalise_choice"):
        scores = ", ".join(f"{how} {100 * score:.1f} %" for how, score in choice["scores"].items())
        of = f"{choice['base_classes']} base and {choice['val_classes']} val classes"
        rows.append(("normalisation", f"{choice['pick']}, by class means of {of}: {scores}"))
    if (filling := metrics.get("when_missing_choice")) and filling["scores"]:
        pair = (
            filling["query"]
            if filling["support"] == filling["query"]
            else (f"supports {filling['support']}, queries {filling['query']}")
        )
        scores = ", ".join(f"{how} {100 * score:.1f} %" for how, score in filling["scores"].items())
        rows.append(("what clips lack", f"{pair}, by {' and '.join(filling['parts'])} classes: {scores}"))
    if filling and (ways := filling.get("beside")):
        rows.append(("other ways with it", ", ".join(map(_beside, ways))))
    weights = metrics.get("modality_weights")
    if weights and (weights["note"] or weights["gain"] is not None):
        rows.append(("weights of modalities", _weights(weights)))
    return rows


def _beside(way: Mapping[str, Any]) -> str:
    """What another way with what clips lack gains on the tested episodes."""
    width = "" if way["ci95"] is None else f" ± {100 * way['ci95']:.1f}"
    return f"{way['way']} {100 * way['gain']:+.1f}{width}"


def _weights(weights: Mapping[str, Any]) -> str:
    if weights["gain"] is None:
        return f"equal; {weights['note']}"
    chosen, best = (
        ", ".join(f"{m} {share:.2g}" for m, share in weights[key].items()) for key in ("share", "best")
    )
    gain = f"{100 * weights['gain']:+.1f} ± {100 * weights['gain_interval']:.1f} points on base classes"
    return f"{chosen} (the best, {best}, minus equal ones: {gain})"


def _training(metrics: Mapping[str, Any]) -> str:
    """A text with the time of the training, and when and why it stopped."""
    seconds = f"{metrics['train_seconds']:.1f} s" if metrics["train_seconds"] else "none in this run"
    stopped = metrics["training_stopped"]
    return f"{seconds}; {stopped}" if stopped else seconds


def _chosen(values: Mapping[str, Any]) -> str:
    """The values that the head chose for this data, on one line."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def _chosen_on(metrics: Mapping[str, Any]) -> str:
    """The classes by which the head chose its values: base, val, or both."""
    made_on = {each["on"] for each in metrics.get("choices", ()) if each["what"] in metrics["chosen"]}
    if "base and val" in made_on or {"base", "val"} <= made_on:
        return "base and val"
    return "val" if made_on == {"val"} else "base"


def _frozen(found: Mapping[str, Any]) -> str:
    """A text with the figures of the frozen space on the same test."""
    names = {"seen": "S", "unseen": "U", "harmonic": "HM"}
    parts = [
        f"{short} {100 * found[name]:.2f} %" for name, short in names.items() if found.get(name) is not None
    ]
    return ", ".join(parts) or f"{100 * found['accuracy']:.2f} %"


def _rule(found: Mapping[str, Any]) -> str:
    """A text with the rule that tells seen from unseen classes, and what chose it."""
    tried = ", ".join(f"{kind} {100 * value:.1f} %" for kind, value in found["harmonic_by_kind"].items())
    text = f"{found['kind']} above {found['cut']:.3g}, chosen on {found['chosen_on']}"
    return f"{text} (HM there: {tried})" if tried else text


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
        (
            m["protocol_text"].rpartition("missing ")[2],
            f"{100 * m['accuracy']:.2f} %",
            _percent(m["ci95"]),
            _percent(m["ci95_clips"]),
            f"{m['episodes']:,}",
        )
        for m in found
    ]
    columns = ("rate", "accuracy", "± (draws)", "± (clips)", "episodes")
    console.print_table(f"{found[0]['method']}: missing {what}", columns, rows)


def show_seeds(found: Mapping[str, Any]) -> None:
    """Print the accuracy of each training seed, and the spread of the accuracies."""
    rows = [
        (f"seed {seed}", f"{100 * accuracy:.2f} %", _percent(interval))
        for seed, accuracy, interval in zip(found["seeds"], found["accuracy"], found["ci95_draws"])
    ]
    spread = f"{100 * found['sd_over_seeds']:.2f} %"
    rows.append(("mean, standard deviation over seeds", f"{100 * found['mean']:.2f} %", spread))
    for key, name in (("ci95_clips", "clips and seeds"), ("ci95_classes", "classes and seeds")):
        width = _percent(found[f"mean_{key}"], found["no_interval"].get(key))
        rows.append((f"mean, ± over {name} (95 %)", "", width))
    title = f"{found['method']}: the same episodes, another training each"
    console.print_table(title, ("", "accuracy", "± (draws) / sd"), rows)


def show_order(metrics: Mapping[str, Any]) -> None:
    """Print the order certificate of a run: a row for each class, with what it loses without the order of steps."""
    found: Mapping[str, Any] = metrics["order_certificate"]
    rows = []
    for row in found["rows"]:
        cells = [f"{100 * row['accuracy']['in order']:.1f}"]
        for change, lost in row["loss"].items():
            width = row["interval"][change]
            cells.append(f"{100 * lost:+.1f}" + ("" if width is None else f" ± {100 * width:.1f}"))
        rows.append((row["name"], *cells, "yes" if row["needs_order"] else "no"))
    columns = [
        "class",
        "in order (%)",
        *(f"lost: {change}" for change in found["rows"][0]["loss"]),
        "needs order",
    ]
    about = "{method} on {dataset}, {label_set}".format_map(metrics)
    title = f"{about}: what the order of steps is worth"
    caption = (
        f"Points of accuracy on the same {found['episodes']:,} episodes, paired; half widths at 95 % over the clips of "
        "a class, for all classes over classes. Shuffled: every clip; reversed: queries alone; single step: every clip."
    )
    console.print_table(title, columns, rows, caption)


def show_comparison(found: Comparison) -> None:
    """Print the pairs of a comparison, with the intervals and p-values over each kind of chance that was looked at."""
    over = [name for name in _OVER if any(getattr(pair, name) for pair in found.pairs)]
    columns = ["pair", "difference"]
    for name in over:
        columns += [f"± {name}", f"p {name}", f"p {name} (Holm)"]
    rows, reasons = [], dict.fromkeys(found.notes)
    for pair in found.pairs:
        row = [f"{pair.first} - {pair.second}", f"{100 * pair.difference:+.2f}"]
        for name in over:
            estimate = getattr(pair, name)
            row += _estimate(estimate)
            if estimate is not None and estimate.reason:
                reasons[f"No value over {name}: {estimate.reason}."] = None
        rows.append(row)
    caption = f"Points of accuracy on the same {found.episodes:,} episodes; half widths at 95 %."
    console.print_table("", columns, rows, " ".join([caption, *reasons]))


def _estimate(found: Estimate | None) -> tuple[str, str, str]:
    """The texts of a half width in points, a p-value and its correction; dashes where they have no value."""
    if found is None or found.ci95 is None:
        return "-", "-", "-"
    sign = "<" if found.one_sided else "±"
    return f"{sign} {100 * found.ci95:.2f}", f"{found.p:.2g}", f"{found.p_holm:.2g}"


def _interval(metrics: Mapping[str, Any], key: str) -> str:
    """The text of a run's half width, of the bound in its place, or of the reason why there is none."""
    width = metrics[key]
    if width is None or key not in metrics.get("one_sided", ()):
        return _percent(width, metrics.get("no_interval", {}).get(key))
    if metrics["accuracy"] > 0.5:
        return f"at least {100 * (1 - width):.2f} % (all are alike: one-sided, 95 %)"
    return f"at most {100 * width:.2f} % (all are alike: one-sided, 95 %)"


def _percent(value: float | None, reason: str | None = None) -> str:
    """The text of a half width, or of the reason why it has no value."""
    if value is None:
        return f"no value: {reason}" if reason else "no value (see docs/statistics.md)"
    return f"{100 * value:.2f} %"
