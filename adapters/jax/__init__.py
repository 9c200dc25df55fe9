"""JAX, for Keras: the loss as a function that XLA compiles."""
