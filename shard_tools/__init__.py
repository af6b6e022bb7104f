"""Raw face images to WebDataset shards: the sources, the packer and the shard format. Imports neither torch nor DALI."""
