"""The models: ResNet and SE-ResNet, and the registry of their names."""
