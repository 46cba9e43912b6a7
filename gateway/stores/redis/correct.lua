#!lua
-- Bring accounts to what they should have shown at the cut, once, and those that it opens onto the
-- living holds that belong on them.
-- Specification: correct() of policies/recount.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  the tag's cut and its index of holds, mh:{tag}:holds
-- ARGV     the token of the cut, the number of corrections, one msgpack {key, posted, held, end_ms}
--          for each; then two for each hold: msgpack {hold_id, accounts it stood on, {{key, unit,
--          what it held}...}}, and its record as it shall be from its admission on
-- answers  1 done, 0 the cut is void or used up, or a hold stands on other accounts: nothing changed
local call = redis.call
local KEPT_AFTER_MS = 3456000000 -- as in admit.lua
if call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local hold_prefix = string.sub(KEYS[2], 1, -2) .. ':'
local first = ARGV[2] + 3
local living = {}
for i = first, #ARGV, 2 do
  local hold_id, stood_on = unpack(cmsgpack.unpack(ARGV[i]))
  local record = call('GET', hold_prefix .. hold_id)
  if record and record ~= '' then
    local _, r = cmsgpack.unpack_one(record)
    if #r[4][11] ~= stood_on then return 0 end
    living[i] = r
  end
end
call('DEL', KEYS[1]) -- first: should a key turn out broken, nothing is ever corrected twice
for i = 3, first - 1 do
  local key, posted, held, end_ms = unpack(cmsgpack.unpack(ARGV[i]))
  call('HINCRBY', key, 'posted', posted)
  call('HINCRBY', key, 'held', held)
  call('PEXPIREAT', key, end_ms + KEPT_AFTER_MS)
end
for i = first, #ARGV, 2 do
  local hold_id, _, accounts = unpack(cmsgpack.unpack(ARGV[i]))
  local r = living[i]
  if r then
    local grant, a = r[2], r[4]
    local money, tokens = a[3] + a[8] * a[4] * grant, a[5] + a[8] * grant
    for _, account in ipairs(accounts) do
      call('HINCRBY', account[1], 'held', account[2] == 1 and tokens or money)
    end
    -- The grant may have grown since; what follows is only longer by the accounts.
    local head = '\148' .. cmsgpack.pack(r[1], grant, r[3])
    call('SET', hold_prefix .. hold_id, head .. ARGV[i + 1])
  else
    -- It ended since, and posted elsewhere: no less than all it held, until it is counted again.
    for _, account in ipairs(accounts) do call('HINCRBY', account[1], 'posted', account[3]) end
  end
end
return 1
