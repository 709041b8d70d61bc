"""``report.html`` and the tables and figures beside it, from records."""
