"""Tables and summaries for people and machines."""
