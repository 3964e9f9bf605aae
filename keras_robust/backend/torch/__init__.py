"""What this package needs of the torch backend."""
