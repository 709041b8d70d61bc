"""What every package may use: errors, dtypes and exact sums, blocks, whole numbers."""
