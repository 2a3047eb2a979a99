"""FedAvg in Flower's simulation, with PyTorch clients. See scripts/benchmark.py peers.

python scripts/peers/flower.py WORK.json WORK.npz eager

Reads a line for each round to play; answers with a line of JSON: ``seconds`` and ``loss`` of the new model on the first
batch. One actor a core, each with one thread, as the simulation is meant to be used.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])

import torch
from flower_client import client_app, of_file
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

ROUNDS = 10**6  # until the input ends


class OnDemand(FedAvg):
    """FedAvg that waits for a line before each round and answers with one after it."""

    def __init__(self, files: list[str], **options):
        super().__init__(**options)
        self.files, self.began = files, 0.0

    def configure_train(self, server_round, arrays, config, grid):
        """Ends the clock of the round before and, once asked, starts this round's."""
        if self.began:
            self.report(time.perf_counter() - self.began, arrays)
        if not sys.stdin.readline():
            os._exit(0)
        self.began = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        """The mean; a client that failed ends the run, where Flower would go on without it."""
        replies = list(replies)
        if failed := [reply for reply in replies if reply.has_error()]:
            raise RuntimeError(failed[0].error.reason)
        return super().aggregate_train(server_round, replies)

    def report(self, seconds, arrays):
        """Answers for a round that is over."""
        _, network, loss, (inputs, targets) = of_file(*self.files)
        network.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            after = float(loss(network(inputs[0, 0]), targets[0, 0]))
        print(json.dumps({"seconds": seconds, "loss": after}), flush=True)


def main():
    files = sys.argv[1:3]
    work, network, *_ = of_file(*files)
    initial = ArrayRecord(network.state_dict())
    app = ServerApp()

    @app.main()
    def serve(grid, context):
        OnDemand(files, fraction_evaluate=0.0).start(grid, initial, num_rounds=ROUNDS)

    run_simulation(
        app,
        client_app(files),
        num_supernodes=work["clients"],
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


if __name__ == "__main__":
    main()
