"""Places inside a causal language model where activity can be read and changed, found by the model's structure.

Works on `Decoder`, on Hugging Face's causal models (of Llama's and of GPT-2's build) and on one's own: what is needed
is a list of like blocks, each with a feed-forward part of two or three linear layers, and a linear head.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuropil.errors import IncompatibleError, UnknownNameError, nearest

Override = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """A tensor `[batch, token, features]` that enters or leaves a module."""

    module: str  # its name in `model.named_modules()`
    side: Literal["input", "output"]


def activation_sites(model: nn.Module) -> dict[str, Site]:
    """Sites of a causal language model by name, `i` counting the blocks from 0.

    | name | what it is |
    | --- | --- |
    | `residual.i` | the residual stream after block `i` |
    | `up.i` | the feed-forward layer's pre-activation (in a gated one the factor that is not activated) |
    | `gate.i` | the pre-activation of the gate, in gated feed-forward layers |
    | `key.i` | the feed-forward layer's activity: what enters its down-projection |
    | `feedforward.i` | what the feed-forward layer adds to the stream |
    | `hidden` | the final hidden state: what enters the head |
    | `logits` | what leaves the head |

    Where gate and up are one layer (`[gate, up]` side by side) it is `up.i` alone.

    Raises IncompatibleError when the model has no blocks or head of this build.

    >>> from neuropil.nn import Decoder
    >>> activation_sites(Decoder(width=16, layers=2, heads=2))["key.1"]
    Site(module='blocks.1.feedforward.down', side='input')
    """
    blocks = _blocks(model)
    found: dict[str, Site] = {}
    for number, (name, block) in enumerate(blocks):
        found[f"residual.{number}"] = Site(name, "output")
        layers = _feedforward(block)
        if layers is None:
            raise IncompatibleError(
                f"activation_sites: block {name!r} has no feed-forward part of two or three linear layers "
                "(width to hidden, hidden to width)"
            )
        for kind, layer in layers.items():
            if kind != "down":
                found[f"{kind}.{number}"] = Site(f"{name}.{layer}", "output")
        found[f"key.{number}"] = Site(f"{name}.{layers['down']}", "input")
        found[f"feedforward.{number}"] = Site(f"{name}.{layers['down']}", "output")
    head = head_name(model)
    found["hidden"], found["logits"] = Site(head, "input"), Site(head, "output")
    return found


def head_name(model: nn.Module) -> str:
    """Name of the linear layer that gives the logits: what the model says it is, or its last outside the blocks.

    Raises IncompatibleError where there is none.
    """
    told = getattr(model, "get_output_embeddings", None)
    head = told() if callable(told) else None
    if head is not None:
        found: str = next(name for name, module in model.named_modules() if module is head)
        return found
    inside = tuple(f"{name}." for name, _ in _blocks(model))
    outside: list[str] = [
        n for n, m in model.named_modules() if _is_linear(m) and not f"{n}.".startswith(inside)
    ]
    if not outside:
        raise IncompatibleError("the model has no linear head outside its blocks")
    return outside[-1]


@torch.no_grad()
def read_sites(model: nn.Module, *args: Any, sites: Iterable[str], **kwargs: Any) -> dict[str, Tensor]:
    """Call the model once on the arguments and return what was at some of its sites, by name.

    Gradients are off and the model's mode is left as it is. Raises UnknownNameError for a site it does not have.

    >>> from neuropil.nn import Decoder
    >>> model = Decoder(width=16, layers=2, heads=2)
    >>> read_sites(model, torch.zeros(1, 5, dtype=torch.long), sites=["residual.0"])["residual.0"].shape
    torch.Size([1, 5, 16])
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Override:
        def look(x: Tensor) -> Tensor:
            seen[name] = x.detach()
            return x

        return look

    with override_sites(model, {name: keep(name) for name in sites}):
        model(*args, **kwargs)
    return seen


