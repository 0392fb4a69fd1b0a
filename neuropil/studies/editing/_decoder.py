"""What studies of edited language models share: a small decoder trained on bytes, once a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from neuropil.bench.study import Config, setting
from neuropil.nn import Decoder
from neuropil.training import kept_weights, train_language_model
from neuropil.training.language import Draw

VOCABULARY = 128  # the texts are ASCII


@dataclass(frozen=True)
class DecoderSetting(Config):
    """The language model that is edited."""

    width: int = setting(64, "width of the residual stream; four heads", low=8, high=1024)
    layers: int = setting(2, "blocks", low=1, high=24)
    context: int = setting(64, "tokens that are seen at once", low=8, high=1024)
    steps: int = setting(300, "training steps", low=1, high=1_000_000)
    batch_size: int = setting(24, "stretches of text a step", low=2, high=4096)
    training_lr: float = setting(5e-3, "highest learning rate of AdamW while training", low=1e-6, high=1.0)


def trained_decoder(config: DecoderSetting, seed: int, draw: Draw, told: dict[str, Any]) -> Decoder:
    """The decoder of a seed, trained on batches of `draw`, or taken from the cache; `told` says what is drawn from."""
    torch.manual_seed(seed)
    model = Decoder(VOCABULARY, config.width, config.layers, 4, context=config.context)
    numbers = {name: getattr(config, name) for name in DecoderSetting.__dataclass_fields__}
    generator = torch.Generator().manual_seed(seed)

    def train(model: Any) -> None:
        train_language_model(model, draw, steps=config.steps, lr=config.training_lr, generator=generator)

    kept_weights(model, "decoder", {**numbers, **told, "seed": seed}, train)
    return model.eval()
