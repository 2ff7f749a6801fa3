"""``python -m tests.fleet``: the scenes for 1,000 and 10,000 hosts as a table."""

from __future__ import annotations

import json
import sys

from tests.fleet.scenes import every_scene, first_sessions


def main(sizes: list[int]) -> None:
    result: dict[str, dict[str, dict[str, float]]] = {"24": {}}
    result["24"]["first session of each host, 4 members"] = first_sessions(24, members=4)
    for hosts in sizes:
        result[str(hosts)] = dict(every_scene(hosts))
    for size, scenes in result.items():
        for scene, figures in scenes.items():
            print(f"{size} hosts: {scene}")
            for name, value in figures.items():
                print(f"    {name}: {value:.2f}")
    print(json.dumps(result), file=sys.stderr)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1_000, 10_000])
