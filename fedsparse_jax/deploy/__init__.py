"""The same round in real hospitals: what a site and the server do, as bytes in and bytes out.

A `SiteClient` runs the client functions of the simulation on its own scans. A `Server` takes the place of
`runs.round.exchange_models`, so that loop, aggregation, checkpoints and run folder are those of any run.
Whatever carries the bytes (`Ask`) is an engine's business; none is imported here. NVIDIA FLARE is bound by `flare`,
and Flower by `flower`.
"""

from fedsparse_jax.deploy.handshake import describe_experiment, differing_facts
from fedsparse_jax.deploy.own_scans import server_experiment, site_experiment
from fedsparse_jax.deploy.parts import check_deployable, part_of_server, part_of_site
from fedsparse_jax.deploy.server import Ask, Server
from fedsparse_jax.deploy.site import SiteClient
