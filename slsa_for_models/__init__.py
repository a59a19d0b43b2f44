"""Train models in CI, say verifiably how they were made, and verify what others say."""
