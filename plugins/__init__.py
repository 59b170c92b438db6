"""Detectors, pipelines, resource managers and notifiers.

Each meets the daemon only through :mod:`tiltd.plugins.api` and is found by name."""
