"""The gradient through time, in the open: what it is made of, and how far back it reaches.

`gradient_flow` takes one exact gradient apart, by step and by lag; docs/gradients.md explains it.
"""

from bptt.flow.measure import gradient_flow
from bptt.flow.result import Flow, LayerFlow, Recommendation

__all__ = ["Flow", "LayerFlow", "Recommendation", "gradient_flow"]
