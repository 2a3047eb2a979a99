"""The benchmark's networks and one client's local training in plain PyTorch, for the peers beside this file.

Nothing of fedsparse_jax is imported: a peer pays only for itself. Weights come in and go out in our layout, as a dict
of arrays such as ``conv1/kernel [3, 3, 3, I, O]``, so that every peer starts from the same numbers and what it ends
with can be compared.
"""

import numpy as np
import torch
from torch import nn


def norm(features):
    """Instance norm without affine; by the operator itself, because `nn.functional.instance_norm` refuses one voxel."""
    return torch.instance_norm(features, None, None, None, None, True, 0.1, 1e-3, True)


class BrainAgeCNN(nn.Module):
    """The paper's network, channels first: ``[B, 1, X, Y, Z] -> [B]``."""

    def __init__(self, widths=(32, 64, 128, 256, 256, 64)):
        super().__init__()
        *blocks, top = widths
        channels = (1, *blocks)
        for i in range(len(blocks)):
            setattr(self, f"conv{i + 1}", nn.Conv3d(channels[i], channels[i + 1], 3, padding=1))
        self.depth = len(blocks)
        self.top = nn.Conv3d(channels[-1], top, 1)
        self.head = nn.Linear(top, 1)

    def forward(self, scans):
        """Years."""
        features = scans
        for i in range(self.depth):
            features = norm(getattr(self, f"conv{i + 1}")(features))
            features = torch.relu(nn.functional.max_pool3d(features, 2))
        features = torch.relu(norm(self.top(features)))
        return self.head(features.mean((2, 3, 4)))[:, 0]


class MLP(nn.Module):
    """``[B, 1, 28, 28] -> [B, 10]``."""

    def __init__(self, inputs: int, hidden=(128, 128), classes: int = 10):
        super().__init__()
        sizes = (inputs, *hidden, classes)
        self.depth = len(sizes) - 1
        for i in range(self.depth):
            setattr(self, f"dense{i + 1}", nn.Linear(sizes[i], sizes[i + 1]))

    def forward(self, images):
        """Logits."""
        features = images.flatten(1)
        for i in range(self.depth):
            features = getattr(self, f"dense{i + 1}")(features)
            features = torch.relu(features) if i < self.depth - 1 else features
        return features


def network(work: dict) -> nn.Module:
    """The network of a workload: ``brain_age_cnn`` or ``mlp``."""
    if work["model"] == "mlp":
        return MLP(int(np.prod(work["shape"])), tuple(work["options"]["hidden"]))
    return BrainAgeCNN()


def objective(work: dict):
    """Mean loss of a batch: squared error, or cross-entropy for classes."""
    if work["model"] == "mlp":
        return lambda logits, targets: nn.functional.cross_entropy(logits, targets.long())
    return lambda predicted, targets: ((predicted - targets) ** 2).mean()


def load(module: nn.Module, params: dict) -> None:
    """Sets the weights of a module from arrays in our layout."""
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            layer, kind = name.split(".")
            array = params[f"{layer}/{'kernel' if kind == 'weight' else 'bias'}"]
            array = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def data(file) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``[C, T, B, 1, *shape]`` and targets ``[C, T, B]`` of all clients."""
    return torch.from_numpy(np.moveaxis(file["inputs"], -1, 3).copy()), torch.from_numpy(file["targets"])


def train(module, step, inputs, targets, rate: float) -> None:
    """One local epoch of SGD: ``step(inputs, targets)`` is the loss of a batch."""
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    for batch, wanted in zip(inputs, targets, strict=True):
        optimizer.zero_grad()
        step(batch, wanted).backward()
        optimizer.step()
