"""Reads what others wrote: bytes to values. Decides nothing."""
