"""The demo store on disk: episodes, shards, derived data, annotations."""
