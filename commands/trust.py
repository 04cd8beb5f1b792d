"""``fsmm cache diff``, ``duplicates``, ``overlap`` and ``card``: whether figures can be trusted elsewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import UsageError, listed
from ..runs.kinds import pairs_reader
from . import console
from .cache import Cache, Dataset, Json, app, cache_root

if TYPE_CHECKING:
    from ..cache.catalog import LabelSet
    from ..cache.duplicates import Likeness
    from ..studies.cache_diff import StreamDifference

_PAIRS = 20  # The pairs that are printed; --json has all.


def register(parent: typer.Typer) -> None:
    """Add the commands to ``fsmm cache``."""
    app.command("diff")(diff_command)
    app.command("duplicates")(duplicates_command)
    app.command("overlap")(overlap_command)
    app.command("card")(card_command)


def diff_command(
    first: Annotated[Path, typer.Argument(help="A cache folder.")],
    second: Annotated[Path, typer.Argument(help="Another cache folder, of the same clips.")],
    dataset: Dataset = None,
    episodes: Annotated[
        int, typer.Option(min=0, help="Episodes on which accuracies are compared; 0 compares features alone.")
    ] = 2000,
    k_shot: Annotated[int, typer.Option(min=1, help="Supports a class.")] = 1,
    n_query: Annotated[int, typer.Option(min=1, help="Queries a class.")] = 15,
    json: Json = False,
) -> None:
    """Compare two caches of the same clips: cosine, scale and shift of each stream, and the accuracy of class means.

    The difference of the accuracies is paired, on the same episodes of the novel classes."""
    from ..episodes.protocol import Protocol
    from ..studies.cache_diff import cache_diff

    protocol = Protocol(k_shot=k_shot, n_query=n_query)
    found = cache_diff(first.expanduser(), second.expanduser(), dataset, episodes=episodes, protocol=protocol)
    if json:
        from dataclasses import asdict

        console.print_json([asdict(one) for one in found])
        return
    columns = [
        "stream",
        "clips",
        "cosine, mean and least",
        "scale",
        "shift",
        "unexplained",
        "accuracy, 2nd - 1st",
    ]
    console.print_table("", columns, [_row_of(one) for one in found])
    for one in found:
        for sentence in (*one.origin, *([one.note] if one.note else [])):
            typer.echo(f"{one.stream}: {sentence}")


def _row_of(one: StreamDifference) -> list[str]:
    clips = f"{one.clips:,}" + (f" ({one.one_sided:,} in one only)" if one.one_sided else "")
    cosine = f"{one.cosine:.5f}, {one.least_cosine:.5f}"
    return [
        one.stream,
        clips,
        cosine,
        f"{one.scale:.4f}",
        f"{one.shift:.2g}",
        f"{one.left:.2g}",
        _accuracy(one.accuracy),
    ]


def _accuracy(found: dict[str, Any] | None) -> str:
    """Both accuracies and their difference in points, with its interval over clips where there is one."""
    if found is None:
        return ""
    width = (found["clips"] or {}).get("ci95")
    sure = "" if width is None else f" ± {100 * width:.2f} over clips"
    change = -100 * found["difference"]
    return f"{100 * found['second']:.2f} - {100 * found['first']:.2f} = {change:+.2f}{sure}"


def duplicates_command(
    cache: Cache = None,
    dataset: Dataset = None,
    threshold: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="STREAM=MARGIN",
            help="STREAM=MARGIN: streams (or modalities) to go by, and how much more alike than their surroundings "
            "clips must be; repeatable [frame=0.3, audio=0.3, hash=0.35].",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be joined.")] = False,
    json: Json = False,
) -> None:
    """Find near-duplicate clips by their features, and give those of one source a common group.

    With groups, `fsmm episode-eval --no-shared-group` keeps copies of a support out of the queries."""
    from ..cache.catalog import Catalog
    from ..cache.duplicate_groups import PREFIX, grouped, write_groups
    from ..cache.duplicates import near_duplicates
    from ..cache.schema import dataset_folder

    folder = dataset_folder(cache_root(cache), dataset)
    given = {
        name: _number(name, text) for name, text in pairs_reader(str)("--threshold", threshold or []).items()
    }
    catalog = Catalog.read(folder)
    few: list[str] = []
    pairs = near_duplicates(folder, catalog, given or None, left_out=few)
    group = dict(zip(catalog.clip_id, grouped(catalog, pairs)))
    joined = {clip for pair in pairs for clip in (pair.first, pair.second)}
    sizes = Counter(group[clip] for clip in group if clip in joined and group[clip])
    apart = sum(not group[p.first] or group[p.first] != group[p.second] for p in pairs)
    stale = any(name.startswith(PREFIX) for name in catalog.group)
    written = write_groups(folder, pairs) if (pairs or stale) and not dry_run else 0
    if json:
        found = [{"first": p.first, "second": p.second, "by": p.by, "likeness": p.likeness} for p in pairs]
        console.print_json(
            {
                "dataset": folder.name,
                "pairs": found,
                "groups": sizes,
                "pairs_apart": apart,
                "streams_left_out": few,
                "clips_grouped": written,
            }
        )
        return
    if few:
        console.note(f"Too few clips to tell near-duplicates by {listed(few)}.")
    _print_pairs(folder.name, pairs)
    _print_groups(sizes, apart)
    typer.echo(f"{written:,} clips changed their group." if written else "No group was changed.")


def _print_groups(sizes: Counter[str], apart: int) -> None:
    if sizes:
        typer.echo(f"They make {len(sizes):,} groups; the largest has {max(sizes.values()):,} clips.")
    if apart:
        typer.echo(
            f"{apart:,} pairs lie in two groups, because fewer than half of the pairs between these were found."
        )


def _number(name: str, text: str) -> float:
    """The likeness that a threshold names. Raises UsageError where it is no number."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--threshold {name}={text} is not of the form STREAM=0.3.") from None


