"""Flax models that return ``(logits, activations)``."""
