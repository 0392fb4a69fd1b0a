"""What a recurrent network is like: how its connections stretch, what it remembers, whether it is chaotic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from neuropil.errors import NonFiniteError, ShapeError
from neuropil.plotting import canvas
from neuropil.spiking.arrays import check_whole, finite_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of connections, the largest first."""

    radius: float  # largest absolute value
    eigenvalues: NDArray[np.complex128]  # [units]

    def plot(self) -> Any:
        """The eigenvalues in the complex plane with the unit circle, as a matplotlib figure."""
        figure, (axes,) = canvas(width=3.4, height=3.4)
        angle = np.linspace(0, 2 * np.pi, 200)
        axes.plot(np.cos(angle), np.sin(angle), color="#9aa1ab", linewidth=0.8)
        axes.plot(self.eigenvalues.real, self.eigenvalues.imag, ".", color="#2f7f86", markersize=4)
        axes.set(
            xlabel="real", ylabel="imaginary", title=f"spectral radius {self.radius:.3g}", aspect="equal"
        )
        return figure


def spectral_radius(connections: ArrayLike | Tensor) -> Spectrum:
    """Eigenvalues of `[units, units]` connections (dense or sparse) and the largest absolute value of them.

    Below one, activity without input dies out in a linear network; leaky tanh units forget their past when it holds
    for `(1 - leak) + leak * W` (Jaeger, 2001). It says less of a network that is strongly driven.

    Raises ShapeError unless the connections are square, NonFiniteError for NaN and infinity.

    >>> round(spectral_radius([[0.0, 0.5], [-0.5, 0.0]]).radius, 3)
    0.5
    """
    if isinstance(connections, Tensor) and connections.layout != torch.strided:
        connections = connections.to_dense()
    matrix = finite_array("spectral_radius", "connections", connections, (2,))
    if matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"spectral_radius: connections are {list(matrix.shape)}, expected square")
    found = np.linalg.eigvals(matrix).astype(np.complex128)
    found = found[np.lexsort((found.imag, found.real, -abs(found)))]
    return Spectrum(float(abs(found[0])), found)


@dataclass(frozen=True)
class MemoryCapacity:
    """How well states tell past inputs."""

    total: float  # sum over delays; at most the number of units for independent inputs
    by_delay: NDArray[np.float64]  # [delays], squared correlation of input and reconstruction, in [0, 1]

    def plot(self) -> Any:
        """The capacity over the delay, as a matplotlib figure."""
        figure, (axes,) = canvas()
        axes.fill_between(range(len(self.by_delay)), self.by_delay, color="#a9c8bd", step="mid")
        axes.step(range(len(self.by_delay)), self.by_delay, color="#2f7f86", where="mid")
        axes.set(xlabel="delay (steps)", ylabel="capacity", ylim=(0, 1.05), title=f"total {self.total:.1f}")
        return figure


