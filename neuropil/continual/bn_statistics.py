"""Batch normalisation with the statistics of the inputs at hand.

Schneider et al.: Improving robustness against common corruptions by covariate shift adaptation. NeurIPS 2020.
arXiv:2006.16971
Nado et al.: Evaluating Prediction-Time Batch Normalization for Robustness under Covariate Shift. 2020. arXiv:2006.10963
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from neuropil.continual.adapter import SourceFreeAdapter, batch_norms, entropy
from neuropil.errors import ConfigError


class BatchNormStatistics(SourceFreeAdapter):
    """Replaces the statistics that batch normalisation learned in training by those of the test inputs.

    Most of what any test-time method gains under noise, blur or another contrast comes from this alone: nothing is
    trained, one forward pass a batch. It needs batches of many samples and of many classes; `prior` helps where they
    are small.

    Args:
        model: the finished model, with batch normalisation; its running statistics are what adapts.
        prior: the source statistics count as so many samples: `(prior source + n batch) / (prior + n)`; at least 0.
        momentum: share by which the statistics go over to those of a new batch, in (0, 1]; 1 forgets earlier batches.

    Raises:
        ConfigError: a model without batch normalisation, or a setting out of range.

    >>> net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    >>> adapter = BatchNormStatistics(net)
    >>> _ = adapter.update(torch.tensor([[3.0], [5.0]]))
    >>> net[0].running_mean
    tensor([4.])
    >>> adapter.reset()
    >>> net[0].running_mean
    tensor([0.])
    """

    def __init__(self, model: nn.Module, *, prior: float = 0.0, momentum: float = 1.0) -> None:
        super().__init__(model)
        if not prior >= 0 or not 0 < momentum <= 1:
            raise ConfigError(
                f"BatchNormStatistics: prior {prior} and momentum {momentum}, expected at least 0 and a share in (0, 1]"
            )
        self.layers = batch_norms(self.model, "BatchNormStatistics")
        self.prior, self.momentum = prior, momentum

    @torch.no_grad()
    def adapt_to(self, inputs: Tensor) -> float:
        """One forward pass that measures every normalisation's statistics, layer upon adapted layer."""
        handles = [
            layer.register_forward_pre_hook(self._measure(name, len(inputs)))
            for name, layer in self.model.named_modules()
            if layer in self.layers
        ]
        try:
            return float(entropy(self.model(inputs)))
        finally:
            for handle in handles:
                handle.remove()

    def _measure(self, name: str, samples: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """Give a normalisation the statistics of the input that it is about to see."""
        prefix = f"{name}." if name else ""

        def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]
            over = [axis for axis in range(x.dim()) if axis != 1]
            for key, batch in (("running_mean", x.mean(over)), ("running_var", x.var(over, unbiased=False))):
                running, learned = cast(Tensor, getattr(layer, key)), self.source[prefix + key]
                blended = (self.prior * learned + samples * batch) / (self.prior + samples)
                running.copy_(running.lerp(blended, self.momentum))

        return hook
