"""What runs in Flower's actors, in a module that they can import; see flower.py beside it."""

import functools
import json
from pathlib import Path

import numpy as np
import torch
import torch_work
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp


@functools.cache
def of_file(work_file: str, file: str):
    """Workload, network, objective and data, once a process."""
    torch.set_num_threads(1)
    work = json.loads(Path(work_file).read_text())
    network = torch_work.network(work)
    torch_work.load(network, np.load(file))
    return work, network, torch_work.objective(work), torch_work.data(np.load(file))


def client_app(files: list[str]) -> ClientApp:
    """Local training of the client that a node stands for."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context):
        work, network, loss, (inputs, targets) = of_file(*files)
        place = context.node_config["partition-id"]
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        step = lambda batch, wanted: loss(network(batch), wanted)
        torch_work.train(network, step, inputs[place], targets[place], work["rate"])
        examples = MetricRecord({"num-examples": targets[place].numel()})
        content = RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": examples})
        return Message(content=content, reply_to=message)

    return app
