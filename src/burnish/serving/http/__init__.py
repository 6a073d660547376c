# SPDX-License-Identifier: Apache-2.0
"""The server over HTTP: a plain ASGI application, with no framework on the way of a tensor.

message         a request's body, bounded and decompressed; a reply, and how it is sent
policy          what clients may do
outcome         what becomes of every request: identifier, errors, counts, traces, log
inference       the protocol's infer route
predict         the plain route: an image, a row or a text in, labels out
repeat          the infer route for a head that came before, without a task
app             all routes
receiving       how uvicorn reads large bodies: one copy
protocol        what a client may do to a connection, bounded
repeated_heads  a connection that remembers its last head
"""
