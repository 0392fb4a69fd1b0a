"""Every pair of mechanisms on one network. Entries stand in the modules that are imported here."""

from tests.together import cells, edits, layers, learners, optimizers, plugins

MODULES = (cells, layers, plugins, optimizers, learners, edits)
