# SPDX-License-Identifier: Apache-2.0
"""Load for a server that speaks the Open Inference Protocol over HTTP/1.1, and what it took.

    payload = asked_payload("http://127.0.0.1:8000", model="resnet")       (ask)
    plan = LoadPlan("http://127.0.0.1:8000", payload, Poisson(200), duration_s=10)
    result = run_load(plan)                                                (run)
    result.percentile_ms(99), result.achieved_per_s, result.failures

schedule     when requests are due: Poisson, constant, bursts, a trace; or a closed loop
trace_file   recorded arrival times as text
address      what a URL says; a request as bytes
payload      a request with random values, made from a model's metadata
plan         one run: where, what, when, and its bounds
histogram    latencies as an HDR histogram
slo          a percentile and its limit
result       what came of a run; the parts of several processes added up
knee         which rate to try next: geometric steps, then bisection

Those are pure. These are not:

ask          what a server says about its model
alarm        wakes an event loop at a time, to within microseconds
connection   one keep-alive connection, one request at a time
generator    sends when it is due, and counts what comes back: one process
worker       a generator as a process of its own
run          a plan from start to end, in one or several processes
sweep        runs at rising rates, to the largest that keeps an SLO

Latency in an open loop counts from when a request was due, not from when it could be sent:
a server that stalls is charged for all who waited meanwhile. What is counted from sending
is kept beside it, to compare with.

Source: Tene, "How NOT to Measure Latency", 2013 (coordinated omission; as in wrk2); Reddi et
al., "MLPerf Inference Benchmark", 2020, §4 (the scenario Server of LoadGen: Poisson
arrivals, latency from the scheduled time).
"""
