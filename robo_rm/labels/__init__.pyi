from robo_rm.labels.outcomes import HOW_TO_MARK as HOW_TO_MARK