def memory_capacity(
    states: ArrayLike | Tensor,
    inputs: ArrayLike | Tensor,
    *,
    delays: int | None = None,
    washout: int = 100,
    train: float = 0.5,
    ridge: float = 1e-9,
) -> MemoryCapacity:
    """How much of the input `k` steps ago a linear readout finds in the present state, for every delay `k`.

    A readout for each delay is fitted on the first part of the run; its capacity is the squared correlation with
    the true input on the rest, where what is fitted by chance does not count. Drive the network with independent
    numbers of one distribution. Jaeger (2001), "Short term memory in echo state networks": the sum over delays is at
    most the number of units, and a linear network can reach it.

    Args:
        states: `[time, units]`.
        inputs: `[time]`, the input at each step.
        delays: Number of delays, from 0; twice the units by default, as far as the run goes.
        washout: First steps that are left out, beyond the longest delay.
        train: Share of the remaining steps that readouts are fitted on, in (0, 1).
        ridge: Penalty on readout weights, relative to the mean variance of a state.

    Raises:
        ShapeError: States and inputs are not of one length, or too short.
        ConfigError: A setting is out of range.
        NonFiniteError: A value is NaN or infinite.

    >>> u = np.random.default_rng(0).normal(size=3000)
    >>> shifted = np.stack([np.roll(u, k) for k in range(5)], 1)  # a delay line of five units
    >>> round(memory_capacity(shifted, u).total, 1)
    5.0
    """
    x = finite_array("memory_capacity", "states", states, (2,))
    u = finite_array("memory_capacity", "inputs", inputs, (1,))
    if len(x) != len(u):
        raise ShapeError(f"memory_capacity: {len(x)} states and {len(u)} inputs, expected as many")
    units = x.shape[1]
    delays = min(2 * units, len(u) // 3) if delays is None else delays
    check_whole("memory_capacity", "delays", delays, 1)
    check_whole("memory_capacity", "washout", washout, 0)
    start = max(washout, delays)
    steps = len(u) - start
    middle = start + int(train * steps)
    if not 0 < train < 1 or min(middle - start, len(u) - middle) < 3:
        raise ShapeError(
            f"memory_capacity: {len(u)} steps, less {start} of washout and delays, are too few for a share of "
            f"train={train:.3g} to fit on"
        )
    past = np.stack([u[start - k : len(u) - k] for k in range(delays)], 1)
    now = np.concatenate([x[start:], np.ones((steps, 1))], 1)
    fitted, held = slice(0, middle - start), slice(middle - start, None)
    gram = now[fitted].T @ now[fitted]
    gram[np.arange(units), np.arange(units)] += ridge * (np.trace(gram[:units, :units]) / units or 1.0)
    weights = np.linalg.lstsq(gram, now[fitted].T @ past[fitted], rcond=None)[0]
    guess, truth = now[held] @ weights, past[held]
    guess, truth = guess - guess.mean(0), truth - truth.mean(0)
    scale = (guess**2).sum(0) * (truth**2).sum(0)
    shared = (guess * truth).sum(0) ** 2
    by_delay = np.divide(shared, scale, out=np.zeros(delays), where=scale > 0)
    return MemoryCapacity(float(by_delay.sum()), by_delay)


@dataclass(frozen=True)
class LyapunovExponents:
    """How fast neighbouring states part, in nats per step, the fastest direction first."""

    exponents: NDArray[np.float64]  # [count]
    running: NDArray[np.float64]  # [steps, count], the estimate after each step
    states: NDArray[np.float64]  # [steps, ...], the trajectory

    @property
    def largest(self) -> float:
        """The largest exponent: positive in chaos, negative where states forget where they came from."""
        return float(self.exponents[0])

    def plot(self) -> Any:
        """The estimates as the run goes on, as a matplotlib figure."""
        figure, (axes,) = canvas()
        axes.plot(self.running, linewidth=1)
        axes.axhline(0, color="#9aa1ab", linewidth=0.8)
        axes.set(xlabel="step", ylabel="exponent (nats per step)", title=f"largest {self.largest:.3g}")
        return figure


def lyapunov_exponents(
    step: Callable[..., Tensor],
    state: Tensor,
    *,
    inputs: Tensor | None = None,
    steps: int = 1000,
    warmup: int = 100,
    count: int = 1,
) -> LyapunovExponents:
    """Lyapunov exponents of a map, by its exact derivative along a trajectory.

    `count` directions are carried along by the derivative of `step` and made orthogonal at every step; how much they
    have grown is averaged (Benettin et al., 1980). With `inputs`, the map is driven and the exponent says whether two
    states that see the same input come together (the echo state property). Spikes have no derivative: for them,
    follow two runs.

    Args:
        step: `step(state)`, or `step(state, input)` with inputs; differentiable by torch.
        state: Where to start; double precision is wise.
        inputs: `[warmup + steps, ...]`, one for each step.
        steps: Steps that are averaged over.
        warmup: Steps before, that settle the state and the directions.
        count: Number of exponents, at most the size of the state.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError: There are too few inputs, or `step` does not give a state like the one it was given.
        NonFiniteError: The trajectory runs off to infinity.

    >>> logistic = lambda x: 4 * x * (1 - x)
    >>> round(lyapunov_exponents(logistic, torch.tensor([0.3], dtype=torch.double), steps=2000).largest, 2)
    0.69
    """
    check_whole("lyapunov_exponents", "steps", steps, 1)
    check_whole("lyapunov_exponents", "warmup", warmup, 0)
    check_whole("lyapunov_exponents", "count", count, 1, state.numel())
    if inputs is not None and len(inputs) < warmup + steps:
        raise ShapeError(
            f"lyapunov_exponents: {len(inputs)} inputs, expected one for each of {warmup + steps} steps"
        )
    for name, value in (("state", state), ("inputs", inputs)):
        if value is not None and not bool(value.isfinite().all()):
            raise NonFiniteError(f"lyapunov_exponents: {name} holds NaN or infinity")
    start = torch.randn(state.numel(), count, generator=torch.Generator().manual_seed(0), dtype=state.dtype)
    directions = torch.linalg.qr(start).Q
    state, logs, states = state.detach(), [], []
    for index in range(warmup + steps):
        given = () if inputs is None else (inputs[index],)
        state, stretched = _carried(step, state, given, directions)
        if not bool(state.isfinite().all()):
            raise NonFiniteError(
                f"lyapunov_exponents: the trajectory left the finite numbers at step {index}"
            )
        directions, growth = torch.linalg.qr(stretched)
        if index >= warmup:
            logs.append(growth.diagonal().abs().clamp_min(torch.finfo(state.dtype).tiny).log())
            states.append(state)
    running = torch.stack(logs).double().cumsum(0) / torch.arange(1, steps + 1).double()[:, None]
    return LyapunovExponents(running[-1].numpy(), running.numpy(), torch.stack(states).double().numpy())


def _carried(
    step: Callable[..., Tensor], state: Tensor, given: tuple[Tensor, ...], directions: Tensor
) -> tuple[Tensor, Tensor]:
    """The next state, and the derivative of the step times the directions, `[size, count]`."""

    columns = []
    # forward mode costs no more than the step itself, one direction at a time
    for direction in directions.unbind(1):
        with forward_ad.dual_level():
            after = step(forward_ad.make_dual(state, direction.view(state.shape).contiguous()), *given)
            value, tangent = forward_ad.unpack_dual(after)
        columns.append(torch.zeros_like(value) if tangent is None else tangent)
    if value.shape != state.shape:
        raise ShapeError(
            f"lyapunov_exponents: step made {list(value.shape)} of a state of {list(state.shape)}, expected the same"
        )
    return value.detach(), torch.stack([column.detach().flatten() for column in columns], 1)
