"""``fsmm episode-eval`` and ``fsmm methods``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer

from ..errors import UsageError
from . import console

if TYPE_CHECKING:
    from ..episodes.protocol import SmallClasses
    from ..runs.spec import Progress


def register(app: typer.Typer) -> None:
    app.command("episode-eval")(episode_eval)
    app.command("compare")(compare)
    app.command("methods")(methods)


def episode_eval(
    method: Annotated[
        str, typer.Option(help="A method of `fsmm methods`; protonet-lf is ProtoNet with late fusion.")
    ],
    dataset: Annotated[
        Optional[str], typer.Option(help="Name in the cache; may be left out if it is alone.")
    ] = None,
    cache: Annotated[
        Optional[Path], typer.Option(help="Cache folder (else FSMM_CACHE, else the user's).")
    ] = None,
    streams: Annotated[Optional[str], typer.Option(help="Streams to load, such as frame/NAME,audio.")] = None,
    modalities: Annotated[Optional[str], typer.Option(help="Modalities to use, such as frame,audio.")] = None,
    fusion: Annotated[Optional[str], typer.Option(help="ec, ea or lf for methods of one modality.")] = None,
    n_way: Annotated[str, typer.Option(help="Classes an episode: 5, or 5-10 at random, or 0 for all.")] = "5",
    k_shot: Annotated[
        str, typer.Option(help="Supports a class: 1, or 1-5 at random, or 0 for zero-shot.")
    ] = "1",
    n_query: Annotated[int, typer.Option(help="Queries a class.")] = 15,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to evaluate.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the episodes.")] = 0,
    train_seed: Annotated[Optional[int], typer.Option(help="Seed of training (default: --seed).")] = None,
    train_seeds: Annotated[
        Optional[int], typer.Option(help="Train this many times, seed by seed; prints the spread.")
    ] = None,
    split: Annotated[str, typer.Option(help="base, val, novel or all classes.")] = "novel",
    label_set: Annotated[Optional[str], typer.Option(help="Label set (else the dataset's default).")] = None,
    class_split: Annotated[str, typer.Option(help="Which of the named class splits.")] = "default",
    clip_split: Annotated[
        Optional[str], typer.Option(help="Only clips of this split of the dataset's own.")
    ] = None,
    support_modalities: Annotated[
        Optional[str], typer.Option(help="Cross-modal: what supports carry.")
    ] = None,
    query_modalities: Annotated[Optional[str], typer.Option(help="Cross-modal: what queries carry.")] = None,
    missing: Annotated[Optional[list[str]], typer.Option(help="audio=0.5@query; repeatable.")] = None,
    missing_sweep: Annotated[
        Optional[str], typer.Option(help="audio@query: rates 0, 0.1 ... 1 of one modality, one run each.")
    ] = None,
    train_modalities: Annotated[Optional[str], typer.Option(help="What training clips carry.")] = None,
    train_missing: Annotated[
        Optional[list[str]], typer.Option(help="audio=0.5 in training; repeatable.")
    ] = None,
    may_lose_all: Annotated[bool, typer.Option(help="Clips may lose every modality.")] = False,
    dirichlet: Annotated[
        Optional[float], typer.Option(help="Draw query classes by Dirichlet(alpha).")
    ] = None,
    small_classes: Annotated[
        str, typer.Option(help="Classes too small: refuse, exclude or short.")
    ] = "refuse",
    unlabelled: Annotated[int, typer.Option(help="Unlabelled clips an episode.")] = 0,
    generalised: Annotated[
        bool, typer.Option("--generalised", help="Base classes compete too (--n-way 0 --k-shot 0).")
    ] = False,
    reliability: Annotated[
        bool, typer.Option("--reliability", help="Add each modality's certainty and complementarity.")
    ] = False,
    normalise: Annotated[str, typer.Option(help="Features: l2, centre-l2 or none.")] = "l2",
    words: Annotated[str, typer.Option(help="Word stream, auto, or none.")] = "auto",
    setting: Annotated[
        Optional[list[str]], typer.Option("--set", help="key=value of the head; train.KEY=.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16 feature tables.")] = "float32",
    out: Annotated[Optional[Path], typer.Option(help="Folder of the run (else beside the dataset).")] = None,
    retrain: Annotated[bool, typer.Option(help="Train again even if a checkpoint fits.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Evaluate a method on episodes; trains it on base classes first where it learns."""
    from ..heads.registry import find

    find(method)  # an unknown name is refused before anything heavy is imported
    from ..episodes.protocol import Missing, Protocol, parse_range
    from ..runs.run import missing_sweep as run_sweep
    from ..runs.run import run_spec, seed_spread, spread_of
    from ..runs.spec import RunSpec

    protocol = Protocol(
        n_way=parse_range("n-way", n_way),
        k_shot=parse_range("k-shot", k_shot),
        n_query=n_query,
        split=split,
        label_set=label_set,
        class_split=class_split,
        clip_split=clip_split,
        seed=seed,
        support_modalities=names(support_modalities),
        query_modalities=names(query_modalities),
        missing=tuple(Missing.parse(text) for text in missing or ()),
        may_lose_all=may_lose_all,
        dirichlet=dirichlet,
        small_classes=cast("SmallClasses", small_classes),
        unlabelled=unlabelled,
        generalised=generalised,
    )
    spec = RunSpec(
        method,
        protocol,
        fusion,
        names(streams),
        names(modalities),
        names(train_modalities),
        tuple(Missing.parse(text) for text in train_missing or ()),
        pairs(setting),
        None if words == "none" else words,
        normalise,
        dtype,
        seed if train_seed is None else train_seed,
    )
    if missing_sweep is not None and train_seeds is not None:
        raise UsageError("--missing-sweep and --train-seeds cannot be combined; run one after the other.")
    with bars() as progress:
        if train_seeds is not None:
            runs = seed_spread(spec, train_seeds, dataset, cache, episodes, device, out, retrain, progress)
        elif missing_sweep is not None:
            runs = run_sweep(spec, missing_sweep, dataset, cache, episodes, device, out, retrain, progress)
        else:
            runs = [run_spec(spec, dataset, cache, episodes, device, out, retrain, reliability, progress)]
    found = [run.metrics for run in runs]
    if train_seeds is not None:
        (console.print_json if json else show_seeds)(spread_of(runs))
    elif json:
        console.print_json(found[0] if missing_sweep is None else found)
    elif missing_sweep is None:
        show(found[0])
    else:
        show_sweep(missing_sweep, found)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs (printed by episode-eval).")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare runs pairwise on the episodes they share: difference, interval, p-value (Holm-corrected)."""
    from ..studies.compare import compare as run_compare

    found = run_compare(runs)
    if json:
        console.print_json(found.to_dict())
        return
    console.print_table(
        "", ("run", "accuracy"), [(r["name"], f"{100 * r['accuracy']:.2f} %") for r in found.runs]
    )
    rows = [
        (
            f"{p.first} - {p.second}",
            f"{100 * p.difference:+.2f}",
            f"± {100 * p.ci95:.2f}",
            f"{p.p:.2g}",
            f"{p.p_holm:.2g}",
        )
        for p in found.pairs
    ]
    caption = f"Points of accuracy, paired over {found.episodes:,} episodes; 95 % over episode draws."
    console.print_table("", ("pair", "difference", "interval", "p", "p (Holm)"), rows, caption)


