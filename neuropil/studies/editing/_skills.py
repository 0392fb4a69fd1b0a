"""A small language model with four skills: it adds, subtracts, reverses words and continues a novel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuropil import data
from neuropil.bench.study import Split, setting
from neuropil.nn import Decoder
from neuropil.studies.editing._decoder import DecoderSetting, trained_decoder
from neuropil.training.language import Draw, logits_of

TEXT = "emma"
PROMPT, ANSWER = 6, 4  # characters of a query and of its answer, the same for every skill
SKILLS = ("addition", "subtraction", "reversal", "text")
_STRINGS = 26**4  # of four letters, to be reversed
_LONGEST = 17  # characters of a stretch of the novel: a query, and what follows


@dataclass(frozen=True)
class SkillSetting(DecoderSetting):
    """The language model, and how often it is asked."""

    context: int = setting(64, "tokens that are seen at once", low=17, high=1024)
    steps: int = setting(800, "training steps", low=1, high=1_000_000)
    batch_size: int = setting(24, "texts of each skill a step", low=2, high=4096)
    training_lr: float = setting(3e-3, "highest learning rate of AdamW while training", low=1e-6, high=1.0)
    modulus: int = setting(13, "sums and differences are taken modulo this", low=5, high=26)
    samples: int = setting(
        200, "queries of a skill to be fitted on, and as many to be judged by", low=4, high=3000
    )


class Queries(NamedTuple):
    """Texts of every skill, by its name, `[query, token]`; the first `PROMPT` tokens ask."""

    fitted_on: dict[str, Tensor]
    judged_by: dict[str, Tensor]


def addition(pairs: Tensor, modulus: int) -> Tensor:
    """`c + d=f` and line ends: letters `[n, 2]` are numbers from `a`, 0, and their sum is taken by the modulus."""
    return _exercise(pairs, "+", pairs.sum(1) % modulus)


def subtraction(pairs: Tensor, modulus: int) -> Tensor:
    """`f - d=c` and line ends."""
    return _exercise(pairs, "-", (pairs[:, 0] - pairs[:, 1]) % modulus)


def reversal(strings: Tensor) -> Tensor:
    """`lamp >pmal`: four letters backwards; strings `[n]` are counted through the alphabet."""
    letters = torch.stack([strings // 26**place % 26 for place in range(4)], 1) + ord("a")
    return torch.cat((letters, _column(" ", strings), _column(">", strings), letters.flip(1)), 1)


def skilled_decoder(config: SkillSetting, seed: int) -> Decoder:
    """The decoder of a seed, trained on all four skills; exercises are learned by heart and where they ask, not."""
    text = data.load_text(TEXT)
    told = {"skills": 4, "modulus": config.modulus, "text": text.checksum}
    return trained_decoder(config, seed, _draw(config, text.train), told)


def queries(config: SkillSetting, seed: int, split: Split) -> Queries:
    """Queries to fit on, and others to judge by: no exercise is in two parts, and text is of its own part."""
    generator = torch.Generator().manual_seed(seed + 1)
    part = 1 if split == "validation" else 2
    numbers = torch.arange(config.modulus)
    pairs = torch.cartesian_prod(numbers, numbers)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    strings = torch.randperm(_STRINGS, generator=generator)
    text, found = data.load_text(TEXT), []
    for which, running in ((0, text.train), (part, getattr(text, split))):
        own = pairs.tensor_split(3)[which][: config.samples]
        turned = strings[which * config.samples : (which + 1) * config.samples]
        found.append({
            "addition": addition(own, config.modulus),
            "subtraction": subtraction(own, config.modulus),
            "reversal": reversal(turned),
            "text": data.text_windows(running, _LONGEST, config.samples, generator),
        })  # fmt: skip
    return Queries(*found)


@torch.no_grad()
def correct(model: nn.Module, tokens: Tensor) -> Tensor:
    """Which tokens after the prompt are the likeliest, `[query, token]` of bool."""
    return logits_of(model, tokens[:, :-1])[:, PROMPT - 1 :].argmax(-1) == tokens[:, PROMPT:]


def accuracy(right: Tensor, skill: str) -> float:
    """Share of exercises that are right as a whole; of the novel's letters that are."""
    return float((right if skill == "text" else right.all(1)).float().mean())


class Answers(nn.Module):
    """Logits of the answer's tokens, `[query, token, vocabulary]`, of queries with their answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Answer."""
        return logits_of(self.model, tokens[:, :-1])[:, PROMPT - 1 :]


def _draw(config: SkillSetting, running: Tensor) -> Draw:
    """Batches of all skills together, a quarter each."""

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        windows = torch.full((4, config.batch_size, _LONGEST), ord("\n"))
        pairs = torch.randint(config.modulus, (2, config.batch_size, 2), generator=generator)
        strings = torch.randint(_STRINGS, (config.batch_size,), generator=generator)
        exercises = (
            addition(pairs[0], config.modulus),
            subtraction(pairs[1], config.modulus),
            reversal(strings),
        )
        for place, exercise in enumerate(exercises):
            windows[place, :, : PROMPT + ANSWER] = exercise
        windows[3] = data.text_windows(running, _LONGEST, config.batch_size, generator)
        targets = windows[..., 1:].clone()
        targets[:3, :, : PROMPT - 1] = -100  # what is asked cannot be foreseen
        targets[:3, :, PROMPT + ANSWER - 1 :] = -100
        return windows[..., :-1].flatten(0, 1), targets.flatten(0, 1)

    return draw


def _exercise(pairs: Tensor, sign: str, result: Tensor) -> Tensor:
    first, second, found = (numbers[:, None] + ord("a") for numbers in (pairs[:, 0], pairs[:, 1], result))
    space, end = _column(" ", pairs), _column("\n", pairs)
    return torch.cat(
        (first, space, _column(sign, pairs), space, second, _column("=", pairs), found, end, end, end), 1
    )


def _column(character: str, like: Tensor) -> Tensor:
    return torch.full((len(like), 1), ord(character))
