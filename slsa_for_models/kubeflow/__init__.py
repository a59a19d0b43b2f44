"""The chain on Kubeflow Pipelines v2 and Vertex AI Pipelines: train, sign, verify."""
