"""The stateless data path: which sample when (order), how often (sampling), how varied (augment), its bytes
(shards), its pixels (decoders), and all of it together (loader)."""
