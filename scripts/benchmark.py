"""Times alternatives of the same work in turn, prints a table and writes JSON.

python scripts/benchmark.py round --work=W --repeats=5 --output=round.json

What can be measured: round (W, W2 or W3), scaling, overhead and merge (the same), select (a number of weights).
"""

import sys
from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORK = flags.DEFINE_string("work", "", "W, W2 or W3; for select a number of weights (default: see the docs).")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each alternative.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the result, beside printing it.")
WHAT = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""


def main():
    from fedsparse_jax import benchmark, log

    result = benchmark.run(WHAT, WORK.value, REPEATS.value)
    print(
        f"{result['what']} {result['work']}, medians of {REPEATS.value}; a ratio above 1 is faster than the first\n"
    )
    print(benchmark.table(result["rows"]))
    if OUTPUT.value:
        log.write_json(Path(OUTPUT.value), result)


if __name__ == "__main__":
    cli.run(main)
