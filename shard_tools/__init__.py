"""Raw face images to WebDataset shards: sources, packer and shard format. Imports neither torch nor DALI."""
