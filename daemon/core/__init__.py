"""The pure core: observations come in, facts are recorded, effects go out.

Nothing here reads a clock, a file or a random number; time is an argument."""
