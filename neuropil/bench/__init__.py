"""The bench: studies, their claims, and the machinery that holds one against the other."""

from neuropil.bench.claim import Claim, Verdict, at_least, equivalent, exceeds
from neuropil.bench.progress import Event, Listener
from neuropil.bench.result import Failure, Judgement, Result, TrialRecord
from neuropil.bench.study import Config, Outcome, Scale, Study, Trial, setting

__all__ = [
    "Claim",
    "Config",
    "Event",
    "Failure",
    "Judgement",
    "Listener",
    "Outcome",
    "Result",
    "Scale",
    "Study",
    "Trial",
    "TrialRecord",
    "Verdict",
    "at_least",
    "equivalent",
    "exceeds",
    "setting",
]
