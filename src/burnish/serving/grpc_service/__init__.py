# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol, version 2, over gRPC: the same models as over HTTP.

oip.proto   the part of the public service that is answered
oip_pb2     its messages, generated; `generate` writes them anew
contents    tensors in messages ↔ arrays
messages    whole messages ↔ what the rest of the server speaks of
service     what each method answers: bytes to bytes, without a socket
server      the sockets: TLS, tokens, limits, deadlines, status codes

Only `server` loads grpcio, and only `oip_pb2` the messages; neither is needed before.
"""
