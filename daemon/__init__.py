"""The service: the shell that touches the world, around a pure core."""
