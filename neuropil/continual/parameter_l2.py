"""Every weight held alike at where the last task left it.

Smith, Tian, Halbe, Hsu, Kira: A Closer Look at Rehearsal-Free Continual Learning. CVPR Workshops 2023.
arXiv:2203.17269
"""

from __future__ import annotations

from collections.abc import Iterable

import torch  # noqa: F401  (doctest)
from torch import Tensor, nn

from neuropil.continual.quadratic import QuadraticPenalty
from neuropil.data.task import Task
from neuropil.errors import ConfigError


class ParameterL2(QuadraticPenalty):
    """L2 in parameter space: `strength / 2 * ||w - w*||^2`, w* the weights at the end of the last task.

    EWC with the importance of every weight set to one, and the plainest of the rehearsal-free methods: it needs
    neither samples nor gradients of earlier tasks.

    Args:
        model: the model that is trained.
        strength: weight of the penalty, at least 0.
        exclude: parameters or modules, by name, that are not held, for instance the head.

    Raises:
        ConfigError: a negative strength, or nothing is left to hold.

    >>> net = nn.Linear(2, 2)
    >>> held = ParameterL2(net, strength=1.0)
    >>> held.after_task()
    >>> with torch.no_grad():
    ...     _ = net.bias.add_(1.0)
    >>> print(f"{held.penalty():.3f}")
    1.000
    """

    def __init__(self, model: nn.Module, *, strength: float = 0.1, exclude: Iterable[str] = ()) -> None:
        super().__init__(model, strength=strength)
        free = tuple(exclude)
        self.held = tuple(
            name
            for name, p in model.named_parameters()
            if p.requires_grad and not any(name == f or name.startswith(f"{f}.") for f in free)
        )
        if not self.held:
            raise ConfigError(f"ParameterL2.exclude: {list(free)} leaves no parameter to hold")

    def after_task(self, task: Task | None = None) -> None:
        """Anchor the springs at the present weights."""
        self.consolidate({name: self.model.get_parameter(name).new_ones(()) for name in self.held})

    def _merge(self, old: Tensor, anchor: Tensor, new: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        return new.clone(), here.clone()
