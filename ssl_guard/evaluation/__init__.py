"""Scores of rows, metrics with intervals, operating points, and other scorers."""
