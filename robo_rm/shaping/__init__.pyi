from robo_rm.shaping.modes import describe_terms as describe_terms
