#!lua
-- KEYS[1] the lease; ARGV: our token, ttl_ms. Answers 1 when it was still ours, now for ttl_ms more.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
