"""``fsmm cache`` has the commands info, verify, import, export, graph, prune, upgrade and merge."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..cache.relations.terms import SOURCES
from ..cache.schema import OLDER_SCHEMAS
from ..errors import UsageError, listed
from ..runs.kinds import pairs_reader, read_names
from . import completion, console

if TYPE_CHECKING:
    from ..cache.upkeep.info import DatasetInfo
    from ..cache.upkeep.verify import Report

app = typer.Typer(
    help="What the cache holds, whether it is whole, and features in and out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Cache = Annotated[Optional[Path], typer.Option(help="Cache folder (else FSMM_CACHE, else the user's).")]
Dataset = Annotated[
    Optional[str], typer.Option(help="A data set of the cache.", autocompletion=completion.held_datasets)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AnyOrigin = Annotated[
    bool, typer.Option("--any-origin", help="Unite data sets of one name that were made from other data.")
]


_REASONS = 20  # The reasons for failures that are printed; --json has all.


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="cache")


@app.command("info")
def info_command(cache: Cache = None, dataset: Dataset = None, json: Json = False) -> None:
    """Show data sets, label sets, streams, failures and disk use."""
    from ..cache.upkeep.info import info

    found = info(cache_root(cache), dataset)
    if json:
        console.print_json(found.to_json())
        return
    if not found.datasets:
        console.note(
            f"The cache {found.cache!r} holds no dataset yet; run `fsmm extract` or `fsmm cache import`."
        )
    for entry in found.datasets:
        _print_dataset(entry)


@app.command("verify")
def verify_command(
    cache: Cache = None,
    dataset: Dataset = None,
    repair: Annotated[bool, typer.Option("--repair", help="Drop or set aside what is damaged.")] = False,
    passport: Annotated[
        bool,
        typer.Option(
            "--passport", help="Check that encoders give the same features here as where it was made."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Find flipped bits and other damage; exit code 1 if any is left.

    With --repair only what can be trusted stays; the next extract builds the rest again."""
    if passport:
        if repair:
            raise UsageError("--passport repairs nothing; run `fsmm cache verify --repair` by itself.")
        from .passport import verify_passports

        verify_passports(cache_root(cache), dataset, json=json)
        return
    from ..cache.upkeep.verify import verify

    report = verify(cache_root(cache), dataset, repair, console.detail)
    if json:
        console.print_json(report.to_json())
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command("import")
def import_command(
    mapping: Annotated[Path, typer.Argument(help="A JSON or YAML file, see docs/import.md.")],
    cache: Cache = None,
    dataset: Annotated[Optional[str], typer.Option(help="The data set's name, if not the mapping's.")] = None,
    source: Annotated[
        Optional[list[str]],
        typer.Option(metavar="NAME=PATH", help="NAME=PATH: where a source of the mapping lies; repeatable."),
    ] = None,
    any_origin: AnyOrigin = False,
    json: Json = False,
) -> None:
    """Bring in features from npz, npy, HDF5, pickle or CSV files.

    A mapping file says which array is what; no video is needed."""
    from ..cache.exchange.importing import import_features

    paths = pairs_reader(Path)("--source", source or [])
    report = import_features(
        mapping,
        cache_root(cache),
        dataset,
        sources=paths,
        progress=console.detail,
        any_origin=any_origin,
    )
    for warning in report.warnings:
        console.note(warning)
    if json:
        console.print_json(report.to_json())
        return
    rows = [
        [stream, f"{added:,}", f"{report.absent[stream]:,}", f"{report.held[stream]:,}"]
        for stream, added in report.added.items()
    ]
    dropped = f", {report.dropped:,} rows dropped" if report.dropped else ""
    dropped += f", {report.gone:,} listed no more (`fsmm cache prune` removes them)" if report.gone else ""
    title = f"{report.dataset}: {report.clips:,} clips{dropped}"
    console.print_table(title, ["stream", "added", "of these absent", "there already"], rows)


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Argument(help="A new .npz, .csv (labels only), or folder of .npy.")],
    cache: Cache = None,
    dataset: Dataset = None,
    streams: Annotated[Optional[str], typer.Option(help="modality/encoder, comma-separated [all].")] = None,
    split: Annotated[str, typer.Option(help="base, val, novel or all.")] = "all",
    class_split: Annotated[
        str, typer.Option(help="Which class split, such as s0 or random:8:3.")
    ] = "default",
    label_set: Annotated[Optional[str], typer.Option(help="Whose classes are split [the default].")] = None,
    json: Json = False,
) -> None:
    """Write features and labels as plain arrays.

    Beside them lies the mapping file that imports them again."""
    from ..cache.exchange.exporting import export_features

    chosen = None if streams is None else read_names("--streams", streams)
    report = export_features(
        cache_root(cache),
        out,
        dataset,
        chosen,
        split=split,
        label_set=label_set,
        class_split=class_split,
        progress=console.detail,
    )
    if json:
        console.print_json(report.to_json())
        return
    rows = [[name, " x ".join(f"{size:,}" for size in shape)] for name, shape in report.arrays.items()]
    if rows:
        console.print_table(f"{report.dataset}: {report.clips:,} clips", ["array", "shape"], rows)
    for file in report.files:
        typer.echo(file)


