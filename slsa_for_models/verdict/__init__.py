"""Decides: the only place that says whether evidence is believed."""
