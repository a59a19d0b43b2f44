"""Shows a verdict: text out, no file opened."""
