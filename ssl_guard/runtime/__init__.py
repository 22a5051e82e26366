"""Process, files, devices and checkpoints: what every other room stands on."""
