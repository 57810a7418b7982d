"""Reads OpenMetrics text from standard input with the parser of Prometheus' Python client; prints a line for each metric:
its name, kind and number of samples."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

for family in text_string_to_metric_families(sys.stdin.read()):
    print(family.name, family.type, len(family.samples))
