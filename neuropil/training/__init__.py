"""The training loop, the plugin and learner contracts, checkpoints and what a life of learning is judged by."""

from neuropil.training.allowed import restrict as restrict
from neuropil.training.checkpoint import read_checkpoint as read_checkpoint
from neuropil.training.checkpoint import save_checkpoint as save_checkpoint
from neuropil.training.fisher import fisher_diagonal as fisher_diagonal
from neuropil.training.history import History as History
from neuropil.training.history import average_accuracy as average_accuracy
from neuropil.training.history import backward_transfer as backward_transfer
from neuropil.training.history import forward_transfer as forward_transfer
from neuropil.training.learner import OTTT as OTTT
from neuropil.training.learner import Backprop as Backprop
from neuropil.training.learner import Learner as Learner
from neuropil.training.per_sample import gradient_norms as gradient_norms
from neuropil.training.per_sample import per_sample_gradients as per_sample_gradients
from neuropil.training.plugin import LossContext as LossContext
from neuropil.training.plugin import Plugin as Plugin
from neuropil.training.plugin import gradients_of as gradients_of
from neuropil.training.plugin import transform_gradients as transform_gradients
from neuropil.training.plugin import unwrapped as unwrapped
from neuropil.training.trainer import Trainer as Trainer
