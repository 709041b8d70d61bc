"""The NNK problem, solved exactly: guessed supports first, then Lawson and Hanson's rule."""
