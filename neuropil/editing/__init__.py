"""Networks that are changed after training: made to forget, corrected, composed."""

from neuropil.editing.bad_teaching import bad_teacher as bad_teacher
from neuropil.editing.descent import last_layers as last_layers
from neuropil.editing.finetuning import finetuned as finetuned
from neuropil.editing.judging import ForgettingScores as ForgettingScores
from neuropil.editing.judging import forgetting_scores as forgetting_scores
from neuropil.editing.membership import MembershipAttack as MembershipAttack
from neuropil.editing.membership import likelihood_ratio_attack as likelihood_ratio_attack
from neuropil.editing.membership import membership_attack as membership_attack
from neuropil.editing.negative_gradient import gradient_ascent as gradient_ascent
from neuropil.editing.relabelling import amnesiac as amnesiac
from neuropil.editing.retraining import retrained as retrained
from neuropil.editing.scrubbing import scrub as scrub
from neuropil.editing.ssd import Dampening as Dampening
from neuropil.editing.ssd import choose_dampening as choose_dampening
from neuropil.editing.ssd import dampening as dampening
from neuropil.editing.ssd import parameter_importance as parameter_importance
from neuropil.editing.ssd import selective_synaptic_dampening as selective_synaptic_dampening
from neuropil.editing.tangent_arithmetic import DisentanglementError as DisentanglementError
from neuropil.editing.tangent_arithmetic import NTKLocalization as NTKLocalization
from neuropil.editing.tangent_arithmetic import TangentModel as TangentModel
from neuropil.editing.tangent_arithmetic import TaskVector as TaskVector
from neuropil.editing.tangent_arithmetic import linearize as linearize
from neuropil.editing.tangent_arithmetic import ntk_localization as ntk_localization
from neuropil.editing.tangent_arithmetic import weight_disentanglement_error as weight_disentanglement_error
from neuropil.editing.ties_merging import ties_merge as ties_merge
