"""The name that :mod:`pipnet.model.released_weights` had until 0.4; it goes with the next version."""

import warnings

from pipnet.model.released_weights import *  # noqa: F403

warnings.warn("pipnet.model.reference is now pipnet.model.released_weights", DeprecationWarning, stacklevel=2)
