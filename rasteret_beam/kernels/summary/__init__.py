"""Summaries of bounded size of tables of any length, which can be added up in any order."""
