"""Networks as files that run without this program."""
