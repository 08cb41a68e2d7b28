"""Recording demonstrations of scripted operators into a demo store."""
