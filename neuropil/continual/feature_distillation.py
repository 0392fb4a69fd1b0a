"""Feature distillation: the last hidden layer keeps what it showed of any input.

As compared by Smith, Tian, Halbe, Hsu, Kira: A Closer Look at Rehearsal-Free Continual Learning. CVPR Workshops 2023.
arXiv:2203.17269
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual.teacher import Teacher
from neuropil.data.task import Task
from neuropil.errors import ConfigError, IncompatibleError, UnknownNameError, nearest
from neuropil.nn.presynaptic import synapses
from neuropil.training.plugin import LossContext, Plugin


class FeatureDistillation(Plugin):
    """Holds the features of the new task's inputs where the network of the last task had them.

    Later losses carry `strength * ||phi(x) - phi*(x)||^2`, summed over features and averaged over samples (and
    time steps); phi is what enters the layer `head`, phi* the same in the network remembered at the end of the
    last task. Each step costs one more forward pass.

    Args:
        model: attached by a forward hook; `detach()` removes it.
        strength: weight of the distance, at least 0.
        head: name of the layer whose input are the features; `None` takes the last linear or convolutional one.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> held = FeatureDistillation(net, strength=1.0)
    >>> held.head
    '2'
    >>> held.after_task()
    >>> x = torch.randn(5, 4)
    >>> output = net(x)
    >>> held.distance(x).item()
    0.0
    >>> held.detach()
    """

    def __init__(self, model: nn.Module, *, strength: float = 1.0, head: str | None = None) -> None:
        if not strength >= 0:
            raise ConfigError(f"FeatureDistillation.strength: got {strength}, expected at least 0")
        self.model, self.strength = model, strength
        modules = dict(model.named_modules())
        if head is None:
            found = list(synapses(model))
            if not found:
                raise ConfigError(
                    "FeatureDistillation: the model has no linear or convolutional layer; name a head"
                )
            head = found[-1]
        elif head not in modules:
            raise UnknownNameError(f"FeatureDistillation.head: no layer {head!r}{nearest(head, modules)}")
        self.head, self.teacher = head, Teacher(model)
        self._features: Tensor | None = None  # of the training pass under way
        self._remembered: Tensor | None = None
        site = modules[head]

        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module is not site:  # a deep copy of the model carries this hook too, but is another model
                return
            if torch.is_grad_enabled() and module.training:
                self._features = args[0]
            else:
                self._remembered = args[0]

        self._handle = site.register_forward_pre_hook(see)

    def distance(self, inputs: Tensor) -> Tensor:
        """Distance, before `strength`, of the features that `inputs` just evoked from the remembered ones."""
        features = self._features
        if features is None or not self.teacher:
            raise IncompatibleError(
                "FeatureDistillation: no task was finished, or no pass with gradients in training mode made since"
            )
        self.teacher(inputs)
        remembered, self._features, self._remembered = self._remembered, None, None
        if remembered is None or remembered.shape != features.shape:
            raise IncompatibleError(
                "FeatureDistillation: the last training pass was not that of this batch as a whole; use a learner that "
                "shows the model whole batches"
            )
        if not features.requires_grad:
            raise IncompatibleError(
                f"FeatureDistillation: no gradient flows through what enters {self.head!r}, so nothing holds it; use a "
                "learner that passes errors from layer to layer"
            )
        return (features - remembered).square().sum(-1).mean()

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Add the distance."""
        if not self.teacher or not self.strength:
            self._features = None
            return loss
        return loss + self.strength * self.distance(context.batch.inputs)

    def after_task(self, task: Task | None = None) -> None:
        """Remember the network that has learned the task."""
        self.teacher.remember()
        self._features = self._remembered = None

    def detach(self) -> None:
        """Remove the hook from the model."""
        self._handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """The remembered network."""
        return self.teacher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.teacher.load_state_dict(state)
