"""Writes the tables of docs/scale.md: what an extraction of many clips takes, from rates that were measured.

    python scripts/scale.py                     write the tables into docs/scale.md
    python scripts/scale.py --check             exit 1 where they are not up to date
    python scripts/scale.py --gpu-rate 80       print them with your own clips a second of one GPU
    python scripts/scale.py --core-rate 2.5 --feature-bytes 40000 --video-bytes 3000000     … and other figures of yours

The rate of a core is that of docs/results/speed.json. A figure with "≈" is extrapolated from it in proportion.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scale.md"
CLIPS = (150_000, 10_000_000)
CORES = (2, 16, 128, 1024)
GPUS = (1, 8, 64)
CORES_BESIDE = 16
"""The cores beside a GPU in the plan."""
DEMO_CLIPS = 1620
"""The clips of the demo's full form, on which rates and bytes were measured."""
DEMO_FEATURES, DEMO_CATALOG, DEMO_VIDEOS = 59_353_188, 464_552, 86_000_000
"""The bytes of its three streams of clips, of its catalog, and of its videos."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the plan reckons with."""

    core: float
    """Clips a second of a core that does everything."""
    decoding: float
    """Clips a second of a core that only decodes and prepares, beside a GPU that encodes."""
    gpu: float | None
    """Clips a second of a GPU with its cores; None where it was not measured."""
    features: float
    """Bytes of the features of a clip."""
    catalog: float
    """Bytes of the catalog for a clip."""
    video: float
    """Bytes of a clip's video."""


def measured() -> Rates:
    """The rates that were measured."""
    rows = json.loads((ROOT / "docs/results/speed.json").read_text())["rows"]
    found = {row["row"]: row["value"] for row in rows if row["table"] == "speed-extraction"}
    seconds = sum(v for k, v in found.items() if k.startswith(("decoding", "preparing")))
    return Rates(
        core=found["extracting with 2 workers"] / 2,
        decoding=DEMO_CLIPS / seconds,
        gpu=None,
        features=DEMO_FEATURES / DEMO_CLIPS,
        catalog=DEMO_CATALOG / DEMO_CLIPS,
        video=DEMO_VIDEOS / DEMO_CLIPS,
    )


def tables(rates: Rates) -> str:
    """The tables, as Markdown."""
    inputs = [
        ("clips a second of a core that does everything", f"{rates.core:.2f}"),
        ("clips a second of a core that only decodes and prepares", f"{rates.decoding:.1f}"),
        ("clips a second of a GPU", "" if rates.gpu is None else f"{rates.gpu:g}"),
        ("features of a clip", size(rates.features)),
        ("catalog for a clip", size(rates.catalog)),
        ("video of a clip", size(rates.video)),
    ]
    parts = [table(("what the plan reckons with", "value"), inputs)]
    columns = ("clips", *(f"{cores:,} cores" for cores in CORES))
    rows = [(f"{n:,}", *(about(n / (rates.core * cores)) for cores in CORES)) for n in CLIPS]
    parts.append(table(columns, rows))
    gpus = []
    for n in CLIPS:
        for count in GPUS:
            bound = n / (rates.decoding * CORES_BESIDE * count)
            took = None if rates.gpu is None else n / (rates.gpu * count)
            hours = "" if took is None else f"≈ {took * count / 3600:,.1f}"
            gpus.append((f"{n:,}", str(count), about(bound), "" if took is None else about(took), hours))
    bound_of = f"at least, with {CORES_BESIDE} cores a GPU"
    parts.append(table(("clips", "GPUs", bound_of, "time", "GPU-hours"), gpus))
    disk = [
        (
            f"{n:,}",
            f"≈ {size(n * rates.features)}",
            f"≈ {size(n * rates.catalog)}",
            f"≈ {size(n * (2 * rates.features + rates.catalog))}",
            f"≈ {size(n * rates.video)}",
        )
        for n in CLIPS
    ]
    parts.append(table(("clips", "features", "catalog", "disk while shards are joined", "videos"), disk))
    return "\n\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def about(seconds: float) -> str:
    """A time that was extrapolated.

    >>> about(30), about(5000), about(400_000)
    ('≈ 1 min', '≈ 1.4 h', '≈ 4.6 days')
    """
    if seconds < 3600:
        return f"≈ {max(round(seconds / 60), 1)} min"
    return f"≈ {seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"≈ {seconds / 86400:.1f} days"


def size(count: float) -> str:
    """Bytes in the unit that suits them.

    >>> size(287), size(36_600), size(4e9)
    ('287 bytes', '36.6 kB', '4 GB')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"


def page_with(text: str, page: str) -> str:
    """The page with the tables in their place."""
    return re.sub(
        r"(<!-- tables: .*? -->\n).*?(\n<!-- end of the tables -->)",
        lambda found: f"{found[1]}\n{text}\n{found[2]}",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Write, check or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    for name in ("core", "gpu"):
        parser.add_argument(f"--{name}-rate", type=float)
    for name in ("feature", "video"):
        parser.add_argument(f"--{name}-bytes", type=float)
    given = parser.parse_args()
    rates = measured()
    if any((given.core_rate, given.gpu_rate, given.feature_bytes, given.video_bytes)):
        own = Rates(
            core=given.core_rate or rates.core,
            decoding=rates.decoding,
            gpu=given.gpu_rate,
            features=given.feature_bytes or rates.features,
            catalog=rates.catalog,
            video=given.video_bytes or rates.video,
        )
        print(tables(own))
        return
    page = PAGE.read_text("utf-8")
    made = page_with(tables(rates), page)
    if given.check:
        sys.exit(0 if made == page else "docs/scale.md is not up to date; run `python scripts/scale.py`.")
    PAGE.write_text(made, "utf-8")


if __name__ == "__main__":
    main()
