"""Where tables come from: one module a format, each with `read`, which gives a Source."""
