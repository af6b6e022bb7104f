"""The stateless data path: the order of samples (order), their number in an epoch (sampling), their random augmentation
(augment), their bytes (shards), their pixels (decoders), and all together (loader, training, evaluation)."""
