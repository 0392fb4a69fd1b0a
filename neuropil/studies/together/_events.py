"""What happens in the life: learning, weather, a request to forget, and being opened."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import TensorDataset

from neuropil import data
from neuropil.bench.overhead import overhead
from neuropil.continual import BatchNormStatistics
from neuropil.data.arrays import Arrays
from neuropil.data.corruptions import Corruption
from neuropil.data.task import Task
from neuropil.editing import (
    choose_dampening,
    dampening,
    forgetting_scores,
    parameter_importance,
)
from neuropil.nn.presynaptic import fan_in, synapses
from neuropil.studies.continual._life import remembered
from neuropil.studies.continual._setting import activities, look, metrics_of, thin
from neuropil.studies.continual.hlop import spectrum
from neuropil.studies.together._being import Being, born, fingerprint, network, trainer_of
from neuropil.studies.together._killed import live_and_be_killed, steps_until_death
from neuropil.training import Backprop, hessian_sharpness
from neuropil.training.plasticity import effective_rank

LIGHT = ("brightness", "contrast")
NOISE = ("gaussian_noise", "impulse_noise")
SHAPE = ("motion_blur", "pixelate")
WEATHER = (*LIGHT, *NOISE, *SHAPE)
Predict = Callable[[Tensor], Tensor]


def be_killed(being: Being) -> None:
    """A first life ends amid a task; what it saved is where the next one goes on."""
    if "kill" in being.has:
        being.metrics["steps_lost"] = float(live_and_be_killed(being))


def learn(being: Being) -> None:
    """Task after task, to the end; where there was a first life, from its last checkpoint on."""
    resumes = "kill" in being.has
    trainer = trainer_of(being, checkpoints=resumes)
    started = time.perf_counter()
    history = trainer.fit(being.stream, evaluate_on=being.trial.evaluate_on, resume=resumes)
    being.cost |= {
        "seconds_of_learning": time.perf_counter() - started,
        "numbers_remembered": float(remembered(trainer.learner)),
    }
    matrix = history.accuracy_matrix
    killed_in = steps_until_death(being) * len(matrix) // max(1, trainer.step) if resumes else None
    for index, row in enumerate(matrix):
        event = "killed, resumed" if index == killed_in else ""
        being.note(f"task {index + 1}", [a if i <= index else None for i, a in enumerate(row)], event)
    being.metrics |= metrics_of(history)
    being.metrics |= {
        "moved": being.first_task.moved(),
        "leak": being.first_task.leak(),
        "fingerprint": fingerprint(being.model, history, being.memory),
    }
    being.curves["loss"] = thin(history.losses)
    being.arrays["accuracy_matrix"] = matrix
    if being.trial.arm == "life" and being.trial.scale != "smoke" and being.trial.evaluate_on == "test":
        being.cost["overhead"] = _overhead(being)


def meet_weather(being: Being) -> None:
    """Every task's images corrupted, one kind after the other, then clear again; no labels are given."""
    adapter = BatchNormStatistics(being.model) if "adaptation" in being.has else None
    plain = _plain(being)
    before: dict[str, list[float]] = {}
    after: dict[str, list[float]] = {}
    for place, kind in enumerate(WEATHER):
        seen = [_corrupted(being, task, kind, place) for task in being.stream]
        before[kind] = [_accuracy(plain, x, y) for x, y in seen]
        after[kind] = [_met(being, adapter, x, y) for x, y in seen] if adapter else before[kind]
        if adapter:
            adapter.reset()
    clear = []
    for task in being.stream:
        x, y = _images(being, task)
        clear.append(_met(being, adapter, x, y) if adapter else _accuracy(plain, x, y))
    if adapter:
        adapter.reset()
    mean = statistics.fmean
    for name, kinds in (("weather", WEATHER), ("weather_light", LIGHT), ("weather_noise", NOISE)):
        being.metrics[name] = mean(mean(after[kind]) for kind in kinds)
    being.metrics["clear"] = mean(clear)
    being.note("weather", [mean(task) for task in zip(*before.values(), strict=True)], "corrupted images")
    adapted = [mean(task) for task in zip(*after.values(), strict=True)]
    being.note("the same weather, adapted", adapted, "adapts" if adapter else "")
    being.note("clear again", clear)
    being.arrays["weather"] = {kind: mean(values) for kind, values in after.items()}


def be_asked_to_forget(being: Being) -> None:
    """A class is to be forgotten, with nothing at hand but what is remembered; the memory forgets it too."""
    gone, before = _judged_apart(being)
    being.metrics["kept_before"] = statistics.fmean(before)
    asked = "dampening" in being.has
    if asked:
        started = time.perf_counter()
        forget_class(being)
        being.cost["milliseconds_to_forget"] = 1000 * (time.perf_counter() - started)
        gone, before = _judged_apart(being)
    kept = statistics.fmean(before)
    being.metrics |= {
        "forgotten": None if gone is None else 1 - gone,
        "kept": kept,
        "balance": None if gone is None else (kept + 1 - gone) / 2,
    }
    being.note("forgot a class" if asked else "nothing asked", before, "asked to forget" if asked else "")
    being.arrays["forgotten_class"] = gone


