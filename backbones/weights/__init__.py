"""Reading published weights into our networks: files of many kinds, names of many libraries."""

from backbones.weights.files import read_tensors
from backbones.weights.filling import fill, load_weights
from backbones.weights.names import HALVES, IMAGENET, Scheme
from backbones.weights.schemes import SCHEMES, recognise
from backbones.weights.translation import Translation, translate

__all__ = ["HALVES", "IMAGENET", "SCHEMES", "Scheme", "Translation", "fill", "load_weights", "read_tensors", "recognise", "translate"]
