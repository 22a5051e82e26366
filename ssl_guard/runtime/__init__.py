"""Processes, files, devices and checkpoints."""
