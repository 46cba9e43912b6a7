#!lua
-- Store an answer for whoever comes with the same ticket; the oldest answers make room.
-- Specification: keep() of policies/idempotency.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  ZSET answer key -> expiry of all answers of the tag, and HASH answer key ->
--                   what it counts, with the sum of all under the empty name
-- ARGV     two for each answer, served in order: its msgpack keeping (wire.py), and the answer
-- answers  {now_us, answer...}: 1 it is stored, 0 it is not, or {9, message}
local call, min = redis.call, math.min
local OVERHEAD, DROPPED_AT_ONCE, LISTED_MS = 512, 64, 700000000 -- longer than any answer is kept
local listed, sizes = KEYS[1], KEYS[2]
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

-- Answers the sum of what is left, after as much was dropped as is needed or allowed.
local function room_for(size, most)
  local total = tonumber(call('HGET', sizes, '') or 0)
  local oldest = call('ZRANGE', listed, 0, DROPPED_AT_ONCE - 1, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    if tonumber(oldest[i + 1]) > now_ms and total + size <= most then break end
    local key = oldest[i]
    local freed = tonumber(call('HGET', sizes, key))
    call('DEL', key)
    call('ZREM', listed, key)
    call('HDEL', sizes, key)
    total = call('HINCRBY', sizes, '', 0 - freed)
  end
  return total
end

local function keep(packed, answer)
  local index, name, hold_id, ttl_ms, most = unpack(cmsgpack.unpack(packed))
  local record = call('GET', index .. ':' .. name)
  if not record or string.sub(record, 42) ~= hold_id then return 0 end
  local expiry = cmsgpack.unpack(string.sub(record, 33, 41))
  if expiry <= now_ms then return 0 end
  local key = index .. ':answer:' .. hold_id
  if call('HEXISTS', sizes, key) == 1 then return 1 end
  local size = #answer + OVERHEAD
  if size > most or room_for(size, most) + size > most then return 0 end
  expiry = min(now_ms + ttl_ms, expiry)
  call('SET', key, cmsgpack.pack(expiry) .. answer, 'PXAT', expiry)
  call('ZADD', listed, expiry, key)
  call('HSET', sizes, key, size)
  call('HINCRBY', sizes, '', size)
  call('PEXPIRE', listed, LISTED_MS)
  call('PEXPIRE', sizes, LISTED_MS)
  return 1
end

local answers = {now_us}
for i = 1, #ARGV / 2 do
  local ok, answer = pcall(keep, ARGV[2 * i - 1], ARGV[2 * i])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
