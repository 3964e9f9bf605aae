"""What this package needs of the tensorflow backend."""
