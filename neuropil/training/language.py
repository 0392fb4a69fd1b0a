"""Training and judging causal language models on running tokens, and keeping trained ones."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuropil.data.cache import cache_directory
from neuropil.data.texts import text_windows
from neuropil.errors import ConfigError, DataError, NonFiniteError
from neuropil.training.evaluating import evaluating

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def logits_of(
    model: nn.Module, tokens: Int64[Tensor, "batch token"]
) -> Float[Tensor, "batch token vocabulary"]:
    """What a causal model answers: a tensor, or the `logits` of a Hugging Face output."""
    output = model(tokens)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def windows_of(tokens: Int64[Tensor, " tokens"], context: int, batch_size: int) -> Draw:
    """Batches of stretches of running text: inputs and the tokens that follow them, `[batch, context]` each.

    >>> inputs, targets = windows_of(torch.arange(9), 4, 2)(torch.Generator().manual_seed(0))
    >>> bool((targets == inputs + 1).all())
    True
    """

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        windows = text_windows(tokens, context + 1, batch_size, generator)
        return windows[:, :-1], windows[:, 1:]

    return draw


def train_language_model(
    model: nn.Module, draw: Draw, *, steps: int, lr: float = 3e-3, weight_decay: float = 0.1, warmup: float = 0.05,
    clip: float = 1.0, generator: torch.Generator,
) -> list[float]:  # fmt: skip
    """Train a causal model with AdamW, warm-up, cosine decay to a tenth and clipped gradients; return each step's loss.

    `draw(generator)` gives inputs and targets, `[batch, token]`; a target of -100 is not learned. Matrices decay,
    other parameters do not. The model is left in the mode that it was in.

    Raises ConfigError for numbers out of range and NonFiniteError when the loss is NaN or infinite.

    >>> from neuropil.nn import Decoder
    >>> _ = torch.manual_seed(0)
    >>> model, text = Decoder(16, width=16, layers=1, heads=2), torch.arange(200) % 16
    >>> losses = train_language_model(
    ...     model, windows_of(text, 8, 16), steps=40, lr=0.02, generator=torch.Generator().manual_seed(0)
    ... )
    >>> losses[-1] < losses[0] / 2
    True
    """
    if steps < 1 or not lr > 0 or not 0 <= warmup <= 1 or not clip > 0 or not weight_decay >= 0:
        raise ConfigError(
            f"train_language_model: got steps {steps}, lr {lr}, weight_decay {weight_decay}, warmup {warmup}, "
            f"clip {clip}; expected steps >= 1, lr and clip > 0, weight_decay >= 0 and warmup in [0, 1]"
        )
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))
    rising = max(1, round(warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / rising, 0.55 + 0.45 * math.cos(math.pi * step / steps)),
    )
    training, losses = model.training, []
    model.train()
    for step in range(steps):
        inputs, targets = draw(generator)
        loss = nn.functional.cross_entropy(logits_of(model, inputs).flatten(0, 1), targets.flatten())
        if not bool(loss.isfinite()):
            raise NonFiniteError(f"train_language_model: the loss is {loss.item()} at step {step}; lower lr")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.train(training)
    optimizer.zero_grad(set_to_none=True)
    return losses


@torch.no_grad()
def next_token_logits(
    model: nn.Module, windows: Int64[Tensor, "batch token"], *, batch_size: int = 32
) -> Float[Tensor, "batch predicted vocabulary"]:
    """Logits of every token of every stretch but the first, `[batch, token - 1, vocabulary]`, in evaluation mode.

    Raises DataError when a stretch has fewer than two tokens.

    >>> from neuropil.nn import Decoder
    >>> next_token_logits(Decoder(16, 8, 1, 2), torch.zeros(3, 5, dtype=torch.long)).shape
    torch.Size([3, 4, 16])
    """
    if windows.dim() != 2 or windows.shape[1] < 2:
        raise DataError(
            f"next_token_logits: got {list(windows.shape)}, expected [batch, token] of 2 tokens or more"
        )
    with evaluating(model):
        return torch.cat([logits_of(model, part[:, :-1]) for part in windows.split(batch_size)])


def kept_weights(
    model: nn.Module, name: str, settings: Mapping[str, Any], train: Callable[[nn.Module], object]
) -> bool:
    """Give a model the weights that an earlier call with the same settings trained, or train it and keep them.

    `settings` is what the result depends on, of JSON's types: the seed, the data's checksum, every number that `train`
    uses. The version of torch and the shapes of the weights belong to it by themselves. Kept in the cache directory
    under `models/`, where deleting costs nothing but time. Returns whether it had to train.

    >>> os.environ["NEUROPIL_CACHE"] = tempfile.mkdtemp()
    >>> model = nn.Linear(2, 2)
    >>> kept_weights(model, "example", {"seed": 0}, lambda model: nn.init.ones_(model.weight))
    True
    >>> other = nn.Linear(2, 2)
    >>> kept_weights(other, "example", {"seed": 0}, lambda model: None), bool((other.weight == 1).all())
    (False, True)
    >>> del os.environ["NEUROPIL_CACHE"]
    """
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    told = json.dumps([name, dict(settings), shapes, torch.__version__], sort_keys=True)
    path = (
        cache_directory() / "models" / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.safetensors"
    )
    try:
        model.load_state_dict(load_file(path))
        return False
    except (OSError, SafetensorError, RuntimeError, KeyError):  # not there, or not whole: made anew
        train(model)
    _save(path, {key: value.detach().clone().contiguous() for key, value in model.state_dict().items()})
    return True


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """In one move, so that no other process reads half a file; a full disk only costs the keeping."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        save_file(tensors, scratch)
        os.replace(scratch, path)
    except OSError:
        return
