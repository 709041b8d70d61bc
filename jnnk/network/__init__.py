"""Networks as JAX sees them: their convolutions, activations and wiring, read from the jaxpr."""
