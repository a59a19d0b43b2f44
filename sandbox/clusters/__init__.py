"""What Tekton, Tekton Chains and Kubeflow do, on one machine."""
