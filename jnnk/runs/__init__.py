"""What a run folder holds: its files and their records, checkpoints, settings, progress."""
