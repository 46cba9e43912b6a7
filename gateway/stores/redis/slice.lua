#!lua flags=allow-oom
-- Raise the grant of a living hold towards what its stream needs next, on every account or on none.
-- Specification: take_slice() of policies/slices.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  the tag's index of holds, mh:{tag}:holds, and its epoch
-- ARGV     the epoch that the caller knows, as in admit.lua; then one msgpack {hold_id, upto} a hold, `upto` being the whole grant wanted, per choice
-- answers  {now_us, answer...}: {1, grant, blocked, leased}, the grant now, the index of the account
--          that pays no more of it, -1 for none, and the keys of those whose leases are in the way;
--          {0, 0, 0, {}} the hold is not there; or {9, message}
--
-- The accounts and caps are those of the admission, for a hold belongs to its window whenever it
-- grows, and of what was opened since: see correct.lua.
-- `upto` is absolute, so that asking twice takes once.
-- allow-oom: nothing grows but numbers, and streams that have begun must get on in a full store.
local call, min, floor = redis.call, math.min, math.floor
local MAX_COUNTER, MAX_TOKENS = 9007199254740991, 4294967296
local epoch = call('GET', KEYS[2])
if epoch ~= ARGV[1] then return redis.error_reply('EPOCH ' .. (epoch or '')) end
local hold_prefix = string.sub(KEYS[1], 1, -2) .. ':'
local time = call('TIME')

local function slice(packed)
  local hold_id, upto = unpack(cmsgpack.unpack(packed))
  local hold_key = hold_prefix .. hold_id
  local record = call('GET', hold_key)
  if not record or record == '' then return {0, 0, 0, {}} end
  local _, r = cmsgpack.unpack_one(record)
  local grant, a = r[2], r[4]
  local price, choices, accounts = a[8] * a[4], a[8], a[11]
  local most, last, blocked = min(upto, MAX_TOKENS), -1, 0
  if price > 0 then most = min(most, floor((MAX_COUNTER - a[3]) / price)) end
  local wanted, alone, leased = most, most, {} -- `alone`: if nothing were leased
  for i = 1, #accounts do
    local account = accounts[i]
    local per_token = account[5] == 1 and choices or price
    if account[2] >= 0 and per_token > 0 then
      local balance = call('HMGET', account[1], 'posted', 'held', 'leased')
      local room = account[2] - (balance[1] or 0) - (balance[2] or 0)
      alone = min(alone, grant + floor(room / per_token))
      local fits = grant + floor((room - (balance[3] or 0)) / per_token)
      if fits < wanted then
        if account[4] > last then last, blocked = account[4], i end
        if tonumber(balance[3] or 0) ~= 0 then leased[#leased + 1] = account[1] end
      end
      most = min(most, fits)
    end
  end
  local more = most - grant
  if more > 0 then
    for i = 1, #accounts do
      local account = accounts[i]
      call('HINCRBY', account[1], 'held', more * (account[5] == 1 and choices or price))
    end
    -- Only the grant changes: what follows it stays, byte for byte.
    local was, is = cmsgpack.pack(r[1], grant, r[3]), cmsgpack.pack(r[1], most, r[3])
    call('SET', hold_key, '\148' .. is .. string.sub(record, 2 + #was))
    grant = most
  end
  return {1, grant, blocked - 1, alone > grant and leased or {}}
end

local answers = {time[1] * 1000000 + time[2]}
for i = 1, #ARGV - 1 do
  local ok, answer = pcall(slice, ARGV[i + 1])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
