"""The stateless data path: which sample when (order), how varied (augment), its bytes (shards), its pixels (dali)."""
