-- Reads: one storage or file over and over, or many at random.
--
--   wrk -t1 -c64 -d5 --latency -s bench/get.lua http://127.0.0.1:7400 -- PATH
--   wrk -t1 -c64 -d5 --latency -s bench/get.lua http://127.0.0.1:7400 -- PATH STORAGES
--
-- With STORAGES, a number from 0 is put behind PATH, as in "/get?id=s". Ends with a line of JSON.

local requests, storages = {}, nil

function init(arguments)
    local path = arguments[1] or "/get?id=a"
    storages = tonumber(arguments[2])
    math.randomseed(os.time())
    if not storages then
        requests[1] = wrk.format("GET", path)
        return
    end
    for number = 0, storages - 1 do
        requests[number + 1] = wrk.format("GET", path .. number)
    end
end

function request()
    if not storages then
        return requests[1]
    end
    return requests[math.random(storages)]
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
