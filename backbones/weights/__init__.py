"""Reading published weights into our networks: files of many kinds, names of many libraries."""

from backbones.weights.files import read_tensors
from backbones.weights.filling import fill, load_weights
from backbones.weights.schemes import SCHEMES, Scheme, body_keys, recognise
from backbones.weights.translation import Translation, translate

__all__ = ["SCHEMES", "Scheme", "Translation", "body_keys", "fill", "load_weights", "read_tensors", "recognise", "translate"]
