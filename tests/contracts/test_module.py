"""What every module keeps, whatever it computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from neuropil.errors import NonFiniteError, StateError
from neuropil.nn import Readout, Sequential, Stateful
from tests.contracts.parts import Make, parts

every_module = pytest.mark.parametrize("make", parts("module"))


class Part:
    """A module with its input, seen the same way whether it carries state or not."""

    def __init__(self, make: Make, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module, x, *rest = make()
        self.args: tuple[Any, ...] = x if isinstance(x, tuple) else (x,)
        self.has_smooth, self.smooth = bool(rest), rest[0] if rest else None
        self.stateful = isinstance(self.module, Stateful) or (
            isinstance(self.module, Sequential) and self.module.time_steps is None
        )

    @property
    def x(self) -> Tensor:
        return self.args[0]

    @property
    def ends_in_readout(self) -> bool:
        return any(isinstance(layer, Readout) for layer in self.module.modules())

    @property
    def batch_axis(self) -> int:
        if len(self.args) > 1:  # a loss: the target's first axis says which one of the output's is the batch
            return 0 if self.x.shape[0] == self.args[1].shape[0] else 1
        return 1 if self.stateful or isinstance(self.module, Readout) else 0

    @property
    def output_batch_axis(self) -> int:
        timed = self.stateful or getattr(self.module, "time_steps", None) is not None
        return 1 if timed and not self.ends_in_readout else 0

    def run(self, *args: Any, state: Any = None) -> tuple[Tensor, Any]:
        """Output and state (None for a stateless module), always from the same random numbers."""
        torch.manual_seed(1)
        if not self.stateful:
            return self.module(*args), None
        if isinstance(self.module, Sequential):
            return self.module.unroll(*args, state)
        return self.module(*args, state)

    def evaluation(self) -> Part:
        """The same part in evaluation mode, where samples do not see each other."""
        self.module.eval()
        return self


def floats(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def cast(values: Any, dtype: torch.dtype) -> Any:
    return tree_map(
        lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, values
    )


def equal(left: Any, right: Any) -> bool:
    pairs = zip(tree_leaves(left), tree_leaves(right), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def scalar(output: Tensor) -> Tensor:
    """A sum of the outputs in which each one counts differently."""
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype)
    return (output.flatten() * weights).sum()


def gradients(part: Part) -> dict[str, Tensor]:
    output, _ = part.run(*part.args)
    names, values = (
        zip(*part.module.named_parameters(), strict=True) if list(part.module.parameters()) else ((), ())
    )
    values = tuple(value for value in values if value.requires_grad)
    found = torch.autograd.grad(scalar(output), values, allow_unused=True) if values else ()
    return {n: g for n, g in zip(names, found, strict=True) if g is not None}


@every_module
def test_steps_and_pieces_equal_the_sequence(make: Make) -> None:
    part = Part(make).evaluation()
    if not part.stateful:
        pytest.skip("carries no state")
    whole, end = part.run(part.x)
    time = part.x.shape[0]
    for sizes in ([1] * time, [time // 2, time - time // 2]):
        state, outputs = None, []
        for piece in part.x.split(sizes):
            output, state = part.run(piece, state=state)
            outputs.append(output)
        if not part.ends_in_readout:  # which answers once for each piece
            torch.testing.assert_close(torch.cat(outputs), whole)
        torch.testing.assert_close(floats(state), floats(end))


@every_module
def test_samples_do_not_see_each_other(make: Make) -> None:
    part = Part(make).evaluation()
    order = torch.randperm(part.x.shape[part.batch_axis])
    shuffled = [part.x.index_select(part.batch_axis, order), *(arg[order] for arg in part.args[1:])]
    expected, state = part.run(*part.args)
    if expected.dim():
        expected = expected.index_select(part.output_batch_axis, order)
    output, shuffled_state = part.run(*shuffled)
    torch.testing.assert_close(output, expected)
    expected_state = [leaf.index_select(0, order) for leaf in floats(state)]
    torch.testing.assert_close(floats(shuffled_state), expected_state)


@every_module
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(make: Make, dtype: torch.dtype) -> None:
    part = Part(make)
    part.module.to(dtype)
    output, state = part.run(*cast(part.args, dtype))
    assert output.dtype == dtype
    assert {leaf.dtype for leaf in floats(state)} <= {dtype}


@every_module
def test_gradients_are_derivatives(make: Make) -> None:
    part = Part(make)
    if part.has_smooth and part.smooth is None:
        pytest.skip("its gradient is another than the derivative by design; its own tests say which")
    if not part.has_smooth and any(hasattr(layer, "threshold") for layer in part.module.modules()):
        pytest.skip("spikes; its own tests compare the surrogate gradient with the reference")
    part.module = (part.smooth or part.module).double()
    names = [name for name, value in part.module.named_parameters() if value.requires_grad]
    x, *others = cast(part.args, torch.float64)

    def run(inputs: Tensor, *values: Tensor) -> list[Tensor]:
        torch.manual_seed(1)
        given = (inputs, *others) if not isinstance(part.module, Sequential) else (inputs,)
        return floats(torch.func.functional_call(part.module, dict(zip(names, values, strict=True)), given))

    values = [part.module.get_parameter(name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *values))


@every_module
def test_state_goes_round(make: Make) -> None:
    part = Part(make).evaluation()
    if not part.stateful:
        pytest.skip("carries no state")
    _, state = part.run(part.x)
    leaves, structure = tree_flatten(state)
    kept = tree_unflatten([leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)
    first, second = part.run(part.x, state=state), part.run(part.x, state=kept)
    assert equal(first, second)
    assert equal(part.run(part.x), part.run(part.x)), "a call must leave nothing behind in the module"


@every_module
def test_state_of_another_batch_is_refused_in_one_line(make: Make) -> None:
    part = Part(make).evaluation()
    if not part.stateful:
        pytest.skip("carries no state")
    _, state = part.run(part.x)
    if not floats(state):
        pytest.skip("no layer in it carries state")
    with pytest.raises(StateError) as caught:
        part.run(part.x[:, 1:], state=state)
    assert "\n" not in str(caught.value)


@every_module
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_input_never_passes_unseen(make: Make, value: float) -> None:
    """What carries state refuses it; what does not may hand it on, to a state or a loss that refuses it."""
    part = Part(make).evaluation()
    if len(part.args) > 1 and value == -float("inf"):
        pytest.skip("to a loss, minus infinity is the score of a class that is ruled out")
    x = part.x.clone()
    x[(0,) * x.dim()] = value
    try:
        output, _ = part.run(x, *part.args[1:])
    except NonFiniteError as error:
        assert "\n" not in str(error)
    else:
        assert not part.stateful, "a stateful module took it without a word"
        assert not output.isfinite().all()


@every_module
def test_same_seed_gives_the_same_bits(make: Make) -> None:
    first, second = Part(make), Part(make)
    assert equal(first.args, second.args)
    assert equal(first.run(*first.args), second.run(*second.args))
    assert equal(gradients(first), gradients(second))


@every_module
def test_compiled_equals_eager(make: Make) -> None:
    eager, compiled = Part(make), Part(make)
    torch._dynamo.reset()
    expected = eager.run(*eager.args)
    target = compiled.module
    if isinstance(target, Sequential):
        target.unroll = torch.compile(target.unroll, backend="aot_eager")  # type: ignore[method-assign]
    else:
        target.compile(backend="aot_eager")
    output = compiled.run(*compiled.args)
    torch.testing.assert_close(floats(output), floats(expected))
    torch.testing.assert_close(gradients(compiled), gradients(eager))


@every_module
def test_copies_and_saved_weights_answer_alike(make: Make) -> None:
    part = Part(make).evaluation()
    expected = part.run(*part.args)
    twin = Part(make, seed=5).evaluation()
    twin.module.load_state_dict(part.module.state_dict())
    assert equal(twin.run(*part.args), expected)
    original, part.module = part.module, copy.deepcopy(part.module)
    assert equal(part.run(*part.args), expected)
    own = {value.data_ptr() for value in original.state_dict().values() if value.numel()}
    assert not own & {value.data_ptr() for value in part.module.state_dict().values() if value.numel()}


@every_module
def test_two_on_one_model_leave_each_other_alone(make: Make) -> None:
    first, second = Part(make), Part(make, seed=5)
    model = nn.ModuleDict({"first": first.module, "second": second.module})
    expected = second.run(*second.args)
    before = {name: value.clone() for name, value in second.module.state_dict().items()}
    scalar(first.run(*first.args)[0]).requires_grad_().backward()
    assert all(p.grad is None for p in model["second"].parameters())
    assert equal(dict(second.module.state_dict()), before)
    assert equal(second.run(*second.args), expected)
