"""The figures of docs/results: data, tables and pages, and how runs and studies become figures."""
