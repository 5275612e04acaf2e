"""The architectures: configuration, layers, decoder, cache, and models by name."""
