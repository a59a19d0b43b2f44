"""What only the CIFAR-10 recipes need."""
