# SPDX-License-Identifier: Apache-2.0
"""The server over HTTP: a plain ASGI application, with no framework on the way of a tensor.

message     a request's body, bounded and decompressed; a reply, and how it is sent
inference   the protocol's infer route
predict     the plain route: an image, a row or a text in, labels out
app         all routes
protocol    how uvicorn reads large bodies: one copy
"""
