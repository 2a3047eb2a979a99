"""From files or arrays to a federation and its batches. Data sets and partitions go here."""

from fedsparse_jax.data.batching import (
    BatchPlan, largest_first, num_steps, plan_batches, plan_scored_batches, sample_clients, split_plan,
)  # fmt: skip
from fedsparse_jax.data.bids import read_bids
from fedsparse_jax.data.federation import Federation, federate, from_arrays
from fedsparse_jax.data.image_sources import IMAGE_SOURCES, Images
from fedsparse_jax.data.loading import (
    predict_batches, prefetch_chunks, read_chunk, read_round, resident_reader, streamed_reader,
)  # fmt: skip
from fedsparse_jax.data.nifti import load_image, prepare_scan, to_grid
from fedsparse_jax.data.partitions import PARTITIONS, divide
from fedsparse_jax.data.phantom.cohort import write_cohort
from fedsparse_jax.data.scan_cache import ScanSet, ingest
from fedsparse_jax.data.scan_sources import SCAN_SOURCES, ScanSource
from fedsparse_jax.data.scan_tables import read_table
from fedsparse_jax.data.tables import Drop, Listing, Scan
