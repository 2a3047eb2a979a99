"""Times alternatives of the same work in turn, prints a table and writes JSON.

python scripts/benchmark.py round --work=W --repeats=5 --output=round.json

What can be measured: round, peers, scaling, overhead and merge (of W, W2 or W3), select (of a number of weights).
"""

import sys
from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORK = flags.DEFINE_string("work", "", "W, W2 or W3; for select a number of weights (default: W, 2948801).")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each alternative.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the result, beside printing it.")
WHAT = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""


def main():
    from fedsparse_jax import benchmarks, log

    result = benchmarks.run(WHAT, WORK.value, REPEATS.value)
    print(
        f"{result['what']} {result['work']}, medians of {REPEATS.value}; a ratio above 1 is faster than the first\n"
    )
    print(benchmarks.table(result["rows"]))
    if OUTPUT.value:
        log.write_json(Path(OUTPUT.value), result)


if __name__ == "__main__":
    cli.run(main)
