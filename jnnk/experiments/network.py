"""A trained network that a study measures."""

from typing import NamedTuple

from jnnk.training import Model


class Network(NamedTuple):
    """A trained network.

    Attributes:
        name: shown in tables, and the name of its folder.
        model: the Flax module.
        variables: its weights.
    """

    name: str
    model: Model
    variables: dict
