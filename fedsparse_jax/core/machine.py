"""What a machine is, in words: times, and the last bits of sums, are other ones on another processor."""

import os
import platform
from pathlib import Path

VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "avx", "asimd", "sve")  # the first ones tell most
CPUINFO = Path("/proc/cpuinfo")


def processor(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, its cores and its vector extensions, such as ``AMD EPYC, 2 cores, avx2 avx``."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        lines = []
    about = {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}
    name = about.get("model name") or platform.processor() or platform.machine()
    known = set(f"{about.get('flags', '')} {about.get('Features', '')}".split())
    vectors = " ".join(name for name in VECTORS if name in known)
    return ", ".join(filter(None, [name, f"{os.cpu_count()} cores", vectors]))