def methods(json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the methods: paper, year, regime, transductive or not, modalities."""
    from ..heads.registry import rows

    if json:
        console.print_json(rows())
        return
    table = [
        (
            str(r["name"]),
            str(r["paper"]),
            str(r["year"]),
            str(r["regime"]),
            "yes" if r["transductive"] else "no",
            str(r["modalities"]),
            str(r["words"]),
        )
        for r in rows()
    ]
    console.print_table(
        "",
        ("method", "paper", "year", "regime", "transductive", "modalities", "words"),
        table,
        "Methods of one modality take several by fusion: NAME-ec, NAME-ea, NAME-lf (or --fusion).",
    )


def show(metrics: Mapping[str, Any]) -> None:
    """The table a person reads after a run."""
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
        ("run", metrics["out"]),
    ]
    fusion = f" ({metrics['fusion'].upper()})" if metrics["fusion"] else ""
    where = f"{metrics['dataset']}, {metrics['split']} classes of {metrics['label_set']}"
    title = f"{metrics['method']}{fusion} on {where}: {metrics['protocol_text']}"
    console.print_table(title, ("", "value"), rows)
    if "reliability" in metrics:
        show_reliability(metrics["reliability"])


def _clips(metrics: Mapping[str, Any]) -> str:
    """How many there are of each, and of how many clips the cache lacks a modality."""
    lacking = [f"{count:,} without {m}" for m, count in metrics["clips_without"].items()]
    return "; ".join([f"{metrics['clips']:,}, {metrics['classes']}", *lacking])


def show_reliability(found: Mapping[str, Any]) -> None:
    """Certainty of each modality, and where one is right while another is wrong."""
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


def show_sweep(what: str, found: list[dict[str, Any]]) -> None:
    """Accuracy at each missing rate."""
    rows = [
        (m["protocol_text"].rpartition("missing ")[2], f"{100 * m['accuracy']:.2f} %", _percent(m["ci95"]))
        for m in found
    ]
    console.print_table(f"{found[0]['method']}: missing {what}", ("rate", "accuracy", "± (draws)"), rows)


def show_seeds(found: Mapping[str, Any]) -> None:
    """Accuracy of each training seed, and their spread."""
    rows = [
        (f"seed {seed}", f"{100 * accuracy:.2f} %", _percent(interval))
        for seed, accuracy, interval in zip(found["seeds"], found["accuracy"], found["ci95_draws"])
    ]
    spread = f"{100 * found['sd_over_seeds']:.2f} %"
    rows.append(("mean, standard deviation over seeds", f"{100 * found['mean']:.2f} %", spread))
    title = f"{found['method']}: the same episodes, another training each"
    console.print_table(title, ("", "accuracy", "± (draws) / sd"), rows)


@contextmanager
def bars() -> Iterator[Progress]:
    """A progress callback that shows one bar a phase (training, evaluation)."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        shown: dict[str, Any] = {}

        def update(phase: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if phase not in shown:
                stack.close()
                shown.clear()
                shown[phase] = stack.enter_context(console.progress(phase))
            shown[phase](done, total, console.figures_text(figures))

        yield update


def names(text: str | None) -> tuple[str, ...] | None:
    """``a,b`` as ("a", "b"); None stays None."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip()) or None


def pairs(texts: list[str] | None) -> dict[str, str]:
    """``key=value`` texts as a dict. Raises UsageError for any other form."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text!r} is not of the form key=value.")
        found[key.strip()] = value.strip()
    return found


def _percent(value: float | None) -> str:
    return "no value (see docs/statistics.md)" if value is None else f"{100 * value:.2f} %"


def _p(value: float) -> str:
    return f"{value:.2g}"
