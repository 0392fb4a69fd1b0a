"""Task arithmetic, and its tangent space, where tasks that were learned apart can be added with less interference.

Ilharco et al.: Editing Models with Task Arithmetic. ICLR 2023. arXiv:2212.04089. Ortiz-Jimenez, Favero, Frossard:
Task Arithmetic in the Tangent Space: Improved Editing of Pre-Trained Models. NeurIPS 2023. arXiv:2305.12827
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from neuropil.errors import ConfigError, DataError, IncompatibleError, ShapeError, UnknownNameError, nearest
from neuropil.nn.finite import check_finite
from neuropil.nn.forward_mode import forward_mode_refusal
from neuropil.nn.sharing import shared_copy
from neuropil.plotting import canvas
from neuropil.training.evaluating import evaluating

if TYPE_CHECKING:
    from jaxtyping import Float

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class TaskVector:
    """What training added to the weights of a model: a vector that can be scaled, added and subtracted.

    Holds parameters only: running statistics of normalisation stay those of the model that it is applied to.

    >>> base, tuned = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> task = TaskVector.between(base, tuned)
    >>> torch.allclose(task.apply_to(base).weight, tuned.weight)
    True
    >>> forgets = (-0.5 * task).apply_to(base)
    """

    tensors: Mapping[str, Tensor]  # by the parameter's name

    @classmethod
    def between(cls, start: nn.Module, end: nn.Module) -> TaskVector:
        """The way from one model's parameters to another's, of those that differ.

        Raises IncompatibleError when their parameters are not the same by name and shape.
        """
        if isinstance(end, TangentModel):
            return end.task_vector()
        before, after = dict(start.named_parameters()), dict(end.named_parameters())
        for name in [*before, *after]:
            shapes = [list(found[name].shape) if name in found else None for found in (before, after)]
            if shapes[0] != shapes[1]:
                raise IncompatibleError(
                    f"TaskVector.between: parameter {name!r} is {shapes[0]} in one model and {shapes[1]} in the other"
                )
        moved = {name: (after[name] - before[name]).detach() for name in before}
        return cls({name: value for name, value in moved.items() if bool((value != 0).any())})

    def __add__(self, other: TaskVector) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        tensors = dict(self.tensors)
        for name, value in other.tensors.items():
            tensors[name] = tensors[name] + value if name in tensors else value
        return TaskVector(tensors)

    def __radd__(self, other: int) -> TaskVector:
        return self if other == 0 else NotImplemented  # the 0 that sum() begins with

    def __mul__(self, factor: float) -> TaskVector:
        return TaskVector({name: factor * value for name, value in self.tensors.items()})

    __rmul__ = __mul__

    def __neg__(self) -> TaskVector:
        return -1.0 * self

    def __sub__(self, other: TaskVector) -> TaskVector:
        return self + -other

    def dot(self, other: TaskVector) -> float:
        """Scalar product over all parameters."""
        shared = self.tensors.keys() & other.tensors.keys()
        return sum(float((self.tensors[name] * other.tensors[name]).sum()) for name in sorted(shared))

    @property
    def norm(self) -> float:
        """Euclidean length over all parameters."""
        length: float = self.dot(self) ** 0.5
        return length

    def cosine(self, other: TaskVector) -> float:
        """Cosine of the angle to another vector; 0 where either is zero."""
        lengths = self.norm * other.norm
        return self.dot(other) / lengths if lengths else 0.0

    def apply_to(self, model: Model, scale: float = 1.0) -> Model:
        """A model with `scale` times this vector added to its parameters; what does not change is shared with it.

        A `TangentModel` moves in its tangent space. Raises UnknownNameError when the model lacks a parameter and
        ShapeError when one has another shape.
        """
        edited = shared_copy(model)
        tangent = isinstance(model, TangentModel)
        own = dict(edited.named_parameters(remove_duplicate=False))
        moved: dict[int, nn.Parameter] = {}
        for told, value in self.tensors.items():
            name = f"offset.{_key(told)}" if tangent else told
            if name not in own:
                raise UnknownNameError(f"TaskVector: the model has no parameter {told!r}{nearest(name, own)}")
            if own[name].shape != value.shape:
                raise ShapeError(
                    f"TaskVector: parameter {told!r} is {list(own[name].shape)} there and {list(value.shape)} here"
                )
            if scale and id(own[name]) not in moved:
                sum_ = own[name].detach() + scale * value.to(own[name])
                moved[id(own[name])] = nn.Parameter(sum_, requires_grad=own[name].requires_grad)
        for name, parameter in own.items():
            if id(parameter) in moved:  # in every place where a tied weight stands
                parent, _, leaf = name.rpartition(".")
                setattr(edited.get_submodule(parent), leaf, moved[id(parameter)])
        return edited


class TangentModel(nn.Module):
    """A model's linear approximation in its parameters: `f(x; anchor) + J(x; anchor) offset`.

    Trained with any loss and optimizer: the parameters are `offset`, the way from the anchor, which begins at zero.
    The product with the Jacobian is one forward-mode derivative, about two forward passes. The anchor is a copy of
    the model's weights in evaluation mode and never changes; parameters that do not require gradients get no offset.
    A part without a forward-mode derivative is refused by name, with IncompatibleError, at the first input.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> tangent, x = TangentModel(net), torch.randn(5, 4)
    >>> torch.allclose(tangent(x), net(x))
    True
    >>> tangent(x).sum().backward()
    >>> sorted(tangent.offset)
    ['0/bias', '0/weight', '2/bias', '2/weight']
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        learned = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        if not learned:
            raise IncompatibleError("TangentModel: no parameter of the model requires gradients")
        self.anchor = _as_buffers(copy.deepcopy(model).eval())
        self.offset = nn.ParameterDict({_key(name): torch.zeros_like(value) for name, value in learned})

    def forward(self, *inputs: Any) -> Tensor:
        """The linear model's answer."""
        constant, change = self._both(inputs)
        return constant + change

    def train(self, mode: bool = True) -> TangentModel:
        """Set the mode; the anchor stays in evaluation mode, or there would be no one tangent space."""
        super().train(mode)
        self.anchor.eval()
        return self

    def change(self, *inputs: Any) -> Tensor:
        """What the offset adds to the anchor's answer; linear in the offset."""
        return self._both(inputs)[1]

    def task_vector(self) -> TaskVector:
        """The offset as a task vector, by the names that parameters have in the model."""
        return TaskVector({_name(key): value.detach().clone() for key, value in self.offset.items()})

    def _both(self, inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        anchor = dict(self.anchor.named_buffers())
        offset = {_name(key): value for key, value in self.offset.items()}
        here = {name: anchor[name] for name in offset}

        def both() -> tuple[Tensor, Tensor]:
            constant, change, *_ = jvp(
                lambda weights: functional_call(self.anchor, weights, inputs), (here,), (offset,)
            )
            return constant, change

        try:
            return both()
        except (NotImplementedError, RuntimeError) as error:
            raise forward_mode_refusal(self.anchor, both, *inputs) from error


def linearize(model: nn.Module) -> TangentModel:
    """The model's linear approximation around its present weights, to be trained in the place of the model.

    Raises IncompatibleError when no parameter of the model requires gradients; at the first input, when a part of it,
    such as one with a backward pass of its own, has no forward-mode derivative.

    >>> net = nn.Linear(4, 3)
    >>> tangent = linearize(net)
    >>> optimizer = torch.optim.SGD(tangent.parameters(), lr=0.1)
    >>> x, y = torch.randn(20, 4), torch.arange(20) % 3
    >>> nn.functional.cross_entropy(tangent(x), y).backward()
    >>> optimizer.step()
    >>> edited = tangent.task_vector().apply_to(net)  # a linear layer is its own approximation
    >>> torch.allclose(edited(x), tangent(x), atol=1e-6)
    True
    """
    return TangentModel(model)


@dataclass(frozen=True, eq=False)
class DisentanglementError:
    """How often two task vectors on one model change each other's answers."""

    scales: Float[Tensor, " scales"]
    error: Float[
        Tensor, "scales scales"
    ]  # [of the first vector, of the second], both tasks together, in [0, 2]

    @property
    def mean(self) -> float:
        """Mean over the grid."""
        return float(self.error.mean())

    def plot(self) -> Any:
        """Heat map over the two scales."""
        figure, axes = canvas()
        edges = self.scales.tolist()
        drawn = axes[0].pcolormesh(edges, edges, self.error.mT.numpy(), vmin=0, vmax=2, shading="nearest")
        axes[0].set(
            xlabel="scale of the first vector", ylabel="scale of the second", title="disentanglement error"
        )
        figure.colorbar(drawn)
        return figure


@torch.no_grad()
def weight_disentanglement_error(
    model: nn.Module,
    vectors: Sequence[TaskVector],
    inputs: Sequence[Tensor],
    scales: Sequence[float] | Tensor = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5),
) -> DisentanglementError:
    """Share of answers on each of two tasks that the other task's vector changes, summed over both tasks.

    `model` holds the weights that both vectors start from; a `TangentModel` (offset zero) is judged in its tangent
    space. `inputs` are a batch of each task, `scales` the grid of both vectors' scales. Where a vector acts on its own
    task's inputs alone the error is zero.

    Raises ConfigError unless two vectors and two batches are given, NonFiniteError for NaN or infinity in any.

    >>> base, a, b = (nn.Linear(4, 3) for _ in range(3))
    >>> vectors = [TaskVector.between(base, tuned) for tuned in (a, b)]
    >>> result = weight_disentanglement_error(base, vectors, [torch.randn(9, 4), torch.randn(9, 4)])
    >>> result.error.shape, float(result.error[3, 3])
    (torch.Size([7, 7]), 0.0)
    """
    if len(vectors) != 2 or len(inputs) != 2:
        raise ConfigError(
            f"weight_disentanglement_error: got {len(vectors)} vectors and {len(inputs)} batches, expected two of each"
        )
    for vector in vectors:
        for name, value in vector.tensors.items():
            check_finite(value, f"weight_disentanglement_error, vector's {name!r}")
    for x in inputs:
        check_finite(x, "weight_disentanglement_error, inputs")
    grid = torch.as_tensor(scales, dtype=torch.float32).flatten()
    check_finite(grid, "weight_disentanglement_error, scales")
    if not len(grid):
        raise DataError("weight_disentanglement_error: no scale is given, expected at least one")
    error = torch.zeros(len(grid), len(grid))
    with evaluating(model):
        for task, x in enumerate(inputs):
            answers = _answers(model, vectors, x)
            alone = [
                answers((a, 0.0) if task == 0 else (0.0, a)) for a in grid.tolist()
            ]  # this task's vector by itself
            for i, a in enumerate(grid.tolist()):
                for j, b in enumerate(grid.tolist()):
                    differs = answers((a, b)) != alone[i if task == 0 else j]
                    error[i, j] += differs.float().mean()
    return DisentanglementError(grid, error)


