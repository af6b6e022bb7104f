"""Studies: many trainings from one file, submitted together, resumed, evaluated and compared."""
