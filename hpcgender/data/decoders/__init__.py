"""Pixels from encoded images and augmentation parameters: by NVIDIA DALI, or by Pillow where there is no DALI."""