def _answers(
    model: nn.Module, vectors: Sequence[TaskVector], x: Tensor
) -> Callable[[tuple[float, float]], Tensor]:
    """Answers to `x` by the two scales."""
    if isinstance(model, TangentModel):  # linear in the scales: three passes serve the whole grid
        constant = model(x)
        changes = [vector.apply_to(model)(x) - constant for vector in vectors]
        return lambda scales: (constant + scales[0] * changes[0] + scales[1] * changes[1]).argmax(-1)

    def answer(scales: tuple[float, float]) -> Tensor:
        moved = scales[0] * vectors[0] + scales[1] * vectors[1]
        found: Tensor = moved.apply_to(model)(x).argmax(-1)
        return found

    return answer


@dataclass(frozen=True, eq=False)
class NTKLocalization:
    """How much a task's leading kernel eigenfunctions live on the task's own inputs."""

    eigenvalues: Float[Tensor, " samples"]  # of the kernel on the task's inputs, descending
    kept: int  # eigenfunctions that were counted
    inside: Float[Tensor, " inside"]  # local energy on other inputs of the task
    outside: Float[Tensor, " outside"]  # and on inputs of other tasks

    @property
    def ratio(self) -> float:
        """Mean local energy inside over that outside: above 1 where eigenfunctions are localised."""
        return float(self.inside.mean() / self.outside.mean())

    def plot(self) -> Any:
        """Histograms of the local energy inside and outside."""
        figure, axes = canvas()
        axes[0].hist([self.inside.numpy(), self.outside.numpy()], label=["the task's inputs", "other inputs"])
        axes[0].set(xlabel="local energy", ylabel="inputs", title=f"{self.kept} eigenfunctions")
        axes[0].legend()
        return figure


