# SPDX-License-Identifier: Apache-2.0
"""The client: arrays in, arrays out, over HTTP; retries, and keeps deadlines.

blocking    `Client`
awaiting    `AsyncClient`
verbs       what both can ask, as generators that yield what to send and return the answer
exchange    one request, and asking again
retrying    whether to ask again, and when
ask         a request, ready to be sent
sample      an image, a row or a text as the body of a request
answer      what an answer says
prediction  what a model says about one sample
body        an answer's body, bounded and decompressed
transport   the only file that knows httpx
errors      how it can fail

All but `transport` is pure: time, randomness and the network are whoever drives the generators.
"""
