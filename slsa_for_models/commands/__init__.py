"""What the user typed: one file a command, with its options, one call, and what it prints."""
