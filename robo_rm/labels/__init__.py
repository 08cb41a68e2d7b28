"""Progress labels from stage boundaries, and the plan of training windows."""
