"""What this package needs of the jax backend."""
