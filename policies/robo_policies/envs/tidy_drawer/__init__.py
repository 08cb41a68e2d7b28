"""The tidy-drawer task: scene, true progress, scripted operators, parts of it as tasks of their own, and probes."""
