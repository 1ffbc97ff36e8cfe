"""The command lines: parse, validate, build, run."""
