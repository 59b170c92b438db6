"""The commands of tiltd; see :mod:`tiltd.daemon.__main__`."""
