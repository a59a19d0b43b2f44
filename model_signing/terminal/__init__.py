"""What both command lines share: options, the one exit of a run, progress."""
