"""Class activation maps: where the network looks, image by image and on average."""
