#!lua flags=allow-oom
-- Move the expiry of living requests' holds, and of the slots they occupy.
-- Specification: extend() of policies/budgets.py; a property test holds the two together.
--
-- KEYS[1]  the tag's index of holds, mh:{tag}:holds
-- ARGV     one msgpack {hold_id, ttl_ms} a hold
-- answers  {now_us, answer...}: 1 extended, 0 the hold is not there, or {9, message}
local call = redis.call
local TICKET_KEPT_MS = 120000
local index = KEYS[1]
local hold_prefix = string.sub(index, 1, -2) .. ':'
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

local function extend(packed)
  local hold_id, ttl_ms = unpack(cmsgpack.unpack(packed))
  local record = call('GET', hold_prefix .. hold_id)
  if not record or record == '' then return 0 end
  local _, r = cmsgpack.unpack_one(record)
  for _, slot in ipairs(r[4][10]) do call('ZADD', slot[1], now_ms + ttl_ms, hold_id) end
  call('ZADD', index, now_ms + ttl_ms, hold_id)
  local ticket = r[4][13]
  if ticket then call('PEXPIRE', ticket[1] .. ':' .. ticket[2], ticket[4] + TICKET_KEPT_MS) end
  return 1
end

local answers = {now_us}
for i = 1, #ARGV do
  local ok, answer = pcall(extend, ARGV[i])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