def ntk_localization(
    model: nn.Module, task: Tensor, inside: Tensor, outside: Tensor, *, share: float = 0.95
) -> NTKLocalization:
    """Local energy `sum_r phi_r(x)^2` of the neural tangent kernel's eigenfunctions that a task uses.

    The kernel is summed over the model's outputs. Eigenfunctions are those of the kernel on `task` `[n, ...]`,
    continued to other inputs (Nystrom): of the leading ones, as many as carry `share` of the kernel's trace. On the
    `task` inputs their squares average 1 each. Memory: inputs times parameters; time grows with the outputs.

    Raises ConfigError for a share outside (0, 1], NonFiniteError for NaN or infinity.

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> found = ntk_localization(net, torch.randn(6, 3), torch.randn(5, 3), 9 + torch.randn(4, 3))
    >>> found.inside.shape, found.outside.shape
    (torch.Size([5]), torch.Size([4]))
    """
    if not 0 < share <= 1:
        raise ConfigError(f"ntk_localization: share is {share}, expected more than 0 and at most 1")
    for x in (task, inside, outside):
        check_finite(x, "ntk_localization, inputs")
        if not len(x):
            raise DataError("ntk_localization: an empty batch, expected inputs")
    n = len(task)
    kernel = _kernel(model, torch.cat((task, inside, outside)), n).double()
    values, vectors = torch.linalg.eigh(kernel[:n] / n)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    explained = values.cumsum(0) / values.sum()
    kept = min(n, int((explained < share - 1e-12).sum()) + 1)
    functions = kernel @ vectors[:, :kept] / (n**0.5 * values[:kept])
    energy = functions.square().sum(1).float()
    return NTKLocalization(values.float(), kept, energy[n : n + len(inside)], energy[n + len(inside) :])


