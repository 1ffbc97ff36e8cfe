"""Beam support for the transforms: coders, metrics, shared resources, windows and files."""
