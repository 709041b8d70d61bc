"""Untrusted files, read and written so that nothing in them leads out of their folder."""
