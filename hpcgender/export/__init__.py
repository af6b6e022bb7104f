"""Trained models for other programs: ONNX, torch.export, safetensors, and weights for timm and torchvision."""
