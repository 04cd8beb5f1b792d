"""Write docs/methods.md, the index of the method sections, from the table of methods."""

from __future__ import annotations

from pathlib import Path

from fsmm.heads.registry import FAMILIES, METHODS, page_of

DOCS = Path(__file__).resolve().parents[1] / "docs"
ABOUT = {
    "metric": "Classes and queries are compared in feature space.",
    "adaptation": "Something is fitted on the supports of the task.",
    "transductive": "The queries of a task are decided together.",
    "graph": "A graph network works over the clips of the task.",
    "temporal": "Sequences of steps are aligned or related.",
    "multimodal": "Several modalities are read as such.",
    "embedding": "Clips and class words share a space.",
    "language": "Class words take part in the decision.",
}
HEAD = """# Methods

One page a method: what it computes, its source, where we differ and why, the free choices, the default recipe.
`fsmm methods NAME` prints a method's settings and their allowed values. This index is made from the table of methods by
`python scripts/methods_index.py`.

*Regime*: none (training-free), episodic, or batch (of base clips). *Modalities*: methods of one modality take
several by fusion: EC (concatenation), EA (co-attention, then concatenation; starts equal to EC), LF (mean of the
modalities' posteriors); `protonet-lf` or `--fusion lf`. Where co-attention alone learns (EA over a training-free
head) it trains by its own recipe: Adam 1e-4, 600 steps, all classes blends of two. Features are scaled to length one
(`--normalise`): step by step for methods that read time; for others the steps are averaged first, and their mean is
scaled. [How features are scaled and joined](features.md) has the other ways, and fixed weights of modalities. *Official
numbers*: whether numbers of the authors' code are reproduced (`tests/reference/`).

*Training* lasts for as long as accuracy on the val classes rises: a recipe's `steps` are where a training begins to
need that reason, and `ceiling` times `steps` (4, unless told) where it ends at the latest. Accuracy rises while one
of the last `patience` evaluations was the best so far; the best state is kept, the untrained one included. A run says
when its training stopped and why: val accuracy stopped rising, the ceiling was reached while it still rose, or there
are no val classes (then `steps` are all). `--set train.steps=N` alone is taken as N steps and no more; `--set
train.ceiling=10` lets a training go on further; `--set train.minutes=5` is a ceiling in time, and the run says where
it cut, since that depends on the machine. Before anything is trained, the untrained head is measured on one episode
of the test, so that too few clips, classes, words or modalities are said at once.
"""
COLUMNS = "| method | paper | regime | transductive | modalities | words | zero-shot | official numbers |"


def main() -> None:
    """Write the page: a table a family, sorted by year."""
    parts = [HEAD]
    for family in FAMILIES:
        parts += [f"\n## {family.capitalize()}\n\n{ABOUT[family]}\n\n{COLUMNS}\n|{' --- |' * 8}\n"]
        for name, method in METHODS.items():
            if method.family == family:
                page, paper = str(page_of(name)).removeprefix("docs/"), method.paper
                parts.append(
                    f"| [{name}]({page}) | {paper.authors}, [{paper.title}]({paper.url}), {paper.venue} "
                    f"{paper.year} | {method.regime} | {yes(method.transductive)} | {method.modalities} "
                    f"| {method.words} | {yes(method.zero_shot)} | {yes(bool(method.reference))} |\n"
                )
    (DOCS / "methods.md").write_text("".join(parts))


def yes(value: bool) -> str:
    """How the table shows a fact that holds or not."""
    return "yes" if value else "no"


if __name__ == "__main__":
    main()
