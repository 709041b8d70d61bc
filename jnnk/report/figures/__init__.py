"""Pictures, each a function from records to a figure of matplotlib."""
