"""Two tasks learned one after the other, as Avalanche does it, with its own plugins and its own loop."""

import copy
import logging


def strategy_of(inputs, make_plugins):
    import torch
    from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.templates import SupervisedTemplate
    from torch import nn
    from torch.utils.data import TensorDataset

    logging.disable(logging.WARNING)
    tasks = []
    for task in range(2):
        x, y = torch.from_numpy(inputs[f"x{task}"]), torch.from_numpy(inputs[f"y{task}"])
        dataset = TensorDataset(x, y)
        dataset.targets = y.tolist()
        tasks.append(_make_taskaware_classification_dataset(dataset, task_labels=0))
    stream = benchmark_from_datasets(train=tasks).train_stream
    model = nn.Sequential()
    for k in range(3):
        weight = torch.from_numpy(inputs[f"weight{k}"])
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data.copy_(weight)
        linear.bias.data.zero_()
        model.append(linear)
        if k < 2:
            model.append(nn.ReLU())

    def run():
        net = copy.deepcopy(model)
        strategy = SupervisedTemplate(
            model=net,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=int(inputs["batch"]),
            train_epochs=1,
            plugins=make_plugins(inputs),
            evaluator=EvaluationPlugin(),
        )
        for experience in stream:
            strategy.train(experience, shuffle=False, num_workers=0)
        return {"weight": net[2].weight.detach().numpy()}

    return run


def plain(inputs):
    return strategy_of(inputs, lambda inputs: [])


def lwf(inputs):
    from avalanche.training.plugins import LwFPlugin

    return strategy_of(inputs, lambda inputs: [LwFPlugin(alpha=4.0, temperature=2.0)])


def agem(inputs):
    from avalanche.training.plugins import AGEMPlugin

    kept = int(inputs["memory"])
    return strategy_of(inputs, lambda inputs: [AGEMPlugin(patterns_per_experience=kept, sample_size=kept)])


def ewc(inputs):
    from avalanche.training.plugins import EWCPlugin

    return strategy_of(inputs, lambda inputs: [EWCPlugin(ewc_lambda=1.0)])


def replay(inputs):
    from avalanche.training.plugins import ReplayPlugin

    kept, drawn = int(inputs["memory"]), int(inputs["drawn"])
    return strategy_of(inputs, lambda inputs: [ReplayPlugin(mem_size=kept, batch_size_mem=drawn)])


def gem(inputs):
    import numpy as np
    from avalanche.training.plugins import gem as module

    def solve_qp(P, q, G, h, solver):
        # of one earlier task the program has one unknown; solved at once, it costs their step nothing
        return np.maximum(-q / P[0], -h)

    module.qpsolvers.solve_qp = solve_qp
    kept = int(inputs["memory"])
    return strategy_of(
        inputs, lambda inputs: [module.GEMPlugin(patterns_per_experience=kept, memory_strength=0.0)]
    )
