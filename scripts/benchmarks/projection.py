"""How federations far larger than a test machine would run, computed from measured parts: tables of docs/scaling.md.

python scripts/benchmarks/projection.py

Nothing is run. Each part stands on a page of docs/, and assumptions are named as such.
"""

from typing import NamedTuple

from fedsparse_jax.reporting.markdown import markdown_table

# Assumed.
SCANS, EPOCHS = 100, 4  # of a hospital in a round
SERVER_LINK, HOSPITAL_LINK = 1e9 / 8, 1e8 / 8  # bytes a second
REGIONS = 32  # servers between the hospitals and the first one

# docs/results/performance.md: a round of W3 (two clients of two scans of 91x109x91) on two cores; the server's part of
# W by client; and what sending a dense model both ways adds to W by message.
SECONDS_A_SCAN = 2.571 / 4
SERVER_SECONDS = 0.0217 / 8
DENSE_CODING = (2.787 - 2.039) / 16
# docs/results/messages.md: a message of the paper's network, and coding one, where the receiver holds the same mask.
MESSAGES = {"dense": 9_714_806, "95 %": 466_538}
SPARSE_CODING = 0.007714
WEIGHTS = 2_948_801
MODEL_BYTES = WEIGHTS * (4 + 1)  # of a client, held by the server: float32, and a byte for its mask


class Cohorts(NamedTuple):
    """What `benchmark.py cohort` printed of a hundred clients a round, out of so many."""

    clients: int
    seconds: float
    peak_mb: float


SMALL, LARGE = Cohorts(10_000, 0.044, 1071.05), Cohorts(100_000, 0.109, 1678.94)


def hospitals(count: int, model: str) -> dict[str, str]:
    """One round of so many hospitals with the paper's network, each with two cores of its own."""
    size = MESSAGES[model]
    coding = DENSE_CODING if model == "dense" else SPARSE_CODING
    training = SCANS * EPOCHS * SECONDS_A_SCAN
    own_link = 2 * size / HOSPITAL_LINK
    link, server = 2 * count * size / SERVER_LINK, count * (coding + SERVER_SECONDS)
    waited = max(own_link, link)  # the slower of the two ends
    return {
        "hospitals": f"{count:,}",
        "model": model,
        "training (s)": f"{training:.0f}",
        "sending (s)": f"{waited:.1f}",
        "server (s)": f"{server:.1f}",
        "rounds an hour": f"{3600 / (training + waited + server):.1f}",
        "GB through the server": f"{2 * count * size / 1e9:.2f}",
        "server's memory (GB)": f"{count * MODEL_BYTES / 1e9:.2f}",
        f"by {REGIONS} regions (GB)": f"{-(-count // REGIONS) * MODEL_BYTES / 1e9:.2f}",
    }


def small_clients(count: int) -> dict[str, str]:
    """A hundred small clients a round out of so many, on a line through the two largest that were measured."""
    grown = (count - SMALL.clients) / (LARGE.clients - SMALL.clients)
    seconds = SMALL.seconds + grown * (LARGE.seconds - SMALL.seconds)
    memory = SMALL.peak_mb + grown * (LARGE.peak_mb - SMALL.peak_mb)
    return {
        "clients": f"{count:,}",
        "a round (s)": f"{seconds:.2f}",
        "rounds an hour": f"{3600 / seconds:,.0f}",
        "memory (GB)": f"{memory / 1e3:.1f}",
    }


def main():
    of_hospitals = [hospitals(count, model) for count in (8, 100, 1000) for model in MESSAGES]
    of_small = [small_clients(count) for count in (SMALL.clients, LARGE.clients, 1_000_000)]
    print(*(markdown_table(rows[0], [row.values() for row in rows]) for rows in (of_hospitals, of_small)), sep="\n")


if __name__ == "__main__":
    main()
