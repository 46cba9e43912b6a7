#!lua
-- Bring accounts to what they should have shown at the cut, once.
-- Specification: correct() of policies/recount.py; a property test holds the two together.
--
-- KEYS[1]  the tag's cut
-- ARGV     the token of the cut, then one msgpack {key, posted, held, end_ms} an account
-- answers  1 done, 0 the cut is void or used up: nothing changed
local call = redis.call
local KEPT_AFTER_MS = 3456000000 -- as in admit.lua
if call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
call('DEL', KEYS[1]) -- first: should a key turn out broken, nothing is ever corrected twice
for i = 2, #ARGV do
  local key, posted, held, end_ms = unpack(cmsgpack.unpack(ARGV[i]))
  call('HINCRBY', key, 'posted', posted)
  call('HINCRBY', key, 'held', held)
  call('PEXPIREAT', key, end_ms + KEPT_AFTER_MS)
end
return 1
