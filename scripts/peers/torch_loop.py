"""FedAvg in a plain PyTorch loop: what a user would write first. See scripts/benchmark.py peers.

python scripts/peers/torch_loop.py WORK.json WORK.npz eager|compiled

Reads a line for each round to play; answers with a line of JSON: ``seconds`` and ``loss`` of the new model on the first
batch.
"""

import copy
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch_work

WORK, FILE, HOW = json.loads(Path(sys.argv[1]).read_text()), np.load(sys.argv[2]), sys.argv[3]


def main():
    inputs, targets = torch_work.data(FILE)
    server, client = torch_work.network(WORK), torch_work.network(WORK)
    torch_work.load(server, FILE)
    if HOW == "channels_last":
        for module in (server, client):
            module.to(memory_format=torch.channels_last_3d)
    loss = torch_work.objective(WORK)
    forward = torch.compile(client) if HOW == "compiled" else client
    step = lambda batch, wanted: loss(forward(batch), wanted)
    for _ in sys.stdin:
        began = time.perf_counter()
        total = {name: torch.zeros_like(tensor) for name, tensor in server.state_dict().items()}
        start = copy.deepcopy(server.state_dict())
        for i in range(WORK["clients"]):
            client.load_state_dict(start)
            torch_work.train(client, step, inputs[i], targets[i], WORK["rate"])
            for name, tensor in client.state_dict().items():
                total[name] += tensor / WORK["clients"]
        server.load_state_dict(total)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            after = float(loss(server(inputs[0, 0]), targets[0, 0]))
        print(json.dumps({"seconds": seconds, "loss": after}), flush=True)


if __name__ == "__main__":
    main()
