"""Durations of the parts of `.ci/run`: a table beside those noted earlier, and the parts that grew.

    python3 .ci/compare_seconds.py NOTED TAKEN WHOLE

Both files hold a line "part seconds" each; the whole run took WHOLE seconds, less than its parts together where some
ran beside others. Machines differ in speed, so a part has grown where it takes over a quarter more than all parts do.
"""

import sys
from pathlib import Path

LEAST = 10  # seconds, under which a difference says nothing
GROWTH = 1.25


def read(path):
    lines = (
        [line.split() for line in Path(path).read_text().splitlines() if line.strip()] if Path(path).exists() else []
    )
    return {name: int(seconds) for name, seconds in lines}


def grown(noted, taken):
    """Return the parts that take more than their share: {part: how many times as long as expected}."""
    both = [name for name in taken if name in noted]
    before = sum(noted[name] for name in both)
    if not before:
        return {}
    pace = sum(taken[name] for name in both) / before
    ratios = {name: taken[name] / max(1.0, pace * noted[name]) for name in both}
    return {name: ratio for name, ratio in ratios.items() if ratio > GROWTH and taken[name] > LEAST}


def main(noted_path, taken_path, whole):
    noted, taken = read(noted_path), read(taken_path)
    print(f"{'part':<12}{'seconds':>9}{'noted':>9}")
    for name, seconds in taken.items():
        print(f"{name:<12}{seconds:>9}{noted.get(name, '-'):>9}")
    print(f"{'all parts':<12}{sum(taken.values()):>9}{sum(noted.values()):>9}")
    print(f"the whole run took {whole} seconds")
    for name, ratio in grown(noted, taken).items():
        print(f"{name} grew: {ratio:.2f} times what the other parts let expect")


if __name__ == "__main__":
    main(*sys.argv[1:])
