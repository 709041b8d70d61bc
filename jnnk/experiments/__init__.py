"""The studies of ``jnnk reproduce``: published claims measured anew."""
