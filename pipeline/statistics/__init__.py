"""Intervals, tests and psychometric functions that studies share."""
