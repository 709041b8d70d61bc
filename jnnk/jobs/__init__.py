"""What the commands do, on a run folder: train, overlap, prune, study, report.

Jobs print nothing; they tell a :class:`jnnk.runs.progress.Progress` how far they are. Each leaves
its results in the run folder piece by piece and skips the pieces that are already there.
"""
