"""Is the task done, is it failing? Answers with a bound on false alarms, by conformal prediction."""
