"""What evaluate, threshold and peers share: scores of rows, intervals, thresholds that hold."""
