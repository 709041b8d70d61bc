"""Eigenvalues, determinants and singular values of many small matrices at once."""
