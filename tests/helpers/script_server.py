"""A process that has imported what the scripts import, and forks for each script it is asked to run.

Starting Python, JAX and Orbax takes seconds, and a script that refuses a flag takes none. A fork sees a script's
arguments, output and exit code as a process of its own would.

Reads lines of JSON, ``{"words": ["scripts/train.py", "--help"], "out": path, "err": path}``, from its standard input,
and answers each with the exit code.
"""

import importlib
import json
import os
import runpy
import sys

IMPORTED = ["cli", "config", "reporting.report", "runs.loop", "runs.migrations", "studies", "attacks"]


def play(words, out, err):
    """Becomes the script."""
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = words
    sys.path[0] = os.path.dirname(words[0])
    runpy.run_path(words[0], run_name="__main__")


def serve():
    """Answers until the input ends; in a fork, plays one script and returns."""
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            play(**asked)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(f"fedsparse_jax.{module}")
    serve()
