#!lua flags=allow-oom
-- KEYS[1] the lease; ARGV: our token. Answers 1 when it was still ours, now nobody's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
