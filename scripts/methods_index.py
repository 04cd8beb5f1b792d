"""Write docs/methods.md, the index of the method sections, from the table of methods."""

from __future__ import annotations

from pathlib import Path

from fsmm.heads.registry import METHODS

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHARED_PAGES = {"matching-fce": "matching", "hyrsmpp": "hyrsm"}
HEAD = """# Methods

One page a method: what it computes, its source, where we differ and why, the free choices, the default
recipe. This index is made from the table of methods by `python scripts/methods_index.py`.

*Regime*: none (training-free), episodic, or batch (of base clips). *Modalities*: methods of one modality take
several by fusion: EC (concatenation), EA (co-attention, then concatenation; starts equal to EC), LF (mean of the
modalities' posteriors); `protonet-lf` or `--fusion lf`. Where co-attention alone learns (EA over a training-free
head) it trains by its own recipe: Adam 1e-4, 600 steps, all classes blends of two. Features reach every head scaled
to length one a step (`--normalise`).

| method | paper | year | regime | transductive | modalities | words | zero-shot |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    lines = []
    for name, method in sorted(METHODS.items(), key=lambda item: (item[1].year, item[0])):
        page = SHARED_PAGES.get(name, name)
        lines.append(
            f"| [{name}](methods/{page}.md) | {method.paper} | {method.year} | {method.regime} "
            f"| {'yes' if method.transductive else 'no'} | {method.modalities} | {method.words} "
            f"| {'yes' if method.zero_shot else 'no'} |"
        )
    (DOCS / "methods.md").write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
