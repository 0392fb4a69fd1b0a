"""Networks that keep what they learned."""

from neuropil.continual.ewc import EWC as EWC
from neuropil.continual.ewc import OnlineEWC as OnlineEWC
from neuropil.continual.gpm import GPM as GPM
from neuropil.continual.hebbian_subspace import HebbianSubspace as HebbianSubspace
from neuropil.continual.hlop import HLOP as HLOP
from neuropil.continual.replay import Rehearsal as Rehearsal
from neuropil.continual.replay import Replay as Replay
from neuropil.continual.replay import ReplayBuffer as ReplayBuffer
