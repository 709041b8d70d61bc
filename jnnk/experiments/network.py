"""A trained network that a study measures."""

from typing import NamedTuple

from jnnk.training import Model


class Network(NamedTuple):
    """A trained network."""

    name: str  # shown in tables, and the name of its folder
    model: Model  # the Flax module
    variables: dict  # its weights
