#!lua flags=allow-oom
-- Publish an epoch whose counters are whole.
--
-- KEYS[1], KEYS[2]  the tag's epoch, and the lease of whoever rebuilds its counters
-- ARGV     the lease's token, the closed epoch, the open one
-- answers  1, or 0 when the lease is another's or the store has another epoch
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3])
return 1
