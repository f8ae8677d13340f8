"""The graph of a module as it runs: which part feeds which, read off one forward pass.

The pass is watched from two sides. Forward hooks see every submodule that is to be one node; a
`TorchFunctionMode` sees the operations that `forward` does between them. Who made a tensor is
remembered, so an edge is a tensor that really went from one to the other. Nothing is declared
twice: change a block, and its graph changes.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Functions that hand a tensor on as it is; every other one between the parts becomes a node.
VIEWS = {"chunk", "contiguous", "detach", "flatten", "permute", "reshape", "split", "t", "to", "unflatten", "view"}  # fmt: skip


@dataclass(kw_only=True)
class Node:
    """One step of a forward pass.

    Attributes:
        name: path of the submodule, "input.x", "output", or an operation with a number ("mul.1").
        module: the submodule; None for an input, an output or an operation.
        call: name and settings of an operation, such as `{"name": "interpolate", "scale_factor": 2}`;
            its first plain number is its "value".
        inputs: names of the nodes that feed it, in the order of arrival.
        shape: of what leaves it, (C, H, W).
        folded: modules that follow it and are drawn in its box, see `fold`.
    """

    name: str
    module: nn.Module | None = None
    call: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    folded: list[nn.Module] = field(default_factory=list)


Graph = dict[str, Node]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


class _Watch(TorchFunctionMode):
    """Remembers of every tensor which node it came from."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.nodes: Graph = {}
        self.inside = 0  # depth below a submodule that is one node: what happens there is its own affair
        self._source: dict[int, str] = {}
        self._kept: list[Tensor] = []  # alive, so that no two share an id
        # A forward may use a part's weights without calling the part; the work is still that part's.
        self._owner = {
            p.untyped_storage().data_ptr(): (name, part)
            for name, part in module.named_modules()
            for p in part.parameters(recurse=False)
        }

    def feed(self, node: Node, inputs: Any, output: Any) -> None:
        node = self.nodes.setdefault(node.name, node)
        for source in (self._source.get(id(t)) for t in _tensors(inputs)):
            if source not in (None, node.name, *node.inputs):
                node.inputs.append(source)
        for tensor in _tensors(output):
            self._source[id(tensor)] = node.name
            self._kept.append(tensor)
            node.shape = tuple(tensor.shape[1:])

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        fed = [t for t in _tensors([args, kwargs]) if id(t) in self._source]
        if self.inside or not fed or next(_tensors(output), None) is None:
            return output
        sources = {self._source[id(t)] for t in fed}
        owners = [self._owner.get(t.untyped_storage().data_ptr()) for t in _tensors([args, kwargs])]
        owner = next((o for o in owners if o), None)
        name = func.__name__.strip("_")
        if owner:
            node = Node(name=owner[0], module=owner[1])
        elif len(sources) == 1 and (name in VIEWS or len(fed) > 1):  # the same maps, or a sum of one's own
            node = self.nodes[sources.pop()]
        else:
            settings = {k: v for k, v in kwargs.items() if not isinstance(v, Tensor)}
            settings |= dict([("value", v) for v in args if isinstance(v, (int, float))][:1])
            number = sum(n.call.get("name") == name for n in self.nodes.values())
            node = Node(name=f"{name}.{number}", call={"name": name, **settings})
        shape = node.shape
        self.feed(node, fed, output)
        if name in VIEWS:
            node.shape = shape
        return output


@torch.no_grad()
def trace(module: nn.Module, *inputs: Tensor, whole: tuple[type[nn.Module], ...] = ()) -> Graph:
    """Run a module once in evaluation mode and return its graph, in the order of execution.

    Args:
        module: anything whose forward takes tensors and returns a tensor or a tuple of them.
        inputs: what to run it on, batches of one.
        whole: kinds of submodule that are one node each; the others are looked into. A submodule
            without children always is one.

    Returns:
        By name: inputs, parts, operations between parts, outputs. What no output depends on is left out.
    """
    watch, handles = _Watch(module), []

    def before(_module: nn.Module, _inputs: tuple) -> None:
        watch.inside += 1

    def after(name: str) -> Any:
        def hook(part: nn.Module, inputs: tuple, output: Any) -> None:
            watch.inside -= 1
            if not watch.inside:
                watch.feed(Node(name=name, module=part), inputs, output)

        return hook

    for name, part in module.named_modules():
        if name and (isinstance(part, whole) or not any(True for _ in part.children())):
            handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after(name))]
    training = module.training
    try:
        parameters = inspect.signature(module.forward).parameters
        names = list(parameters) if len(parameters) >= len(inputs) else [str(i) for i in range(len(inputs))]
        for name, value in zip(names, inputs):
            watch.feed(Node(name=f"input.{name}"), [], value)
        module.eval()
        with watch:
            output = module(*inputs)
        fields = {"": output}
        if isinstance(output, tuple):
            fields = output._asdict() if hasattr(output, "_asdict") else dict(enumerate(output, start=1))
        for name, value in fields.items():
            leaves = Node(name=f"output.{name}".strip("."))
            watch.feed(leaves, value, [])
            leaves.shape = tuple(value.shape[1:])
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return _needed(watch.nodes)


def _needed(graph: Graph) -> Graph:
    needed: set[str] = set()
    open_ = [name for name in graph if name.startswith("output")]
    while open_:
        name = open_.pop()
        if name not in needed:
            needed.add(name)
            open_ += graph[name].inputs
    return {name: node for name, node in graph.items() if name in needed}


def fold(graph: Graph, kinds: tuple[type[nn.Module], ...]) -> Graph:
    """Put a part of one of these kinds (normalisation, activation) into the box of the one that feeds it.

    It is folded only behind a part or operation that feeds nothing else, so no path is lost.
    """
    graph = dict(graph)
    for name, node in list(graph.items()):
        if not isinstance(node.module, kinds) or len(node.inputs) != 1:
            continue
        head = graph[node.inputs[0]]
        if head.name.startswith("input") or sum(head.name in n.inputs for n in graph.values()) > 1:
            continue
        head.folded.append(node.module)
        head.shape = node.shape
        del graph[name]
        for other in graph.values():
            other.inputs = [head.name if i == name else i for i in other.inputs]
    return graph


@torch.no_grad()
def traced_shapes(network: nn.Module, *, size: int = 256) -> dict[str, tuple[int, ...]]:
    """Output shape (C, H, W) of every named part of a network, recorded while one slice runs through."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str):
        def hook(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        return hook

    handles = [part.register_forward_hook(record(name)) for name, part in network.named_modules() if name]
    training = network.training
    try:
        network.eval()(torch.zeros(1, network.in_channels, size, size))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return shapes
