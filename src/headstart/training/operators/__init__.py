"""ONNX operators on torch tensors: a table from an operator to the maker of its function.

A maker reads the attributes of a node once, and gives a function of the node's inputs. Rare variants are refused when
the function is made, with the name of the node.
"""

from __future__ import annotations

from headstart.graph.reading import ONNXRUNTIME, STANDARD
from headstart.training.operators import elementwise, layers, pictures, reducing, shaping
from headstart.training.operators.node import Maker, Node, Run, array, whole
from headstart.training.operators.shaping import SHAPES

__all__ = ["MICROSOFT", "OPERATORS", "SHAPES", "Maker", "Node", "Run", "array", "elementwise", "maker", "whole"]

OPERATORS = elementwise.OPERATORS | reducing.OPERATORS | shaping.OPERATORS | layers.OPERATORS | pictures.OPERATORS
MICROSOFT = elementwise.MICROSOFT | layers.MICROSOFT


def maker(domain: str, kind: str) -> Maker | None:
    """The maker of an operator's function, None when it is not known."""
    if domain in STANDARD:
        return OPERATORS.get(kind)
    return MICROSOFT.get(kind) if domain in ONNXRUNTIME else None
