"""The pictures of the README, from a real demo: ``python -m deploy.distribution.pictures``.

Writes ``docs/pictures/demo.svg``, the transcript of ``make run``, and ``docs/pictures/status.png``,
the status page of the demo's gateway. Needs Chromium and the tools of `make test`.
"""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from deploy.distribution.trees import ROOT

FOLDER = ROOT / "docs" / "pictures"
COLUMNS = 110
LIMIT_S = 120.0
LAST_HINT = "the status page, in a browser"
COMMAND = Path(sys.executable).with_name("etcd-gateway")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    demo = subprocess.Popen([str(COMMAND), "demo"], stdout=subprocess.PIPE, text=True)
    try:
        transcript = _read_until(demo, LAST_HINT)
        (FOLDER / "demo.svg").write_text(draw_terminal(_generalize(transcript)))
        url = re.findall(r"^ +(http://\S+)", transcript, re.MULTILINE)[-1]
        time.sleep(6)  # the page draws rates from what it saw; the demo's standby is back by then
        _photograph(url, FOLDER / "status.png")
    finally:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=LIMIT_S)


def _read_until(demo: subprocess.Popen[str], mark: str) -> str:
    assert demo.stdout is not None  # noqa: S101 - asked for above
    lines: list[str] = []
    for line in demo.stdout:
        lines.append(line)
        if mark in line:
            return "".join(lines)
    raise SystemExit("the demo ended:\n" + "".join(lines))


def _generalize(transcript: str) -> str:
    """Without what is of this machine alone: the folder of the environment, of temporary files."""
    transcript = transcript.replace(str(COMMAND), "etcd-gateway")
    return re.sub(r"/\S*/(etcd-gateway-demo-)\w+", r"/tmp/\1x", transcript)  # noqa: S108 - a text


def draw_terminal(transcript: str) -> str:
    """The text as a terminal shows it, as an SVG that needs no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print("[bold green]$[/] make run")
    for line in transcript.splitlines():
        style = "dim" if line.startswith("  gateway |") else ""
        console.print(Text(line, style=style), soft_wrap=False, overflow="fold")
    svg = console.export_svg(title="make run", theme=DIMMED_MONOKAI, unique_id="demo")
    # Web fonts would be fetched from a host that the reader did not ask for.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def _photograph(url: str, target: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("needs chromium")
    argv = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    argv += ["--window-size=1280,1000", "--virtual-time-budget=6000", f"--screenshot={target}", url]
    subprocess.run(argv, check=True, capture_output=True, timeout=LIMIT_S)


if __name__ == "__main__":
    main()
