"""What mkdocs calls while it builds the site: pages of the repository that lie outside of docs."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]

OUTSIDE = {
    "deploy/systemd/README.md": "systemd.md",
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "RELEASING.md": "releasing.md",
}
"""Pages that the site has as well, by their path in the repository."""


def on_files(files: Any, config: Any) -> Any:
    """Add them, with their links as the site needs them."""
    for source, target in OUTSIDE.items():
        text = rewrite((ROOT / source).read_text(), posixpath.dirname(source), "")
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that leave docs to those pages."""
    source: str = page.file.src_uri
    if source in OUTSIDE.values():
        return markdown
    folder = posixpath.dirname(source)
    return rewrite(markdown, posixpath.join("docs", folder), folder)


def rewrite(markdown: str, origin: str, folder: str) -> str:
    """``origin`` is the page's folder in the repository, ``folder`` the one in the site."""

    def lead(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:", link):
            return match[0]
        path = posixpath.normpath(posixpath.join(origin, link))
        if path in OUTSIDE:
            return f"{text}({posixpath.relpath(OUTSIDE[path], folder or '.')}{anchor})"
        if path.startswith("docs/") and not (ROOT / path).is_dir():
            return f"{text}({posixpath.relpath(path.removeprefix('docs/'), folder or '.')}{anchor})"
        return text.strip("![]")  # a file of the repository alone: its name is enough

    return re.sub(r"(!?\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)", lead, markdown)
