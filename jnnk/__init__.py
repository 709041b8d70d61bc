"""Channel-wise NNK graphs, channel overlap and eigenvalue-based pruning of CNNs in JAX."""
