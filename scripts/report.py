"""Writes the report of a run anew.

python scripts/report.py --workdir=runs/quickstart
"""

from pathlib import Path

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag()


def main():
    from fedsparse_jax.reporting import write_report

    print(f"Report: {write_report(Path(WORKDIR.value))}")


if __name__ == "__main__":
    cli.run_main(main)
