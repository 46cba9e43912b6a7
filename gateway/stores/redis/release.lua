#!lua flags=allow-oom
-- Undo a hold. The id of an absent one is marked spent for a while, so that an admission that is
-- still on its way (a lost connection's) cannot place a hold that nobody will settle.
-- Specification: release() of policies/budgets.py; a property test holds the two together.
--
-- KEYS[1]  the tag's index of holds, mh:{tag}:holds
-- ARGV     one msgpack {hold_id, gate corrections} a request, served in order
-- answers  {now_us, answer...}: 1 the hold was there, 0 it was not, or {9, message}
local call, min, max = redis.call, math.min, math.max
local MAX_DEBT_US, GATE_KEPT_MS, SPENT_MS = 1125899906842624, 60000, 120000
local index = KEYS[1]
local hold_prefix = string.sub(index, 1, -2) .. ':'
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]

local function correct(key, delta)
  local tat = min(max(tonumber(call('GET', key) or 0), now_us) + delta, now_us + MAX_DEBT_US)
  if tat > now_us then
    call('SET', key, tat, 'PX', math.ceil((tat - now_us) / 1000) + GATE_KEPT_MS)
  else
    call('DEL', key)
  end
end

-- A hold that led to nothing gives its ticket back, if it still has it.
local function give_back(ticket, hold_id)
  local key = ticket[1] .. ':' .. ticket[2]
  if string.sub(call('GET', key) or '', 42) == hold_id then
    call('DEL', key)
    call('ZREM', ticket[1], ticket[2])
  end
end

local function release(packed)
  local hold_id, corrections = unpack(cmsgpack.unpack(packed))
  local hold_key = hold_prefix .. hold_id
  local record = call('GET', hold_key)
  if not record or record == '' then
    -- One that is spent for longer, by settle.lua, stays so.
    if call('PEXPIRE', hold_key, SPENT_MS, 'GT') == 0 then
      call('SET', hold_key, '', 'PX', SPENT_MS, 'NX')
    end
    return 0
  end
  local _, r = cmsgpack.unpack_one(record)
  local grant, a = r[2], r[4]
  local money, tokens = a[3] + a[8] * a[4] * grant, a[5] + a[8] * grant
  call('DEL', hold_key) -- first: should a key turn out broken, nothing is ever given back twice
  call('ZREM', index, hold_id)
  for _, account in ipairs(a[11]) do
    call('HINCRBY', account[1], 'held', 0 - (account[5] == 1 and tokens or money))
  end
  for _, slot in ipairs(a[10]) do call('ZREM', slot[1], hold_id) end
  for _, correction in ipairs(corrections) do correct(correction[1], correction[2]) end
  if a[13] then give_back(a[13], hold_id) end
  return 1
end

local answers = {now_us}
for i = 1, #ARGV do
  local ok, answer = pcall(release, ARGV[i])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
