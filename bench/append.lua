-- Appends: 200-byte values that are never the same, over many storages at random.
--
--   wrk -t1 -c64 -d5 --latency -s bench/append.lua http://127.0.0.1:7400 -- [STORAGES [BYTES]]
--
-- Ends with a line of JSON. A status of 400 or more is counted as `not_ok`; that every value was
-- new shows in rill_events_repeated_total at /metrics, which stays as it was.

local threads = 0

function setup(thread)
    threads = threads + 1
    thread:set("number", threads)
end

function init(arguments)
    storages = tonumber(arguments[1]) or 1000
    local bytes = tonumber(arguments[2]) or 200
    -- Another run on the same server needs other values.
    prefix = string.format("%d.%d.", os.time(), number)
    padding = string.rep("x", bytes)
    value_bytes = bytes
    count = 0
    math.randomseed(os.time() + number)
end

function request()
    count = count + 1
    local value = (prefix .. count .. "." .. padding):sub(1, value_bytes)
    -- By hand, which takes the generator less time than wrk.format.
    return "POST /set/s" .. math.random(storages) - 1 .. " HTTP/1.1\r\nHost: bench\r\n" ..
        "Content-Length: " .. value_bytes + 12 .. "\r\n\r\n" ..
        '{"value":"' .. value .. '"}'
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"seconds":%f,"requests":%d,"bytes":%d,"not_ok":%d,"failed":%d,' ..
        '"reply_p50_us":%d,"reply_p99_us":%d}\n',
        summary.duration / 1e6, summary.requests, summary.bytes, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