@app.command("graph")
def graph_command(
    source: Annotated[
        str, typer.Option(help="words, wordnet or conceptnet.", autocompletion=completion.one_of(SOURCES))
    ] = "words",
    data: Annotated[
        Optional[Path],
        typer.Option(help="The folder of WordNet's files, or ConceptNet's assertions or their archive."),
    ] = None,
    cache: Cache = None,
    dataset: Dataset = None,
    name: Annotated[Optional[str], typer.Option(help="The graph's name [the source's].")] = None,
    label_set: Annotated[Optional[str], typer.Option(help="Whose classes are nodes [the default].")] = None,
    objects: Annotated[
        Optional[Path],
        typer.Option(help="Objects as nodes: a text file, one name a line, as scores are ordered."),
    ] = None,
    vectors: Annotated[
        Optional[Path], typer.Option(help="An npz (words, vec) with word vectors for the objects.")
    ] = None,
    words: Annotated[str, typer.Option(help="The word stream of the classes.")] = "auto",
    json: Json = False,
) -> None:
    """Relate classes, and objects, to each other, for heads that know of relations (`--set graph=NAME`).

    The edges come from class words, from WordNet, or from ConceptNet."""
    from ..cache.relations.make import make_graph

    report = make_graph(
        cache_root(cache),
        dataset,
        source=source,
        data=data,
        name=name,
        label_set=label_set,
        objects=objects,
        vectors=vectors,
        words=words,
    )
    if json:
        console.print_json(report.to_json())
        return
    graph = report.graph
    if report.unknown:
        console.note(f"The source knows nothing of {listed(report.unknown)}; these have no edges.")
    typer.echo(
        f"{report.dataset}: relation graph {graph.name!r} of {len(graph.classes):,} classes and "
        f"{len(graph.objects):,} objects with {len(graph.edges):,} edges; use it by --set graph={graph.name}."
    )


@app.command("prune")
def prune_command(
    cache: Cache = None,
    dataset: Dataset = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    json: Json = False,
) -> None:
    """Remove clips that their data set lists no more.

    They take no part in evaluations already."""
    from ..cache.upkeep.prune import prune

    report = prune(cache_root(cache), dataset, console.detail, dry_run=dry_run)
    if json:
        console.print_json(report.to_json())
        return
    for name, clips in report.removed.items():
        verb = "to be removed" if dry_run else "removed"
        typer.echo(f"{name}: {len(clips):,} {verb}: {listed(clips)}.")
    if not report.removed:
        typer.echo("Every clip is listed by its data set; nothing is removed.")


@app.command("upgrade")
def upgrade_command(cache: Cache = None, dataset: Dataset = None, json: Json = False) -> None:
    """Bring data sets of an older schema to the newest one.

    Nothing is decoded, and no feature changes."""
    from ..cache.upkeep.upgrade import upgrade

    report = upgrade(cache_root(cache), dataset, console.detail)
    if json:
        console.print_json(report.to_json())
        return
    for name, schema in report.upgraded.items():
        typer.echo(f"{name}: schema {schema} is now the newest one; its features stay as they are.")
    for name in report.newest:
        typer.echo(f"{name}: it has the newest schema already.")


