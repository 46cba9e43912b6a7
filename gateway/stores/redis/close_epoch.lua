#!lua flags=allow-oom
-- Begin an epoch: from now on nothing is admitted.
--
-- KEYS[1], KEYS[2]  the tag's epoch, and the lease of whoever rebuilds its counters
-- ARGV     the lease's token, the epoch's number, the id of this process of the store
-- answers  the epoch as it was written; nil when the lease is another's
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
local time = redis.call('TIME')
local now_ms = time[1] .. string.sub('00000' .. time[2], -6, -4) -- digits, never a number
local epoch = 'closed:' .. ARGV[2] .. ':' .. now_ms .. ':' .. ARGV[3]
redis.call('SET', KEYS[1], epoch)
return epoch
