#!lua flags=allow-oom
-- End leases: what is left of them is the account's again.
-- Specification: take_back() of policies/leases.py; a property test holds the two together.
--
-- KEYS[1]  the tag's index of leases, mh:{tag}:leases; KEYS[2], of a rebuild only: its epoch
-- ARGV     with KEYS[2] the epoch that was closed for it; then one msgpack {lease_id, account, late_ms} a lease; late_ms other than -1: only if it expired
--          so long ago
-- answers  {now_us, answer...}: 1 it was there and is ended, 0 it was not or lives, or {9, message}
local call = redis.call
local index, first = KEYS[1], 1
if KEYS[2] then -- who comes too late would end what another rebuild has lent again
  local epoch = call('GET', KEYS[2])
  if epoch ~= ARGV[1] then return redis.error_reply('EPOCH ' .. (epoch or '')) end
  first = 2
end
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

local function take_back(packed)
  local lease_id, key, late_ms = unpack(cmsgpack.unpack(packed))
  local field, member = 'lease:' .. lease_id, lease_id .. ' ' .. key
  if late_ms >= 0 then
    local expiry = call('ZSCORE', index, member)
    if expiry and expiry + late_ms > now_ms then return 0 end
  end
  local amount = call('HGET', key, field)
  call('ZREM', index, member)
  if not amount then return 0 end
  call('HDEL', key, field)
  call('HINCRBY', key, 'leased', 0 - amount)
  return 1
end

local answers = {now_us}
for i = first, #ARGV do
  local ok, answer = pcall(take_back, ARGV[i])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[#answers + 1] = answer
end
return answers
