"""The methods: one file is one way to train, to distil or to search a few-step sampler."""
