"""Search for fast schedules by measurement, and the log that keeps every trial."""
