"""Synaptic intelligence.

Zenke, Poole, Ganguli: Continual Learning Through Synaptic Intelligence. ICML 2017. arXiv:1703.04200
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual.quadratic import QuadraticPenalty
from neuropil.data.task import Task
from neuropil.errors import ConfigError
from neuropil.training.plugin import Gradients


class SI(QuadraticPenalty):
    """Synaptic intelligence: weights whose movement lowered the loss of earlier tasks are held by springs.

    While a task is learned, every weight keeps account of how much its own movement has lowered the loss, the path
    integral `omega_i = -sum_steps g_i dw_i`. At the end of the task its stiffness grows by
    `max(omega_i, 0) / (D_i^2 + damping)`, D_i how far the task moved it, and its anchor is the present weight. The
    gradient g is that of the loss without this plugin's own penalty. In the paper's `c sum Omega (w - w*)^2`, c is
    half the `strength` here. No sample is looked at twice, and no second pass is made: it costs a few vector
    operations a step.

    In a loop of your own call `before_task` and `after_task`, and at each step `on_loss`, `on_gradients` (this
    plugin before others that change gradients) and `after_step`.

    Args:
        model: the model that is trained.
        strength: weight of the penalty, at least 0.
        damping: keeps the stiffness of weights that hardly moved finite, above 0.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> si = SI(net, strength=1.0, damping=0.1)
    >>> si.before_task()
    >>> _ = si.on_gradients({"weight": torch.tensor([[1.0, 0.0]])})
    >>> with torch.no_grad():
    ...     _ = net.weight.sub_(torch.tensor([[0.2, 0.2]]))  # a step: the first weight lowers the loss by 0.2
    >>> si.after_step()
    >>> si.after_task()
    >>> si.state_dict()["stiffness"]["weight"]  # 0.2 / (0.2^2 + 0.1)
    tensor([[1.4286, 0.0000]])
    """

    def __init__(self, model: nn.Module, *, strength: float = 1.0, damping: float = 0.1) -> None:
        super().__init__(model, strength=strength)
        if not damping > 0:
            raise ConfigError(f"SI.damping: got {damping}, expected more than 0")
        self.damping = damping
        self._path: dict[str, Tensor] = {}
        self._start: dict[str, Tensor] = {}  # weights at the beginning of the task
        self._step: dict[str, tuple[Tensor, Tensor]] = {}  # gradient and weight before the step under way

    def before_task(self, task: Task | None = None) -> None:
        """Begin a new account."""
        trained = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        self._path = {name: torch.zeros_like(p) for name, p in trained.items()}
        self._start = {name: p.clone() for name, p in trained.items()}
        self._step = {}

    @torch.no_grad()
    def on_gradients(self, gradients: Gradients) -> Gradients:
        """Note the gradient and the weights from which the step is made; the gradients pass unchanged."""
        self._step = {}
        for name in self._path.keys() & gradients.keys():
            weight, gradient = self.model.get_parameter(name).detach(), gradients[name]
            self._widen(name, weight)
            if name in self._stiffness and self.strength:
                own = (weight - self._anchor[name]) * self._stiffness[name]
                gradient = torch.sub(gradient, own, alpha=self.strength)
            self._step[name] = (gradient.clone(), weight.clone())
        return gradients

    def _widen(self, name: str, weight: Tensor) -> None:
        """The account of outputs that have grown since begins where they began."""
        path, known = self._path[name], len(self._path[name]) if weight.dim() else 0
        if path.shape != weight.shape and path.shape[1:] == weight.shape[1:] and known < len(weight):
            self._path[name] = torch.cat([path, torch.zeros_like(weight[known:])])
            self._start[name] = torch.cat([self._start[name], weight[known:].clone()])

    @torch.no_grad()
    def after_step(self) -> None:
        """Add what the step's movement lowered the loss by."""
        for name, (gradient, before) in self._step.items():
            moved = self.model.get_parameter(name) - before
            self._path[name].addcmul_(gradient, moved, value=-1)
        self._step = {}

    @torch.no_grad()
    def after_task(self, task: Task | None = None) -> None:
        """Turn the account into stiffness."""
        self.consolidate(
            {
                name: path.clamp_min(0)
                / ((self.model.get_parameter(name) - self._start[name]).square() + self.damping)
                for name, path in self._path.items()
            }
        )
        self._path, self._start = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Springs and the account of the task under way."""
        return {**super().state_dict(), "path": dict(self._path), "start": dict(self._start)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._path, self._start = (
            {name: value.to(self.model.get_parameter(name), copy=True) for name, value in state[kind].items()}
            for kind in ("path", "start")
        )
