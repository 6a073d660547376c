# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol, version 2, as bytes: no sockets, no clock, no engine.

request         bytes → InferRequest, and back for clients
raw             a body that is one tensor and nothing else
response        InferResponse → buffers, and back for clients; `respond` picks what was asked for
classification  the highest values of an output as "value:index:label"
metadata        what a server says about itself and its models
statistics      what it counted
faults          the one error of all of these, with its HTTP status

Below them: `datatypes` (names and shapes), `elements` (a tensor as JSON), `binary` (a tensor
as bytes), `framing` (the JSON document and the bytes behind it), `tensors` (one or the other).

Source: Open Inference Protocol, "HTTP/REST" and "Predict Protocol – Version 2" (KServe), and
the binary tensor data, classification, parameters, model configuration and statistics
extensions (Triton Inference Server). Where they leave a choice:

- A JSON element has the datatype's own JSON type: integers may stand for floats, nothing else
  is converted. FP16 and BF16 may be given as JSON numbers, rounded to the nearest.
- NaN and the infinities do not exist in JSON (RFC 8259), neither way: send them as binary.
- Natural nesting has to match the shape exactly; else the data is flat.
- Keys that are not known are passed over; a key that comes twice is refused.
- Shared memory is refused.
"""
