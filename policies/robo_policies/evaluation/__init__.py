"""Rolling policies out and counting what they reach."""