def _kernel(model: nn.Module, x: Tensor, columns: int) -> Tensor:
    """Neural tangent kernel `[inputs, columns]` of inputs with the first `columns` of them, summed over outputs."""
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    with evaluating(model):
        with torch.no_grad():
            outputs = model(x[:1]).shape[-1]

        def answer(weights: Mapping[str, Tensor], item: Tensor, output: int) -> Tensor:
            found: Tensor = functional_call(model, dict(weights), (item[None],))[0, output]
            return found

        kernel = x.new_zeros(len(x), columns)
        for output in range(outputs):
            gradients = vmap(grad(answer), (None, 0, None))(weights, x, output)
            for value in gradients.values():
                rows = value.detach().flatten(1)
                kernel += rows @ rows[:columns].mT
    return kernel


def _as_buffers(model: nn.Module) -> nn.Module:
    """The same model with its parameters as buffers: nothing that an optimizer or a plugin would take for its own."""
    frozen: dict[int, Tensor] = {}  # a tied weight stays one tensor
    for module in model.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                del module._parameters[name]
                module.register_buffer(name, frozen.setdefault(id(value), value.detach()))
    return model


def _key(name: str) -> str:
    return name.replace(".", "/")  # a parameter's name may not hold a dot


def _name(key: str) -> str:
    return key.replace("/", ".")
