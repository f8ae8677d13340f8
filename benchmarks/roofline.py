"""Each part of the network against the hardware's roofline: what it computes, what it must move.

Forward only, in training mode, at 256x256. Operations are counted by torch's FlopCounterMode;
bytes are those that no order of computation avoids: the part's inputs, outputs and weights, once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.limits import best_of
from chslib.network import build_network
from replication.memory import keep_freed_memory


def parts(network: nn.Module) -> dict[str, nn.Module]:
    """The parts that the figure shows, by the names of the book."""
    named: dict[str, nn.Module] = {}
    for i in range(len(network.encoder)):
        named[f"encoder block {i + 1}"] = network.encoder[i]
        named[f"hybrid pooling {i + 1}"] = network.pools[i]
        named[f"attention {i + 1}"] = network.attention[i]
        named[f"transposed convolution {i + 1}"] = network.up[i]
        named[f"decoder block {i + 1}"] = network.decoder[i]
    named["bottleneck"] = network.bottleneck
    named["head"] = network.head
    return named


def measure(*, size: int = 256, batch: int = 4, rounds: int = 4, device: str = "cpu") -> list[dict[str, Any]]:
    """A row for each part: seconds (best of the rounds), operations, bytes."""
    keep_freed_memory()
    torch.manual_seed(0)
    network = build_network("full").to(device, memory_format=torch.channels_last)
    x = torch.rand(batch, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)
    inputs: dict[str, tuple[Tensor, ...]] = {}
    named = parts(network)
    hooks = [
        module.register_forward_pre_hook(lambda m, i, name=name: inputs.__setitem__(name, i))
        for name, module in named.items()
    ]
    rows = []
    with torch.no_grad():
        network(x)
        for hook in hooks:
            hook.remove()
        for name, module in named.items():
            seconds = best_of(module, *inputs[name], rounds=rounds, device=device)
            with FlopCounterMode(display=False) as counter:
                out = module(*inputs[name])
            moved = [*inputs[name], out, *module.parameters()]
            rows.append(
                {
                    "part": name,
                    "seconds": seconds,
                    "flops": counter.get_total_flops(),
                    "bytes": sum(t.numel() * t.element_size() for t in moved),
                }
            )
    return rows