@app.command("merge")
def merge_command(
    sources: Annotated[
        Optional[list[Path]],
        typer.Argument(help="Cache folders to add; with none, the finished shards in this one are joined."),
    ] = None,
    cache: Cache = None,
    dataset: Annotated[Optional[str], typer.Option(help="Only this data set.")] = None,
    any_origin: AnyOrigin = False,
    json: Json = False,
) -> None:
    """Add caches made on other machines to this one, or join the shards that a shared extraction has left in it.

    Caches that contradict each other are refused, with the name of the clip."""
    from ..cache.upkeep.join import join_shards
    from ..cache.upkeep.merge import merge

    if sources:
        report = merge(sources, cache_root(cache), dataset, console.detail, any_origin=any_origin)
    else:
        report = join_shards(cache_root(cache), dataset, console.detail)
    if json:
        console.print_json(report.to_json())
        return
    rows = [[name, f"{copied:,}", f"{report.duplicates[name]:,}"] for name, copied in report.copied.items()]
    console.print_table(f"Merged into {report.cache}", ["stream", "copied", "there already"], rows)


def cache_root(cache: Path | None) -> Path:
    """The cache folder of the option --cache, or the default one."""
    from ..cache.schema import default_cache

    return default_cache() if cache is None else cache.expanduser()


def _print_report(report: Report) -> None:
    for finding in report.findings:
        typer.echo(f"{finding.level}: {finding.place}: {finding.says}")
        if finding.done:
            typer.echo(f"  repaired: {finding.done}.")
    for stream, ids in report.rebuild.items():
        first = ", ".join(ids[:5]) + (" and so on" if len(ids) > 5 else "")
        typer.echo(
            f"The next extract (or import) builds again, of {stream}: {len(ids):,} ({first or 'nothing'})."
        )
    checked = f"{report.clips:,} rows in {report.shards:,} shards of {listed(report.datasets)}"
    damage = [f for f in report.findings if f.level == "damage"]
    if not damage:
        typer.echo(f"All is whole: {checked}.")
    elif report.ok:
        typer.echo(f"Damage was found and repaired: {checked}.")
    elif any(f.fix and not f.done for f in damage):
        typer.echo(f"Damage was found: {checked}. Run `fsmm cache verify --repair` to drop it.")
    else:
        typer.echo(f"Damage was found that repair leaves to you: {checked}.")


def _about(entry: DatasetInfo) -> str:
    """A line on where a data set comes from, and what its user should know."""
    return "; ".join(
        [
            *([f"from {listed(entry.origins)}"] if entry.origins else []),
            *(f"{key}: {value}" for key, value in entry.attrs.items()),
            *(
                [f"listed no more, and left out: {entry.gone:,} (`fsmm cache prune` removes them)"]
                if entry.gone
                else []
            ),
            *(
                [f"schema {entry.schema}, read only: `fsmm cache upgrade` brings it forward"]
                if entry.schema in OLDER_SCHEMAS
                else []
            ),
        ]
    )


def _print_dataset(entry: DatasetInfo) -> None:
    title = f"{entry.dataset}: {entry.clips:,} clips, {size_text(entry.bytes)}"
    about = _about(entry)
    labels = [
        [
            _name(labels.name, entry.default_label_set),
            f"{labels.classes}{' (multi-label)' if labels.multi else ''}",
            " / ".join(f"{labels.per_class[k]:g}" for k in ("min", "median", "max"))
            if labels.per_class
            else "-",
            f"{labels.unlabelled:,}",
            "  ".join(f"{name} {'/'.join(map(str, sizes.values()))}" for name, sizes in labels.splits.items())
            or "none",
        ]
        for labels in entry.label_sets
    ]
    columns = [
        "label set",
        "classes",
        "clips a class, min / median / max",
        "unlabelled",
        "base/val/novel classes",
    ]
    console.print_table(title, columns, labels, about)
    streams = [
        [
            s.stream,
            f"{s.present:,}",
            f"{s.absent:,}",
            f"{s.missing:,}",
            f"{s.dim}",
            "-".join(map(str, dict.fromkeys(s.steps))) or "-",
            s.dtype,
            size_text(s.bytes),
            " ".join(filter(None, (s.weights, s.weights_sha256[:12]))) or "-",
        ]
        for s in entry.streams
    ]
    columns = ["stream", "present", "absent", "missing", "dim", "steps", "dtype", "size", "weights"]
    console.print_table("", columns, streams)
    if entry.failures:
        most = list(entry.failures.items())[:_REASONS]
        rows = [[textwrap.shorten(reason, 100, placeholder="..."), f"{count:,}"] for reason, count in most]
        if rest := sum(entry.failures.values()) - sum(count for _, count in most):
            rows.append([f"{len(entry.failures) - len(most):,} other reasons", f"{rest:,}"])
        console.print_table("Failures", ["reason", "count"], rows)


def _name(name: str, default: str) -> str:
    return f"{name} (default)" if name == default else name


def size_text(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
