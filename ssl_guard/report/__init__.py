"""What a report is made of: results of runs, their numbers as tables, and the forms of these."""