@contextmanager
def override_sites(model: nn.Module, overrides: Mapping[str, Override]) -> Iterator[None]:
    """While the context lasts, what is at each named site is replaced by what its function makes of it.

    Raises UnknownNameError for a site that the model does not have.

    >>> from neuropil.nn import Decoder
    >>> model, tokens = Decoder(width=16, layers=1, heads=2), torch.zeros(1, 3, dtype=torch.long)
    >>> with override_sites(model, {"hidden": torch.zeros_like}):
    ...     bool((model(tokens) == 0).all())
    True
    """
    with ExitStack() as hooks:
        for name, override in overrides.items():
            site = known_site(model, name)
            module = model.get_submodule(site.module)
            if site.side == "input":
                handle = module.register_forward_pre_hook(_before(override))
            else:
                handle = module.register_forward_hook(_after(override))
            hooks.callback(handle.remove)
        yield


def attach(model: nn.Module, site: str, part: nn.Module, name: str) -> None:
    """Put a module at a site for good: it becomes a child `name` of the layer there and is saved with the model.

    The model is changed in place; an edit gives it a `shared_copy`. Raises UnknownNameError for a site that the model
    does not have, IncompatibleError when the layer has a child of that name already.

    >>> from neuropil.nn import Decoder
    >>> model = Decoder(width=16, layers=1, heads=2)
    >>> attach(model, "key.0", nn.Dropout(0.5), "noise")
    >>> model.blocks[0].feedforward.down.noise
    Dropout(p=0.5, inplace=False)
    """
    found = known_site(model, site)
    layer = model.get_submodule(found.module)
    if name in layer._modules:
        raise IncompatibleError(f"attach: {found.module!r} has a part called {name!r} already")
    layer.add_module(name, part)
    if found.side == "input":
        layer.register_forward_pre_hook(_ChildBefore(name))
    else:
        layer.register_forward_hook(_ChildAfter(name))


def known_site(model: nn.Module, name: str) -> Site:
    """The site of that name; UnknownNameError with the nearest when the model has none."""
    sites = activation_sites(model)
    if name not in sites:
        raise UnknownNameError(f"the model has no site {name[:40]!r}{nearest(name[:40], sites)}")
    return sites[name]


@dataclass(frozen=True)
class _ChildBefore:
    """Hook that finds its module through the layer, so that a copy of the model uses the copy's."""

    name: str

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (layer.get_submodule(self.name)(args[0]), *args[1:])


@dataclass(frozen=True)
class _ChildAfter:
    name: str

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return _through(layer.get_submodule(self.name), output)


def _before(override: Override) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    return lambda layer, args: (override(args[0]), *args[1:])


def _after(override: Override) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    return lambda layer, args, output: _through(override, output)


def _through(override: Override, output: Any) -> Any:
    if isinstance(output, tuple):  # a block that also returns its attention or cache
        return (override(output[0]), *output[1:])
    return override(output)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def widths(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; Hugging Face's Conv1D keeps its weight the other way round."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    rows, columns = weight.shape
    return (rows, columns) if type(module).__name__ == "Conv1D" else (columns, rows)


def _blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks: the longest list of modules of one class that have linear layers."""
    best: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        children = [(f"{name}.{key}" if name else key, child) for key, child in module.named_children()]
        alike = len({type(child) for _, child in children}) == 1
        if not alike or len(children) <= len(best) or _is_linear(children[0][1]):
            continue
        if any(map(_is_linear, children[0][1].modules())):
            best = children
    if not best:
        raise IncompatibleError("the model has no list of like blocks with linear layers in them")
    return best


def _feedforward(block: nn.Module) -> dict[str, str] | None:
    """Names in the block of `up`, `down` and, in gated layers, `gate`."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, module in block.named_modules():
        if _is_linear(module) and name:
            groups[name.rpartition(".")[0]].append(name)
    for parent, names in groups.items():
        lowered = parent.lower()
        if "attn" in lowered or "attention" in lowered or len(names) not in (2, 3):
            continue
        sizes = {name: widths(block.get_submodule(name)) for name in names}
        for down in reversed(names):
            hidden, width = sizes[down]
            ups = [name for name in names if name != down]
            if all(sizes[up] in ((width, hidden), (width, 2 * hidden)) for up in ups):
                return _named(ups, down)
    return None


def _named(ups: list[str], down: str) -> dict[str, str]:
    if len(ups) == 1:
        return {"up": ups[0], "down": down}
    gates = [name for name in ups if "gate" in name.rpartition(".")[2].lower()] or ups[:1]
    return {"gate": gates[0], "up": next(name for name in ups if name != gates[0]), "down": down}