def forget_class(being: Being) -> None:
    """Selective synaptic dampening by remembered images, the alpha chosen on them."""
    inputs, targets, _ = being.memory.select(torch.arange(len(being.memory)))
    going = targets == being.config.forget
    if not bool(going.any()):
        return  # it was never met
    forget, rest = (TensorDataset(inputs[rows], targets[rows]) for rows in (going, ~going))
    size = being.config.batch_size
    whole = parameter_importance(being.model, TensorDataset(inputs, targets), batch_size=size)
    seen = parameter_importance(being.model, forget, batch_size=size)
    candidates = [dampening(whole, seen, alpha=alpha) for alpha in being.config.alphas]
    found = choose_dampening(
        being.model, candidates, lambda edited: forgetting_scores(edited, forget, rest).balance
    )
    being.model.load_state_dict(found.apply(being.model).state_dict())  # hooks and plugins know this network
    being.metrics |= {"alpha": found.alpha, "dampened": found.fraction}
    state = being.memory.state_dict()
    being.memory.load_state_dict(
        {**state, **{name: state[name][~going] for name in ("inputs", "targets", "tasks")}}
    )


def be_opened(being: Being) -> None:
    """Subspaces, rates and sharpness, as the life left them."""
    inputs, targets, _ = being.memory.select(torch.arange(len(being.memory)))
    keeps = targets != being.config.forget
    found = hessian_sharpness(
        being.model, TensorDataset(inputs[keeps], targets[keeps]), step=0.03,
        generator=torch.Generator().manual_seed(being.trial.seed),
    )  # fmt: skip
    seen = look(being.model, being.stream)
    rates = [statistics.fmean(layer) for layer in seen["rates"].values()]
    being.metrics |= {
        "sharpness": found.eigenvalue,
        "least_rate": min(rates),
        "rate": statistics.fmean(rates),
    }
    being.metrics |= {"rank_share": None, "captured": None}
    being.arrays |= {**seen, "sharpening": list(found.trace)}
    if being.hlop is None:
        return
    activity, layers = activities(being.model, inputs), synapses(being.model)
    spectra, captured, ranks = {}, [], []
    for name, basis in being.hlop.bases.items():
        learned, best = spectrum(activity[name], basis)
        spectra[name] = {"hebbian": learned.tolist(), "optimal": best.tolist()}
        captured.append(float(learned[-1] / best[-1]))
        ranks.append(float(effective_rank(basis)) / fan_in(layers[name]))
    being.metrics |= {"rank_share": max(ranks), "captured": statistics.fmean(captured)}
    being.arrays["spectra"] = spectra


def _plain(being: Being) -> Predict:
    def predict(x: Tensor) -> Tensor:
        being.model.eval()
        with torch.no_grad():
            output: Tensor = being.model(x)
        return output

    return predict


def _met(being: Being, adapter: BatchNormStatistics | None, x: Tensor, y: Tensor) -> float:
    """Accuracy on images that come in small batches, each adapted to before it is answered."""
    if adapter is None:
        return _accuracy(_plain(being), x, y)
    right = 0
    for inputs, targets in zip(
        x.split(being.config.adapt_batch), y.split(being.config.adapt_batch), strict=True
    ):
        adapter.update(inputs)
        right += int((adapter.predict(inputs).argmax(-1) == targets).sum())
    return right / len(y)


def _accuracy(predict: Predict, x: Tensor, y: Tensor) -> float:
    return float((predict(x).argmax(-1) == y).double().mean())


def _images(being: Being, task: Task) -> tuple[Tensor, Tensor]:
    part = being.judged(task)
    return part.gather(torch.arange(len(part)))


def _corrupted(being: Being, task: Task, kind: str, place: int) -> tuple[Tensor, Tensor]:
    """A task's images under one kind of weather: as bytes, then normalised and ordered as the task does."""
    part = being.judged(task)
    raw = Arrays(part.inputs.index_select(0, part.indices), part.labels())
    generator = torch.Generator().manual_seed(1000 * being.trial.seed + place)
    seen = Corruption(kind, being.config.severity)(raw, generator).inputs
    transform = cast(Any, part.transform)
    return transform((seen * 255).round().to(torch.uint8)), raw.targets


def _judged_apart(being: Being) -> tuple[float | None, list[float]]:
    """Accuracy on the class to forget, over all tasks (None without images of it), and on the others by task."""
    predict, gone, kept = _plain(being), [], []
    for task in being.stream:
        x, y = _images(being, task)
        right, going = predict(x).argmax(-1) == y, y == being.config.forget
        gone.append(right[going])
        kept.append(float(right[~going].double().mean()))
    those = torch.cat(gone).double()
    return (float(those.mean()) if len(those) else None), kept


def _overhead(being: Being) -> float:
    """Time of a step of projection and replay over a plain one, amid the third task of a short life of its own."""
    other = born(being.trial, being.has, being.place)
    model = network(being.config, being.stream.n_classes)
    plain = Backprop(model, SGD(model.parameters(), lr=being.config.lr))
    learner = trainer_of(other, checkpoints=False).learner
    last = min(2, len(other.stream) - 1)
    for task in other.stream:
        for plugin in other.plugins:
            plugin.before_task(task)
        other.model.train()
        batches = data.batches(task.train, being.config.batch_size)
        first, *_ = steps = [batch for batch, _ in zip(batches, range(3), strict=False)]
        for batch in steps:
            learner.update(batch)
        if task.index == last:
            break
        for plugin in other.plugins:
            plugin.after_task(task)
    return overhead(lambda: plain.update(first), lambda: learner.update(first), rounds=15)