def _print_pairs(dataset: str, pairs: list[Likeness]) -> None:
    if not pairs:
        typer.echo(f"{dataset}: no near-duplicates were found.")
        return
    shown = sorted(pairs, key=lambda pair: pair.likeness)[:_PAIRS]
    rows = [[p.first, p.second, p.by, f"{p.likeness:.3f}"] for p in shown]
    rest = len(pairs) - len(rows)
    more = f"The least alike come first; {rest:,} more pairs are in --json." if rest else ""
    console.print_table(f"{dataset}: {len(pairs):,} pairs", ["clip", "clip", "by", "likeness"], rows, more)


def overlap_command(
    cache: Cache = None,
    dataset: Dataset = None,
    label_set: Annotated[Optional[str], typer.Option(help="The label set [the default].")] = None,
    class_split: Annotated[
        str, typer.Option(help="Which class split, such as s0 or random:8:3.")
    ] = "default",
    json: Json = False,
) -> None:
    """List the classes that the encoders' training sets had: ImageNet, Kinetics-400, AudioSet.

    By words, and by the encoders' confidence where class scores are stored (`fsmm extract --streams score/NAME`)."""
    from dataclasses import asdict

    from ..cache.catalog import Catalog
    from ..cache.pretraining.overlap import overlaps, training_set_of
    from ..cache.schema import dataset_folder, list_streams

    folder = dataset_folder(cache_root(cache), dataset)
    catalog = Catalog.read(folder)
    streams = [stream for stream in list_streams(folder) if stream.modality != "word"]
    found = overlaps(folder, catalog, streams, label_set)
    part = _split_of(catalog.labels(label_set), class_split)
    unknown_to_us = [str(stream) for stream in streams if training_set_of(folder, stream) is None]
    if json:
        told = [{**asdict(one), "split": part.get(one.class_name, "")} for one in found]
        console.print_json(
            {"dataset": folder.name, "overlaps": told, "streams_without_a_list": unknown_to_us}
        )
        return
    table = [
        [
            one.class_name,
            part.get(one.class_name, "") or "-",
            one.training_set,
            one.label,
            one.how,
            "" if one.confidence is None else f"{one.confidence:.2f}",
        ]
        for one in found
    ]
    classes = catalog.labels(label_set).class_names
    known = {one.class_name for one in found}
    columns = ["class", "split", "training set", "its class", "agree by", "confidence"]
    title = f"{folder.name}: {len(known)} of {len(classes)} classes are known from pre-training"
    about = f"No list of classes is known for {listed(unknown_to_us)}." if unknown_to_us else ""
    console.print_table(title, columns, table, about)


def _split_of(labels: LabelSet, class_split: str) -> dict[str, str]:
    """The part of the class split that each class belongs to; empty where there is no such split."""
    if not labels.has_split(class_split):
        return {}
    from ..cache.schema import CLASS_SPLITS

    return {
        labels.class_names[number]: part
        for part in CLASS_SPLITS
        for number in labels.class_split(part, class_split).tolist()
    }


def card_command(
    cache: Cache = None,
    dataset: Dataset = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="A new folder for a data-set card with the shards and their digests, to hand on."),
    ] = None,
    json: Json = False,
) -> None:
    """Print the paragraph on features that a paper needs; with --out, write a folder that is ready to hand on.

    It says encoders, weights, sampling, versions, the clips lost and why, and licences. Nothing is uploaded."""
    from ..cache.upkeep.card import card, write_card
    from ..extract.weights.table import WEIGHTS

    root = cache_root(cache)
    found = card(root, dataset, {name: row.licence for name, row in WEIGHTS.items()})
    files = [] if out is None else [str(path) for path in write_card(root, out.expanduser(), found)]
    if json:
        document = {"dataset": found.dataset.dataset, "paragraph": found.paragraph(), "files": files}
        console.print_json({**document, "licences": dict(found.licences), "lost": dict(found.lost)})
        return
    typer.echo(found.paragraph())
    if files:
        typer.echo(f"Written: {files[0]}, and {len(files) - 1} files beside it.")
