"""The models: networks and their heads, losses, pretrained weights, and the registry of their names."""
