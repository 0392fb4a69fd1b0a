"""Networks that are changed after training: made to forget, corrected, composed."""

from neuropil.editing.tangent_arithmetic import DisentanglementError as DisentanglementError
from neuropil.editing.tangent_arithmetic import NTKLocalization as NTKLocalization
from neuropil.editing.tangent_arithmetic import TangentModel as TangentModel
from neuropil.editing.tangent_arithmetic import TaskVector as TaskVector
from neuropil.editing.tangent_arithmetic import linearize as linearize
from neuropil.editing.tangent_arithmetic import ntk_localization as ntk_localization
from neuropil.editing.tangent_arithmetic import weight_disentanglement_error as weight_disentanglement_error
from neuropil.editing.ties_merging import ties_merge as ties_merge
