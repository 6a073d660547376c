# SPDX-License-Identifier: Apache-2.0
"""What an operator and a client see of the server: functions that return bytes and documents.

metrics     Prometheus and OpenMetrics text, read from the counts when it is asked for
status      the same as plain data, and the live page that draws it: page.html
openapi     what the routes take and give, and the page that shows it: api.html
schemas     the JSON of the routes, as OpenAPI has it
samples     a request that a model answers, and the command line that sends it
resources   CPU, memory, files and GPUs of this process

The pages are one file each and load nothing from elsewhere.
"""
