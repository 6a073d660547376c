-- SPDX-License-Identifier: Apache-2.0
-- Posts one file again and again, and prints what came of it as one line of JSON.
-- wrk … -s post.lua URL -- FILE ["Header: value" …]

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.body = file:read("*a")
  file:close()
  wrk.method = "POST"
  for i = 2, #args do
    local name, value = args[i]:match("^([^:]+):%s*(.*)$")
    wrk.headers[name] = value
  end
end

function done(summary, latency, requests)
  local lost = summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "refused": %d, "lost": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, summary.errors.status, lost))
end
