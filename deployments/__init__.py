"""The outside: command line, clusters, servers, schedules."""
