"""What lets rehearsal-free methods work with one head for all classes: the loss sees the present task's only.

Smith, Tian, Halbe, Hsu, Kira: A Closer Look at Rehearsal-Free Continual Learning. CVPR Workshops 2023.
arXiv:2203.17269. The penalties that the paper compares are `ParameterL2`, `EWC`, `LwF` and `FeatureDistillation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch  # noqa: F401  (doctest)
from torch import Tensor, nn

from neuropil.continual.replay import Replay
from neuropil.data.labels import labels_in
from neuropil.data.task import Batch, Task
from neuropil.errors import ConfigError, IncompatibleError
from neuropil.training.allowed import class_mask, restrict
from neuropil.training.plugin import Plugin


class MaskedSoftmax(Plugin):
    """Class-incremental learning with the softmax over the present task's classes alone.

    With a softmax over all classes, the quickest way to lower the loss of a new task is to push the answers of all
    earlier classes down, whatever the input; no penalty on weights prevents that. Under the mask the rows of other
    classes in the output layer receive no gradient: they stay as they were learned. Answers are still chosen among
    all classes.

    It sets `Batch.classes`, which the Trainer's loss follows; in a loop of your own pass batches through
    `before_batch` and the logits through `neuropil.training.restrict(logits, batch.classes)`. Batches whose task
    names its classes itself pass unchanged. Behind `Replay`, remembered samples of earlier classes are learned among
    all classes met so far and new ones among the task's, which is asymmetric cross-entropy (Caccia et al. 2022). Use
    no weight decay on the output layer, and give estimates of importance the same mask:
    `EWC(net, predict=masked.predict(net))`.

    >>> masked = MaskedSoftmax()
    >>> masked.classes = (2, 3)
    >>> masked.before_batch(Batch(torch.zeros(2, 4), torch.tensor([3, 2]))).classes
    (2, 3)
    """

    def __init__(self) -> None:
        self.classes: tuple[int, ...] | None = None
        self.met: tuple[int, ...] = ()  # classes of all tasks so far

    def beside(self, plugins: Sequence[Plugin]) -> None:
        """Refuse to stand before a plugin that joins earlier samples, whose classes the mask would forbid."""
        here = next((i for i, other in enumerate(plugins) if other is self), len(plugins))
        for other in plugins[here + 1 :]:
            if isinstance(other, Replay):
                raise IncompatibleError(
                    "MaskedSoftmax before Replay: samples that are joined later would not be masked; list Replay first"
                )

    def before_task(self, task: Task) -> None:
        """Look up which classes the task's training data holds."""
        self.classes = labels_in(task.train) if task.classes is None else task.classes
        self.met = tuple(sorted({*self.met, *self.classes}))

    def before_batch(self, batch: Batch) -> Batch:
        """Restrict the loss to the task's classes, and that of remembered samples to the classes met so far."""
        if batch.classes is not None or self.classes is None:
            return batch
        mine = [label in self.classes for label in batch.targets.tolist()]
        if all(mine):
            return batch._replace(classes=self.classes)
        rows = [self.classes if own else self.met for own in mine]
        return batch._replace(classes=class_mask(rows, max(self.met) + 1))

    def predict(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """`inputs -> logits` of `model` under the mask of the task at hand, for estimates of importance."""

        def masked(x: Tensor) -> Tensor:
            if self.classes is None:
                raise ConfigError("MaskedSoftmax: no task has begun; call before_task(task) first")
            return restrict(model(x), self.classes)

        return masked

    def state_dict(self) -> dict[str, Any]:
        """The present task's classes."""
        return {"classes": None if self.classes is None else list(self.classes), "met": list(self.met)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.classes = None if state["classes"] is None else tuple(state["classes"])
        self.met = tuple(state.get("met", self.classes or ()))
