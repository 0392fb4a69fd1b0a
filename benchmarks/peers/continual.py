"""Two tasks learned one after the other, as Avalanche does it, with its own plugins and its own loop."""

import copy
import logging

import numpy as np

JUDGED = 1000  # samples of each task to judge by, as in the workload


def strategy_of(inputs, make_plugins, judge=False):
    import torch
    from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.templates import SupervisedTemplate
    from torch import nn
    from torch.utils.data import TensorDataset

    logging.disable(logging.WARNING)

    def samples(task, count=None):
        x, y = torch.from_numpy(inputs[f"x{task}"])[:count], torch.from_numpy(inputs[f"y{task}"])[:count]
        dataset = TensorDataset(x, y)
        dataset.targets = y.tolist()
        return _make_taskaware_classification_dataset(dataset, task_labels=0)

    both = benchmark_from_datasets(
        train=[samples(0), samples(1)], test=[samples(0, JUDGED), samples(1, JUDGED)]
    )
    model = nn.Sequential()
    for k in range(3):
        weight = torch.from_numpy(inputs[f"weight{k}"])
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data.copy_(weight)
        linear.bias.data.zero_()
        model.append(linear)
        if k < 2:
            model.append(nn.ReLU())

    def judged(strategy):
        found = strategy.eval(both.test_stream, num_workers=0)
        return [next(value for name, value in found.items() if "Exp000" in name)]

    def run():
        net = copy.deepcopy(model)
        strategy = SupervisedTemplate(
            model=net,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=int(inputs["batch"]),
            train_epochs=1,
            plugins=make_plugins(inputs),
            eval_mb_size=500,  # as ours
            evaluator=EvaluationPlugin(*([accuracy_metrics(experience=True)] if judge else [])),
        )
        first = judged(strategy) if judge else []  # before the first task too, as ours
        for experience in both.train_stream:
            strategy.train(experience, shuffle=judge, num_workers=0)
            first += judged(strategy) if judge else []
        return {"accuracy": np.array(first)} if judge else {"weight": net[2].weight.detach().numpy()}

    return run


def plain_plugins(inputs):
    return []


def lwf_plugins(inputs):
    from avalanche.training.plugins import LwFPlugin

    return [LwFPlugin(alpha=4.0, temperature=2.0)]


def agem_plugins(inputs):
    from avalanche.training.plugins import AGEMPlugin

    kept = int(inputs["memory"])
    return [AGEMPlugin(patterns_per_experience=kept, sample_size=kept)]


def ewc_plugins(inputs):
    from avalanche.training.plugins import EWCPlugin

    return [EWCPlugin(ewc_lambda=1.0)]


def replay_plugins(inputs):
    from avalanche.training.plugins import ReplayPlugin

    kept, drawn = int(inputs["memory"]), int(inputs["drawn"])
    return [ReplayPlugin(mem_size=kept, batch_size_mem=drawn)]


def gem_plugins(inputs):
    from avalanche.training.plugins import gem as module

    def solve_qp(P, q, G, h, solver):
        # of one earlier task the program has one unknown; solved at once, it costs their step nothing
        return np.maximum(-q / P[0], -h)

    module.qpsolvers.solve_qp = solve_qp
    return [module.GEMPlugin(patterns_per_experience=int(inputs["memory"]), memory_strength=0.0)]


def learning(make_plugins):
    return lambda inputs: strategy_of(inputs, make_plugins)


def judged(make_plugins):
    return lambda inputs: strategy_of(inputs, make_plugins, judge=True)


plain, plain_run = learning(plain_plugins), judged(plain_plugins)
lwf, lwf_run = learning(lwf_plugins), judged(lwf_plugins)
agem, agem_run = learning(agem_plugins), judged(agem_plugins)
ewc, ewc_run = learning(ewc_plugins), judged(ewc_plugins)
replay, replay_run = learning(replay_plugins), judged(replay_plugins)
gem, gem_run = learning(gem_plugins), judged(gem_plugins)
