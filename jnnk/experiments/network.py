"""A trained network that a study measures."""

from typing import NamedTuple

from flax.linen import Module


class Network(NamedTuple):
    """A trained network."""

    name: str  # shown in tables, and the name of its folder
    model: Module  # the Flax module
    variables: dict  # its weights
