"""kleval in three calls: `evaluate` does what `kleval run` does, `profile` what `kleval profile` does, `load_backend` opens a model.

All take objects of your own where they take names: a model (a transformers model, or a torch module `forward(ids) -> logits`), a
`kleval.types.Task`, a `kleval.types.Backend`. What they return shows itself in a notebook (`kleval.api.results`).
"""

from kleval.api.measuring import profile
from kleval.api.models import load_backend
from kleval.api.results import Contrast, Evaluation, Profile
from kleval.api.running import evaluate

__all__ = ["Contrast", "Evaluation", "Profile", "evaluate", "load_backend", "profile"]
