"""Fisher information of a model's parameters, the usual measure of how much a task needs each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.data.batching import batches
from neuropil.data.task import Samples
from neuropil.training.allowed import restrict
from neuropil.training.evaluating import evaluating


def fisher_diagonal(
    model: nn.Module,
    samples: Samples,
    *,
    count: int = 256,
    classes: tuple[int, ...] | None = None,
    generator: torch.Generator | None = None,
    predict: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information, `E[(d log p(y | x) / d parameter)^2]`, by parameter name.

    The labels are drawn from the model's own answer, as the definition asks (with the true labels it would be the
    "empirical Fisher", which vanishes where the model is already right). Gradients are taken sample by sample, so
    that their squares are right for any model.

    Args:
        samples: inputs to average over.
        count: how many of them, drawn at random.
        classes: answers allowed.
        generator: draws samples and labels.
        predict: `inputs -> logits [batch, classes]`, when that is not `model(inputs)`, or its mean over time where the
            model answers with a sequence `[time, batch, classes]`.

    Returns:
        Non-negative tensors shaped as the parameters that require a gradient.

    >>> net, data = nn.Linear(3, 2), torch.utils.data.TensorDataset(torch.randn(8, 3), torch.zeros(8).long())
    >>> fisher_diagonal(net, data, count=4)["weight"].shape
    torch.Size([2, 3])
    """
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    seed = int(torch.randint(2**31, (), generator=generator))
    inputs = next(iter(batches(samples, count, seed=seed, epoch=0))).inputs

    def log_likelihood(x: Tensor) -> Tensor:
        answer = (predict or model)(x)
        if answer.dim() > 2:  # a model that answers at every step
            answer = answer.mean(0)
        log_p = functional.log_softmax(restrict(answer, classes), dim=-1)
        label = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(log_p.device)
        return log_p.gather(1, label).sum()

    for gradients in sample_gradients(model, inputs, log_likelihood):
        for name, gradient in gradients.items():
            total[name].addcmul_(gradient, gradient)
    return {name: value.div_(len(inputs)) for name, value in total.items()}


def sample_gradients(
    model: nn.Module, inputs: Tensor, scalar: Callable[[Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Gradients of `scalar(x)` for one sample `x` `[1, ...]` of `inputs` after the other, by parameter name.

    The model is in evaluation mode meanwhile. Parameters that `scalar` does not depend on are left out.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> [g["weight"].tolist() for g in sample_gradients(net, torch.eye(2), lambda x: net(x).sum())]
    [[[1.0, 0.0]], [[0.0, 1.0]]]
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inputs = inputs.to(next(model.parameters()).device)
    with evaluating(model):
        for x in inputs.split(1):
            gradients = torch.autograd.grad(scalar(x), list(parameters.values()), allow_unused=True)
            yield {name: g for name, g in zip(parameters, gradients, strict=True) if g is not None}
