"""The work of one job in one process: threads, memory and temporary disk."""
