"""HTTP: the command socket, /metrics and health."""
