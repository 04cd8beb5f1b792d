"""What the documentation site takes from outside docs/, and its navigation: a hook of mkdocs (see mkdocs.yml).

The pages in ``BORROWED`` lie elsewhere in the repository and become pages of the site. A link to a file that the site
does not hold (a source file, say) becomes the file's name, so that no link leads nowhere. The navigation follows the
folders: a new page in one of ``FOLDERS`` appears without being listed.
"""

from __future__ import annotations

import atexit
import posixpath
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BORROWED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "python-examples.md",
}
"""From a file of the repository to the page of the site that shows it."""
FOLDERS = {
    "Data sets": "datasets",
    "Methods": "methods",
    "Results": "results",
    "Python": "api",
    "Decisions": "decisions",
}
"""From a section of the navigation to the folder of docs/ whose pages it holds."""
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


@event_priority(100)  # mkdocstrings reads its paths in the same event
def on_config(config: Any) -> Any:
    """Set the navigation, and where the package's sources are read."""
    config.nav = navigation(DOCS)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(package_alone())]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the borrowed pages to the site's files."""
    for source, page in BORROWED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text with links that lead somewhere on the site."""
    return with_links(markdown, page.file.src_uri)


def navigation(docs: Path) -> list[Any]:
    """The pages of the site by section; a section's own page, such as ``methods.md``, comes before its folder's."""
    heads = {f"{folder}.md" for folder in FOLDERS.values()}
    guide = [page.name for page in sorted(docs.glob("*.md")) if page.name not in heads]
    sections = [
        {title: [*(name for name in [f"{folder}.md"] if (docs / name).is_file()), *pages_of(docs, folder)]}
        for title, folder in FOLDERS.items()
        if (docs / folder).is_dir() or (docs / f"{folder}.md").is_file()
    ]
    project = [page for page in BORROWED.values() if page != "index.md"]
    return ["index.md", {"Guide": guide}, *sections, {"Project": project}]


def pages_of(docs: Path, folder: str) -> list[dict[str, str]]:
    """From title to page, relative to ``docs``, of the pages of one folder; its index comes first."""
    found = sorted((docs / folder).glob("*.md"), key=lambda page: (page.stem != "index", page.name))
    return [{title_of(page): page.relative_to(docs).as_posix()} for page in found]


def title_of(page: Path) -> str:
    """The first heading of a page, of whichever level; the file's name where it has none."""
    heading = re.search(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return heading[1] if heading else page.stem


def with_links(markdown: str, page: str) -> str:
    """``markdown`` of the site's ``page`` with each relative link turned to a page of the site, or to plain text."""
    sources = {shown: source for source, shown in BORROWED.items()}
    folder = posixpath.dirname(sources.get(page, f"docs/{page}"))

    def turned(link: re.Match[str]) -> str:
        target = link["target"]
        if ":" in target:
            return link[0]
        place = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / place).exists():
            return link[0]  # mkdocs names it, and the build fails
        shown = BORROWED.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
        if shown is None:
            return link["text"] if place in link["text"] else f"{link['text']} (`{place}`)"
        relative = posixpath.relpath(shown, posixpath.dirname(page) or ".")
        return f"[{link['text']}]({relative}{link['anchor'] or ''})"

    return _LINK.sub(turned, markdown)


def package_alone() -> Path:
    """A folder that holds the package ``fsmm`` and nothing else, as links to its sources.

    The repository's root is the package, and holds tests, documentation and environments too, which a reader of the
    package's sources must not walk. The folder is removed at the end of the process.
    """
    place = Path(tempfile.mkdtemp(prefix="fsmm-site-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    package = place / "fsmm"
    package.mkdir()
    for source in [*ROOT.glob("*.py"), *(init.parent for init in ROOT.glob("*/__init__.py"))]:
        if source.name != "benchmarks":
            (package / source.name).symlink_to(source)
    return place
