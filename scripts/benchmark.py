"""Times alternatives of the same work in turn, prints a table and writes JSON.

python scripts/benchmark.py round --work=W --repeats=5 --output=round.json

What can be measured, and of what (--work):
  round, precision                  formulations, vmap or not; bfloat16 and rematerialization       W, W2 or W3
  peers                             PyTorch and Flower, where installed (extra "peers")             W, W2 or W3
  scaling, skewed                   1 to 64 clients, width, volume; clients of unlike size          W, W2 or W3
  overhead, merge                   a round beyond its local steps; aggregation                     W, W2 or W3
  input, large                      streamed or resident; a cohort larger than memory               W3; gigabytes
  cohort                            a hundred clients a round, of ever more                         clients
  held                              ever more clients in each round, a hundred models held           clients
  select                            the exact threshold                                             weights
  messages                          encode and decode the paper's network at a density              0.05
  encryption                        sums under encryption (extra "encryption"): bytes, seconds, errors paper,quickstart
  export                            models as files: bytes, a prediction, memory (made if missing)      a folder
  hosts                             rounds of a run shared by 1, 2 and 4 processes of this host     a config
  study                             four runs of a study, one and two at a time                       a config
  start                             first and second start of a run                                 a config
"""

import sys
from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORK = flags.DEFINE_string("work", "", "Of what, as listed above (default: docs/results/performance.md).")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each alternative.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the result, beside printing it.")
WHAT = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""


def main():
    import benchmarks

    from fedsparse_jax.core import machine
    from fedsparse_jax.core.files import write_json

    cli.cache_compilations()
    result = benchmarks.run_benchmark(WHAT, WORK.value, REPEATS.value)
    print(f"{result['what']} {result['work']}, medians of {REPEATS.value}; a ratio above 1 is faster than the first")
    print(f"{machine.processor()}\n")
    print(benchmarks.timings_table(result["rows"]))
    if OUTPUT.value:
        write_json(Path(OUTPUT.value), result)


if __name__ == "__main__":
    cli.run_main(main)
