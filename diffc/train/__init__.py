"""What a training loop needs around its step: batches, accuracy, a log of the curve, profiles.

All of it is plain NumPy on the host; the step itself is the user's jitted function.
"""

from diffc.train.data import minibatches, stratified_split
from diffc.train.log import Log
from diffc.train.metrics import accuracy
from diffc.train.profile import gradient_profile

__all__ = ["Log", "accuracy", "gradient_profile", "minibatches", "stratified_split"]
