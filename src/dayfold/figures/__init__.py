"""What is measured: formulas over counts, and charts."""
