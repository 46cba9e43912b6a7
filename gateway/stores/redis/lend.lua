#!lua
-- Give leases another life, and more where there is more to be had. None is made smaller: some of it
-- may be spent by now.
-- Specification: lend() of policies/leases.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  the tag's index of leases, mh:{tag}:leases, and its epoch
-- ARGV     the epoch that the caller knows, as in admit.lua; then one msgpack {lease_id, ttl_ms, wanted,
--          least, workers, account} a lease
-- answers  {now_us, answer...}: {0, amount}, what the lease is now, 0 for none; or {9, message}
--
-- An account's hash bears the sum of its leases, `leased`, and each of them, `lease:{id}`. In the index
-- a lease is `{id} {account}`, by its expiry.
local call, min, max, floor = redis.call, math.min, math.max, math.floor
local PART, KEPT_AFTER_MS = 4, 3456000000 -- the latter as in admit.lua
local index, epoch = KEYS[1], call('GET', KEYS[2])
if epoch ~= ARGV[1] then return redis.error_reply('EPOCH ' .. (epoch or '')) end
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = floor(now_us / 1000)

local function size(balance, mine, cap, wanted, workers)
  local part = floor(max(cap - (balance[1] or 0) - (balance[2] or 0), 0) / PART)
  return min(wanted, floor(part / workers), part - ((balance[3] or 0) - mine))
end

local function lend(packed)
  local lease_id, ttl_ms, wanted, least, workers, account = unpack(cmsgpack.unpack(packed))
  local key, cap, field = account[1], account[2], 'lease:' .. lease_id
  local balance = call('HMGET', key, 'posted', 'held', 'leased', field)
  local mine = tonumber(balance[4] or 0)
  local amount = max(wanted, mine)
  if cap >= 0 then
    amount = mine
    local there = balance[1] or balance[2] or balance[3]
    if there and now_ms >= account[3] and now_ms < account[4] then
      local due = size(balance, mine, cap, wanted, workers)
      if due >= least then amount = max(due, mine) end
    end
  end
  if amount <= 0 then return {0, 0} end
  call('HINCRBY', key, field, amount - mine)
  call('HINCRBY', key, 'leased', amount - mine)
  if not (balance[1] or balance[2] or balance[3]) then
    call('PEXPIREAT', key, account[4] + KEPT_AFTER_MS)
  end
  call('ZADD', index, now_ms + ttl_ms, lease_id .. ' ' .. key)
  return {0, amount}
end

local answers = {now_us}
for i = 1, #ARGV - 1 do
  local ok, answer = pcall(lend, ARGV[i + 1])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
