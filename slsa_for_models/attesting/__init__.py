"""Makes statements of our own, in the jobs that sign."""
