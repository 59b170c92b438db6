"""Stand-ins for what a site has and a test machine has not: servers that behave as the real ones do."""
