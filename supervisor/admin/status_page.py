"""The status page: one HTML file, and the policy that lets it run its own script and style only."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re


def read_page() -> tuple[bytes, str]:
    """The page, and its Content-Security-Policy."""
    page = importlib.resources.files("supervisor.admin").joinpath("page.html").read_bytes()

    def sources(tag: bytes) -> str:
        inline = re.findall(rb"<" + tag + rb">(.*?)</" + tag + rb">", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in inline)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    policy = (
        f"default-src 'none'; script-src {sources(b'script')}; style-src {sources(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, policy
