#!lua flags=no-writes
-- KEYS[1] the tag's index of holds or of leases; ARGV: late_ms, most. Answers those whose expiry lies
-- at least that long back by this shard's clock, oldest first.
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', until_ms, 'LIMIT', 0, ARGV[2])
