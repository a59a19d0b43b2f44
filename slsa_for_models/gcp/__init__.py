"""The chain on Google Cloud: Tekton Tasks, a Pipeline, and the commands that their steps call."""
