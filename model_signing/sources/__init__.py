"""Where a model lies."""
