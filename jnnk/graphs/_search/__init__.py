"""The exact search for nearest neighbours: candidates, their proof, and a second pass without."""
