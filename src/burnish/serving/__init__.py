# SPDX-License-Identifier: Apache-2.0
"""Serving a bundle: what requests say, which are let in, and which run together.

oip             the Open Inference Protocol as bytes
request         what is asked, and the batches that are made of it
shape_buckets   which shapes run together, and how far each is padded
latency_model   how long a batch takes: the bundle's table, corrected by what is seen
admission       whether a request that arrives can be answered in time
batcher         the queue: who runs next, with whom, on which stream
arrivals        made-up and recorded traffic
simulator       the same policy against such traffic, without a clock or an engine

All of it is pure: time, in milliseconds on any one clock, is an argument.
"""
