"""The sections of the page, and the tables beside them."""
