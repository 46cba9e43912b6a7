#!lua flags=allow-oom
-- Put the holds of living requests back into a store that has lost them. No cap is asked: the money
-- was granted before.
-- Specification: restore() of policies/rebuild.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  the tag's index of holds, and its epoch
-- ARGV     the closed epoch; then two for each hold: its msgpack admission (wire.py), and what is kept
-- answers  {now_us, answer...}: 1 placed, 0 it was there or is spent, or {9, message};
--          the error EPOCH when the tag is not closed for this rebuild
local call, floor = redis.call, math.floor
local VERSION, KEPT_AFTER_MS = 1, 3456000000 -- as in admit.lua
local index, epoch = KEYS[1], call('GET', KEYS[2])
if epoch ~= ARGV[1] then return redis.error_reply('EPOCH ' .. (epoch or '')) end
local hold_prefix = string.sub(index, 1, -2) .. ':'
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = floor(now_us / 1000)

local function restore(packed, kept)
  local a = cmsgpack.unpack(packed)
  local hold_id, hold_key = a[1], hold_prefix .. a[1]
  local record = call('GET', hold_key)
  if record then
    if record ~= '' then call('ZADD', index, now_ms + a[2], hold_id) end
    return 0
  end
  for _, account in ipairs(a[11]) do
    call('HINCRBY', account[1], 'held', account[5] == 1 and a[5] or a[3])
    call('PEXPIREAT', account[1], account[4] + KEPT_AFTER_MS)
  end
  call('SET', hold_key, '\148' .. cmsgpack.pack(VERSION, 0, now_ms) .. packed .. kept)
  call('ZADD', index, now_ms + a[2], hold_id)
  return 1
end

local answers = {now_us}
for i = 1, (#ARGV - 1) / 2 do
  local ok, answer = pcall(restore, ARGV[2 * i], ARGV[2 * i + 1])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
