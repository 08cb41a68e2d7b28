"""What a run reports: progress, TensorBoard, curve, report, signs of reward hacking."""
