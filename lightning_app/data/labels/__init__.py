"""What labelling tools export, made into what the datamodules read."""
